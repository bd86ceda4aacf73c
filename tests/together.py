"""Two processes of one group, kept for many tests: what they play, and what came of it.

They are real processes that talk over gloo. A task is a function of a module that they can import;
it is called in each with `Processes` and what else it is given, all of it plain data.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gankit.build import build
from gankit.errors import GankitError
from gankit.norms import activation
from gankit.randomness import generator
from gankit.spec import load, loads
from gankit.train import Outcome, engine, run
from gankit.train.batches import Batch, Draws
from gankit.train.checkpoint import Writer
from gankit.train.engine import ALONE, Engine
from gankit.train.processes import Processes, Several

# The package has a function of the same name.
RUN = importlib.import_module("gankit.train.run")

T = TypeVar("T")

LONGEST = 60.0
"""Seconds that a task may take: what hangs fails."""


class Failed(AssertionError):
    """What a process had to say of its task: a traceback, or that it is no more."""


class Together:
    """Processes of one group, which are given the same task at the same time."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self.workers: list[Any] = []

    def __call__(self, task: Callable[..., T], *given: Any, longest: float = LONGEST) -> list[T]:
        """What the task gives, rank by rank."""
        answers = self.each(task, *given, longest=longest)
        failed = [f"rank {r}: {a}" for r, a in enumerate(answers) if isinstance(a, Failed)]
        if failed:
            raise Failed("\n".join(failed))
        return answers

    def each(self, task: Callable[..., T], *given: Any, longest: float = LONGEST) -> list[Any]:
        """What the task gives, or `Failed`, rank by rank; who has failed is started anew."""
        if not self.workers:
            self._start()
        for pipe in self.pipes:
            pipe.send((task, given))
        answers: dict[Connection, Any] = {}
        last = time.monotonic() + longest
        while len(answers) < self.count:
            waiting = [pipe for pipe in self.pipes if pipe not in answers]
            ready = wait(waiting, max(0.0, last - time.monotonic()))
            for pipe in ready or waiting:
                answers[pipe] = _answer(pipe) if ready else Failed(f"no answer in {longest:.0f} s")
        if any(isinstance(answer, Failed) for answer in answers.values()):
            self.end()
        return [answers[pipe] for pipe in self.pipes]

    def _start(self) -> None:
        # A server that has imported everything forks each of them in a moment.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "torch._dynamo"])
        self.store = tempfile.TemporaryDirectory()
        self.pipes = []
        for rank in range(self.count):
            ours, theirs = context.Pipe()
            given = (rank, self.count, f"{self.store.name}/store", theirs)
            worker = context.Process(target=_serve, args=given, daemon=True)
            worker.start()
            theirs.close()
            self.pipes.append(ours)
            self.workers.append(worker)

    def end(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self.workers:
            worker.kill()
            worker.join()
        if self.workers:
            self.workers = []
            self.store.cleanup()


def _answer(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionResetError):
        return Failed("it has ended")


def _serve(rank: int, count: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, count),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=LONGEST / 2),
    )
    processes = Several()
    while True:
        task, given = pipe.recv()
        try:
            answer = task(processes, *given)
        except BaseException:
            answer = Failed(traceback.format_exc())
        pipe.send(answer)
        if isinstance(answer, Failed):
            os._exit(1)  # so that nobody waits for it


# --- steps


def engine_of(
    processes: Processes, spec: str | Path, overrides: Sequence[str] = (), wide: bool = False
) -> Engine:
    """The engine of a spec, a text or a file; in float64 where it is to be wide."""
    made = load(spec, overrides) if isinstance(spec, Path) else loads(spec, overrides)
    gan, data = build(made)
    if wide:
        for module in (gan.generator, gan.discriminator, *gan.stateful().values()):
            module.double()
    return Engine(gan, data, made.train, torch.device("cpu"), processes)


