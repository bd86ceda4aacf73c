"""`gankit bench`: what is measured of a spec, over which steps, and how it is printed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gankit.bench import Profile, Span, advice, measure
from gankit.bench.clock import REST
from gankit.bench.noise import LENGTH, Noise
from gankit.bench.rounds import round_of
from gankit.build import build
from gankit.cli.bench import _speed
from gankit.errors import SetupError
from gankit.slots import Image
from gankit.spec import loads
from gankit.train import trainer as loop
from gankit.train.engine import Engine
from gankit.train.plan import plan
from tests.engines import SMALL, Constant
from tests.specs import IMAGES, POINTS
from tests.test_cli import run

CPU = torch.device("cpu")


# --- rounds


@given(
    n=st.integers(1, 6),
    every=st.lists(st.tuples(st.sampled_from(["D", "G", "DG"]), st.integers(1, 12)), max_size=2),
)
def test_a_round_has_every_penalty_as_often_as_it_comes(
    n: int, every: list[tuple[str, int]]
) -> None:
    gan, _ = build(loads(SMALL, [f"schedule.n_critic.n={n}"]), "meta")
    gan.penalties = {str(i): Constant(players, k) for i, (players, k) in enumerate(every)}
    turns = {"D": n, "G": 1}
    expected = [k // math.gcd(k, turns[player]) for players, k in every for player in players]
    assert round_of(gan, 100_000) == math.lcm(*expected)


class Alternating:
    """D and G by turns, a step each; or never the same again."""

    def __init__(self, repeats: bool) -> None:
        self.repeats = repeats

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        grows = int(step**0.5) ** 2 == step
        return (("D", "G")[step % 2],) if self.repeats else ("D",) * (1 + grows)


def test_a_round_has_all_kinds_of_turns() -> None:
    gan, _ = build(loads(SMALL), "meta")
    gan.schedules = [Alternating(repeats=True)]
    assert round_of(gan, 1000) == 2
    gan.schedules = [Alternating(repeats=False)]
    assert round_of(gan, 1000) == 1


# --- noise


@pytest.mark.parametrize("image", [Image(3, (8, 6)), Image(1, (4, 4), classes=3), Image(2, ())])
def test_noise_is_like_the_data(image: Image) -> None:
    noise = Noise(image, batch=10)
    indices = torch.tensor([0, 5, LENGTH - 1])
    assert len(noise) == LENGTH
    assert noise.images(indices).shape == (3, *image.shape)
    assert noise.images(indices).dtype == (torch.uint8 if image.size else torch.float32)
    assert torch.equal(noise.images(indices), noise.images(indices))
    labels = noise.labels(indices)
    assert (labels is not None) == bool(image.classes)
    assert labels is None or set(labels.tolist()) <= {0, 1, 2}
    assert len(Noise(image, batch=LENGTH + 1)) == LENGTH + 1


# --- a profile


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured for as long as it takes to see that it is."""
    module = measure.__globals__
    monkeypatch.setitem(module, "ENOUGH", 0.3)
    monkeypatch.setitem(module, "LONG", 0.01)


def profile_of(text: str, *overrides: str, steps: int = 0, noise: bool = False) -> Profile:
    return measure(loads(text, overrides), CPU, steps=steps, noise=noise)


def test_a_profile_has_all_parts_and_they_add_up() -> None:
    profile = profile_of(IMAGES, "penalty.r1={}", "train.log=5", "train.samples=7")
    assert list(profile.parts) == [
        *("data", "generator", "discriminator", "penalty r1", "weight norms", "optimizer"),
        *("average", REST, "log", "samples", "checkpoint"),
    ]
    assert all(0 <= span.low <= span.median <= span.high for span in profile.parts.values())
    assert sum(profile.share(part) for part in profile.parts) == pytest.approx(1, abs=0.5)
    assert profile.speed.median == pytest.approx(8 / profile.step.median)
    assert profile.speed.low <= profile.speed.median <= profile.speed.high
    assert not profile.instead


def test_what_does_not_take_any_time_has_no_row() -> None:
    profile = profile_of(POINTS)
    assert not profile.penalties
    assert json.loads(json.dumps(profile.json()))["parts"].keys() == profile.parts.keys()


@pytest.mark.parametrize(
    ("wanted", "measured"), [(1, 4), (4, 4), (5, 8), (20, 20), (23, 24)], ids=str
)
def test_steps_are_measured_in_whole_rounds(wanted: int, measured: int) -> None:
    profile = profile_of(POINTS, "penalty.r1.every=4", steps=wanted)
    assert profile.round % 4 == 0
    assert profile.round * profile.rounds == measured


def test_the_first_steps_and_a_run_too_short_are_no_matter() -> None:
    profile = profile_of(POINTS, "train.steps=1", steps=50)
    assert profile.rounds >= 5
    assert profile.round * profile.rounds >= 50


