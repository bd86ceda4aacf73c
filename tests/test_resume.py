"""Stopped in whichever way, the same command goes on as if it had not been: bit for bit.

Equal means equal weights, average, optimizers and parts, and the same metrics and samples. What the
clock decides is in timing.jsonl alone.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from gankit import cli, recipes
from gankit.build import build
from gankit.errors import CheckpointError, SpecError
from gankit.registry import registry
from gankit.spec import Spec, dumps, load, loads
from gankit.train import Outcome, Trainer, checkpoint, run
from gankit.train.checkpoint import Checkpoint
from gankit.train.engine import Engine
from gankit.train.folder import RunFolder
from tests.specs import POINTS

# The package has a function of the same name.
RUN = importlib.import_module("gankit.train.run")

FAST = ("train.log=2", "train.checkpoint=4", "train.samples=8", "train.steps=12")


def unplanned(spec: Spec) -> None:
    """In place of the plan, which takes longer than these runs, and has tests of its own."""


@pytest.fixture(autouse=True)
def _unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUN, "plan", unplanned)


def spec_of(folder: Path, text: str = POINTS, *overrides: str) -> Spec:
    file = folder / "spec.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, (*FAST, *overrides))


def silent(*anything: object, **how: object) -> None:
    """Who listens to nothing."""


# --- what equal means


def differences(one: object, other: object) -> list[str]:
    """Where two trees of tensors and plain values differ, to the bit."""
    (leaves, form), (others, other_form) = map(tree_flatten_with_path, (one, other))
    if form != other_form:
        return ["the form"]
    return [
        keystr(path) for (path, a), (_, b) in zip(leaves, others, strict=True) if bits(a) != bits(b)
    ]


def bits(value: object) -> object:
    """What is the same for two values that are the same to the bit; NaN is itself."""
    if not isinstance(value, Tensor):
        return repr(value)
    plain = value.detach().cpu().contiguous()
    return value.dtype, value.shape, plain.flatten().view(torch.uint8).numpy().tobytes()


def content(folder: Path, step: int) -> dict[str, object]:
    """What must be the same in a run folder whether or not the run was stopped."""
    saved = checkpoint.load(folder / "checkpoints" / f"step_{step}")
    files = [folder / "metrics.jsonl", *sorted((folder / "samples").iterdir())]
    return {
        "weights": dict(saved.weights),
        "state": dict(saved.state),
        "numbers": dict(saved.numbers),
        "spec": saved.spec,
        **{file.name: file.read_bytes() for file in files},
    }


def test_equal_is_equal_to_the_bit() -> None:
    zeros = {"a": torch.zeros(2), "b": [1, float("nan")]}
    assert differences(zeros, {"a": torch.zeros(2), "b": [1, float("nan")]}) == []
    assert differences(zeros, {"a": -torch.zeros(2), "b": [1, float("nan")]}) == ["['a']"]
    assert differences(zeros, {"a": torch.zeros(2).double(), "b": [1, 2.0]}) == [
        "['a']",
        "['b'][1]",
    ]
    assert differences(zeros, {"a": torch.zeros(2)}) == ["the form"]


# --- every two parts that can meet, meet


Row = tuple[str, ...]


def pairs(row: Row) -> set[tuple[tuple[int, str], ...]]:
    """Every two of its values, with the columns they are in."""
    return set(itertools.combinations(enumerate(row), 2))


def all_pairs(columns: Sequence[Sequence[str]]) -> set[tuple[tuple[int, str], ...]]:
    """Every two values of different columns."""
    numbered = [[(index, value) for value in column] for index, column in enumerate(columns)]
    two = itertools.combinations(numbered, 2)
    return {pair for first, second in two for pair in itertools.product(first, second)}


def cover(*columns: Sequence[str]) -> list[Row]:
    """Few rows in which every two values of different columns meet.

    Greedy: a row starts from a pair that has not met, and takes in every other column the value
    that brings most that have not.
    """
    left = all_pairs(columns)
    rows: list[Row] = []
    while left:
        chosen = dict(min(left))
        for index, column in enumerate(columns):
            if index not in chosen:
                chosen[index] = max(
                    column, key=lambda value: len(left & _with(chosen, (index, value)))
                )
        row = tuple(chosen[index] for index in range(len(columns)))
        rows.append(row)
        left -= pairs(row)
    return rows


def _with(chosen: Mapping[int, str], new: tuple[int, str]) -> set[tuple[tuple[int, str], ...]]:
    return {tuple(sorted((old, new))) for old in chosen.items()}


def unmet(rows: Sequence[Row], columns: Sequence[Sequence[str]]) -> set[Any]:
    """The pairs that no row has."""
    return all_pairs(columns) - {pair for row in rows for pair in pairs(row)}


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_in_a_cover_every_two_values_meet_in_few_rows(sizes: list[int]) -> None:
    columns = [[f"{index}{value}" for value in range(size)] for index, size in enumerate(sizes)]
    rows = cover(*columns)
    assert not unmet(rows, columns)
    assert unmet(rows[:-1], columns), "no row is there for nothing, and one that lacks is missed"
    largest = sorted(sizes)[-2:]
    assert largest[0] * largest[1] <= len(rows) <= 1.5 * largest[0] * largest[1] + 4


def ours(kind: str) -> list[str]:
    """The parts of a kind, whatever plugins other tests have loaded."""
    return [entry.name for entry in registry.find(kind) if entry.provider.name == "gankit"]


NONE = "none"
COLUMNS = (
    [*ours("schedule"), NONE],
    [*ours("penalty"), NONE],
    ours("loss"),
    ours("optimizer"),
)
COVER = cover(*COLUMNS)

SHAPES = "data={use='shapes', size=8, length=64}"

INFOMAX = (
    'discriminator={ use = "stack", initializer = "orthogonal", stages = ['
    '{ use = "residual_stem", channels = 4 }, { use = "infomax", features = 4 }] }'
)

ACTS: dict[str, tuple[str, ...]] = {
    "schedule.exponential": ("{rate=0.7, every=2}",),
    "schedule.n_critic": ("{n=2}",),
    "schedule.piecewise": ("{at=[2, 4], values=[0.5, 0.1]}",),
    "schedule.turns": ('{order=["D", "G", "DG"]}',),
    "schedule.warm_up": ("{steps=5, start=0.1}",),
    # Labels and the places that augments need are those of images.
    "penalty.auxiliary_classifier": ("{every=2}", SHAPES, "discriminator.head=auxiliary"),
    "penalty.consistency": ("{every=2}", SHAPES),
    "penalty.infomax": ("{every=2}", SHAPES, INFOMAX),
    "penalty.rotation": ("{every=2}", SHAPES, "discriminator.head=rotation"),
    "penalty.r1": ("{every=2}",),
    "penalty.wgan_gp": ("{every=2}",),
    "optimizer.sgd": ("{momentum=0.9}",),
}
"""Options under which a part has something to do within five steps, and what else it needs."""

# Under the networks' own initial weights these small ones hardly answer to their input.
ALIVE = ("generator.initializer=orthogonal", "discriminator.initializer=orthogonal")


def cell(schedule: str, penalty: str, loss: str, optimizer: str, *more: str) -> Spec:
    """A small spec with these parts."""
    chosen = {"schedule": schedule, "penalty": penalty}
    overrides = [f"loss={loss}", "train.steps=5", "train.log=1", "train.ema=0.8", *ALIVE]
    for kind, name in chosen.items():
        if name != NONE:
            options, *others = ACTS.get(f"{kind}.{name}", ("{}",))
            overrides += [f"{kind}.{name}={options}", *others]
    overrides.append(f"optimizer.use={optimizer}")
    if f"optimizer.{optimizer}" in ACTS:
        overrides.append("optimizer.momentum=0.9")
    return loads(POINTS, (*overrides, *more))


Forget = Callable[[Checkpoint], Checkpoint]


class Went(NamedTuple):
    """A way through all steps: the metrics of each, and where it ended."""

    metrics: list[object]
    end: Checkpoint


def trainer_of(spec: Spec, metrics: list[object]) -> Trainer:
    def watch(step: int, numbers: Mapping[str, float], speed: float) -> None:
        metrics.append({"step": step, **numbers})

    return Trainer(*build(spec), spec.train, watch=watch, tell=silent)


def whole(spec: Spec) -> Went:
    metrics: list[object] = []
    trainer = trainer_of(spec, metrics)
    for _ in trainer:
        pass
    return Went(metrics, trainer.checkpoint())


def stopped(spec: Spec, at: int, folder: Path, forget: Forget = lambda saved: saved) -> Went:
    """The way of a run that is stopped at a step, and continued from what is on the disk."""
    metrics: list[object] = []
    trainer = trainer_of(spec, metrics)
    for record in trainer:
        if record.step == at:
            break
    saved = checkpoint.load(checkpoint.save(folder, trainer.checkpoint()))
    trainer = trainer_of(spec, metrics)
    trainer.restore(forget(saved))
    for _ in trainer:
        pass
    return Went(metrics, trainer.checkpoint())


def apart(one: Went, other: Went) -> list[str]:
    """In what two ways differ."""
    return [
        *differences(one.metrics, other.metrics),
        *differences(dict(one.end.weights), dict(other.end.weights)),
        *differences(dict(one.end.state), dict(other.end.state)),
    ]


def test_two_schedules_that_both_take_turns_are_refused() -> None:
    """So a run has one of each kind at most in the cover, and nothing is missed by that."""
    schedules = {name: registry.get("schedule", name).target for name in ours("schedule")}
    takers = [name for name, made in schedules.items() if hasattr(made, "turns")]
    assert len(takers) > 1
    with pytest.raises(SpecError, match="both say who moves"):
        build(loads(POINTS, [f"schedule.{name}={{}}" for name in takers[:2]]))


@pytest.mark.parametrize("schedule", COLUMNS[0])
def test_stopping_and_continuing_equals_never_having_stopped(schedule: str, tmp_path: Path) -> None:
    rows = [row for row in COVER if row[0] == schedule]
    refused: list[Row] = []
    equal: list[Row] = []
    for index, row in enumerate(rows):
        try:
            spec = cell(*row)
            build(spec)
        except SpecError:
            refused.append(row)
            continue
        assert apart(whole(spec), stopped(spec, 3, tmp_path / str(index))) == [], row
        equal.append(row)
    assert refused == [], "ACTS says what a part needs"
    assert len(equal) == len(rows) >= len(COLUMNS[1])


def test_the_cover_has_every_part_and_few_rows() -> None:
    assert not unmet(COVER, COLUMNS)
    fewest = len(COLUMNS[0]) * len(COLUMNS[1])
    assert fewest <= len(COVER) < 1.2 * fewest


OTHERS = [(kind, name) for kind in ("norm", "augment", "latent") for name in ours(kind)]

PLACES = """
gankit = 1
data = { use = "shapes", size = 16, length = 64 }
loss = "hinge"
generator = { use = "dcgan", latent = 4, width = 8, condition = "latent" }
discriminator = { use = "dcgan", width = 8 }
train = { steps = 5, batch = 4, log = 1, ema = 0.8 }
"""


@pytest.mark.parametrize(("kind", "name"), OTHERS)
def test_so_it_is_with_every_norm_augment_and_latent(kind: str, name: str, tmp_path: Path) -> None:
    """Each by itself; norms in both networks, but in G alone where they need its condition."""
    # By itself a groupnorm has more groups than these layers have channels.
    part = "{use='groupnorm', groups=4}" if name == "groupnorm" else name
    overrides = {
        "norm": (f"generator.norm={part}", f"discriminator.norm={part}"),
        "augment": (f"augment.{name}={{}}",),
        "latent": (f"latent={name}",),
    }[kind]
    if "condition" in inspect.signature(registry.get(kind, name).target).parameters:
        overrides = overrides[:1]
    spec = loads(PLACES, overrides)
    assert apart(whole(spec), stopped(spec, 3, tmp_path)) == []


def without_optimizers(saved: Checkpoint) -> Checkpoint:
    players = {
        name: player | {"optimizer": player["optimizer"] | {"state": {}}}
        for name, player in saved.state["players"].items()
    }
    return replace(saved, state={**saved.state, "players": players})


def without_turns(saved: Checkpoint) -> Checkpoint:
    players = {n: player | {"turns_taken": 0} for n, player in saved.state["players"].items()}
    return replace(saved, state={**saved.state, "players": players})


def without_scales(saved: Checkpoint) -> Checkpoint:
    fresh = {"value": torch.tensor(2.0**16), "good": torch.tensor(0)}
    players = {n: player | {"scale": fresh} for n, player in saved.state["players"].items()}
    return replace(saved, state={**saved.state, "players": players})


def without_average(saved: Checkpoint) -> Checkpoint:
    return replace(saved, weights={**saved.weights, "ema": saved.weights["generator"]})


def without_place_in_the_data(saved: Checkpoint) -> Checkpoint:
    return replace(saved, state={**saved.state, "batches_drawn": 0})


def without_rollbacks(saved: Checkpoint) -> Checkpoint:
    return replace(saved, state={**saved.state, "rollbacks": saved.state["rollbacks"] + 1})


def without_parts(saved: Checkpoint) -> Checkpoint:
    parts = {
        name: {key: torch.zeros_like(value) for key, value in part.items()}
        for name, part in saved.state["parts"].items()
    }
    return replace(saved, state={**saved.state, "parts": parts})


def without_statistics(saved: Checkpoint) -> Checkpoint:
    """Running means of a batchnorm."""
    weights = {
        name: {k: torch.zeros_like(v) if "running_mean" in k else v for k, v in network.items()}
        for name, network in saved.weights.items()
    }
    return replace(saved, weights=weights)


ADAPTIVE = (SHAPES, "augment.adaptive={start=0.5, every=2, speed=100}")


@pytest.mark.parametrize(
    ("forget", "row", "more"),
    [
        (without_optimizers, (NONE, NONE, "hinge", "adam"), ()),
        (without_optimizers, (NONE, NONE, "hinge", "sgd"), ()),
        (without_turns, (NONE, "r1", "hinge", "adam"), ()),
        (without_scales, (NONE, NONE, "hinge", "adam"), ("train.precision=fp16",)),
        (without_average, (NONE, NONE, "hinge", "adam"), ()),
        (without_place_in_the_data, (NONE, NONE, "hinge", "adam"), ()),
        (without_rollbacks, (NONE, NONE, "hinge", "adam"), ()),
        (without_parts, (NONE, "lecam", "hinge", "adam"), ()),
        (without_parts, (NONE, NONE, "hinge", "adam"), ADAPTIVE),
        (without_statistics, (NONE, NONE, "hinge", "adam"), ("generator.norm=batchnorm",)),
    ],
)
def test_a_run_that_forgets_something_is_caught(
    forget: Forget, row: Row, more: tuple[str, ...], tmp_path: Path
) -> None:
    spec = cell(*row, *more)
    went = whole(spec)
    assert apart(went, stopped(spec, 3, tmp_path)) == []
    assert apart(went, stopped(spec, 3, tmp_path, forget)) != []


# --- whole run folders


JOINT = """
gankit = 1
data = { use = "shapes", size = 16, length = 64, channels = 3 }
loss = "hinge"
[generator]
use = "dcgan"
latent = 8
width = 4
norm = "batchnorm"
[discriminator]
use = "dcgan"
width = 4
norm = "batchnorm"
[[augment]]
use = "adaptive"
start = 0.5
speed = 100
every = 2
[train]
steps = 8
batch = 8
batches = "joint"
precision = "bf16"
ema = { half_life = 20.0, ramp_up = 0.5 }
"""

SHARES = """
gankit = 1
data = { use = "shapes", size = 16, length = 64 }
loss = "nonsaturating"
discriminator_optimizer = { use = "rmsprop", lr = 1e-3 }
[generator]
use = "resnet"
latent = 4
width = 4
norm = ["spectral", "batchnorm"]
[discriminator]
use = "resnet"
width = 4
norm = "spectral"
[optimizer]
use = "adamw"
[[schedule]]
use = "n_critic"
n = 2
[[schedule]]
use = "exponential"
on = "train.top_k"
rate = 0.7
every = 2
[[penalty]]
use = "lecam"
every = 2
[[penalty]]
use = "consistency"
weight = 1.0
[[augment]]
use = "flip"
[[augment]]
use = "cutout"
[train]
steps = 8
batch = 8
accumulate = 2
precision = "fp16"
clip = 1.0
ema = 0.9
"""


def quickstart(folder: Path) -> Spec:
    smaller = ("data.size=16", "discriminator.width=8", "train.batch=8")
    return load(recipes.find("quickstart_digits"), (*smaller, *OFTEN))


OFTEN = ("train.log=1", "train.checkpoint=3", "train.samples=4", "train.steps=8")
PICTURES = {
    "quickstart": quickstart,
    "joint, bf16, batchnorm, adaptive": lambda folder: spec_of(folder, JOINT, *OFTEN),
    "shares, fp16, spectral, much else": lambda folder: spec_of(folder, SHARES, *OFTEN),
}


class Crash(Exception):
    """Ends a run without a word."""


def crash(step: int) -> Callable[[int, object, float], None]:
    def watch(now: int, numbers: object, speed: float) -> None:
        if now == step:
            raise Crash

    return watch


def send(number: int, step: int) -> Callable[[int, object, float], None]:
    def watch(now: int, numbers: object, speed: float) -> None:
        if now == step:
            signal.raise_signal(number)

    return watch


@pytest.mark.parametrize("name", PICTURES)
def test_a_recipe_that_crashes_and_is_stopped_ends_as_if_it_had_not_been(
    name: str, tmp_path: Path
) -> None:
    spec = PICTURES[name](tmp_path)
    run(spec, tmp_path / "whole")
    folder = tmp_path / "cut"
    with pytest.raises(Crash):
        run(spec, folder, watch=crash(5))
    said: list[str] = []
    outcome = run(spec, folder, watch=send(signal.SIGTERM, 7), tell=said.append)
    assert (outcome.finished, outcome.step, outcome.signal) == (False, 7, signal.SIGTERM)
    assert "continues at step 3 of 8" in said
    assert run(spec, folder).finished
    assert differences(content(folder, 8), content(tmp_path / "whole", 8)) == []


def test_lines_that_a_crash_left_behind_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that keeps the metrics of steps that are taken again is not equal."""
    spec = spec_of(tmp_path)
    run(spec, tmp_path / "whole")
    with pytest.raises(Crash):
        run(spec, tmp_path / "cut", watch=crash(6))
    monkeypatch.setattr(RunFolder, "forget_after", silent)
    run(spec, tmp_path / "cut")
    assert differences(content(tmp_path / "cut", 12), content(tmp_path / "whole", 12)) == [
        "['metrics.jsonl']"
    ]


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    run(spec, tmp_path / "whole")
    with pytest.raises(Crash):
        run(spec, tmp_path / "cut", watch=crash(6))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "loss_D": 0.')
    run(spec, tmp_path / "cut")
    assert differences(content(tmp_path / "cut", 12), content(tmp_path / "whole", 12)) == []


