"""Half precision: wide losses, a scale per player, and curves that stay near those of float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gankit.losses import Hinge
from gankit.slots import Turn
from gankit.train import objective as objective_module
from gankit.train.engine import Engine
from gankit.train.precision import LossScale, Precision, Unscaled
from tests.engines import CPU, assert_close, engine_of, take, weights

CONVOLUTIONS = """
gankit = 1
name = "convolutions"
data = { use = "digits", size = 8 }
[generator]
use = "dcgan"
latent = 4
width = 4
norm = "batchnorm"
initializer = "orthogonal"
[discriminator]
use = "dcgan"
width = 4
norm = "spectral"
initializer = "orthogonal"
[loss]
use = "hinge"
[optimizer]
use = "sgd"
lr = 0.02
[train]
steps = 60
batch = 16
"""


def precise(name: str, *overrides: str, start: float | None = 2.0**11) -> Engine:
    """An engine of a precision; fp16 from a scale at which nothing overflows, if one is given."""
    engine = engine_of(CONVOLUTIONS, f"train.precision={name}", *overrides)
    if start is not None and name == "fp16":
        for player in engine.players.values():
            player.scale.value.fill_(start)
    return engine


# --- the loss scale


class Twin:
    """The rule of Micikevicius et al., section 3.2, without a device."""

    def __init__(self, start: float, patience: int) -> None:
        self.value, self.good, self.patience = start, 0, patience

    def update(self, good: bool) -> None:
        if not good:
            self.value, self.good = max(1.0, self.value / 2), 0
            return
        self.good += 1
        if self.good == self.patience:
            self.value, self.good = 2 * self.value, 0


def check_scale(updates: list[bool], patience: int, made: type[LossScale]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossScale, "PATIENCE", patience)
        scale, twin = made(CPU, start=8.0), Twin(8.0, patience)
        for good in updates:
            assert bool(scale.exhausted()) == (twin.value <= 1)
            scale.update(torch.tensor(good))
            twin.update(good)
            assert (float(scale.value), int(scale.good)) == (twin.value, twin.good)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4))
def test_the_scale_follows_its_rule(updates: list[bool], patience: int) -> None:
    check_scale(updates, patience, LossScale)


class Forgetful(LossScale):
    """Good updates count on across one that was not."""

    def update(self, good: Tensor) -> None:
        before = self.good
        super().update(good)
        self.good = torch.where(good, self.good, before)


class Bottomless(LossScale):
    """Halved without end."""

    def update(self, good: Tensor) -> None:
        halved = self.value / 2
        super().update(good)
        self.value = torch.where(good, self.value, halved)


@pytest.mark.parametrize("broken", [Forgetful, Bottomless])
def test_twin_scales_of_another_rule_are_caught(broken: type[LossScale]) -> None:
    updates = [True, False, True, True, *[False] * 5]
    check_scale(updates, 3, LossScale)
    with pytest.raises(AssertionError):
        check_scale(updates, 3, broken)


def test_it_doubles_after_2000_good_updates() -> None:
    scale, good = LossScale(CPU), torch.tensor(True)
    values = set()
    for _ in range(1999):
        scale.update(good)
        values.add(float(scale.value))
    assert values == {65536.0}
    scale.update(good)
    assert (float(scale.value), int(scale.good)) == (131072.0, 0)


@given(st.floats(-1e3, 1e3), st.integers(0, 16))
def test_scaling_and_unscaling_change_no_bit(loss: float, power: int) -> None:
    value = torch.tensor(loss, dtype=torch.float32)
    for scale in (LossScale(CPU, start=2.0**power), Unscaled(CPU)):
        scaled = scale(value)
        assert float(scaled) == float(value) * (1 if isinstance(scale, Unscaled) else 2**power)
        gradients = [scaled.clone(), scaled[None].clone()]
        scale.unscale(gradients)
        assert all(torch.equal(gradient.flatten(), value[None]) for gradient in gradients)


def test_without_a_scale_nothing_adapts_and_every_fault_counts() -> None:
    scale = Unscaled(CPU)
    for good in (True, False):
        scale.update(torch.tensor(good))
        assert float(scale.value) == 1
        assert bool(scale.exhausted())


def test_fp16_alone_is_scaled() -> None:
    for name, made in (("fp32", Unscaled), ("bf16", Unscaled), ("fp16", LossScale)):
        scales = [player.scale for player in precise(name, start=None).players.values()]
        assert [type(scale) for scale in scales] == [made, made]
        assert scales[0] is not scales[1]


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown precision 'fp8'; there are fp32, bf16 and fp16"):
        Precision("fp8", CPU)


# --- in the engine


def test_an_overflow_of_ds_is_left_out_and_halves_ds_scale_alone() -> None:
    engine = precise("fp16")
    engine.players["D"].scale.value.fill_(2.0**40)
    before = weights(engine)
    told = take(engine, "D")
    after = weights(engine)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert not moved & {f"D.{name}" for name, _ in engine.networks["D"].named_parameters()}
    assert not math.isfinite(float(told["gradient_D"]))
    assert math.isfinite(float(told["loss_D"]))
    assert float(engine.players["D"].scale.value) == 2.0**39
    assert float(engine.players["G"].scale.value) == 2.0**11
    assert engine.fault() is None, "the scale is to blame, and can still fall"
    take(engine, "G", index=1)
    assert int(engine.players["G"].scale.good) == 1
    assert int(engine.players["D"].scale.good) == 0


def test_an_overflow_without_any_scale_left_is_a_fault() -> None:
    engine = precise("fp16", start=1.0)

    class Vast(Hinge):
        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            return 1e30 * super().discriminator(real, fake)

    engine.gan.loss = Vast()
    take(engine, "D", step=3)
    fault = engine.fault()
    assert fault is not None
    assert (fault.player, fault.step, fault.what) == ("D", 3, "gradient")
    assert float(engine.players["D"].scale.value) == 1.0


def test_the_scale_is_saved_and_taken_up() -> None:
    engine = precise("fp16", start=None)
    for step in range(3):
        engine.step(step)
    engine.players["G"].scale.value.fill_(32.0)
    saved = engine.state()
    fresh = precise("fp16")
    fresh.load_state(saved)
    for name, player in engine.players.items():
        other = fresh.players[name].scale
        assert torch.equal(other.value, player.scale.value)
        assert torch.equal(other.good, player.scale.good)
    assert float(fresh.players["G"].scale.value) == 32.0
    assert int(fresh.players["G"].scale.good) == 3


class Sees(Hinge):
    """A hinge loss that notes the types it is given."""

    types: ClassVar[set[tuple[str, torch.dtype]]] = set()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        self.types.update({("real", real.dtype), ("fake", fake.dtype)})
        return super().discriminator(real, fake)

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        self.types.add(("G", fake.dtype))
        return super().generator(real, fake)


class Asks:
    """A penalty that notes what it is given."""

    players, every = "DG", 1

    def __init__(self) -> None:
        self.types: set[torch.dtype] = set()

    def __call__(self, turn: Turn, /) -> Tensor:
        given = [turn.fake, turn.fake_logits, turn.discriminator(turn.fake)]
        given += [turn.features(turn.fake)]
        self.types.update(tensor.dtype for tensor in given)
        return given[2].mean()


def check_wide(name: str) -> None:
    engine = precise(name)
    Sees.types.clear()
    engine.gan.loss = Sees()
    engine.gan.penalties = {"asks": (asks := Asks())}
    told = engine.step(0)
    assert {dtype for _, dtype in Sees.types} == {torch.float32}
    assert {who for who, _ in Sees.types} == {"real", "fake", "G"}
    assert asks.types == {torch.float32}
    assert {value.dtype for value in told.values()} == {torch.float32}
    for network in engine.networks.values():
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_losses_and_weights_are_wide_whatever_the_precision(name: str) -> None:
    check_wide(name)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_twin_losses_in_half_precision_are_caught(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective_module, "_full", lambda tensor: tensor)
    with pytest.raises(AssertionError):
        check_wide(name)


def autocasts(engine: Engine, way: Callable[[], object]) -> list[bool]:
    """Whether each forward pass of D is in half precision, while something runs."""
    found: list[bool] = []
    hook = engine.networks["D"].register_forward_pre_hook(
        lambda module, given: found.append(torch.is_autocast_enabled("cpu"))
    )
    way()
    hook.remove()
    return found


PENALTIES = {
    "r1": (True, True, False),
    "r2": (True, True, False),
    "wgan_gp": (True, True, False),
    "dragan": (True, True, False),
    "consistency": (True, True, True),
}
"""Real, fake, and what the penalty looks at: second derivatives in full precision."""


def check_autocast(penalty: str) -> None:
    engine = precise("fp16", f"penalty.{penalty}={{}}", "train.fast=false")
    assert autocasts(engine, lambda: take(engine, "D")) == [*PENALTIES[penalty]]
    plain = precise("fp32", f"penalty.{penalty}={{}}", "train.fast=false")
    assert autocasts(plain, lambda: take(plain, "D")) == [False] * 3


@pytest.mark.parametrize("penalty", PENALTIES)
def test_second_derivatives_are_taken_in_full_precision_under_fp16(penalty: str) -> None:
    check_autocast(penalty)


def test_twin_second_derivatives_in_fp16_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Precision, "second_order", Precision.networks)
    with pytest.raises(AssertionError):
        check_autocast("r1")


def test_a_second_order_penalty_has_the_value_of_float32() -> None:
    low, plain = (take(precise(name, "penalty.r1={}"), "D") for name in ("fp16", "fp32"))
    assert float(low["r1_D"]) == pytest.approx(float(plain["r1_D"]), rel=1e-6)
    assert float(low["D_real"]) != float(plain["D_real"])


# --- curves

STEPS = 50
MOST, MEAN = 0.05, 0.015
"""How far a curve may be from float32's, at any step and in the mean, while D's loss falls from 2.1
to 1.3; a third of it has been seen."""


def curve(name: str, *overrides: str, start: float | None = 2.0**11) -> dict[str, Tensor]:
    engine = precise(name, *overrides, start=start)
    rows = [engine.step(step) for step in range(STEPS)]
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


CURVES: dict[str, dict[str, Tensor]] = {}


def plain(*overrides: str) -> dict[str, Tensor]:
    """Float32's curve; computed once."""
    key = " ".join(overrides)
    if key not in CURVES:
        CURVES[key] = curve("fp32", *overrides)
    return CURVES[key]


