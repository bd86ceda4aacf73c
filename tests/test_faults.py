"""What goes wrong outside of a run's own doing, and what it leaves behind.

Numbers that are not finite, memory and disks that do not suffice, files that are damaged or gone.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from gankit import cli
from gankit.build import build
from gankit.errors import CheckpointError, Diverged, SetupError
from gankit.losses import NonSaturating
from gankit.penalties import R1, Orthogonal
from gankit.spec import loads
from gankit.train import Trainer, checkpoint, player, run
from gankit.train.checkpoint import Checkpoint
from gankit.train.engine import Engine
from gankit.train.faults import Fault
from gankit.train.folder import RunFolder
from gankit.train.player import Player
from gankit.train.precision import LossScale
from tests.specs import IMAGES, POINTS
from tests.test_resume import (
    ALIVE,
    FAST,
    RUN,
    at_step,
    bits,
    content,
    differences,
    gankit,
    send,
    silent,
    spec_of,
    train,
    unplanned,
)


@pytest.fixture(autouse=True)
def _unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUN, "plan", unplanned)


# --- numbers that are not finite


class Sick(torch.autograd.Function):
    """Gives what it is given, and spoils its gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor, value: float) -> Tensor:
        context.value = value
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * context.value, None


When = Callable[[Engine, int], bool]

NAN, INF = float("nan"), float("inf")