def tensors_of(engine: Engine) -> dict[str, Tensor]:
    """All that training moves: both networks, the average, the parts with a state."""
    modules = {**engine.networks, "average": engine.ema.average, **engine.gan.stateful()}
    return {
        f"{owner} {name}": tensor
        for owner, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


class Played(NamedTuple):
    """What became of a run of some steps."""

    states: list[dict[str, np.ndarray]]
    """All tensors after each step, and all that was measured in it."""
    agreed: list[bool]
    """Whether the processes had the same ones, by their checksums."""


def played(
    processes: Processes,
    spec: str | Path,
    overrides: Sequence[str],
    steps: int,
    wide: bool = False,
    twin: str = "",
) -> Played:
    """Take some steps. A `twin` is a fault that is to be noticed."""
    states, agreed = [], []
    with TWINS[twin]():
        engine = engine_of(processes, spec, overrides, wide)
        for step in range(steps):
            measured = engine.step(step)
            tensors = tensors_of(engine) | {f"told {k}": v for k, v in measured.items()}
            states.append(
                {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
            )
            agreed.append(processes.agree(list(tensors.values())))
    return Played(states, agreed)


def alone(
    spec: str | Path, overrides: Sequence[str], steps: int, wide: bool = False
) -> list[dict[str, np.ndarray]]:
    """The states that one process goes through."""
    return played(ALONE, spec, overrides, steps, wide).states


def apart(
    one: Sequence[dict[str, np.ndarray]], other: Sequence[dict[str, np.ndarray]]
) -> tuple[float, str]:
    """The largest difference between two series of states, and where it is."""
    assert [list(state) for state in one] == [list(state) for state in other]
    return max(
        (float(np.max(np.abs(mine[name] - theirs[name]), initial=0.0)), f"{name} at step {step}")
        for step, (mine, theirs) in enumerate(zip(one, other, strict=True))
        for name in mine
    )


# --- twins: what would be wrong, and must be noticed


def _no_average(self: Several, tensors: Sequence[Tensor]) -> None:
    """Every process goes by its own gradients."""


def _own_draws(self: Draws, share: Any, purpose: str) -> torch.Generator:
    """Every process draws for itself."""
    return generator(*self.words, purpose, share.index)


def _same_draws(self: Draws, share: Any, purpose: str) -> torch.Generator:
    """Every process draws what the first does."""
    return self(purpose)


def _first_rows(self: Engine, players: str, draws: Draws) -> Batch:
    """Every process sees the rows of the first."""
    rank, self.processes.rank = self.processes.rank, 0
    try:
        return _BATCH(self, players, draws)
    finally:
        self.processes.rank = rank


_BATCH = Engine.batch


def _own_logits(self: Engine, heads: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What parts steer by are the logits of the process at hand."""
    return {name: torch.cat([each[name].detach() for each in heads]) for name in heads[0]}


def _forgetful(ctx: Any, *gradients: Tensor) -> Tensor:
    """A mean over all whose gradient is that of the process at hand."""
    return gradients[0]


def _ones(self: Several, numbers: Sequence[int]) -> list[int]:
    """Every parameter is given a gradient, of zeros if need be."""
    return [1] * len(numbers)


def _patched(owner: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch.object(owner, name, value)


TWINS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "": nullcontext,
    "no average": _patched(Several, "average", _no_average),
    "own draws": _patched(Draws, "of", _own_draws),
    "same draws": _patched(Draws, "of", _same_draws),
    "first rows": _patched(Engine, "batch", _first_rows),
    "own statistics": _patched(engine, "_statistics", lambda gan: ()),
    "own batch norm": _patched(activation, "_several", lambda: False),
    "own slope": _patched(activation._MeanOfAll, "backward", staticmethod(_forgetful)),
    "own logits": _patched(Engine, "_whole", _own_logits),
    "zeros": _patched(Several, "largest", _ones),
}


# --- runs


class Ended(NamedTuple):
    """How a run ended in one process."""

    outcome: Outcome | None
    error: str
    code: int
    said: list[str]
    taken: list[int]
    """The steps it took, by how many had been taken before."""
    when: float
    """By the clock that files have."""


class Meddle(NamedTuple):
    """What is done to one of the processes of a run after a step."""

    rank: int
    step: int
    number: int = 0
    """A signal it is sent."""
    late: bool = False
    """Not after that step, but when all have decided whether to go on after it."""
    early: bool = False
    """Not after that step, but before the next."""
    nudge: str = ""
    """A tensor of its own that is changed: `generator`, or a part with a state."""
    writing: float = 0.0
    """Seconds that writing a checkpoint takes."""
    hurry: bool = False
    """Who stops does not wait for the others, in any process."""


def ran(
    processes: Processes,
    spec: Path,
    overrides: Sequence[str],
    folder: Path,
    meddle: Meddle | None = None,
    planned: bool = False,
) -> Ended:
    """`gankit.train.run`, in processes that have been joined; without a plan it is quicker."""
    said: list[str] = []
    taken: list[int] = []
    outcome, error, code = None, "", 0
    with ExitStack() as stack:
        joined = mock.Mock(return_value=nullcontext(processes))
        stack.enter_context(mock.patch.object(RUN, "joined", joined))
        if not planned:
            stack.enter_context(mock.patch.object(RUN, "plan"))
        stack.enter_context(_meddled(meddle, processes, taken))
        try:
            outcome = run(load(spec, overrides), folder, tell=said.append)
        except GankitError as told:
            error, code = f"{type(told).__name__}: {told}", told.exit_code
        except SystemExit as left:
            code = int(str(left.code))
    return Ended(outcome, error, code, said, taken, time.time())


@contextmanager
def _meddled(meddle: Meddle | None, processes: Processes, taken: list[int]) -> Iterator[None]:
    plain, decided, write = Engine.step, Several.largest, Writer._write
    mine = meddle is not None and meddle.rank == processes.rank

    def step(self: Engine, at: int) -> dict[str, Tensor]:
        if mine and meddle is not None and meddle.early and at == meddle.step:
            os.kill(os.getpid(), meddle.number)
        measured = plain(self, at)
        taken.append(at)
        if mine and meddle is not None and at + 1 == meddle.step:
            if meddle.number and not meddle.late and not meddle.early:
                os.kill(os.getpid(), meddle.number)
            if meddle.nudge:
                modules = {"generator": self.gan.generator, **self.gan.stateful()}
                *_, last = modules[meddle.nudge].state_dict().values()
                last += 1
        return measured

    stopping = False

    def largest(self: Several, numbers: Sequence[int]) -> list[int]:
        nonlocal stopping
        if stopping and meddle is not None and meddle.hurry:
            return list(numbers)
        found = decided(self, numbers)
        stopping = stopping or (len(numbers) == 1 and found[0] > 1)
        # The trainer asks for one number, and asks it in each step.
        late = mine and meddle is not None and meddle.late and len(numbers) == 1
        if late and meddle is not None and taken and taken[-1] + 1 == meddle.step:
            os.kill(os.getpid(), meddle.number)
        return found

    def slow(self: Writer, checkpoint: Any) -> None:
        if mine and meddle is not None:
            time.sleep(meddle.writing)
        write(self, checkpoint)

    with (
        mock.patch.object(Engine, "step", step),
        mock.patch.object(Several, "largest", largest),
        mock.patch.object(Writer, "_write", slow),
    ):
        yield
