"""Activations, initializers and latents, and what all small parts document."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from gankit.latents import truncated
from gankit.registry import Entry, registry
from gankit.registry.options import documented

KINDS = {
    "activation": "activations",
    "augment": "augments",
    "initializer": "initializers",
    "latent": "latents",
    "loss": "losses",
    "optimizer": "optimizers",
    "penalty": "penalties",
    "schedule": "schedules",
}


def ours(kind: str) -> list[str]:
    """The names of the built-in parts of a kind; a plugin's are tested where it lives."""
    return [entry.name for entry in registry.find(kind) if entry.provider.name == "gankit"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ENTRIES = [registry.get(kind, name) for kind in KINDS for name in ours(kind)]


# --- what all of them document


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_sorted_and_complete(kind: str) -> None:
    module = importlib.import_module(f"gankit.{KINDS[kind]}")
    # Ruff's order: constants, classes, then functions.
    order = sorted(module.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    assert module.__all__ == order
    assert {registry.get(kind, name).target.__name__ for name in ours(kind)} <= set(module.__all__)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.path)
def test_is_documented(entry: Entry) -> None:
    assert entry.summary.endswith(".")
    assert len(entry.summary) <= 100
    for option in entry.options.values():
        assert option.meaning, option.name
        assert repr(option.default) != "required", option.name


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.path)
def test_no_option_is_documented_that_does_not_exist(entry: Entry) -> None:
    assert set(documented(inspect.getdoc(entry.target) or "")) == set(entry.options)


# --- activations

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
}


def check_not_in_place(module: nn.Module, x: Tensor) -> None:
    """The input is what it was."""
    before = x.clone()
    module(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ours("activation"))
@settings(max_examples=20, deadline=None)
@given(values=st.lists(st.floats(-20, 20), min_size=1, max_size=8))
def test_activation_is_its_formula(name: str, values: list[float]) -> None:
    make = registry.get("activation", name).bind()
    x = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
    np.testing.assert_allclose(make()(x).numpy(), ACTIVATIONS[name](x.numpy()), atol=1e-12)
    check_not_in_place(make(), x)


@pytest.mark.parametrize("name", ours("activation"))
def test_activation_makes_a_module_of_its_own_each_time(name: str) -> None:
    make = registry.get("activation", name).bind()
    assert isinstance(make(), nn.Module)
    assert make() is not make()


def test_leaky_relu_takes_a_slope() -> None:
    made = registry.get("activation", "leaky_relu").bind(slope=0.1)()
    assert made(torch.tensor([-2.0, 3.0])).tolist() == pytest.approx([-0.2, 3.0])


def test_an_activation_in_place_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_not_in_place(nn.ReLU(inplace=True), torch.tensor([-1.0]))


# --- initializers

WEIGHTS = [(96, 64), (64, 96), (48, 24, 3, 3), (16, 64, 4, 4)]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a weight (outputs, inputs, ...), times the kernel's area."""
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def check_uniform(weight: Tensor, bound: float) -> None:
    """Spread evenly over +-bound, and over nothing else."""
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.98 * bound
    counts, _ = np.histogram(weight.numpy(), bins=8, range=(-bound, bound))
    expected = weight.numel() / 8
    assert ((counts - expected) ** 2 / expected).sum() < 35  # chi-square, 7 degrees: p of 1e-5


def check_normal(weight: Tensor, std: float) -> None:
    """Mean 0, deviation std and the fourth moment of a normal."""
    error = 5 / math.sqrt(weight.numel())
    scaled = weight.double() / std
    assert scaled.mean().abs() < error
    assert abs(scaled.std() - 1) < error
    assert abs(scaled.pow(4).mean() - 3) < 10 * error


def check_orthogonal(weight: Tensor, gain: float) -> None:
    """All singular values are the gain."""
    values = torch.linalg.svdvals(weight.flatten(1).double())
    torch.testing.assert_close(values, torch.full_like(values, gain), atol=1e-5, rtol=1e-5)


INITIALIZERS: dict[str, Callable[[Tensor], None]] = {
    "default": lambda w: check_normal(w, 7.0),
    "kaiming": lambda w: check_normal(w, math.sqrt(2 / fans(w.shape)[0])),
    "normal": lambda w: check_normal(w, 0.02),
    "orthogonal": lambda w: check_orthogonal(w, 1.0),
    "uniform": lambda w: check_uniform(w, 0.05),
    "xavier": lambda w: check_uniform(w, math.sqrt(6 / sum(fans(w.shape)))),
}