def test_a_longer_run_of_the_same_spec_continues(tmp_path: Path) -> None:
    run(spec_of(tmp_path), tmp_path / "run")
    longer = spec_of(tmp_path, POINTS, "train.steps=16")
    outcome = run(longer, tmp_path / "run")
    assert outcome == Outcome(True, 16, tmp_path / "run" / "samples" / "step_0000016.png")
    run(longer, tmp_path / "whole")
    (tmp_path / "run" / "samples" / "step_0000012.png").unlink()  # the end of the first
    assert differences(content(tmp_path / "run", 16), content(tmp_path / "whole", 16)) == []


# --- signals


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    err: str


def gankit(*arguments: object) -> Said:
    """Run a command in this process, as `gankit` on the command line would."""
    err = io.StringIO()
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gankit", *map(str, arguments)])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code
    return Said(code or 0, err.getvalue())


def train(spec: Spec, folder: Path) -> Said:
    """Train a spec in a folder by the command."""
    file = folder.with_name(f"{folder.name}.toml")
    file.write_text(dumps(spec.resolved()), encoding="utf-8")
    return gankit("train", file, "--run", folder, "--device", "cpu")


@contextlib.contextmanager
def at_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Something happens as step number `step`, from 1, begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", acting(step, act))
        yield


def acting(step: int, act: Callable[[], object]) -> Callable[[Engine, int], dict[str, Tensor]]:
    plain = Engine.step

    def begun(self: Engine, index: int) -> dict[str, Tensor]:
        if index == step - 1:
            act()
        return plain(self, index)

    return begun


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_finishes_the_step_saves_and_the_same_command_continues(
    tmp_path: Path, number: int, code: int
) -> None:
    spec = spec_of(tmp_path)
    assert train(spec, tmp_path / "whole").code == 0
    folder = tmp_path / "a run"
    with at_step(6, lambda: signal.raise_signal(number)):
        said = train(spec, folder)
    assert said.code == code
    assert "stopped at step 6, saved\nthe same command continues\n" in said.err
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    found, complaints = checkpoint.latest(folder / "checkpoints")
    assert (found and found.step, complaints) == (6, [])
    again = train(spec, folder)
    assert again.code == 0
    assert "continues at step 6 of 12" in again.err
    assert differences(content(folder, 12), content(tmp_path / "whole", 12)) == []


