"""A batch that is worked off in shares is the batch in one: updates, draws, what is observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gankit.errors import OptionError, SpecError
from gankit.randomness import ShareGenerator, drawn, generator
from gankit.slots import Turn
from gankit.spec import Train, loads
from gankit.train.batches import Batch, Draws
from gankit.train.engine import Engine
from gankit.train.processes import Processes
from tests.engines import SMALL, Constant, assert_close, engine_of, take, weights, wide_engine_of

LABELLED = (
    *("generator.condition=label", "discriminator.condition=embedding"),
    *("generator.norm=['spectral', 'layernorm']", "discriminator.norm=['spectral', 'layernorm']"),
)
PENALTIES = (
    *("penalty.r1={ weight = 0.5, every = 2 }", "penalty.r2.weight=0.5", "penalty.dragan={}"),
    *("penalty.wgan_gp={}", "penalty.lecam={}", "penalty.orthogonal.weight=0.1"),
)
AUGMENTS = (
    *("augment.flip={}", "augment.color={}", "augment.adaptive={ start = 0.5, speed = 100 }"),
    "penalty.consistency={ fake = 0.5 }",
)
SPECS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "penalties": PENALTIES,
    "augments": AUGMENTS,
    "joint": ("train.batches=joint", "penalty.wgan_gp={}", "augment.translation={}"),
    "pairs": ("loss=relativistic", "schedule.simultaneous={}", "penalty.r1={}"),
    "all": (*LABELLED, *PENALTIES, *AUGMENTS, "train.batches=joint", "loss=least_squares"),
    "adam": ("optimizer={ use = 'adam', lr = 0.01 }", "train.ema=0.9", "train.clip=0.5"),
}


def two_steps(*overrides: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What two steps measure, and the state they lead to: networks, average, parts."""
    engine = wide_engine_of(SMALL, *overrides)
    measured: dict[str, Tensor] = {}
    for step in range(2):
        measured |= {f"{k} {step}": v for k, v in engine.step(step).items()}
    state = weights(engine)
    state |= {f"average.{k}": v for k, v in engine.ema.average.state_dict().items()}
    for name, part in engine.gan.stateful().items():
        state |= {f"{name}.{k}": v for k, v in part.state_dict().items()}
    return measured, state


def check_shares(*overrides: str) -> None:
    one = two_steps(*overrides)
    for count in (2, 4):
        shared = two_steps(*overrides, f"train.accumulate={count}")
        for mine, theirs in zip(one, shared, strict=True):
            assert_close(mine, theirs)


@pytest.mark.parametrize("name", SPECS)
def test_the_same_update_in_one_and_in_shares(name: str) -> None:
    check_shares(*SPECS[name])