def test_logs_grids_and_checkpoints_count_as_often_as_they_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return call(*args, **kwargs)

        return called

    monkeypatch.setattr(loop, "health", late(0.05, loop.health))
    monkeypatch.setattr(loop, "sample_grid", late(0.1, loop.sample_grid))
    monkeypatch.setattr(loop, "_copied", late(0.1, loop._copied))
    every = "train.log=10", "train.samples=20", "train.checkpoint=50"
    profile = profile_of(POINTS, *every, steps=1)
    for key, least in (("log", 0.005), ("samples", 0.005), ("checkpoint", 0.004)):
        assert least <= profile.parts[key].median < 3 * least + 0.01, key
    assert profile.parts[REST].median < 0.04


@pytest.mark.slow
def test_the_memory_is_about_what_the_plan_says() -> None:
    settings = "penalty.r1.every=3"
    profile = profile_of(IMAGES, settings, steps=3)
    estimate = plan(profile.spec).memory
    assert estimate is not None
    assert profile.memory == pytest.approx(estimate, rel=0.1)
    assert profile_of(IMAGES, settings, "train.batch=16", steps=1).memory > 1.2 * profile.memory
    # Without what is due at times it would be less.
    assert profile_of(IMAGES, steps=1).memory < 0.9 * profile.memory
    assert profile.memory < profile.capacity


FOLDER = ("data={ use = 'folder', root = 'nowhere', size = 16, channels = 1 }",)


def test_data_that_is_not_there_is_noise_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    profile = profile_of(IMAGES, *FOLDER, steps=1)
    assert profile.instead == "nowhere: no such folder"
    assert profile.json()["noise"] == profile.instead
    assert "data" not in advice(replace(profile, parts={"data": profile.step}))
    few = profile_of(SMALL, "train.batch=2000", steps=1)
    assert few.instead.startswith("the data has 1797 images")
    assert profile_of(IMAGES, steps=1, noise=True).instead == "as asked for"
    assert list(tmp_path.iterdir()) == []


def test_memory_that_does_not_suffice_is_told_with_what_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(engine: Engine, step: int) -> None:
        raise MemoryError

    spec = loads(POINTS)
    monkeypatch.setattr(Engine, "step", full)
    with pytest.raises(SetupError, match=r"out of memory on cpu\n.*train\.accumulate=2"):
        measure(spec, CPU)


def test_other_errors_are_not_called_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(engine: Engine, step: int) -> None:
        raise RuntimeError("shapes")

    monkeypatch.setattr(Engine, "step", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        profile_of(POINTS)


def test_one_round_alone_has_no_spread() -> None:
    assert Span.of([3.0]) == Span(3.0, 3.0, 3.0)
    assert Span.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Span(3.0, 2.0, 4.0)


# --- the command


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "images.toml"
    path.write_text(IMAGES)
    return path


def test_the_command_prints_a_table(spec: Path) -> None:
    ran = run("bench", spec, "--set", "penalty.r1.every=2", "--steps", "10")
    assert ran.code == 0
    assert all(line.startswith("steps measured: ") for line in ran.err.splitlines())
    lines = [line.split() for line in ran.out.splitlines() if line.strip()]
    assert lines[0][0] == "images"
    assert "cores, fp32, batch 8; 10 steps, in rounds of 2" in ran.out
    firsts = [line[0].strip(",") for line in lines]
    for part in ("data", "generator", "discriminator", "penalty", "weight", "rest", "step"):
        assert part in firsts
    (row,) = [line for line in lines if line[:2] == ["penalty", "r1"]]
    assert row[4] == "to"
    assert row[-1].endswith("%")
    assert " images/s  (" in ran.out
    assert "peak memory of a training step: " in ran.out
    assert "\nwhat to change:" in ran.out
    assert [path.name for path in spec.parent.iterdir()] == ["images.toml"]


def test_the_command_prints_json(spec: Path) -> None:
    told = json.loads(run("bench", spec, "--json", "--steps", "5", "--noise").out)
    assert told["steps"] == 5
    assert told["noise"] == "as asked for"
    assert sum(part["share"] for part in told["parts"].values()) == pytest.approx(1, abs=0.5)
    assert isinstance(told["advice"], dict)


def test_one_round_is_told_without_quartiles(spec: Path) -> None:
    ran = run("bench", spec, "--steps", "1", "--set", FOLDER[0])
    assert " to " not in ran.out.partition("what to change")[0]
    assert (
        "noise in the place of the data: nowhere: no such folder; reading data is left out"
        in ran.out
    )


def test_slow_speeds_are_told_with_a_digit_more() -> None:
    assert [_speed(speed) for speed in (0.72, 14.04, 99.94, 616.2, 10_880.1)] == [
        *("0.7", "14.0", "99.9", "616", "10,880"),
    ]


def test_what_cannot_be_measured_is_refused(spec: Path) -> None:
    assert run("bench", spec, "--steps", "-1").code == 2
    assert run("bench", spec, "--set", "loss=hing").code == 3
    refused = run("bench", spec, "--set", "generator.attention_at=[3]")
    assert (refused.code, refused.out) == (3, "")


def test_ctrl_c_ends_it_in_order(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(engine: Engine, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "step", interrupted)
    ran = run("bench", spec)
    assert (ran.code, ran.err) == (130, "stopped; nothing of it is kept\n")
