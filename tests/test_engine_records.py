"""A fault as one number on the device: it is read as it was noted, and the first one stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.build import GAN
from gankit.slots import Turn
from gankit.train import faults as faults_module
from gankit.train.engine import Engine
from gankit.train.faults import Fault, Faults, readable
from tests.engines import CPU, SMALL, engine_of, take

NAMES: dict[str, list[str]] = {
    "D": [*(f"gradient layer_{i}.weight" for i in range(40)), "D_real", "D_fake", "r1_D", "loss_D"],
    "G": [*(f"gradient stage_{i}.bias" for i in range(7)), "loss_G"],
}
TRUE = torch.tensor(True)
STEPS = st.integers(0, 2**31) | st.sampled_from([0, 1, 2**20, 2**31 - 1, 2**31])
TURNS = st.integers(0, 254) | st.integers(0, 3)


@st.composite
def notes(draw: st.DrawFn) -> tuple[int, int, str, list[int]]:
    """A step, a turn, a player, and which of its numbers are not finite."""
    player = draw(st.sampled_from("DG"))
    places = st.lists(st.integers(0, len(NAMES[player]) - 1), max_size=4)
    return draw(STEPS), draw(TURNS), player, draw(places)


def note(faults: Faults, step: int, turn: int, player: str, bad: Sequence[int]) -> None:
    finite = torch.ones(len(NAMES[player]), dtype=torch.bool)
    finite[list(bad)] = False
    faults.note(step, turn, player, finite, TRUE)


def expected(noted: Sequence[tuple[int, int, str, list[int]]]) -> Fault | None:
    """Without bits: the first update that had one, and of its numbers the last."""
    for step, turn, player, bad in noted:
        if bad:
            what, _, layer = NAMES[player][max(bad)].partition(" ")
            return Fault(step, turn, player, what, layer)
    return None


def check_records(noted: Sequence[tuple[int, int, str, list[int]]]) -> None:
    faults = Faults(CPU)
    for one in noted:
        note(faults, *one)
    assert faults.read(NAMES) == expected(noted)
    assert faults.read(NAMES) == expected(noted), "reading changes nothing"
    faults.clear()
    assert faults.read(NAMES) is None


@given(st.lists(notes(), max_size=5))
def test_what_is_noted_is_read(noted: list[tuple[int, int, str, list[int]]]) -> None:
    check_records(noted)


class Newest(Faults):
    """Keeps the last fault."""

    def note(self, *given: object) -> None:  # type: ignore[override]
        kept, self.record = self.record, torch.zeros_like(self.record)
        super().note(*given)  # type: ignore[arg-type]
        self.record = torch.where(self.record > 0, self.record, kept)


class Front(Faults):
    """Tells the first of several numbers."""

    def note(self, step: int, turn: int, player: str, finite: Tensor, counts: Tensor) -> None:
        alone = torch.ones_like(finite)
        alone[finite.to(torch.uint8).argmin()] = finite.all()
        super().note(step, turn, player, alone, counts)


class Narrow(Faults):
    """A record of 32 bits."""

    def note(self, *given: object) -> None:  # type: ignore[override]
        super().note(*given)  # type: ignore[arg-type]
        self.record = self.record & 0xFFFFFFFF


@pytest.mark.parametrize("broken", [Newest, Front, Narrow])
def test_twin_records_that_keep_something_else_are_caught(
    broken: type[Faults], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "Faults", broken)
    with pytest.raises(AssertionError):
        check_records([(9, 1, "D", [3, 40, 5]), (10, 0, "G", [1])])


@given(STEPS, st.integers(255, 10**6), st.sampled_from("DG"))
def test_more_turns_than_there_is_room_for_leave_the_step_as_it_is(
    step: int, turn: int, player: str
) -> None:
    faults = Faults(CPU)
    note(faults, step, turn, player, [0])
    told = faults.read(NAMES)
    assert told is not None
    assert (told.step, told.turn, told.player) == (step, 255, player)


def test_a_million_numbers_have_room() -> None:
    finite = torch.ones(2**20, dtype=torch.bool)
    for place in (0, 2**20 - 1):
        finite[place] = False
        faults = Faults(CPU)
        faults.note(2**31, 254, "G", finite, TRUE)
        names = {"G": ["x"] * place + ["loss"]}
        told = faults.read(names)
        assert told == Fault(2**31, 254, "G", "loss")
        finite[place] = True


def test_what_does_not_count_is_not_noted() -> None:
    faults = Faults(CPU)
    finite = torch.tensor([True, False])
    faults.note(1, 0, "D", finite, torch.tensor(False))
    assert faults.read({"D": ["a", "b"]}) is None
    faults.note(2, 0, "D", finite, TRUE)
    told = faults.read({"D": ["a", "b"]})
    assert told is not None
    assert (told.step, told.what) == (2, "b")


# --- in the engine


class Spoils:
    """A penalty that makes numbers not finite, for a player at a step."""

    every = 1

    def __init__(self, player: str, step: int, where: str) -> None:
        self.players, self.step, self.where = player, step, where

    def __call__(self, turn: Turn, /) -> Tensor:
        logits = turn.discriminator(turn.fake)
        if turn.step != self.step:
            return 0 * logits.sum()
        if self.where == "value":
            return logits.sum() * float("inf")
        # A root at 0: its value is finite, and its gradient is not.
        return (0 * logits).abs().sum().sqrt()


@pytest.mark.parametrize("player", ["D", "G"])
@pytest.mark.parametrize(("where", "what"), [("value", "spoils"), ("slope", "gradient")])
def test_values_go_before_gradients_and_of_these_the_last_layer(
    player: str, where: str, what: str
) -> None:
    engine = engine_of(SMALL)
    engine.gan.penalties = {"spoils": Spoils(player, 4, where)}
    for step in range(3, 7):
        engine.step(step)
    told = engine.fault()
    assert told is not None
    assert (told.player, told.step, told.turn) == (player, 4, "DG".index(player))
    assert told.what == what
    if what == "gradient":
        network = "discriminator" if player == "D" else "generator"
        last = list(dict(engine.networks[player].named_parameters()))[-1]
        assert told.layer == f"{network}.{readable(last)}"


class TwoHeads(nn.Module):
    adversarial: Mapping[str, float] = {"logits": 1.0}

    def __init__(self) -> None:
        super().__init__()
        self.judge, self.other = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.flatten(1)
        return {"logits": self.judge(x), "other": self.other(x)}


@pytest.mark.parametrize(("step", "what"), [(0, "lazy"), (2, "lazy"), (1, None)])
def test_a_fault_is_the_same_whichever_parameters_had_gradients_since(
    step: int, what: str | None
) -> None:
    """A head that a lazy penalty alone looks at has none in the turns between."""

    class Lazy:
        players, every = "D", 2

        def __call__(self, turn: Turn, /) -> Tensor:
            return turn.fake_heads["other"].sum() * (float("nan") if turn.step == step else 1.0)

    made = engine_of(SMALL)
    gan = GAN(
        image=made.gan.image,
        generator=made.gan.generator,
        discriminator=TwoHeads(),
        loss=made.gan.loss,
        penalties={"lazy": Lazy()},
    )
    engine = Engine(gan, made.data, made.train, CPU)
    for count in range(4):
        take(engine, "D", step=count)
        told = engine.fault()
        seen = None if told is None else (told.step, told.what)
        assert seen == ((step, what) if what and count >= step else None)


def test_the_bits_leave_room_for_what_a_run_has() -> None:
    room = 63 - (faults_module._INDEX + 1 + faults_module._TURN)
    assert 2**room > 2**31 + 1
