"""Optimizers: their formulas, and that the fused kernels change nothing but the time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gankit.optimizers import adam, adamw, rmsprop, sgd
from gankit.registry import registry

OURS = [entry.name for entry in registry.find("optimizer") if entry.provider.name == "gankit"]

# --- formulas


def adam_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    state["m"] = 0.0 * state["m"] + 1.0 * g
    state["v"] = 0.9 * state["v"] + 0.1 * g**2
    return w - 2e-4 * state["m"] / (np.sqrt(state["v"] / (1 - 0.9**t)) + 1e-8)


def adamw_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    return adam_step(w, g, state, t) - 2e-4 * 0.01 * w


def rmsprop_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    state["v"] = 0.99 * state["v"] + 0.01 * g**2
    return w - 5e-5 * g / (np.sqrt(state["v"]) + 1e-8)


def sgd_step(w: np.ndarray, g: np.ndarray, state: dict[str, Any], t: int) -> np.ndarray:
    return w - 0.01 * g


FORMULAS = {"adam": adam_step, "adamw": adamw_step, "rmsprop": rmsprop_step, "sgd": sgd_step}


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


@pytest.mark.parametrize("name", OURS)
def test_optimizer_is_its_formula(name: str) -> None:
    check_steps(registry.get("optimizer", name).bind(), FORMULAS[name])


@pytest.mark.parametrize("name", OURS)
def test_optimizer_takes_every_option(name: str) -> None:
    part = registry.get("optimizer", name)
    for key, option in part.options.items():
        value = (0.5, 0.75) if key == "betas" else 0.125
        made = part.bind(**{key: value})(iter([nn.Parameter(torch.zeros(2))]))
        assert isinstance(made, torch.optim.Optimizer)
        assert made.param_groups[0][key] == value != option.default
    with pytest.raises(ValueError, match="learning rate"):
        part.bind(lr=-1.0)([nn.Parameter(torch.zeros(2))])


@pytest.mark.parametrize("make", [adam, adamw])
def test_an_int_among_the_betas_will_do(make: Any) -> None:
    parameter = nn.Parameter(torch.ones(2))
    made = make([parameter], betas=(0, 0.9))
    assert made.param_groups[0]["betas"] == (0.0, 0.9)
    parameter.sum().backward()
    made.step()
    made = make([parameter], betas=(0, 0))
    made.step()
    assert parameter.isfinite().all()


def test_broken_optimizers_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_steps(lambda p: torch.optim.Adam(p, lr=2e-4, betas=(0.0, 0.999)), adam_step)
    with pytest.raises(AssertionError):
        check_steps(lambda p: adam(p, weight_decay=0.01), adamw_step)
    with pytest.raises(AssertionError):
        check_steps(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), sgd_step)
    with pytest.raises(AssertionError):
        check_steps(lambda p: torch.optim.RMSprop(p, lr=5e-5, centered=True), rmsprop_step)


# --- fused, and not

FUSED: dict[str, tuple[Any, Any]] = {
    "adam": (adam, torch.optim.Adam),
    "adamw": (adamw, torch.optim.AdamW),
    "sgd": (sgd, torch.optim.SGD),
}
HYPER = {
    "adam": {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-6, "weight_decay": 0.1},
    "adamw": {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-6, "weight_decay": 0.1},
    "sgd": {"lr": 0.01, "momentum": 0.9},
}
SHAPES = [(5, 3), (7,), (2, 3, 3, 3), (1,)]
ODD = range(1, 17, 2)
"""Seeds at which every weight has a gradient."""


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for shape in SHAPES]


def play(optimizer: torch.optim.Optimizer, seeds: range) -> None:
    """Steps with gradients that follow from the seeds; the last weight has none at even ones."""
    parameters = optimizer.param_groups[0]["params"]
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        for index, parameter in enumerate(parameters):
            drawn = torch.randn(parameter.shape, generator=random).to(parameter.dtype)
            last = index == len(parameters) - 1
            parameter.grad = None if last and seed % 2 == 0 else drawn
        optimizer.step()


def check_same(one: torch.optim.Optimizer, plain: torch.optim.Optimizer, seeds: range) -> None:
    """Two optimizers take the same steps, but for rounding."""
    play(one, seeds)
    play(plain, seeds)
    pairs = zip(one.param_groups[0]["params"], plain.param_groups[0]["params"], strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FUSED)
def test_fused_is_plain(name: str, dtype: torch.dtype) -> None:
    make, torchs = FUSED[name]
    one = make(weights(dtype), **HYPER[name])
    assert one.param_groups[0]["fused"] is True
    check_same(one, torchs(weights(dtype), foreach=False, **HYPER[name]), range(20))


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_step_that_differs_is_caught(name: str) -> None:
    make, torchs = FUSED[name]
    other = HYPER[name] | {"lr": 0.0101}
    with pytest.raises(AssertionError):
        check_same(make(weights(), **HYPER[name]), torchs(weights(), **other), range(20))


@settings(max_examples=15)
@given(
    lr=st.floats(1e-5, 0.1),
    first=st.floats(0, 0.99),
    second=st.floats(0.1, 0.999),
    decay=st.floats(0, 0.5),
)
def test_fused_is_plain_whatever_the_options(
    lr: float, first: float, second: float, decay: float
) -> None:
    hyper = {"lr": lr, "betas": (first, second), "weight_decay": decay}
    for name in ("adam", "adamw"):
        make, torchs = FUSED[name]
        plain = torchs(weights(torch.float64), foreach=False, **hyper)
        check_same(make(weights(torch.float64), **hyper), plain, range(5))
    plain = torch.optim.SGD(weights(torch.float64), foreach=False, lr=lr, momentum=first)
    check_same(sgd(weights(torch.float64), lr=lr, momentum=first), plain, range(5))


def check_skips(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
    """Steps with found_inf set leave no trace: not in the weights, and not in what comes after."""
    one, plain = make(weights()), make(weights())
    for seeds, skipped in [(ODD[:1], True), (ODD[1:4], False), (ODD[4:5], True)]:
        before = [parameter.detach().clone() for parameter in one.param_groups[0]["params"]]
        one.found_inf = torch.tensor(float(skipped))  # type: ignore[attr-defined]
        play(one, seeds)
        if skipped:
            after = one.param_groups[0]["params"]
            assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        else:
            play(plain, seeds)
    one.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    check_same(one, plain, ODD[5:])


@pytest.mark.parametrize("name", FUSED)
def test_a_step_can_be_skipped_from_the_device(name: str) -> None:
    check_skips(lambda p: FUSED[name][0](p, **HYPER[name]))


def test_a_step_that_is_taken_all_the_same_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_skips(rmsprop)
    with pytest.raises(AssertionError):
        check_skips(lambda p: torch.optim.Adam(p, foreach=True))


def test_momentum_left_by_a_skipped_first_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own fused SGD takes what happens to be in new memory for its momentum."""
    monkeypatch.setattr(torch, "empty_like", lambda t, **how: torch.full_like(t, 7.0))
    with pytest.raises(AssertionError):
        check_skips(lambda p: torch.optim.SGD(p, fused=True, **HYPER["sgd"]))
    check_skips(lambda p: sgd(p, **HYPER["sgd"]))