@contextmanager
def ill(what: str, who: str, when: When, value: float = NAN) -> Iterator[None]:
    """A player's loss, gradient or penalty is not finite in some steps, counted from 0."""
    begin = Engine.step
    now = False

    def step(self: Engine, index: int) -> dict[str, Tensor]:
        nonlocal now
        now = when(self, index)
        return begin(self, index)

    def spoilt(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def called(*given: Any) -> Tensor:
            made = plain(*given)
            if not now:
                return made
            spoil: Any = Sick.apply
            return spoil(made, value) if what == "gradient" else made * value

        return called

    penalty: Any = {"D": R1, "G": Orthogonal}[who]
    method = {"D": "discriminator", "G": "generator"}[who]
    where, name = (penalty, "__call__") if what == "penalty" else (NonSaturating, method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", step)
        patch.setattr(where, name, spoilt(getattr(where, name)))
        yield


def at(*steps: int) -> When:
    return lambda engine, step: step in steps


def engine_of(text: str, *overrides: str) -> Engine:
    spec = loads(text, overrides)
    gan, data = build(spec)
    return Engine(gan, data, spec.train, torch.device("cpu"))


PENALTIES = ("penalty.r1={}", "penalty.orthogonal={}", "train.ema=0.5")


def moving(engine: Engine) -> object:
    """All that an update moves."""
    return {
        "weights": {name: network.state_dict() for name, network in engine.networks.items()},
        "optimizers": {name: p.optimizer.state_dict() for name, p in engine.players.items()},
        "average": engine.ema.average.state_dict(),
    }


def left_out(who: str, index: int) -> Callable[..., dict[str, Tensor]]:
    """`Player.update`, but for one update."""
    plain = Player.update

    def update(self: Player, *given: Any) -> dict[str, Tensor]:
        if self.name == who and given[-1][0] == index:
            self.turns_taken += 1
            return {}
        return plain(self, *given)

    return update


ILLNESSES = [(what, who) for what in ("loss", "gradient", "penalty") for who in "DG"]


@pytest.mark.parametrize(("what", "who"), ILLNESSES)
@pytest.mark.parametrize(
    ("value", "overrides"),
    [
        (NAN, ("optimizer=adam",)),
        (NAN, ("optimizer=adamw",)),
        (NAN, ("optimizer=sgd",)),
        (NAN, ("optimizer={use='sgd', momentum=0.9}",)),
        (INF, ("optimizer=adam", "train.clip=1.0", "train.accumulate=2")),
    ],
)
def test_an_update_that_is_not_finite_is_one_that_was_never_made(
    what: str, who: str, value: float, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, in weights, average and optimizers; at the very first step too."""
    overrides = (*PENALTIES, *overrides)
    for wrong in (0, 1):
        one, other = engine_of(POINTS, *overrides), engine_of(POINTS, *overrides)
        with ill(what, who, at(wrong), value):
            for step in range(3):
                one.step(step)
        with monkeypatch.context() as patch:
            patch.setattr(Player, "update", left_out(who, wrong))
            for step in range(3):
                other.step(step)
        assert differences(moving(one), moving(other)) == []
        fault = one.fault()
        assert fault is not None
        assert (fault.step, fault.player) == (wrong, who)


def test_an_update_that_is_not_left_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = player._step
    monkeypatch.setattr(player, "_step", lambda *given: plain(*given[:2], torch.tensor(True)))
    one, other = engine_of(POINTS), engine_of(POINTS)
    with ill("loss", "D", at(1)):
        for step in range(3):
            one.step(step)
    with monkeypatch.context() as patch:
        patch.setattr(Player, "update", left_out("D", 1))
        for step in range(3):
            other.step(step)
    assert differences(moving(one), moving(other)) != []


@pytest.mark.parametrize(("what", "who"), ILLNESSES)
def test_an_optimizer_that_cannot_leave_a_step_out_stays_finite(what: str, who: str) -> None:
    engine = engine_of(POINTS, *PENALTIES, "optimizer=rmsprop")
    engine.step(0)
    before = bits_of(engine.players[who].network)
    with ill(what, who, at(1)):
        engine.step(1)
    assert bits_of(engine.players[who].network) == before
    engine.step(2)
    leaves = [t for t in torch.utils._pytree.tree_leaves(moving(engine)) if isinstance(t, Tensor)]
    assert all(leaf.isfinite().all() for leaf in leaves)
    assert bits_of(engine.players[who].network) != before


def bits_of(network: nn.Module) -> object:
    return {name: bits(value) for name, value in network.state_dict().items()}


def test_of_both_players_who_move_at_once_only_the_sick_one_stands_still() -> None:
    one, other = (engine_of(POINTS, "schedule.simultaneous={}") for _ in range(2))
    with ill("gradient", "D", at(0)):
        one.step(0)
    other.step(0)
    assert bits_of(one.gan.generator) == bits_of(other.gan.generator)
    assert bits_of(one.gan.discriminator) == bits_of(engine_of(POINTS).gan.discriminator)
    assert bits_of(one.gan.discriminator) != bits_of(other.gan.discriminator)


# --- where it came from


def names_of(network: nn.Module) -> list[str]:
    """The layers that a batch goes through."""
    return [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize("text", [POINTS, IMAGES])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_layer_that_makes_numbers_not_finite_is_named(text: str, network: str) -> None:
    """Under a norm too, of whose weights other modules take care."""
    engine = engine_of(text)
    engine.step(0)
    layers = getattr(engine.gan, network)
    names = names_of(layers)
    assert len(names) > 1
    for step, name in enumerate(names, 1):
        if name.endswith(("query", "key")):
            continue  # softmax and gamma = 0 lie between it and the loss
        layer = layers.get_submodule(name)
        hook = layer.register_forward_hook(lambda module, given, output: output * NAN)
        engine.step(step)
        # Of D's turn, which comes first.
        assert engine.fault() == Fault(step, 0, "D", "loss", f"{network}.{name}")
        hook.remove()
        engine.faults.clear()


@pytest.mark.parametrize("who", "DG")
def test_a_parameter_whose_gradient_is_not_finite_is_named(who: str) -> None:
    network = {"D": "discriminator", "G": "generator"}[who]
    engine = engine_of(IMAGES)
    for step, (name, parameter) in enumerate(engine.players[who].network.named_parameters()):
        hook = parameter.register_hook(lambda gradient: gradient * INF)
        engine.step(step)
        shown = name.replace("parametrizations.weight.original", "weight")
        turn = {"D": 0, "G": 1}[who]
        assert engine.fault() == Fault(step, turn, who, "gradient", f"{network}.{shown}")
        hook.remove()
        engine.faults.clear()


def test_looking_for_the_layer_leaves_the_engine_as_it_is() -> None:
    engine = engine_of(POINTS)
    with ill("loss", "G", at(0)):
        engine.step(0)
    before = engine.batches_drawn, bits_of(engine.gan.generator), torch.get_rng_state()
    assert engine.fault() == engine.fault()
    after = engine.batches_drawn, bits_of(engine.gan.generator), torch.get_rng_state()
    assert differences(before, after) == []


def test_the_first_of_several_faults_is_told() -> None:
    engine = engine_of(POINTS, *PENALTIES)
    with ill("penalty", "G", at(1)), ill("gradient", "D", at(2)):
        for step in range(4):
            engine.step(step)
    fault = engine.fault()
    assert fault is not None
    assert (fault.step, fault.turn, fault.player, fault.what) == (1, 1, "G", "orthogonal")
    engine.faults.clear()
    assert engine.fault() is None


# --- nobody waits for the device


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for numbers."""

    WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += function.overloadpacket.__name__ in self.WAITS
        return function(*args, **(kwargs or {}))


class OnTheHost:
    """Data whose tensors are the host's own, so that nobody waits for them."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.image = data.image

    def __len__(self) -> int:
        return len(self.data)

    def images(self, indices: Tensor) -> Tensor:
        with _disable_current_modes():
            return self.data.images(indices)

    def labels(self, indices: Tensor) -> Tensor | None:
        with _disable_current_modes():
            return self.data.labels(indices)


def reads(trainer: Trainer, callback: Callable[[Any], object] = silent) -> list[int]:
    """The steps in which something was read from the device."""
    seen: list[int] = []
    trainer.engine.data = OnTheHost(trainer.engine.data)
    steps = iter(trainer)
    with Reads() as mode, pytest.MonkeyPatch.context() as patch:
        plain = Tensor.tolist

        def tolist(self: Tensor) -> Any:
            mode.count += 1
            return plain(self)

        patch.setattr(Tensor, "tolist", tolist)
        while True:
            before = mode.count
            record = next(steps, None)
            if record is None:
                return seen
            callback(record)
            if mode.count > before:
                seen.append(record.step)


def trainer_of(text: str, *overrides: str, **how: Any) -> Trainer:
    spec = loads(text, (*FAST, *overrides))
    return Trainer(*build(spec), spec.train, **{"tell": silent, **how})


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (POINTS, (*PENALTIES, "train.clip=1.0")),
        (IMAGES, ("train.precision=fp16", "optimizer=rmsprop", "augment.adaptive={}")),
        (IMAGES, ("penalty.lecam={}", "train.accumulate=2", "train.top_k=0.5")),
    ],
)
def test_nothing_is_read_from_the_device_between_logs_and_saves(
    text: str, overrides: tuple[str, ...]
) -> None:
    """What is to be read there is a fault as well, so nobody waits to see whether there is one."""
    often = ("train.log=4", "train.checkpoint=6", "train.steps=9", "train.samples=9")
    assert reads(trainer_of(text, *overrides, *often)) == [4, 6, 8, 9]
    curious = reads(
        trainer_of(text, *overrides, *often),
        lambda record: record.step == 3 and record.numbers(),
    )
    assert curious == [3, 4, 6, 8, 9], "to look at a record is to wait for it"


# --- back to the last good state, and on


def told(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def first_time(step: int) -> When:
    """A fault that has passed when the step is taken again."""
    return lambda engine, index: index == step and not engine.rollbacks


DENSE = ("train.log=1", "train.checkpoint=4", "train.steps=12")


@pytest.mark.parametrize(("what", "who"), ILLNESSES)
def test_a_fault_that_passes_is_survived_with_other_draws(
    what: str, who: str, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, POINTS, *PENALTIES, *DENSE, *ALIVE)
    run(spec, tmp_path / "sound")
    said: list[str] = []
    drawn: dict[tuple[int, int], int] = {}

    def passes(engine: Engine, step: int) -> bool:
        drawn[engine.rollbacks, step] = engine.draws(step, 0)("latent").initial_seed()
        return first_time(5)(engine, step)

    with ill(what, who, passes):
        outcome = run(spec, tmp_path / "run", tell=said.append)
    assert outcome.finished
    named = {"loss": "loss", "gradient": "gradient", "penalty": {"D": "r1", "G": "orthogonal"}[who]}
    (back,) = [line for line in said if "back to" in line]
    assert back.startswith(f"{who}'s {named[what]} is not finite at step 6")
    assert back.endswith("; back to step 4, rollback 1")
    assert list(drawn) == [*((0, step) for step in range(6)), *((1, step) for step in range(4, 12))]
    assert drawn[1, 4] != drawn[0, 4]
    one, other = told(tmp_path / "sound"), told(tmp_path / "run")
    assert [line["step"] for line in other] == list(range(1, 13))
    # What was told of step 5 before is gone: it has been taken again.
    same = [a == b for a, b in zip(one, other, strict=True)]
    assert same == [True] * 4 + [False] * 8
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


def test_metrics_of_the_steps_between_are_gone_whenever_the_fault_is_read(tmp_path: Path) -> None:
    """It is read at the log of step 6 and at the save of step 8, with the same end."""
    ends: list[object] = []
    for log in (3, 5):
        spec = spec_of(tmp_path, POINTS, *DENSE, f"train.log={log}", "train.samples=100")
        with ill("loss", "D", first_time(5)):
            run(spec, tmp_path / str(log))
        assert [line["step"] for line in told(tmp_path / str(log))] == [*range(log, 12, log), 12]
        end = content(tmp_path / str(log), 12)
        ends.append((end["weights"], end["state"]))
    assert differences(ends[0], ends[1]) == []


@pytest.mark.parametrize("stop", [7, 8, 10])
def test_a_run_that_went_back_continues_exactly(stop: int, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, POINTS, *DENSE)
    with ill("gradient", "G", first_time(5)):
        run(spec, tmp_path / "whole")
    with ill("gradient", "G", first_time(5)):
        assert run(spec, tmp_path / "cut", watch=send(signal.SIGTERM, stop)).step == stop
    outcome = run(spec, tmp_path / "cut")
    assert outcome.finished
    assert differences(content(tmp_path / "cut", 12), content(tmp_path / "whole", 12)) == []


def test_a_run_that_forgets_how_often_it_went_back_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Engine.load_state
    spec = spec_of(tmp_path, POINTS, *DENSE)
    with ill("gradient", "G", first_time(5)):
        run(spec, tmp_path / "whole")
        run(spec, tmp_path / "cut", watch=send(signal.SIGTERM, 7))
    monkeypatch.setattr(
        Engine, "load_state", lambda self, state: plain(self, {**state, "rollbacks": 0})
    )
    run(spec, tmp_path / "cut")
    assert differences(content(tmp_path / "cut", 12), content(tmp_path / "whole", 12)) != []


@pytest.mark.parametrize(("what", "who"), ILLNESSES)
@pytest.mark.parametrize("rollbacks", [0, 2])
def test_a_fault_that_stays_ends_the_run_and_is_reported(
    what: str, who: str, rollbacks: int, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, POINTS, *PENALTIES, f"train.rollbacks={rollbacks}")
    tried: list[int] = []

    def sixth(engine: Engine, step: int) -> bool:
        if step == 5:
            tried.append(engine.rollbacks)
        return step == 5

    with ill(what, who, sixth):
        said = train(spec, tmp_path / "run")
    assert said.code == 6
    assert tried == list(range(rollbacks + 1))
    named = {"loss": "loss", "gradient": "gradient", "penalty": {"D": "r1", "G": "orthogonal"}[who]}
    reason = f"{who}'s {named[what]} is not finite at step 6"
    assert f"error: {reason}" in said.err
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["reason"].startswith(reason)) == ("diverged", True)
    if rollbacks:
        assert "(after 2 rollbacks)" in status["reason"].splitlines()[0]
    found, complaints = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert (found and found.step, complaints) == (4, [])
    # Well again, the same command goes on from there.
    assert train(spec, tmp_path / "run").code == 0


def test_the_report_names_the_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Trainer.__init__

    def made(self: Trainer, gan: Any, *given: Any, **how: Any) -> None:
        layer = gan.discriminator.stages.dense_1_2.layer
        layer.register_forward_hook(lambda module, given, output: output * NAN)
        plain(self, gan, *given, **how)

    monkeypatch.setattr(Trainer, "__init__", made)
    said = train(spec_of(tmp_path), tmp_path / "run")
    assert said.code == 6
    where = "D's loss is not finite at step 1, first in discriminator.stages.dense_1_2.layer"
    assert where in said.err
    assert where in json.loads((tmp_path / "run" / "status.json").read_text())["reason"]


def test_weights_that_are_not_finite_are_no_state_to_go_on_from(tmp_path: Path) -> None:
    """Not by an update, which would have been left out, but by whatever else there may be."""
    spec = spec_of(tmp_path)
    spoilt: list[int] = []

    def watch(step: int, numbers: object, speed: float) -> None:
        if step == 6 and not spoilt:
            spoilt.append(step)
            for trainer in trainers:
                with torch.no_grad():
                    next(trainer.engine.gan.generator.parameters()).fill_(NAN)

    trainers: list[Trainer] = []
    plain = Trainer.__init__

    def made(self: Trainer, *given: Any, **how: Any) -> None:
        trainers.append(self)
        plain(self, *given, **how)

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", made)
        assert run(spec, tmp_path / "run", watch=watch, tell=said.append).finished
    assert any("back to step 4, rollback 1" in line for line in said)


# --- fp16: a scale that overflows is no fault


def scales(engine: Engine) -> dict[str, float]:
    return {name: float(each.scale.value) for name, each in engine.players.items()}


@pytest.mark.parametrize(("who", "other"), [("D", "G"), ("G", "D")])
def test_an_overflow_is_left_out_and_halves_the_players_own_scale(who: str, other: str) -> None:
    engine = engine_of(POINTS, "train.precision=fp16")
    for each in engine.players.values():
        each.scale.value.fill_(2.0**10)
    engine.step(0)
    before = scales(engine)
    assert before == {"D": 2.0**10, "G": 2.0**10}
    weights = bits_of(engine.players[who].network)
    with ill("gradient", who, at(1), INF):
        engine.step(1)
    assert scales(engine) == {who: 2.0**9, other: 2.0**10}
    assert bits_of(engine.players[who].network) == weights
    assert engine.fault() is None
    engine.step(2)
    assert bits_of(engine.players[who].network) != weights


def test_a_scale_that_both_players_share_is_caught() -> None:
    engine = engine_of(POINTS, "train.precision=fp16")
    engine.players["G"].scale = engine.players["D"].scale
    engine.players["D"].scale.value.fill_(2.0**10)
    with ill("gradient", "D", at(0), INF):
        engine.step(0)
    assert scales(engine) == {"D": 2.0**9, "G": 2.0**9}


def test_a_run_in_fp16_survives_overflows_until_the_scale_is_at_its_floor(tmp_path: Path) -> None:
    """Sixteen halvings from 2^16 on; then the scale is no more to blame."""
    spec = spec_of(tmp_path, POINTS, "train.precision=fp16", "train.steps=30", "train.rollbacks=0")
    with ill("gradient", "D", lambda engine, step: True, INF), pytest.raises(Diverged) as caught:
        run(spec, tmp_path / "run")
    assert (caught.value.player, caught.value.step, caught.value.what) == ("D", 17, "gradient")
    lines = told(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(2, 17, 2))
    assert all(line["gradient_D"] is None for line in lines), "no number, and valid JSON"
    assert all(line["gradient_G"] is not None for line in lines[1:])


def test_the_scale_doubles_after_its_patience_and_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "PATIENCE", 3)
    engine = engine_of(POINTS, "train.precision=fp16")
    for each in engine.players.values():
        each.scale.value.fill_(4.0)
    for step in range(4):
        engine.step(step)
    assert scales(engine) == {"D": 8.0, "G": 8.0}
    other = engine_of(POINTS, "train.precision=fp16")
    other.load_state(engine.state())
    engine.step(4), other.step(4)
    assert scales(other) == scales(engine) == {"D": 8.0, "G": 8.0}
    engine.step(5), other.step(5)
    assert scales(other) == scales(engine) == {"D": 16.0, "G": 16.0}


# --- memory


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
]


def refuse(error: BaseException) -> Callable[[], NoReturn]:
    def act() -> NoReturn:
        raise error

    return act


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("step", "kept"), [(1, None), (6, 4)])
def test_where_memory_does_not_suffice_it_is_said_what_batch_would_fit(
    error: BaseException, step: int, kept: int | None, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path)
    with at_step(step, refuse(error)):
        said = train(spec, tmp_path / "run")
    assert said.code == 4
    assert "error: out of memory on cpu; the last checkpoint is kept\n" in said.err
    assert "train.accumulate=2 would fit, and keeps the batch of 8: about 0.0 GiB" in said.err
    assert "or train.batch=4" in said.err
    assert "Traceback" not in said.err
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("failed", step - 1)
    found, complaints = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert (found and found.step, complaints) == (kept, [])
    assert train(spec, tmp_path / "run").code == 0


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_does_not_suffice_for_the_networks_is_told_likewise(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUN, "build", lambda *given: refuse(error)())
    said = train(spec_of(tmp_path), tmp_path / "run")
    assert (said.code, "or train.batch=4" in said.err) == (4, True)


def test_another_error_of_torch_is_a_bug_and_looks_like_one(tmp_path: Path) -> None:
    with at_step(1, refuse(RuntimeError("shapes"))), pytest.raises(RuntimeError, match="shapes"):
        train(spec_of(tmp_path), tmp_path / "run")


# --- disks


def saved(step: int) -> Checkpoint:
    return Checkpoint(step, {"generator": {"w": torch.arange(4.0) + step}}, {"step": step})


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("where", "name", "calls", "error"),
    [
        (checkpoint, "save_file", 1, FULL),
        (checkpoint, "save_file", 1, checkpoint.SafetensorError("I/O error: No space left")),
        (torch, "save", 1, RuntimeError("PytorchStreamWriter failed writing: No space left")),
        (os, "fsync", 5, OSError(errno.EIO, os.strerror(errno.EIO))),
        (Path, "mkdir", 2, FULL),
        (Path, "write_text", 2, FULL),
        (Path, "rename", 1, FULL),
    ],
)
def test_a_save_that_fails_leaves_what_was_there(
    where: Any, name: str, calls: int, error: Exception, tmp_path: Path
) -> None:
    first = checkpoint.save(tmp_path, saved(1))
    plain = getattr(where, name)
    left = 0

    def failing(*given: Any, **how: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise error
        return plain(*given, **how)

    for left in range(1, calls + 1):  # noqa: B007  (it counts down within)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, name, failing)
            with pytest.raises(SetupError) as caught:
                checkpoint.save(tmp_path, saved(2))
        problem, advice = str(caught.value).splitlines()
        assert problem.startswith(f"cannot save a checkpoint in {tmp_path}: ")
        # Four numbers of four bytes.
        assert advice.startswith("  it needs about 16 bytes, ")
        assert advice.endswith("; earlier checkpoints are as they were")
        assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
        assert differences(dict(checkpoint.load(first).weights), dict(saved(1).weights)) == []
    checkpoint.save(tmp_path, saved(2))
    assert [found.name for found in sorted(tmp_path.iterdir())] == ["step_1", "step_2"]


def test_a_save_that_leaves_half_of_it_behind_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.shutil, "rmtree", silent)  # type: ignore[attr-defined]
    monkeypatch.setattr(torch, "save", lambda *given: refuse(FULL)())
    with pytest.raises(SetupError):
        checkpoint.save(tmp_path, saved(2))
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished_2"]


@contextmanager
def refusing(folder: Path, number: int) -> Iterator[list[str]]:
    """The disk is full when something in a folder is written for the `number`-th time."""
    done: list[str] = []

    def patched(plain: Callable[..., Any], name: str, concerns: Callable[..., bool]) -> Any:
        def called(*given: Any, **how: Any) -> Any:
            if concerns(*given, **how):
                done.append(name)
                if len(done) == number:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return plain(*given, **how)

        return called

    def under(path: Any, *given: Any, **how: Any) -> bool:
        return str(path).startswith(str(folder))

    def written(path: Any, mode: Any = "r", *given: Any, **how: Any) -> bool:
        return under(path) and isinstance(mode, str) and not mode.startswith("r")

    def always(*given: Any, **how: Any) -> bool:
        return True

    with pytest.MonkeyPatch.context() as patch:
        for where, name, concerns in (
            (Path, "open", written),
            (builtins, "open", written),
            (Path, "mkdir", under),
            (Path, "rename", under),
            (Path, "replace", under),
            (os, "open", under),
            (os, "fsync", always),
            (torch, "save", always),
            (checkpoint, "save_file", always),
        ):
            patch.setattr(where, name, patched(getattr(where, name), name, concerns))
        yield done


SHORT = ("train.steps=3", "train.checkpoint=2", "train.samples=3", "train.log=2")
WRITES = 75
"""How often that run writes, which is more or less so often: threads decide."""


@pytest.mark.parametrize(
    "writes",
    [range(1, WRITES, 5), pytest.param(range(1, WRITES), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_wherever_a_disk_is_full_it_is_told_and_the_same_command_continues(
    writes: range, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, POINTS, *SHORT)
    with refusing(tmp_path / "whole", 0) as done:
        run(spec, tmp_path / "whole")
    assert abs(len(done) - WRITES) <= 5, "so that the range above goes to the end"
    for number in writes:
        folder = tmp_path / str(number)
        problem = ""
        with refusing(folder, number) as done:
            try:
                run(spec, folder)
            except SetupError as error:
                problem = str(error)
        if number <= len(done):
            assert "No space left on device" in problem, f"{done[number - 1]} failed unnoticed"
        run(spec, folder)
        assert differences(content(folder, 3), content(tmp_path / "whole", 3)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many bytes, which can be made larger."""
    path = tmp_path / "disk"
    path.mkdir()
    if sys.platform != "linux" or os.geteuid() or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    mounted = False

    def mount(size: int) -> Path:
        nonlocal mounted
        options = f"size={size}" + (",remount" if mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
        mounted = True
        return path

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_real_disk_that_is_full(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    spec = spec_of(tmp_path, POINTS, "generator.width=64", "discriminator.width=64", "train.log=4")
    assert train(spec, tmp_path / "whole").code == 0
    whole = tmp_path / "whole" / "checkpoints" / "step_4"
    one = sum(file.stat().st_size for file in whole.parent.glob("step_12/*"))
    disk = small_disk(one + one // 2)
    said = train(spec, disk / "run")
    assert said.code == 4
    assert f"error: cannot save a checkpoint in {disk / 'run' / 'checkpoints'}: " in said.err
    needed = checkpoint.load(whole.with_name("step_12")).bytes
    assert f"it needs about {needed:,} bytes, " in said.err
    assert one * 0.8 < needed <= one
    assert [path.name for path in (disk / "run" / "checkpoints").iterdir()] == ["step_4"]
    small_disk(20 * one)
    again = train(spec, disk / "run")
    assert (again.code, "continues at step 4 of 12" in again.err) == (0, True)
    end = content(disk / "run", 12)
    assert differences(end, content(tmp_path / "whole", 12)) == []


def test_of_a_checkpoint_and_metrics_that_find_no_room_the_checkpoint_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can say how much room is needed."""

    def append(file: Path, record: Mapping[str, Any]) -> None:
        if record["step"] > 4:
            raise FULL

    monkeypatch.setattr(torch, "save", lambda *given: refuse(FULL)())
    monkeypatch.setattr(RunFolder, "append", staticmethod(append))
    said = train(spec_of(tmp_path), tmp_path / "run")
    assert said.code == 4
    assert "error: cannot save a checkpoint in " in said.err
    assert "  it needs about " in said.err


# --- checkpoints that are not what was written


def truncate(folder: Path) -> None:
    file = folder / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "generator.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def unmanifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def lose(folder: Path) -> None:
    (folder / "state.pt").unlink()


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def stale(folder: Path) -> None:
    """It holds what belongs under another name."""
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step_8"), folder)


def unfitting(folder: Path) -> None:
    """What a manifest must not say."""
    (folder / "manifest.json").write_text('{"step": 12, "sha256": {}}')


DAMAGES = [truncate, flip, unmanifest, lose, empty, stale, unfitting]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps that nothing has happened to."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RUN, "plan", unplanned)
        assert train(spec_of(folder), folder / "run").code == 0
    return folder / "run"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_it_used(
    damage: Callable[[Path], None], finished: Path, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    for _ in range(2):  # once more, where there is one set aside already
        damage(folder / "step_12")
        said = train(spec, tmp_path / "run")
        assert said.code == 0
        assert f"\n{folder}/step_12" in said.err
        assert "; set aside as step_12.unsound\n" in said.err
        assert "continues at step 8 of 12\n" in said.err
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["step_12", "step_12.unsound", "step_8"]
        assert differences(content(tmp_path / "run", 12), content(finished, 12)) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_no_checkpoint_is_sound_nothing_is_begun_anew(
    damage: Callable[[Path], None], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    if damage is stale:
        (folder / "step_12").rename(folder / "step_13")
        (folder / "step_8").rename(folder / "step_12")
    else:
        damage(folder / "step_8")
        damage(folder / "step_12")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")}
    for _ in range(2):
        refused = train(spec_of(tmp_path), tmp_path / "run")
        assert refused.code == 5
        assert "error: no checkpoint is sound\n  " in refused.err
        assert refused.err.count(f"  {folder}/step_") == 2, "both are named"
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.jsonl")} == before
    assert len(list(folder.iterdir())) == 2, "and are where they were"


def test_a_flipped_bit_that_nobody_looks_for_is_caught(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the sums it would go into the weights."""
    folder = shutil.copytree(finished / "checkpoints" / "step_12", tmp_path / "step_12")
    flip(folder)
    monkeypatch.setattr(checkpoint, "_sha256", lambda file: Anything())
    found = checkpoint.load(folder)
    sound = checkpoint.load(finished / "checkpoints" / "step_12")
    assert len(differences(dict(found.weights), dict(sound.weights))) == 1


class Anything:
    """Equal to all there is."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


WHOLE = saved(7)


@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed_or_harmless(file: int, place: float, bit: int) -> None:
    with TemporaryDirectory() as name:
        folder = checkpoint.save(Path(name), WHOLE)
        damaged = sorted(folder.iterdir())[file]
        content = bytearray(damaged.read_bytes())
        if not content:
            return
        content[int(place * len(content))] ^= 1 << bit
        damaged.write_bytes(content)
        try:
            found, complaints = checkpoint.latest(Path(name))
        except CheckpointError:
            return
        assert damaged.name == "manifest.json", "all other files have a sum"
        assert found is not None
        assert complaints == []
        same = (found.step, dict(found.weights), dict(found.state))
        assert differences(same, (7, dict(WHOLE.weights), dict(WHOLE.state))) == []


# --- what a run needs is gone when it goes on


PLUGIN = """
import gankit
from gankit.losses import NonSaturating


@gankit.loss("elsewhere")
class Elsewhere(NonSaturating):
    pass
"""

FOLDER = """
gankit = 1
data = {{ use = "folder", root = "{root}", size = 8 }}
loss = "hinge"
generator = {{ use = "mlp", width = 4 }}
discriminator = {{ use = "mlp", width = 4 }}
train = {{ batch = 4, steps = {steps} }}
"""


def test_a_plugin_file_that_is_gone(tmp_path: Path) -> None:
    plugin = tmp_path / "part.py"
    plugin.write_text(PLUGIN)
    text = POINTS.replace('"points"', '"points"\nplugins = ["part.py"]')
    spec = tmp_path / "spec.toml"
    spec.write_text(text.replace('use = "nonsaturating"', 'use = "elsewhere"'))
    command = ("train", spec, "--run", tmp_path / "run", "--device", "cpu")
    assert gankit(*command, "--set", "train.steps=2").code == 0
    plugin.rename(tmp_path / "other.py")
    said = gankit(*command, "--set", "train.steps=4")
    assert said.code == 4
    assert f"error: plugin file {plugin} cannot be read: No such file or directory\n" in said.err
    (tmp_path / "other.py").rename(plugin)
    assert gankit(*command, "--set", "train.steps=4").code == 0


def test_data_that_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    for index in range(8):
        Picture.new("RGB", (8, 8), (index, index, index)).save(root / f"{index}.png")
    spec = tmp_path / "spec.toml"
    command = ("train", spec, "--run", tmp_path / "run", "--device", "cpu")
    spec.write_text(FOLDER.format(root=root, steps=2))
    assert gankit(*command).code == 0
    root.rename(tmp_path / "moved")
    spec.write_text(FOLDER.format(root=root, steps=4))
    said = gankit(*command)
    assert said.code == 4
    assert f"error: {root}: no such folder\n  set data.root" in said.err
    (tmp_path / "moved").rename(root)
    (root / "3.png").write_text("no picture")
    said = gankit(*command)
    assert (said.code, f"{root / '3.png'}" in said.err) == (4, True)


def test_a_package_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, IMAGES, "train.steps=1")
    assert train(spec, tmp_path / "run").code == 0
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    said = train(spec_of(tmp_path, IMAGES, "train.steps=2"), tmp_path / "run")
    assert said.code == 4
    assert "the digits data set needs a package that is not installed\n  pip install" in said.err


# --- wherever it is run


SPECIAL = "a rún, with spaces"


def shell(tmp_path: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of shell in which $GANKIT_TRAIN is the command."""
    (tmp_path / f"{SPECIAL}.toml").write_text(POINTS, encoding="utf-8")
    words = [sys.executable, "-m", "gankit", "train", f"{SPECIAL}.toml", "--run", SPECIAL]
    words += ["--device", "cpu", "--set", "train.log=1", "--set", "train.samples=100"]
    root = str(Path(checkpoint.__file__).parent.parent.parent)
    return subprocess.run(
        ["bash", "-c", command.replace("$GANKIT_TRAIN", shlex.join(words))],
        env={**os.environ, "PYTHONPATH": root, **environment},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("$GANKIT_TRAIN 2>&1 | head -n 2; exit ${PIPESTATUS[0]}", {"LC_ALL": "C", "LANG": "C"}),
        pytest.param("$GANKIT_TRAIN 2>&-", {}, marks=pytest.mark.slow),
        pytest.param("$GANKIT_TRAIN 2>/dev/full", {"LC_ALL": "POSIX"}, marks=pytest.mark.slow),
    ],
)
def test_nobody_has_to_listen(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    """Neither a terminal nor a locale is needed, and a reader may go away."""
    ran = shell(tmp_path, command, **environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    if "head" in command:
        assert ran.stdout.startswith(f"points in {SPECIAL} on cpu\nstep 1/20")
        assert len(ran.stdout.splitlines()) == 2
    status = json.loads((tmp_path / SPECIAL / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 20)
    assert len(told(tmp_path / SPECIAL)) == 20


class Gone(io.StringIO):
    """A terminal that has been closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_is_told_to_nobody_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(POINTS)
    words = ["gankit", "train", str(file), "--run", str(tmp_path / "run"), "--device", "cpu"]
    monkeypatch.setattr(sys, "stderr", Gone())
    for more, code in (((), 0), (("--set", "seed=1"), 5)):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code or 0) == code, "the code is told where the message is not"
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    monkeypatch.setattr("gankit.cli.train.tell", partial(print, file=Gone()))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        cli.main()