def check_curve(name: str, *overrides: str) -> None:
    wanted, mine = plain(*overrides), curve(name, *overrides)
    assert wanted.keys() == mine.keys()
    assert float(wanted["loss_D"][0] - wanted["loss_D"][-1]) > 10 * MOST
    for key in ("loss_D", "loss_G", "D_real", "D_fake"):
        apart = (wanted[key] - mine[key]).abs()
        assert float(apart.max()) <= MOST, f"{key}: {float(apart.max())}"
        assert float(apart.mean()) <= MEAN, f"{key}: {float(apart.mean())}"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize("more", [(), ("penalty.r1.weight=5.0",)])
def test_curves_are_those_of_float32_but_for_rounding(name: str, more: tuple[str, ...]) -> None:
    check_curve(name, *more)


@contextmanager
def unscaled_forgotten() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossScale, "unscale", lambda self, gradients: None)
        yield patch


@contextmanager
def never_scaled() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossScale, "__call__", lambda self, loss: loss)
        yield patch


@contextmanager
def penalties_unscaled() -> Iterator[pytest.MonkeyPatch]:
    """The scale on the loss alone, as though a penalty's gradients needed none."""
    from gankit.train.objective import Objective

    inner = Objective._penalties

    def unscaled(self: Any, *given: Any) -> dict[str, Tensor]:
        return {name: value / 2.0**11 for name, value in inner(self, *given).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "_penalties", unscaled)
        yield patch