def test_a_weight_may_have_its_first_gradient_later_than_others() -> None:
    """Where torch's own fused SGD stops with a TypeError."""
    play(sgd(weights(), **HYPER["sgd"]), range(3))
    with pytest.raises(TypeError):
        play(torch.optim.SGD(weights(), fused=True, **HYPER["sgd"]), range(3))


@pytest.mark.parametrize("name", FUSED)
def test_what_cannot_be_fused_is_not(name: str) -> None:
    make, _ = FUSED[name]
    meta = make([nn.Parameter(torch.zeros(2, device="meta"))])
    complex_ = make(
        [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.cfloat))]
    )
    for made in (meta, complex_):
        assert made.param_groups[0]["fused"] is None
    for parameter in complex_.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    complex_.step()
    with pytest.raises(ValueError, match="empty parameter list"):
        make([])


@pytest.mark.parametrize("name", OURS)
def test_dry_runs_step(name: str) -> None:
    """On tensors without content, as the plan's count of bytes has them."""
    with torch.device("meta"):
        network = nn.Linear(3, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        optimizer = registry.get("optimizer", name).bind()(network.parameters())
        for _ in range(2):
            network(torch.empty(4, 3)).sum().backward()
            optimizer.step()


# --- state


def loaded(saved: torch.optim.Optimizer, into: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Take up a state as the engine does: hyper-parameters stay those that it was made with."""
    kept = [{k: v for k, v in group.items() if k != "params"} for group in into.param_groups]
    into.load_state_dict(copy.deepcopy(saved.state_dict()))
    for group, values in zip(into.param_groups, kept, strict=True):
        group.update(values)
    return into


def check_resumes(
    saved: torch.optim.Optimizer, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    """Steps after a state has been saved and loaded are those without."""
    play(saved, range(5))
    copied = [nn.Parameter(p.detach().clone()) for p in saved.param_groups[0]["params"]]
    resumed = loaded(saved, make(copied))
    check_same(resumed, saved, range(5, 9))
    return resumed


@pytest.mark.parametrize("name", FUSED)
def test_a_state_is_taken_up_and_hyper_parameters_stay(name: str) -> None:
    make, torchs = FUSED[name]
    resumed = check_resumes(make(weights(), **HYPER[name]), lambda p: make(p, **HYPER[name]))
    slower = loaded(resumed, make(weights(), **HYPER[name] | {"lr": 0.001}))
    assert slower.param_groups[0]["lr"] == 0.001
    assert slower.param_groups[0]["fused"] is True
    before = [value for state in resumed.state.values() for value in state.values()]
    after = [value for state in slower.state.values() for value in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # A state of the same optimizer that was not fused.
    plain = torchs(weights(), foreach=False, **HYPER[name])
    check_resumes(plain, lambda p: make(p, **HYPER[name]))


def test_a_state_that_is_dropped_is_caught() -> None:
    def forgets(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made = adam(parameters, **HYPER["adam"])
        made.load_state_dict = lambda state: None  # type: ignore[method-assign]
        return made

    with pytest.raises(AssertionError):
        check_resumes(adam(weights(), **HYPER["adam"]), forgets)


def test_momentum_takes_the_layout_of_its_weight() -> None:
    weight = nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    buffer: Tensor = sgd([weight], momentum=0.5).state[weight]["momentum_buffer"]
    assert buffer.stride() == weight.stride()
    assert not buffer.requires_grad
