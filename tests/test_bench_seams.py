"""Every moment of a step is told by the part that it belongs to, and telling changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.bench import seams
from gankit.bench.clock import LOOP, REST, Clock
from gankit.norms import weight
from gankit.ops import power_iteration
from gankit.slots import Turn
from tests.engines import SMALL, engine_of, weights

# --- the clock


class Time:
    """A time that passes only where it is spent."""

    def __init__(self) -> None:
        self.now = 0

    def clock(self) -> Clock:
        return Clock(lambda: self.now)

    def spend(self, amount: int) -> None:
        self.now += amount


Program = list[Any]
PROGRAMS: st.SearchStrategy[Program] = st.recursive(
    st.lists(st.integers(0, 5), max_size=3),
    lambda inner: st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=3),
    max_leaves=8,
)
"""Numbers are time that is spent, pairs are parts and what is in them."""


def spend(program: Program, time: Time, clock: Clock, inside: str, spent: dict[str, int]) -> None:
    for each in program:
        if isinstance(each, int):
            time.now += each
            spent[inside] = spent.get(inside, 0) + each
        else:
            with clock.part(each[0]):
                spend(each[1], time, clock, each[0], spent)


@given(PROGRAMS, st.integers(0, 3))
def test_every_moment_belongs_to_the_innermost_part(program: Program, after: int) -> None:
    time = Time()
    clock, expected = time.clock(), list[dict[str, int]]()
    for _ in range(2):
        spent: dict[str, int] = {}
        with clock.round():
            spend(program, time, clock, LOOP, spent)
        expected.append(spent)
        time.now += after  # which belongs to no round
    read = clock.read()
    assert [{k: v for k, v in each.items() if v} for each in read] == [
        {k: v for k, v in each.items() if v} for each in expected
    ]
    assert clock.read() == []


def test_a_backward_pass_is_told_where_the_step_asks_for_it_and_ends_with_the_next_part() -> None:
    time = Time()
    clock = time.clock()
    with clock.round(), clock.part(REST):
        clock.passes("D")
        time.now += 1
        with clock.part("penalty"):
            clock.passes("G")
            time.now += 2
        time.now += 4
    assert clock.read() == [{LOOP: 0, REST: 4, "D": 1, "penalty": 2}]


def test_a_part_that_fails_gives_the_time_back_to_the_one_around_it() -> None:
    time = Time()
    clock = time.clock()

    def fail() -> None:
        time.now += 1
        raise ValueError("no")

    with clock.round():
        with pytest.raises(ValueError, match="no"), clock.part("a"):
            fail()
        time.now += 2
    assert clock.read() == [{"a": 1, LOOP: 2}]


def test_the_real_clock_tells_seconds() -> None:
    clock = Clock.of(torch.device("cpu"))
    with clock.round(), clock.part("a"):
        time.sleep(0.02)
    (read,) = clock.read()
    assert 0.02 <= read["a"] < 2
    assert read[LOOP] < read["a"]


def test_the_clock_of_a_gpu_reads_its_own_marks_and_only_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Marks are put into the GPU's queue: they have no time before it has come to them."""
    now, waited = Time(), list[Any]()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            self.at = now.now

        def synchronize(self) -> None:
            waited.append(self)

        def elapsed_time(self, later: Event) -> float:
            assert later in waited
            return float(later.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = Clock.of(torch.device("cuda"))
    with clock.round(), clock.part("a"):
        now.spend(1500)
    assert not waited
    assert clock.read() == [{LOOP: 0.0, "a": 1.5}]


# --- the seams


class Spend(torch.autograd.Function):
    """The identity, which takes its time forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, time: Time, forward: int, backward: int) -> Tensor:
        ctx.time, ctx.backward_takes = time, backward
        time.now += forward
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.time.now += ctx.backward_takes
        return gradient, None, None, None


def slow(network: nn.Module, time: Time, forward: int, backward: int) -> list[nn.Module]:
    """Make each dense layer take its time; gives a list of them that fills with every call."""
    calls: list[nn.Module] = []

    def hook(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append(layer)
        return Spend.apply(output, time, forward, backward)

    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(hook)
    return calls


def spending(time: Time, amount: int, call: Callable[..., Any]) -> Callable[..., Any]:
    def slowed(*args: Any, **kwargs: Any) -> Any:
        time.now += amount
        return call(*args, **kwargs)

    return slowed


class Costly:
    """Takes 2000 to compute and 5000 to go backward through; `every` so many turns."""

    def __init__(self, time: Time, players: str, every: int = 1) -> None:
        self.time, self.players, self.every = time, players, every

    def __call__(self, turn: Turn, /) -> Tensor:
        return Spend.apply(turn.fake_logits.mean() * 0.1, self.time, 2000, 5000)


D_FORWARD, D_BACKWARD, G_FORWARD, G_BACKWARD = 1, 10, 100, 1000
IMAGES_TAKE, MOVE, STEP, FACTOR, STATISTICS = 7, 13, 17, 19, 23


def timed(
    *overrides: str, penalty: str = "", every: int = 1, steps: int = 1
) -> tuple[dict[str, float], int, int]:
    """What some steps take by part, and how often layers of G and of D are called."""
    time = Time()
    engine = engine_of(SMALL, *overrides)
    gan = engine.gan
    calls = (
        slow(gan.generator, time, G_FORWARD, G_BACKWARD),
        slow(gan.discriminator, time, D_FORWARD, D_BACKWARD),
    )
    if penalty:
        gan.penalties = {**gan.penalties, "costly": Costly(time, penalty, every)}
    clock = time.clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine.data), "images", spending(time, IMAGES_TAKE, _images))
        patch.setattr(weight, "power_iteration", spending(time, MOVE, power_iteration))
        patch.setattr(engine.ema, "factor", spending(time, FACTOR, engine.ema.factor))
        patch.setattr(engine, "_statistics", _Watched(time))
        for player in engine.players.values():
            player.optimizer.register_step_pre_hook(lambda *_: time.spend(STEP))
        with seams.attributed(engine, clock), clock.round():
            for step in range(steps):
                engine.step(step)
    (read,) = clock.read()
    assert sum(read.values()) == time.now
    return {name: seconds for name, seconds in read.items() if seconds}, *map(len, calls)


def _images(data: Any, indices: Tensor) -> Tensor:
    return torch.zeros(len(indices), *data.image.shape, dtype=torch.uint8)


class _Watched:
    """In the place of the engine's running statistics: looking at them takes time."""

    def __init__(self, time: Time) -> None:
        self.time = time

    def __iter__(self) -> Iterator[Any]:
        self.time.now += STATISTICS
        return iter(())


@pytest.mark.parametrize("shares", [1, 2, 4])
@pytest.mark.parametrize("batches", ["separate", "joint"])
def test_each_part_of_a_step_is_told_to_the_moment(shares: int, batches: str) -> None:
    read, g, d = timed(f"train.accumulate={shares}", f"train.batches={batches}")
    assert read == {
        "data": IMAGES_TAKE,
        # Backward through the fakes of G's own turn, which are half of them.
        "generator": g * G_FORWARD + g // 2 * G_BACKWARD,
        "discriminator": d * (D_FORWARD + D_BACKWARD),
        "optimizer": 2 * STEP,
        "average": FACTOR,
        REST: STATISTICS,
    }


@pytest.mark.parametrize(
    ("turns", "of_d", "of_g", "fakes"),
    [("n_critic={ n = 3 }", 3, 1, 4), ("simultaneous={}", 1, 1, 1)],
    ids=["n_critic", "simultaneous"],
)
def test_turns_of_all_kinds_are_told_to_the_moment(
    turns: str, of_d: int, of_g: int, fakes: int
) -> None:
    read, g, d = timed(f"schedule.{turns}", "train.ema=0.9")
    assert read == {
        "data": of_d * IMAGES_TAKE,
        "generator": g * G_FORWARD + g // fakes * G_BACKWARD,
        "discriminator": d * (D_FORWARD + D_BACKWARD),
        "optimizer": (of_d + of_g) * STEP,
        "average": FACTOR,
        REST: STATISTICS,
    }


def test_what_norms_of_weights_take_is_a_part_of_its_own() -> None:
    plain, *_ = timed()
    normed, *_ = timed("discriminator.norm=spectral")
    # All estimates of a network move together, in D's turn, and stand still in G's.
    assert normed == {**plain, "weight norms": MOVE}


@pytest.mark.parametrize(
    ("players", "times"), [("D", 1), ("G", 1), ("DG", 2)], ids=["D", "G", "both"]
)
@pytest.mark.parametrize("turns", ["turns.order=['D', 'G']", "simultaneous={}"])
def test_a_penalty_is_told_forward_and_backward(players: str, times: int, turns: str) -> None:
    plain, *_ = timed(f"schedule.{turns}")
    assert timed(f"schedule.{turns}", penalty=players)[0] == {
        **plain,
        "penalty costly": times * 7000,
    }


@pytest.mark.parametrize(
    "penalty",
    [
        *("r1={}", "r2={}", "wgan_gp={}", "dragan={}", "consistency={ fake = 1.0 }"),
        *("lecam={}", "feature_matching={}"),
    ],
)
@pytest.mark.parametrize("turns", ["turns.order=['D', 'G']", "simultaneous={}"])
@pytest.mark.parametrize("other", [False, True])
def test_a_penalty_takes_nothing_from_the_other_parts(
    penalty: str, turns: str, other: bool
) -> None:
    """Gradient penalties go backward within themselves, and twice through D's layers."""
    name = penalty.partition("=")[0]
    settings = f"schedule.{turns}", *["penalty.r1.weight=1"] * (other and name != "r1")
    plain, *_ = timed(*settings)
    more, *_ = timed(*settings, f"penalty.{penalty}")
    own = more.pop(f"penalty {name}", 0)
    # What wants real images in G's turn has them drawn and judged there.
    real = {"data", "discriminator"} if name == "feature_matching" else set()
    assert {k: v for k, v in more.items() if k not in real} == {
        k: v for k, v in plain.items() if k not in real
    }
    assert own > 0 or name == "lecam"


def test_a_penalty_that_is_applied_now_and_then_takes_its_share() -> None:
    assert timed(penalty="D", every=4, steps=8)[0]["penalty costly"] == 2 * 7000


TRAINED: dict[str, tuple[str, ...]] = {
    "plain": (),
    "penalties": (
        *("penalty.r1={ weight = 0.5, every = 2 }", "penalty.wgan_gp={}", "penalty.lecam={}"),
        *("penalty.orthogonal.weight=0.1", "penalty.feature_matching={}"),
    ),
    "shares": ("train.accumulate=2", "penalty.dragan={}", "discriminator.norm=spectral"),
    "simultaneous": ("schedule.simultaneous={}", "penalty.r1={}", "train.ema=0.9"),
    "augmented": ("augment.adaptive={ start = 0.5, speed = 100 }", "augment.flip={}"),
    "scaled": (
        "penalty.r1={}",
        "schedule.linear_decay={ on = 'penalty.r1.weight', final = 0.5 }",
        "train.clip=0.1",
    ),
    "bf16": ("train.precision=bf16", "generator.norm=['spectral', 'batchnorm']"),
}


def check_nothing_changes(*overrides: str) -> None:
    """Three steps watched and three not: the same bits in all that is measured and kept."""
    left = []
    for watched in (False, True):
        engine = engine_of(SMALL, *overrides)
        clock = Clock()
        with seams.attributed(engine, clock) if watched else nullcontext(), clock.round():
            told = [engine.step(step) for step in range(3)]
        everything = {f"{i} {k}": v for i, each in enumerate(told) for k, v in each.items()}
        everything |= weights(engine)
        everything |= {f"average {k}": v for k, v in engine.ema.average.state_dict().items()}
        left.append(everything)
    assert left[0].keys() == left[1].keys()
    for name, tensor in left[0].items():
        assert torch.equal(tensor, left[1][name]), name


@pytest.mark.parametrize("overrides", TRAINED.values(), ids=TRAINED)
def test_watching_changes_nothing(overrides: tuple[str, ...]) -> None:
    check_nothing_changes(*overrides)


def test_twin_a_hook_that_touches_gradients_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def marked(clock: Clock, part: str, value: Tensor) -> None:
        if value.requires_grad:
            value.register_hook(lambda gradient: gradient * 1.001)

    monkeypatch.setattr(seams, "_mark", marked)
    with pytest.raises(AssertionError):
        check_nothing_changes()


def test_the_seams_are_gone_afterwards_also_after_an_error() -> None:
    engine = engine_of(SMALL)
    owners = (engine, engine.objective, engine.ema, *engine.players.values())
    before = [set(vars(owner)) for owner in owners]

    def stop() -> None:
        assert [set(vars(owner)) for owner in owners] != before
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), seams.attributed(engine, Clock()):
        stop()
    assert [set(vars(owner)) for owner in owners] == before
    engine.step(0)


def test_twin_a_backward_pass_that_is_not_told_of_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seams, "_mark", lambda clock, part, value: None)
    with pytest.raises(AssertionError):
        test_each_part_of_a_step_is_told_to_the_moment(1, "separate")
    with pytest.raises(AssertionError):
        test_a_penalty_is_told_forward_and_backward("D", 1, "simultaneous={}")
