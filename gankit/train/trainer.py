"""The loop: steps, and what is written down between them."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL.Image import Image as Picture
from torch import Tensor

from gankit.build import GAN, bind, build
from gankit.datasets import image_grid, scatter
from gankit.errors import CheckpointError, Diverged, SetupError
from gankit.slots import Dataset
from gankit.spec import Spec, Train
from gankit.train import checkpoint
from gankit.train.checkpoint import Checkpoint
from gankit.train.engine import Engine
from gankit.train.epochs import Epochs
from gankit.train.folder import RunFolder
from gankit.train.plan import plan
from gankit.train.sampling import draw

__all__ = ["Outcome", "Record", "Trainer", "picture", "run"]

SAMPLES = 64


@dataclass(frozen=True)
class Record:
    """What is known after a step; the numbers are read from the device when they are asked for."""

    step: int
    """Steps taken so far."""
    measured: Mapping[str, Tensor]

    def numbers(self) -> dict[str, float]:
        """Losses, penalties and D's mean logits."""
        return {name: float(value) for name, value in self.measured.items()}


class Trainer:
    """Trains a GAN, one step per iteration, and can be stopped and continued exactly.

    >>> for record in Trainer(gan, data, Train(steps=100)): ...
    """

    def __init__(
        self, gan: GAN, data: Dataset, train: Train, device: torch.device | str = "cpu"
    ) -> None:
        self.engine = Engine(gan, data, train, torch.device(device))
        self.train = train
        self.step = 0

    def __iter__(self) -> Iterator[Record]:
        while self.step < self.train.steps:
            measured = self.engine.step(self.step)
            self.step += 1
            yield Record(self.step, measured)

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on from here: a copy, which later steps leave as it is."""
        engine = self.engine
        networks = {
            "generator": engine.gan.generator,
            "discriminator": engine.gan.discriminator,
            "ema": engine.ema.network(),
        }
        weights = {name: network.state_dict() for name, network in networks.items()}
        return Checkpoint(self.step, copy.deepcopy(weights), copy.deepcopy(engine.state()))

    def refuse_nonfinite(self) -> None:
        """Refuse weights that nobody could continue from.

        Raises:
            Diverged: a weight is not finite.
        """
        for player, network in self.engine.networks.items():
            weights = [p.detach() for p in network.parameters()]
            if not bool(torch.stack([w.isfinite().all() for w in weights]).all()):
                raise Diverged(player, self.step, "weights")

    def restore(self, saved: Checkpoint) -> None:
        """Go back to where a checkpoint was taken.

        Raises:
            CheckpointError: it was taken of other networks or parts.
        """
        engine = self.engine
        try:
            engine.gan.generator.load_state_dict(dict(saved.weights["generator"]))
            engine.gan.discriminator.load_state_dict(dict(saved.weights["discriminator"]))
            engine.ema.average.load_state_dict(dict(saved.weights["ema"]))
            engine.load_state(saved.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit this spec: {error}") from error
        self.step = saved.step

    def samples(self, count: int = SAMPLES, seed: int = 0) -> Tensor:
        """Images of the averaged generator."""
        return draw(self.engine.gan, self.engine.ema.network(), count, seed)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    finished: bool
    step: int
    picture: Path | None
    """The newest sample grid."""
    signal: int | None = None
    """The signal that ended it early."""


def run(
    spec: Spec,
    path: Path,
    device: torch.device | str = "cpu",
    *,
    watch: Callable[[int, Mapping[str, float], float], None] = lambda step, numbers, speed: None,
    tell: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Train a spec in a run folder, from its newest sound checkpoint if it has one.

    `watch` is called with step, numbers and images per second at every log; `tell` with messages.
    SIGINT and SIGTERM end the run after the step at hand, saved.

    Raises:
        SpecError: the networks cannot be built or run as the spec asks.
        SetupError: the folder is in use, the data or the disk is not there.
        CheckpointError: the folder belongs to another spec, or no checkpoint in it is sound.
        Diverged: a loss is not finite.
    """
    plan(spec)  # what cannot run, and data that is not there, is refused before a folder is made
    Epochs(bind(spec.data), spec.train.batch, spec.seed).batch(0)
    folder = RunFolder(path)
    with folder.locked():
        continues = folder.open_for(spec)
        gan, data = build(spec, device)
        trainer = Trainer(gan, data, spec.train, device)
        saved, complaints = checkpoint.latest(folder.checkpoints) if continues else (None, [])
        for complaint in complaints:
            tell(complaint)
        for change in folder.note_environment():
            tell(f"not as before, so not to the same bits: {change}")
        if saved is not None:
            trainer.restore(saved)
            where = f"at step {saved.step:,} of {spec.train.steps:,}"
            if saved.step < spec.train.steps:
                tell(f"continues {where}")
            else:
                tell(f"{path} is finished, {where}; a larger train.steps would go on")
        folder.forget_after(trainer.step)
        try:
            return _loop(trainer, folder, watch, tell)
        except Diverged:
            folder.write_status("diverged", trainer.step, spec.train.steps)
            raise
        except OSError as error:
            raise SetupError(f"cannot write to {path}: {error.strerror or error}") from error
        except BaseException:
            folder.write_status("failed", trainer.step, spec.train.steps)
            raise