@pytest.mark.parametrize("broken", [unscaled_forgotten, never_scaled, penalties_unscaled])
def test_twin_scales_that_are_not_taken_off_or_put_on_are_caught(broken: Any) -> None:
    plain("penalty.r1.weight=5.0")  # before anything is broken
    with broken(), pytest.raises(AssertionError):
        check_curve("fp16", "penalty.r1.weight=5.0")


def test_from_its_usual_start_the_scale_finds_its_place_and_training_goes_on() -> None:
    """The first updates of D's are left out until its gradients fit into float16."""
    # In two passes: in one, what real and fake images ask for cancels out, and fits at once.
    engine = precise("fp16", "train.fast=false", start=None)
    told = [engine.step(step) for step in range(STEPS)]
    left_out = [not math.isfinite(float(row["gradient_D"])) for row in told]
    skipped = sum(left_out)
    assert 1 <= skipped <= 3
    assert left_out == [True] * skipped + [False] * (STEPS - skipped)
    assert float(engine.players["D"].scale.value) == 2.0 ** (16 - skipped)
    assert engine.fault() is None
    wanted = plain()["loss_D"]
    mine = torch.stack([row["loss_D"] for row in told])
    assert float((mine - wanted).abs().max()) < 0.15


def test_half_precision_and_all_else_go_together() -> None:
    """Shares, clipping and labels; the length that is told is of gradients without the scale."""
    more = ("train.accumulate=4", "train.clip=0.1", "generator.condition=label")
    low, wide = (precise(name, *more) for name in ("fp16", "fp32"))
    for engine in (low, wide):
        told = take(engine, "D")
        assert 0.5 < float(told["gradient_D"]) < 10
        length = torch.cat([p.grad.flatten() for p in engine.networks["D"].parameters()]).norm()
        assert float(length) == pytest.approx(0.1, rel=1e-4)
    grads = [
        {n: p.grad for n, p in engine.networks["D"].named_parameters()} for engine in (low, wide)
    ]
    assert_close(grads[0], grads[1], 0.05)
