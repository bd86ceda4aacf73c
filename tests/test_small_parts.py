"""Activations, initializers, latents, optimizers and augments, and what all parts here document."""

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
from torch import Tensor, nn

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


def test_normal_initializer_refuses_a_negative_deviation() -> None:
    with pytest.raises(ValueError, match="std must be at least 0"):
        registry.get("initializer", "normal").bind(std=-1.0)(torch.zeros(3, 3), seeded())


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("kaiming", lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", generator=g)),
        ("normal", lambda w, g: nn.init.normal_(w, std=0.02**2, generator=g)),
        ("normal", lambda w, g: nn.init.uniform_(w, -0.0346, 0.0346, generator=g)),
        ("orthogonal", lambda w, g: nn.init.normal_(w, std=1 / math.sqrt(216), generator=g)),
        ("xavier", lambda w, g: nn.init.xavier_normal_(w, generator=g)),
        ("xavier", lambda w, g: nn.init.kaiming_uniform_(w, generator=g)),
        ("default", lambda w, g: w.zero_()),
    ],
)
def test_broken_initializers_are_caught(name: str, broken: Any) -> None:
    with pytest.raises(AssertionError):
        INITIALIZERS[name](filled(broken))


# --- latents

LATENTS: dict[str, Callable[[Tensor], None]] = {
    "normal": lambda z: check_normal(z, 1.0),
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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("normal", {"std": 0.0}, "std must be above 0"),
        ("normal", {"std": float("nan")}, "std must be above 0"),
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


# --- optimizers


def adam_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    state["m"] = 0.0 * state["m"] + 1.0 * g
    state["v"] = 0.9 * state["v"] + 0.1 * g**2
    return w - 2e-4 * state["m"] / (np.sqrt(state["v"] / (1 - 0.9**t)) + 1e-8)


def rmsprop_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    state["v"] = 0.99 * state["v"] + 0.01 * g**2
    return w - 5e-5 * g / (np.sqrt(state["v"]) + 1e-8)


def sgd_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    return w - 0.01 * g


OPTIMIZERS = {"adam": adam_step, "rmsprop": rmsprop_step, "sgd": sgd_step}


def check_steps(make: Any, step: Callable[..., np.ndarray]) -> None:
    """Five steps down a bowl are those of the formula."""
    start = np.array([1.0, -2.0, 0.5, 3.0])
    w = nn.Parameter(torch.tensor(start))
    optimizer = make([w])
    state: dict[str, Any] = {"m": 0.0, "v": 0.0}
    for t in range(1, 6):
        optimizer.zero_grad()
        w.square().sum().backward()
        optimizer.step()
        start = step(start, 2 * start, state, t)
    np.testing.assert_allclose(w.detach().numpy(), start, rtol=1e-9)


@pytest.mark.parametrize("name", ours("optimizer"))
def test_optimizer_is_its_formula(name: str) -> None:
    check_steps(registry.get("optimizer", name).bind(), OPTIMIZERS[name])


@pytest.mark.parametrize("name", ours("optimizer"))
def test_optimizer_takes_every_option(name: str) -> None:
    part = registry.get("optimizer", name)
    for key, option in part.options.items():
        value = (0.5, 0.75) if key == "betas" else 0.125
        made = part.bind(**{key: value})(iter([nn.Parameter(torch.zeros(2))]))
        assert isinstance(made, torch.optim.Optimizer)
        assert made.param_groups[0][key] == value != option.default
    with pytest.raises(ValueError, match="learning rate"):
        part.bind(lr=-1.0)([nn.Parameter(torch.zeros(2))])


def test_adam_takes_an_int_among_its_betas() -> None:
    made = registry.get("optimizer", "adam").bind(betas=(0, 0.9))([nn.Parameter(torch.zeros(2))])
    assert made.param_groups[0]["betas"] == (0.0, 0.9)


def test_broken_optimizers_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_steps(lambda p: torch.optim.Adam(p, lr=2e-4, betas=(0.0, 0.999)), adam_step)
    with pytest.raises(AssertionError):
        check_steps(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), sgd_step)
    with pytest.raises(AssertionError):
        check_steps(lambda p: torch.optim.RMSprop(p, lr=5e-5, centered=True), rmsprop_step)


# --- augments


def pictures(rows: int = 6, channels: int = 3, height: int = 4, width: int = 5) -> Tensor:
    return torch.randn(rows, channels, height, width, generator=seeded(7), dtype=torch.float64)


@pytest.mark.parametrize("name", ours("augment"))
def test_augment_draws_from_what_it_is_given_alone(name: str) -> None:
    change = registry.get("augment", name).bind()
    images, state = pictures(32), torch.get_rng_state()
    before = images.clone()
    one, same, other = (change(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert (one.shape, one.dtype) == (images.shape, images.dtype)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ours("augment"))
def test_augment_lets_gradients_through(name: str) -> None:
    change = registry.get("augment", name).bind()
    images = pictures(4, 1, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: change(x, seeded(3)), (images,))
    assert torch.autograd.gradgradcheck(lambda x: change(x, seeded(3)).pow(3), (images,))


def check_flip(change: Any, p: float) -> None:
    """Every image is itself or its mirror, the latter with a probability of p."""
    images = pictures(4000, 1, 2, 3)
    changed = change(images, seeded(5))
    kept = (changed == images).flatten(1).all(1)
    mirrored = (changed == torch.from_numpy(images.numpy()[..., ::-1].copy())).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert mirrored.double().mean().item() == pytest.approx(
        p, abs=5 * math.sqrt(p * (1 - p) / 4000)
    )


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_flip(p: float) -> None:
    check_flip(registry.get("augment", "flip").bind(p=p), p)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, g: torch.where(torch.rand(1, generator=g) < 0.5, x.flip(-1), x),
        lambda x, g: torch.where(torch.rand(len(x), 1, 1, 1, generator=g) < 0.5, x.flip(-2), x),
        lambda x, g: torch.where(torch.rand(len(x), 1, 1, 1, generator=g) < 0.4, x.flip(-1), x),
        lambda x, g: x.flip(-1),
    ],
    ids=["whole batch", "top to bottom", "too rare", "always"],
)
def test_broken_flips_are_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_flip(broken, 0.5)


def test_flip_refuses() -> None:
    flip = registry.get("augment", "flip")
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
        flip.bind(p=1.5)(pictures(), seeded())
    with pytest.raises(ValueError, match="needs images"):
        flip.bind()(torch.zeros(4, 2), seeded())