def _loop(
    trainer: Trainer,
    folder: RunFolder,
    watch: Callable[[int, Mapping[str, float], float], None],
    tell: Callable[[str], None],
) -> Outcome:
    train = trainer.train
    newest = _newest_picture(folder)
    saved_at = trainer.step
    folder.write_status("running", trainer.step, train.steps)
    clock, clock_step = time.perf_counter(), trainer.step
    with _stop_signals() as stopped:
        for record in trainer:
            last = record.step == train.steps
            if record.step % train.log == 0 or last:
                numbers = record.numbers()
                _refuse_nonfinite(numbers, record.step)
                folder.append(folder.metrics, {"step": record.step, **numbers})
                now = time.perf_counter()
                speed = (record.step - clock_step) * train.batch / (now - clock)
                folder.append(folder.timing, {"step": record.step, "images_per_second": speed})
                watch(record.step, numbers, speed)
            if record.step % train.samples == 0 or last:
                newest = folder.samples / f"step_{record.step:07d}.png"
                picture(trainer.samples(), trainer.engine.data).save(newest)
            if record.step % train.checkpoint == 0 or last or stopped:
                _refuse_nonfinite(record.numbers(), record.step)
                trainer.refuse_nonfinite()
                checkpoint.save(folder.checkpoints, trainer.checkpoint())
                saved_at = record.step
            if record.step % train.log == 0:
                # What samples and checkpoints take is not the speed of a step.
                clock, clock_step = time.perf_counter(), record.step
            if saved_at == record.step and stopped:
                break
    finished = trainer.step >= train.steps
    if not finished:
        tell(f"stopped at step {trainer.step:,}, saved at step {saved_at:,}")
    folder.write_status("finished" if finished else "stopped", trainer.step, train.steps)
    return Outcome(finished, trainer.step, newest, stopped[0] if stopped else None)


def picture(images: Tensor, data: Dataset) -> Picture:
    """A grid of images, or points drawn over those of the data."""
    if data.image.size:
        return image_grid(images)
    real = data.images(torch.arange(min(1000, len(data))))
    return scatter(images, real)


def _newest_picture(folder: RunFolder) -> Path | None:
    pictures = folder.samples.glob("step_*.png")
    return max(pictures, key=lambda path: int(path.stem.removeprefix("step_")), default=None)


def _refuse_nonfinite(numbers: Mapping[str, float], step: int) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            what, _, player = name.rpartition("_")
            raise Diverged(player if player in "DG" else "D", step, what or name, dict(numbers))


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that fills with the first stop signal; a second Ctrl-C interrupts at once."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        # Only the main thread may handle signals; elsewhere they stay as they are.
        pass
    try:
        yield caught
    finally:
        for caught_before, handler in before.items():
            signal.signal(caught_before, handler)