def filled(fill: Any, shape: tuple[int, ...] = (48, 24, 3, 3), seed: int = 0) -> Tensor:
    """A weight of deviation 7, then filled."""
    weight = 7 * torch.randn(shape, generator=seeded(99))
    fill(weight, seeded(seed))
    return weight


@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize("name", ours("initializer"))
def test_initializer_is_its_formula(name: str, shape: tuple[int, ...]) -> None:
    INITIALIZERS[name](filled(registry.get("initializer", name).bind(), shape))


def test_initializers_take_options() -> None:
    make = {name: registry.get("initializer", name) for name in ours("initializer")}
    shape = (48, 24, 3, 3)
    check_normal(filled(make["normal"].bind(std=0.5)), 0.5)
    check_normal(filled(make["kaiming"].bind(slope=1.0)), math.sqrt(1 / fans(shape)[0]))
    check_orthogonal(filled(make["orthogonal"].bind(gain=2.0)), 2.0)
    check_uniform(filled(make["uniform"].bind(bound=0.005)), 0.005)
    check_uniform(filled(make["xavier"].bind(gain=0.5)), 0.5 * math.sqrt(6 / sum(fans(shape))))


@pytest.mark.parametrize("name", ours("initializer"))
def test_initializer_draws_from_what_it_is_given_alone(name: str) -> None:
    fill = registry.get("initializer", name).bind()
    state = torch.get_rng_state()
    one, same, other = (filled(fill, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (name == "default")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ours("initializer"))
def test_initializer_fills_a_parameter_in_place(name: str) -> None:
    layer = nn.Conv2d(4, 8, 3)
    weight, storage = layer.weight, layer.weight.data_ptr()
    registry.get("initializer", name).bind()(weight, seeded())
    assert layer.weight is weight
    assert weight.data_ptr() == storage
    assert weight.requires_grad
    assert weight.is_leaf
    assert weight.grad_fn is None


@pytest.mark.parametrize("name", ["kaiming", "orthogonal", "xavier"])
def test_initializers_refuse_what_has_no_fans(name: str) -> None:
    with pytest.raises(ValueError, match="2"):
        registry.get("initializer", name).bind()(torch.zeros(3), seeded())


@pytest.mark.parametrize(("name", "option"), [("normal", "std"), ("uniform", "bound")])
def test_initializers_refuse_a_negative_spread(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {option} must be at least 0"):
        registry.get("initializer", name).bind(**{option: -1.0})(torch.zeros(3, 3), seeded())


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("kaiming", lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", generator=g)),
        ("normal", lambda w, g: nn.init.normal_(w, std=0.02**2, generator=g)),
        ("normal", lambda w, g: nn.init.uniform_(w, -0.0346, 0.0346, generator=g)),
        ("orthogonal", lambda w, g: nn.init.normal_(w, std=1 / math.sqrt(216), generator=g)),
        ("uniform", lambda w, g: nn.init.uniform_(w, 0, 0.05, generator=g)),
        ("xavier", lambda w, g: nn.init.xavier_normal_(w, generator=g)),
        ("xavier", lambda w, g: nn.init.kaiming_uniform_(w, generator=g)),
        ("default", lambda w, g: w.zero_()),
    ],
)
def test_broken_initializers_are_caught(name: str, broken: Any) -> None:
    with pytest.raises(AssertionError):
        INITIALIZERS[name](filled(broken))


# --- latents


def check_truncated(z: Tensor, std: float, threshold: float) -> None:
    """As scipy has it: the Kolmogorov distance, the range, and the ends of it."""
    values = z.double().flatten().numpy()
    expected = stats.truncnorm(-threshold, threshold, scale=std)
    assert stats.kstest(values, expected.cdf).pvalue > 1e-4
    assert np.abs(values).max() <= std * threshold * (1 + 1e-6)
    ends = expected.ppf([2 / len(values), 1 - 2 / len(values)])
    assert values.min() < ends[0]
    assert values.max() > ends[1]


LATENTS: dict[str, Callable[[Tensor], None]] = {
    "normal": lambda z: check_normal(z, 1.0),
    "truncated": lambda z: check_truncated(z, 1.0, 2.0),
    "uniform": lambda z: check_uniform(z, 1.0),
}


@pytest.mark.parametrize("name", ours("latent"))
def test_latent_is_its_distribution(name: str) -> None:
    LATENTS[name](registry.get("latent", name).bind()(400, 30, seeded()))


@pytest.mark.parametrize("name", ours("latent"))
@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 9), width=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_latent_draws_from_what_it_is_given_alone(
    name: str, count: int, width: int, seed: int
) -> None:
    draw = registry.get("latent", name).bind()
    state = torch.get_rng_state()
    z = draw(count, width, seeded(seed))
    assert z.shape == (count, width)
    assert (z.dtype, z.device.type) == (torch.float32, "cpu")
    assert torch.equal(z, draw(count, width, seeded(seed)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ours("latent"))
def test_latent_ignores_torchs_defaults(name: str) -> None:
    draw = registry.get("latent", name).bind()
    expected = draw(3, 4, seeded())
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            assert torch.equal(draw(3, 4, seeded()), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_latents_take_options() -> None:
    check_normal(registry.get("latent", "normal").bind(std=0.3)(400, 30, seeded()), 0.3)
    z = registry.get("latent", "uniform").bind(low=2.0, high=6.0)(400, 30, seeded())
    check_uniform(z - 4, 2.0)
    z = registry.get("latent", "truncated").bind(std=0.5, threshold=0.7)(400, 30, seeded())
    check_truncated(z, 0.5, 0.7)


@pytest.mark.parametrize("threshold", [1e-3, 0.04, 1.0, 5.0, 9.0, 40.0])
def test_truncated_has_the_right_quantiles(threshold: float) -> None:
    """Value by value what scipy has for the numbers that are drawn."""
    z = truncated(50, 40, seeded(), threshold=threshold)
    u = torch.rand(50, 40, generator=seeded(), dtype=torch.float64).numpy()
    expected = stats.truncnorm.ppf(u, -threshold, threshold)
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-6, atol=1e-6 * threshold)


def test_truncated_is_finite_at_the_very_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **how: torch.zeros(shape, dtype=how["dtype"]))
    assert truncated(1, 2, seeded(), threshold=40.0).tolist() == [[-40.0, -40.0]]


