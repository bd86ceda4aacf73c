"""Whatever parts a spec puts together, two steps of it go well, or the build says why not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit.build import build
from gankit.errors import SpecError
from gankit.fit import _scalable
from gankit.losses import Hinge
from gankit.registry import registry
from gankit.slots import Norm
from gankit.spec import loads
from gankit.train.engine import Engine
from gankit.train.plan import plan
from tests.engines import CPU

POINTS = """
gankit = 1
name = "points"
data = { use = "ring", length = 100 }
generator = { use = "mlp", width = 6, layers = 2, initializer = "orthogonal" }
discriminator = { use = "mlp", width = 6, layers = 2, initializer = "orthogonal" }
loss = "hinge"
train = { steps = 4, batch = 8 }
"""
IMAGES = POINTS.replace('"ring", length = 100', '"shapes", size = 8, length = 100')


def ours(kind: str, on: str | None = None) -> list[str]:
    """The parts of a kind that gankit has; what is registered is tried."""
    entries = registry.find(kind)
    return sorted(e.name for e in entries if e.provider.name == "gankit" and on in (None, e.on))


def entries(kind: str, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(ours(kind)), unique=True, max_size=most)


def norms(draw: st.DrawFn, network: str, labels: bool) -> list[str]:
    """None, or one on the weights, or between the layers, or both; with a condition if need be."""
    weight = draw(st.sampled_from(["none", *ours("norm", "weight")]))
    between = draw(st.sampled_from(["none", *ours("norm", "activation")]))
    chosen = [name for name in (weight, between) if name != "none"]
    overrides = [f"{network}.norm={chosen}".replace("'groupnorm'", "{ use='groupnorm', groups=3 }")]
    target = registry.get("norm", between).target
    if (between != "none" and Norm(activation=target).needs_condition) or draw(st.booleans()):
        condition = "label" if labels else "latent" if network == "generator" else "none"
        overrides.append(f"{network}.condition={condition}")
    return overrides


FACTORS = {
    "warm_up": "steps = 3, start = 0.5",
    "exponential": "rate = 0.8, every = 1, final = 0.3",
    "piecewise": "at = [1], values = [0.6]",
    "cosine": "final = 0.5",
    "linear_decay": "final = 0.5",
}
"""Schedules of numbers, with factors that no part refuses."""


SMALL = "lr = 1e-6"
"""Some combinations do not converge (r2 with batch statistics in D), but no two such steps tell."""


@st.composite
def specs(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(st.sampled_from([POINTS, IMAGES, IMAGES]))
    chosen = [
        f"loss={draw(st.sampled_from(ours('loss')))}",
        f"latent={draw(st.sampled_from(ours('latent')))}",
        f"optimizer={{ use = '{draw(st.sampled_from(ours('optimizer')))}', {SMALL} }}",
        f"train.precision={draw(st.sampled_from(['fp32', 'fp32', 'bf16', 'fp16']))}",
        f"train.accumulate={draw(st.sampled_from([1, 1, 2, 4]))}",
        f"train.clip={draw(st.sampled_from([0, 0.5]))}",
        f"train.top_k={draw(st.sampled_from([1, 1, 0.5]))}",
        f"train.batches={draw(st.sampled_from(['separate', 'joint']))}",
        f"train.ema={draw(st.sampled_from(['0', '0.9', '{ half_life = 100, ramp_up = 0.1 }']))}",
    ]
    if draw(st.booleans()):
        own = draw(st.sampled_from(ours("optimizer")))
        chosen.append(f"discriminator_optimizer={{ use = '{own}', {SMALL} }}")
    for network in ("generator", "discriminator"):
        chosen += norms(draw, network, labels=text == IMAGES)
    for name in draw(entries("penalty", 3)):
        every = draw(st.sampled_from([1, 1, 2]))
        chosen.append(f"penalty.{name}={{ every = {every}, weight = 0.01 }}")
    most = 2 if text == IMAGES else draw(st.sampled_from([0, 0, 1]))
    chosen += [f"augment.{name}={{}}" for name in draw(entries("augment", most))]
    try:
        paths = ["", "", *_scalable(loads(text, chosen))]
    except SpecError:
        paths = [""]
    for name in draw(entries("schedule", 3)):
        options = FACTORS.get(name, "")
        if options and (on := draw(st.sampled_from(paths))):
            options += f", on = '{on}'"
        chosen.append(f"schedule.{name}={{ {options} }}")
    return text, chosen


def check_two_steps(text: str, overrides: list[str]) -> bool:
    """Whether it is accepted; if so, two steps leave everything finite."""
    try:
        spec = loads(text, overrides)
        gan, data = build(spec)
    except SpecError:
        return False
    engine = Engine(gan, data, spec.train, CPU)
    scaled = spec.train.precision == "fp16"  # whose first updates may be left out
    for step in range(2):
        try:
            told = engine.step(step)
        except (RuntimeError, ValueError):
            # What the build alone does not see, the plan does, and nobody trains without one.
            with pytest.raises(SpecError):
                plan(spec)
            return False
        for name, value in told.items():
            assert value.isfinite() or (scaled and name.startswith("gradient")), name
    assert engine.fault() is None
    networks: list[Any] = [gan.generator, gan.discriminator, engine.ema.network()]
    for module in (*networks, *gan.stateful().values()):
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    return True


OUTCOMES: Counter[bool] = Counter()


@settings(max_examples=40)
@given(specs())
def test_two_steps_of_anything_that_is_built(made: tuple[str, list[str]]) -> None:
    OUTCOMES[check_two_steps(*made)] += 1


def test_and_much_is_built() -> None:
    if not OUTCOMES:
        pytest.skip("tells of the test before it")
    assert OUTCOMES[True] >= 15
    assert OUTCOMES[False] >= 3


def test_every_schedule_of_numbers_is_tried_on_them() -> None:
    with_on = {e.name for e in registry.find("schedule") if "on" in e.options}
    assert with_on & set(ours("schedule")) == set(FACTORS)


def test_twin_a_part_that_spoils_a_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_two_steps(POINTS, ["train.precision=fp16"])
    for spoiled in (float("nan"), float("inf")):

        def spoils(self: Hinge, real: Any, fake: torch.Tensor, by: float = spoiled) -> torch.Tensor:
            return fake.mean() * by

        with monkeypatch.context() as patch:
            patch.setattr(Hinge, "generator", spoils)
            with pytest.raises(AssertionError, match="loss_G"):
                check_two_steps(POINTS, ["train.precision=fp16"])