@dataclass(frozen=True)
class Summed:
    """A loss that is a sum over rows where it should be a mean."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - real).sum()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.sum()


def test_twins_shares_with_draws_or_sums_of_their_own_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Draws, "of", lambda self, share, purpose: self(purpose))
        with pytest.raises(AssertionError):
            check_shares("penalty.wgan_gp={}")
        with pytest.raises(AssertionError):
            check_shares("augment.flip={}")
        check_shares()
    from gankit.registry import registry

    with monkeypatch.context() as patch:
        loss = registry.get("loss", "hinge").target
        for name in ("discriminator", "generator"):
            patch.setattr(loss, name, getattr(Summed, name))
        with pytest.raises(AssertionError):
            check_shares()


@pytest.mark.parametrize(
    "override", ["generator.norm=batchnorm", "train.top_k=0.5", "penalty.feature_matching={}"]
)
def test_what_compares_rows_compares_those_of_a_share(override: str) -> None:
    """These alone are another function, and are said to be."""
    with pytest.raises(AssertionError):
        check_shares(override)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_lazy_penalties_count_turns_and_not_shares(every: int) -> None:
    engine = engine_of(SMALL, "train.accumulate=4", "schedule.n_critic.n=2")
    engine.gan.penalties = {"constant": (penalty := Constant("DG", every))}
    told = {"D": list[float](), "G": list[float]()}
    for step in range(3):
        for index, player in enumerate("DDG"):
            measured = take(engine, player, step, index)
            if (value := measured.get(f"constant_{player}")) is not None:
                told[player].append(float(value))
    due = {"D": -(-6 // every), "G": -(-3 // every)}
    assert told == {player: [float(every)] * count for player, count in due.items()}
    assert len(penalty.turns) == 4 * sum(due.values())
    assert {len(turn.latent) for turn in penalty.turns} == {2}


# --- what does not divide


@pytest.mark.parametrize(("batch", "accumulate"), [(8, 3), (2, 4), (7, 2)])
def test_shares_that_are_not_equal_are_refused(batch: int, accumulate: int) -> None:
    message = f"a batch of {batch} is not made of {accumulate} equal shares"
    with pytest.raises(OptionError, match=message) as caught:
        Train(steps=1, batch=batch, accumulate=accumulate)
    assert caught.value.option == "accumulate"
    with pytest.raises(SpecError, match=message) as refused:
        loads(SMALL, [f"train.batch={batch}", f"train.accumulate={accumulate}"])
    (problem,) = refused.value.problems
    assert problem.place is not None
    assert problem.place.source == f"train.accumulate={accumulate}"


class Three(Processes):
    count = 3


def test_and_so_are_shares_of_processes() -> None:
    engine = engine_of(SMALL, "train.batch=12", "train.accumulate=4")
    made = engine.gan, engine.data
    train = Train(steps=1, batch=12, accumulate=2)
    assert Engine(*made, train, engine.device, Three()).batch("D", engine.draws(0, 0)).real is not (
        None
    )
    with pytest.raises(ValueError, match="a batch of 12 cannot be divided into 9 equal shares"):
        Engine(*made, Train(steps=1, batch=12, accumulate=3), engine.device, Three())


# --- what is observed


class Watches:
    """A penalty that keeps what it is shown."""

    players: ClassVar[str] = "D"
    every: ClassVar[int] = 1

    def __init__(self) -> None:
        self.seen: list[Turn] = []

    def __call__(self, turn: Turn, /) -> Tensor:
        return turn.fake_logits.sum() * 0

    def observe(self, turn: Turn) -> None:
        assert not torch.is_grad_enabled()
        self.seen.append(turn)


def observed(*overrides: str) -> list[dict[str, Tensor]]:
    engine = wide_engine_of(SMALL, *overrides)
    engine.gan.penalties = {"watches": (watches := Watches())}
    for step in range(2):
        engine.step(step)
    assert [turn.player for turn in watches.seen] == ["D"] * len(watches.seen)
    return [
        {
            f"{side} {name}": head
            for side, heads in (("real", turn.real_heads or {}), ("fake", turn.fake_heads))
            for name, head in heads.items()
        }
        for turn in watches.seen
    ]


def check_observed(*overrides: str) -> None:
    whole = observed(*overrides)
    assert {len(head) for heads in whole for head in heads.values()} == {8}
    for count in (2, 8):
        shared = observed(*overrides, f"train.accumulate={count}")
        for mine, theirs in zip(whole, shared, strict=True):
            assert_close(mine, theirs)
            assert not any(head.requires_grad for head in theirs.values())


@pytest.mark.parametrize("batches", ["separate", "joint"])
@pytest.mark.parametrize(
    "turns", ["schedule=[]", "schedule.n_critic.n=2", "schedule=['simultaneous']"]
)
def test_observers_see_the_heads_of_the_whole_batch(batches: str, turns: str) -> None:
    check_observed(f"train.batches={batches}", turns)


def test_twin_an_observer_of_the_last_share_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_whole", lambda self, heads: dict(heads[-1]))
    with pytest.raises(AssertionError):
        check_observed()


def test_they_are_shown_a_turn_before_its_weights_move() -> None:
    engine = engine_of(SMALL)
    before = weights(engine)
    moved: list[bool] = []

    class Looks(Watches):
        def observe(self, turn: Turn) -> None:
            now = weights(engine)
            moved.append(any(not torch.equal(now[name], before[name]) for name in before))

    engine.gan.penalties = {"looks": Looks()}
    take(engine, "G")
    assert moved == []
    before = weights(engine)
    take(engine, "D")
    assert moved == [False]


# --- draws


SHAPES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
DRAWS = st.sampled_from([torch.rand, torch.randn])


def parts_of(count: int, rows: int) -> list[ShareGenerator]:
    return [ShareGenerator.of("a", 1, index=i, count=count, rows=rows) for i in range(count)]


@given(
    st.integers(1, 4), st.integers(1, 4), st.lists(st.tuples(SHAPES, DRAWS), min_size=1, max_size=3)
)
def test_shares_one_after_the_other_are_the_whole(
    count: int, rows: int, calls: list[tuple[tuple[int, ...], Any]]
) -> None:
    """Draw after draw, of whatever shape."""
    whole, shares = generator("a", 1), parts_of(count, rows)
    for shape, draw in calls:
        together = torch.cat([drawn(share, rows, *shape, draw=draw) for share in shares])
        assert torch.equal(together, drawn(whole, count * rows, *shape, draw=draw))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), SHAPES)
def test_joint_rows_are_those_of_the_joint_batch(
    count: int, rows: int, times: int, shape: tuple[int, ...]
) -> None:
    """Of real and fake in one pass, a share has its real rows and then its fake ones."""
    whole = drawn(generator("a", 1), times * count * rows, *shape)
    for index, share in enumerate(parts_of(count, rows)):
        mine = drawn(share, times * rows, *shape)
        blocks = [whole[i * count * rows :][index * rows :][:rows] for i in range(times)]
        assert torch.equal(mine, torch.cat(blocks))


@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 9))
def test_rows_that_are_no_shares_are_refused(count: int, rows: int, asked: int) -> None:
    share = parts_of(count, rows)[0]
    if asked % rows:
        with pytest.raises(ValueError, match=f"{asked} rows are not those of a share of {rows}"):
            drawn(share, asked)
    else:
        assert len(drawn(share, asked)) == asked


@given(st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_the_shares_of_a_batch_are_its_rows_in_order(
    accumulate: int, processes: int, rows: int
) -> None:
    """Each process divides its own rows, and each share knows its place among all."""
    total = accumulate * processes * rows
    whole = torch.arange(total)
    draws = Draws((0, 0, 3, 1))
    together, places, random = [], [], []
    for rank in range(processes):
        one = Processes()
        one.rank, one.count = rank, processes
        mine = whole.chunk(processes)[rank]
        for share in Batch(None, mine, mine[:, None]).shares(accumulate, one):
            assert share.real is None
            assert share.labels is not None
            together.append(share.labels)
            assert torch.equal(share.latent[:, 0], share.labels)
            places.append((share.index, share.count))
            random.append(drawn(draws.of(share, "x"), rows, 2))
    assert torch.equal(torch.cat(together), whole)
    assert places == [(i, accumulate * processes) for i in range(accumulate * processes)]
    assert torch.equal(torch.cat(random), drawn(draws("x"), total, 2))


def test_every_purpose_and_every_rollback_has_draws_of_its_own() -> None:
    engine = engine_of(SMALL)
    first = engine.draws(3, 1)
    engine.rollbacks = 1
    several = [first("x"), first("y"), engine.draws(3, 1)("x"), engine.draws(4, 1)("x")]
    numbers = [tuple(torch.rand(2, generator=random).tolist()) for random in several]
    assert len(set(numbers)) == 4
    assert torch.equal(torch.rand(3, generator=first("x")), torch.rand(3, generator=first("x")))