def written() -> None:
    """Wait until what is being written is written."""
    for thread in threading.enumerate():
        if thread.name.endswith("(_write)"):
            thread.join()


def test_a_stop_that_does_not_save_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "save", silent)
    with at_step(6, lambda: signal.raise_signal(signal.SIGTERM)):
        assert train(spec_of(tmp_path), tmp_path / "run").code == 75
    found, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is None


def test_a_second_ctrl_c_leaves_at_once_and_the_checkpoint_before_it_intact(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert train(spec, tmp_path / "whole").code == 0
    folder = tmp_path / "run"

    def twice() -> None:
        written()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one did not interrupt")

    with at_step(6, twice):
        said = train(spec, folder)
    assert (said.code, "Traceback" in said.err) == (130, False)
    found, complaints = checkpoint.latest(folder / "checkpoints")
    assert (found and found.step, complaints) == (4, [])
    assert train(spec, folder).code == 0
    assert differences(content(folder, 12), content(tmp_path / "whole", 12)) == []


def test_after_a_run_signals_mean_what_they_meant_before(tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with at_step(6, lambda: signal.raise_signal(signal.SIGTERM)):
        run(spec_of(tmp_path), tmp_path / "run")
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert before == after


# --- sudden death: these need processes of their own, forked from one that has imported torch


@cache
def forks() -> Any:
    made = multiprocessing.get_context("forkserver")
    # The first optimizer that torch makes imports the last of these.
    made.set_forkserver_preload([__name__, "gankit.train.run", "torch._dynamo"])
    return made


Arrange = Callable[..., None]


def begin(arguments: Sequence[object], said: Path, arrange: Arrange = silent, *given: Any) -> Any:
    """A process that runs a command."""
    words = [str(word) for word in arguments]
    process = forks().Process(target=_child, args=(words, said, arrange, given))
    process.start()
    return process


def end(process: Any) -> int:
    """Its exit code, or minus the signal that killed it."""
    process.join(120)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("it hangs")
    return int(process.exitcode)


def _child(words: Sequence[str], said: Path, arrange: Arrange, given: Sequence[Any]) -> None:
    RUN.plan = unplanned
    sys.argv = ["gankit", *words]
    with said.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    arrange(*given)
    cli.main()


KILLED = -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_line(number: int, folder: str, counted: Path) -> None:
    """Die before so many lines of Python under a folder have run; all of them are counted."""
    passed = itertools.count(1)
    last = 0

    def line(frame: Any, event: str, argument: object) -> Any:
        nonlocal last
        if event == "line":
            last = next(passed)
            if last == number:
                die()
        return line

    def call(frame: Any, event: str, argument: object) -> Any:
        return line if folder in frame.f_code.co_filename else None

    threading.settrace(call)
    sys.settrace(call)
    plain = cli.app

    def app() -> None:
        try:
            plain()
        finally:
            counted.write_text(str(last))

    cli.app = app  # type: ignore[assignment]


def in_a_write(number: int, counted: Path) -> None:
    """Die in call `number` of what puts a checkpoint on the disk, half of it done or all of it."""
    passed = itertools.count(1)

    def torn(plain: Callable[..., Any], half: Callable[..., None]) -> Callable[..., Any]:
        def called(*given: Any, **how: Any) -> Any:
            this = next(passed)
            counted.write_text(str(this))
            made = plain(*given, **how)
            if this == number:
                half(*given)
                die()
            return made

        return called

    def truncated(content: object, path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    checkpoint.save_file = torn(checkpoint.save_file, truncated)
    torch.save = torn(torch.save, truncated)
    os.fsync = torn(os.fsync, silent)
    Path.rename = torn(Path.rename, silent)  # type: ignore[method-assign]
    checkpoint.shutil.rmtree = torn(checkpoint.shutil.rmtree, silent)  # type: ignore[attr-defined]


DENSE = ("train.log=1", "train.checkpoint=3", "train.samples=4", "train.steps=11")


class Yard(NamedTuple):
    """Where runs are killed: the command, and how many moments each way to die has."""

    path: Path
    command: list[object]
    moments: dict[str, int]

    @property
    def said(self) -> Path:
        return self.path / "said"

    @property
    def counted(self) -> Path:
        return self.path / "counted"

    def run(self, name: str, way: str = "", moment: int = 0) -> int:
        command = [*self.command, "--run", self.path / name]
        if not way:
            return end(begin(command, self.said))
        arrange, *given = WAYS[way]
        return end(begin(command, self.said, arrange, moment, *given, self.counted))


WAYS = {
    "anywhere": (at_line, "/gankit/train/"),
    "in a checkpoint": (at_line, "/gankit/train/checkpoint.py"),
    "in a write": (in_a_write,),
}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    path = tmp_path_factory.mktemp("yard")
    (path / "spec.toml").write_text(POINTS)
    overrides = [word for each in DENSE for word in ("--set", each)]
    command = ["train", path / "spec.toml", "--threads", 1, "--device", "cpu", *overrides]
    made = Yard(path, command, {})
    for way in WAYS:
        assert made.run(way, way, 0) == 0, made.said.read_text()
        made.moments[way] = int(made.counted.read_text())
    ends = [content(path / way, 11) for way in WAYS]
    assert differences(ends[0], ends[1]) == differences(ends[0], ends[2]) == []
    return made


def moments(kills: int) -> list[Any]:
    """Where to die, as a share of the run; the first nine in `make test`, all in `make check`."""
    choose = random.Random(0)
    made = [(way, choose.random()) for way in itertools.islice(itertools.cycle(WAYS), kills)]
    return [
        pytest.param(*each, marks=[pytest.mark.slow] if index >= 9 else [], id=f"{index} {each[0]}")
        for index, each in enumerate(made)
    ]


@pytest.mark.parametrize(("way", "share"), moments(30))
def test_a_killed_run_loses_little_and_ends_as_if_it_had_not_been(
    yard: Yard, way: str, share: float, tmp_path: Path
) -> None:
    name = tmp_path.name
    folder = yard.path / name
    moment = 1 + int(share * yard.moments[way])
    assert yard.run(name, way, moment) == KILLED, yard.said.read_text()
    metrics = folder / "metrics.jsonl"
    taken = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    found, complaints = checkpoint.latest(folder / "checkpoints", set_aside=False)
    assert complaints == []
    # A checkpoint is written while the next interval is under way, and is there by its end.
    assert taken - (found.step if found else 0) <= 2 * 3
    assert yard.run(name) == 0, yard.said.read_text()
    assert differences(content(folder, 11), content(yard.path / "anywhere", 11)) == []
    assert not list((folder / "checkpoints").glob(".unfinished_*"))


def in_place() -> None:
    """Save as one should not, under the name of what is finished, and die in the middle."""

    def save(folder: Path, made: Checkpoint, *more: object) -> None:
        target = folder / f"step_{made.step}"
        target.mkdir(parents=True)
        checkpoint.save_file(dict(made.weights["generator"]), target / "generator.safetensors")
        die()

    checkpoint.save = save  # type: ignore[assignment]


def test_a_save_that_can_be_half_done_is_caught(yard: Yard, tmp_path: Path) -> None:
    command = [*yard.command, "--run", tmp_path / "run"]
    assert end(begin(command, yard.said, in_place)) == KILLED
    with pytest.raises(CheckpointError, match=r"step_3 lacks manifest"):
        checkpoint.latest(tmp_path / "run" / "checkpoints", set_aside=False)


def tell_of_step(step: int, reached: Any) -> None:
    Engine.step = acting(step, reached.set)  # type: ignore[method-assign]


def test_a_signal_from_outside_finishes_the_step_and_saves(yard: Yard, tmp_path: Path) -> None:
    command = [*yard.command, "--run", tmp_path / "run"]
    reached = forks().Event()
    process = begin([*command, "--set", "train.steps=100000"], yard.said, tell_of_step, 5, reached)
    assert reached.wait(120)
    os.kill(process.pid, signal.SIGTERM)
    assert end(process) == 75
    stopped_at = json.loads((tmp_path / "run" / "status.json").read_text())["step"]
    found, complaints = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert (found and found.step, complaints) == (stopped_at, [])
    steps = ["--set", f"train.steps={stopped_at + 1}"]
    assert end(begin([*command, *steps], yard.said)) == 0


def stuck(step: int) -> None:
    """No checkpoint is ever written, and Ctrl-C is pressed at a step, and once more in the wait."""
    pressed = threading.Event()

    def press() -> None:
        signal.raise_signal(signal.SIGINT)
        pressed.set()

    def save(*given: object) -> None:
        pressed.wait()
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()

    checkpoint.save = save  # type: ignore[assignment]
    Engine.step = acting(step, press)  # type: ignore[method-assign]


def test_a_second_ctrl_c_does_not_wait_for_the_disk(yard: Yard, tmp_path: Path) -> None:
    command = [*yard.command, "--run", tmp_path / "run"]
    assert end(begin(command, yard.said, stuck, 5)) == 130
    assert end(begin(command, yard.said)) == 0


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path)
    with RunFolder(tmp_path / "run").locked():
        said = train(spec, tmp_path / "run")
        assert said.code == 4
        assert "error: another process is training in " in said.err
        monkeypatch.setattr("fcntl.flock", silent)
        assert train(spec, tmp_path / "run").code == 0, "without the lock nobody refuses"


def test_the_second_of_two_trainers_is_refused_and_the_first_unharmed(
    yard: Yard, tmp_path: Path
) -> None:
    command = [*yard.command, "--run", tmp_path / "run"]
    began, go_on = forks().Event(), forks().Event()
    first = begin(command, yard.said, wait_at_step, 5, began, go_on)
    assert began.wait(120)
    second = end(begin(command, yard.said))
    go_on.set()
    assert (second, end(first)) == (4, 0)
    assert differences(content(tmp_path / "run", 11), content(yard.path / "anywhere", 11)) == []


def wait_at_step(step: int, began: Any, go_on: Any) -> None:
    def wait() -> None:
        began.set()
        go_on.wait(120)

    Engine.step = acting(step, wait)  # type: ignore[method-assign]