@settings(deadline=None)
@given(count=st.integers(1, 9), share=st.integers(1, 9), width=st.integers(1, 5))
def test_truncated_takes_one_draw_per_value(count: int, share: int, width: int) -> None:
    """So the rows of a longer draw begin with those of a shorter one, whatever is cut off."""
    longer = truncated(count + share, width, seeded(), threshold=0.1)
    assert torch.equal(longer[:count], truncated(count, width, seeded(), threshold=0.1))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("normal", {"std": 0.0}, "std must be above 0"),
        ("normal", {"std": float("nan")}, "std must be above 0"),
        ("truncated", {"std": 0.0}, "std must be above 0"),
        ("truncated", {"std": float("inf")}, "std must be above 0"),
        ("truncated", {"threshold": 0.0}, "threshold must be above 0"),
        ("truncated", {"threshold": float("nan")}, "threshold must be above 0"),
        ("uniform", {"low": 1.0, "high": 1.0}, "low must be below high"),
        ("uniform", {"high": float("inf")}, "low must be below high"),
    ],
)
def test_latents_refuse_options(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.get("latent", name).bind(**options)(2, 2, seeded())


def test_broken_latents_are_caught() -> None:
    with pytest.raises(AssertionError):
        LATENTS["normal"](torch.rand(400, 30, generator=seeded()))
    with pytest.raises(AssertionError):
        LATENTS["uniform"](torch.rand(400, 30, generator=seeded()))


@pytest.mark.parametrize(
    "broken",
    [
        lambda z: z,
        lambda z: z.clamp(-2, 2),
        lambda z: 2 * torch.rand(z.shape, generator=seeded(1)) - 1,
        lambda z: 1.5 * truncated(400, 30, seeded(), threshold=2 / 1.5),
        lambda z: truncated(400, 30, seeded(), threshold=1.9),
    ],
    ids=["not cut", "censored", "uniform", "wider", "nearer"],
)
def test_broken_truncations_are_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        LATENTS["truncated"](broken(torch.randn(400, 30, generator=seeded())))
