"""A run: a spec trained in a folder of its own, from where an earlier start left off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gankit.build import bind, build
from gankit.datasets import Folder
from gankit.datasets.resident import resident
from gankit.errors import Diverged, GankitError, SetupError, SpecError
from gankit.fit import promised
from gankit.paths import paths, resolved
from gankit.registry import hand
from gankit.slots import Logger
from gankit.spec import Spec, problem_at
from gankit.train import checkpoint
from gankit.train.batches import check_shares
from gankit.train.checkpoint import Checkpoint
from gankit.train.compiled import has_compiler
from gankit.train.epochs import Epochs
from gankit.train.folder import RunFolder
from gankit.train.memory import out_of_memory, room_for
from gankit.train.plan import plan
from gankit.train.processes import Processes, joined, launched, started
from gankit.train.record import Record
from gankit.train.scoring import InTraining, described, evaluation_of
from gankit.train.signals import Stopped, stop_signals
from gankit.train.trainer import Trainer

__all__ = ["Outcome", "opened", "refusal_of", "run", "trainer_of", "unwritten"]

Watch = Callable[[int, Mapping[str, float], float], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    finished: bool
    step: int
    picture: Path | None
    """The newest sample grid."""
    signal: int | None = None
    """The signal that ended it early, whichever process it came to."""


def run(
    spec: Spec,
    path: Path,
    device: torch.device | str = "cpu",
    *,
    watch: Watch = lambda step, numbers, speed: None,
    tell: Callable[[str], object] = lambda message: None,
) -> Outcome:
    """Train a spec in a run folder, from its newest sound checkpoint if it has one.

    `watch` is called with step, numbers and images per second at every log; `tell` with messages.
    SIGINT, SIGTERM and SIGUSR1 end the run after the step at hand, saved. Where a launcher has
    started several processes, each calls this, and the first alone writes and speaks.

    Raises:
        SpecError: the networks cannot be built or run as the spec asks.
        SetupError: the folder is in use, the data, the disk or the memory is not there.
        CheckpointError: the folder belongs to another spec, or no checkpoint in it is sound.
        Diverged: a number is not finite.
    """
    began = time.perf_counter()
    refusal = refusal_of(spec)
    device = _own(torch.device(device))
    folder = RunFolder(path)
    with joined(device) as processes, ExitStack() as stack:
        if processes.rank:
            tell = watch = _silent
        try:
            check_shares(spec.train, processes)
        except ValueError as error:
            refusal = refusal or SetupError(str(error))
        _refuse(processes, refusal)  # before a folder is made
        saved = _first(
            processes, lambda: opened(spec, folder, processes.count, device, stack, tell)
        )
        caught = stack.enter_context(stop_signals())
        trainer = trainer_of(
            spec, folder, device, saved, stack, caught, processes=processes, watch=watch, tell=tell
        )
        trainer.callbacks = [_first_step(trainer, began, tell)]
        status = folder.write_status if processes.rank == 0 else _silent
        return _trained(trainer, spec, device, status, tell)


def trainer_of(
    spec: Spec,
    folder: RunFolder,
    device: torch.device,
    saved: Checkpoint | None,
    stack: ExitStack,
    caught: list[int],
    *,
    processes: Processes,
    watch: Watch,
    tell: Callable[[str], object],
) -> Trainer:
    """The trainer of a spec in its folder, where it was saved, stopped by what is `caught`."""
    try:
        gan, data = build(spec, device)
        if isinstance(data, Folder):
            tell(data.hint)
        scoring = None
        if spec.eval.every:
            about = described(spec.data)
            evaluation = evaluation_of(
                spec.eval, data, about, source=spec.source, device=device, tell=tell
            )
            scoring = InTraining(spec, evaluation, folder.path)
        data = resident(data, device, tell)
        if gan.compiled and not has_compiler(device):
            tell("train.compile: there is no compiler here; goes on without")
            gan.compiled = ()
        trainer = Trainer(
            gan,
            data,
            spec.train,
            device,
            folder=folder.path,
            spec=resolved(spec),
            loggers=_loggers(spec, folder.path, stack) if processes.rank == 0 else (),
            watch=watch,
            tell=tell,
            processes=processes,
            signals=lambda: nullcontext(caught),
            scoring=scoring,
        )
    except SpecError:
        raise
    except ValueError as error:
        raise SetupError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise _explained(error, spec, device) from error
        raise
    trainer.newest = _newest_picture(folder)
    if saved is not None:
        trainer.restore(saved)
    return trainer


def _first_step(
    trainer: Trainer, began: float, tell: Callable[[str], object]
) -> Callable[[Record], None]:
    """Tells once how long it took to get to the end of the first step."""
    told = False

    def first(record: Record) -> None:
        nonlocal told
        if not told:
            told = True
            record.numbers()  # waits for the device
            count = trainer.engine.objective.compilations
            compiled = f", in which {count} passes were compiled" if count else ""
            tell(f"first step after {time.perf_counter() - began:.1f} s{compiled}")

    return first


def _trained(
    trainer: Trainer,
    spec: Spec,
    device: torch.device,
    status: Callable[..., None],
    tell: Callable[[str], object],
) -> Outcome:
    """Go through all steps, and write down how it ended."""
    steps = spec.train.steps
    stopped = None
    try:
        status("running", trainer.step, steps)
        for _ in trainer:
            pass
    except Stopped as signal:
        stopped = signal.signal
        tell(f"stopped at step {trainer.step:,}, saved")
    except BaseException as error:
        state = "diverged" if isinstance(error, Diverged) else "failed"
        with suppress(OSError):
            status(state, trainer.step, steps, reason=str(error) or type(error).__name__)
        if not isinstance(error, KeyboardInterrupt):
            with suppress(GankitError):
                trainer.wait()  # what was saved before it is worth as much as ever
        if isinstance(error, OSError):
            raise unwritten(error) from error
        if out_of_memory(error):
            raise _explained(error, spec, device) from error
        raise
    finished = trainer.step >= steps
    try:
        status("finished" if finished else "stopped", trainer.step, steps)
    except OSError as error:
        raise unwritten(error) from error
    return Outcome(finished, trainer.step, trainer.newest, stopped)


def refusal_of(spec: Spec) -> GankitError | None:
    """Why a spec cannot be trained here: networks that cannot run, data that is not there."""
    train, count = spec.train, started()
    if train.batch % (train.accumulate * count) == 0:
        train = replace(train, batch=train.batch // count)  # what one process sees of it
    try:
        plan(replace(spec, train=train))
        Epochs(bind(spec.data), spec.train.batch, spec.seed).batch(0)
    except GankitError as error:
        return error  # not yet, but when all processes are there to hear of it
    return None


def _refuse(processes: Processes, refusal: GankitError | None) -> None:
    """Go on only where no process is refused; the first that is tells why, for all of them."""
    own = 0 if refusal is None else refusal.exit_code
    codes = processes.largest([own if r == processes.rank else 0 for r in range(processes.count)])
    first = next((rank for rank, code in enumerate(codes) if code), None)
    if first is None:
        return
    if refusal is not None and first == processes.rank:
        raise refusal
    raise SystemExit(codes[first])


def opened(
    spec: Spec,
    folder: RunFolder,
    processes: int,
    device: torch.device,
    stack: ExitStack,
    tell: Callable[[str], object],
    **noted: int,
) -> Checkpoint | None:
    """Take the folder for the spec; the newest sound checkpoint in it, if it has one."""
    stack.enter_context(folder.locked())
    continues = folder.open_for(spec)
    saved, complaints = checkpoint.latest(folder.checkpoints) if continues else (None, [])
    for complaint in complaints:
        tell(complaint)
    for change in folder.note_environment(processes, paths=_taken(spec, device), **noted):
        tell(f"not as before, so not to the same bits: {change}")
    if saved is not None:
        where = f"at step {saved.step:,} of {spec.train.steps:,}"
        if saved.step < spec.train.steps:
            tell(f"continues {where}")
        else:
            tell(f"{folder.path} is finished, {where}; a larger train.steps would go on")
    folder.forget_after(saved.step if saved else 0)
    return saved


def _taken(spec: Spec, device: torch.device) -> str:
    """The fast paths that a start takes, of which exactness is a matter too."""
    taken = [path.name for path in paths(spec) if path.taken]
    if not has_compiler(device):
        taken = [name for name in taken if name != "compiled"]
    return ", ".join(taken) or "none"


def _first(processes: Processes, open_it: Callable[[], Checkpoint | None]) -> Checkpoint | None:
    """What the first process finds, for all of them; where it fails, none goes on."""
    found: Checkpoint | None = None
    refusal: GankitError | None = None
    if processes.rank == 0:
        try:
            found = open_it()
        except GankitError as error:
            refusal = error
        except OSError as error:
            refusal = unwritten(error)
    _refuse(processes, refusal)
    return processes.from_first(found)


def _loggers(spec: Spec, path: Path, stack: ExitStack) -> Sequence[Logger]:
    """The loggers of a spec, closed when the run ends in whichever way."""
    made: list[Logger] = []
    for part in spec.logger:
        try:
            logger: Logger = promised("logger", hand(bind(part), path, spec.plain()))
        except ValueError as error:
            raise SpecError(problem_at(spec.source, part, error)) from error
        stack.callback(_close, logger)
        made.append(logger)
    return made


def _close(logger: Logger) -> None:
    # What it cannot finish any more must not make a finished run a failed one.
    with suppress(Exception):
        logger.close()


def _own(device: torch.device) -> torch.device:
    """Of several GPUs the one that the launcher has meant for this process.

    Raises:
        SetupError: there are fewer than processes.
    """
    if device.type == "cuda" and device.index is not None and launched():
        raise SetupError(f"several processes take a GPU each; --device cuda, not {device}")
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        rank, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        wanted = int(os.environ.get("LOCAL_WORLD_SIZE", rank + 1))
        if wanted > there:
            raise SetupError(f"{wanted} processes want a GPU each, and torch sees {there} here")
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    return device


def unwritten(error: OSError) -> SetupError:
    """What a disk refuses, in words."""
    file = f" {error.filename}" if error.filename else ""
    return SetupError(f"cannot read or write{file}: {error.strerror or error}")


def _explained(error: BaseException, spec: Spec, device: torch.device) -> SetupError:
    """What to do where the memory did not suffice."""
    advice = room_for(spec, device)
    return SetupError(f"out of memory on {device}; the last checkpoint is kept\n  {advice}")


def _newest_picture(folder: RunFolder) -> Path | None:
    pictures = folder.samples.glob("step_*.png")
    return max(pictures, key=lambda path: int(path.stem.removeprefix("step_")), default=None)


def _silent(*args: Any, **how: Any) -> None:
    """What all processes but the first say."""
