"""The loop: steps, and what is written down between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from gankit.build import GAN
from gankit.errors import CheckpointError, DataError, Diverged, GankitError, SetupError
from gankit.ops import is_running
from gankit.slots import Dataset, Logger
from gankit.spec import Train
from gankit.train.checkpoint import Checkpoint, Writer, numbered_in
from gankit.train.engine import ALONE, Engine
from gankit.train.faults import readable
from gankit.train.folder import RunFolder
from gankit.train.health import crossed, health
from gankit.train.pictures import sample_grid
from gankit.train.processes import Processes
from gankit.train.record import Record, Scoring
from gankit.train.sampling import SAMPLES, draw
from gankit.train.signals import Stopped, stop_signals

__all__ = ["Trainer"]

Watch = Callable[[int, Mapping[str, float], float], None]


class Trainer:
    """Trains a GAN, one step per iteration, and can be stopped and continued exactly.

    >>> for record in Trainer(gan, data, Train(steps=100)): ...

    With a `folder` it writes metrics, samples and checkpoints there, as `gankit train` does;
    without one it keeps them to itself. Ctrl-C lets the step at hand finish, saves, and raises
    `Stopped`, a KeyboardInterrupt: the trainer can be iterated again, and goes on from there.

    `scoring` scores the averaged generator every so many steps, and says by which score the best
    checkpoint is kept.

    `callbacks` are called with the `Record` of every step, `watch` with step, numbers and images
    per second at every log, `tell` with messages for people.

    Raises:
        Diverged: a number was not finite, more often than `train.rollbacks` allows.
        SetupError: what has to be written cannot be.
    """

    def __init__(
        self,
        gan: GAN,
        data: Dataset,
        train: Train = Train(steps=1_000_000),  # noqa: B008  (frozen)
        device: torch.device | str = "cpu",
        *,
        folder: Path | str | None = None,
        spec: str = "",
        callbacks: Sequence[Callable[[Record], object]] = (),
        loggers: Sequence[Logger] = (),
        watch: Watch = lambda step, numbers, speed: None,
        tell: Callable[[str], object] = warn,
        processes: Processes = ALONE,
        signals: Callable[[], AbstractContextManager[list[int]]] = stop_signals,
        scoring: Scoring | None = None,
    ) -> None:
        self.engine = Engine(gan, data, train, torch.device(device), processes)
        self.train = train
        self.step = 0
        self.spec = spec
        self.callbacks = callbacks
        self.loggers = list(loggers)
        self.watch = watch
        self.tell = tell
        self.scoring = scoring
        self.newest: Path | None = None
        """The newest sample grid."""
        writes = folder is not None and processes.rank == 0
        self.folder = RunFolder(Path(folder)) if folder is not None and writes else None
        self._writer: Writer | None = None
        self._signals = signals
        self._stopping = 0
        """The signal by which the step at hand is the last, whichever process it came to."""
        self._saved_at = -1
        self._torn = False
        """Whether a step was begun and not finished: an error, or a second Ctrl-C, ended it."""
        self._good: Checkpoint | None = None
        self._numbers: tuple[int, dict[str, float]] = (-1, {})
        """What was logged last, and at which step."""
        self._warned: set[str] = set()
        self._clock = time.perf_counter(), 0

    def open(self) -> None:
        """Make the folder ready to be written to; iterating does so.

        Raises:
            SetupError: it has checkpoints of later steps, which new ones would push out.
        """
        if self.folder is not None and self._writer is None:
            later = [path.name for path in numbered_in(self.folder.checkpoints)]
            if later and int(later[0].removeprefix("step_")) > self.step:
                raise SetupError(
                    f"{self.folder.path} has checkpoints up to {later[0]}, and this trainer is at "
                    f"step {self.step}\n  restore that first, or choose another folder"
                )
            self.folder.samples.mkdir(parents=True, exist_ok=True)
            self.folder.forget_after(self.step)
            best = self.train.best or (self.scoring.best if self.scoring else "")
            self._writer = Writer(self.folder.checkpoints, self.train.keep, best)

    def __iter__(self) -> Iterator[Record]:
        self.open()
        if self._torn:
            self._mend()
        if self.train.rollbacks and self._good is None:
            self._good = self.checkpoint()
        self._compare()
        self._clock = time.perf_counter(), self.step
        try:
            yield from self._steps()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Whoever leaves the loop early keeps what was saved in it.
            try:
                self.wait()
            except GankitError as unsaved:
                # A checkpoint that fills the disk fills it for the metrics too; it can say by how
                # much.
                if isinstance(error, SetupError):
                    raise unsaved from error
            raise
        self.wait()

    def _steps(self) -> Iterator[Record]:
        caught: list[int] = []
        while self.step < self.train.steps:
            late = caught
            with self._signals() as caught:
                if late and not caught:
                    caught += late
                record = self._advance(caught)
            if self._stopping:
                self.wait()
                # Together: launchers soon end those that go on when one has ended.
                self.engine.processes.largest([0])
                raise Stopped(self._stopping)
            if record is not None:
                yield record

    def _advance(self, caught: list[int]) -> Record | None:
        """A step, and all that is due after it; None where it led back to an earlier one."""
        self._torn = True
        record = Record(self.step + 1, self.engine.step(self.step))
        self.step += 1
        self._torn = False
        last = self.step == self.train.steps
        self._stopping = 0
        try:
            if self.step % self.train.log == 0 or last:
                self._log(record)
            if self.step % self.train.samples == 0 or last:
                self._draw()
            scored = self.scoring is not None and (self.step % self.scoring.every == 0 or last)
            if scored:
                self._score(record)
            for callback in self.callbacks:
                callback(record)
            # Decided once, and by all processes: a signal that comes later is for the next step.
            (self._stopping,) = self.engine.processes.largest([max(caught, default=0)])
            if self.step % self.train.checkpoint == 0 or last or scored or self._stopping:
                self.save(record)
        except Diverged as error:
            self._roll_back(error)
            return None
        if self.step % self.train.log == 0:
            # What samples and checkpoints take is not the speed of a step.
            self._clock = time.perf_counter(), self.step
        return record

    def _log(self, record: Record) -> None:
        """Read what was measured, look after the health of it, and write it down."""
        self._refuse_faults()
        self._compare()
        if self.engine.processes.rank:
            return
        numbers = self._measured(record)
        since, first = self._clock
        seconds = time.perf_counter() - since
        speed = (self.step - first) * self.train.batch / seconds if self.step > first else 0.0
        if self.folder is not None:
            with self.folder.writing():
                self.folder.append(self.folder.metrics, {"step": self.step, **numbers})
                timing = {"step": self.step, "images_per_second": speed}
                self.folder.append(self.folder.timing, timing)
        self._for_loggers(lambda logger: logger.numbers(self.step, numbers))
        self.watch(self.step, numbers, speed)
        warnings = crossed(numbers)
        for name in warnings.keys() - self._warned:
            self.tell(f"step {self.step:,}: {warnings[name]}")
        self._warned = set(warnings)

    def _measured(self, record: Record) -> dict[str, float]:
        """The numbers of a record and those of its health."""
        if self._numbers[0] != record.step:
            gan = self.engine.gan
            real, fake = self.engine.shown or (None, torch.empty(0))
            more = health(gan.generator, gan.discriminator, real, fake)
            everything = Record(record.step, {**record.measured, **more})
            self._numbers = record.step, everything.numbers()
        return self._numbers[1]

    def _compare(self) -> None:
        """Refuse processes that do not have the same weights."""
        engine = self.engine
        modules = (*engine.networks.values(), *engine.gan.stateful().values(), engine.ema.average)
        tensors = [tensor for module in modules for tensor in _tensors(module).values()]
        if not engine.processes.agree(tensors):
            raise GankitError(f"the processes have different weights at step {self.step}")

    def _draw(self) -> None:
        """A grid of samples."""
        if self.engine.processes.rank or not (self.folder or self.loggers):
            return
        engine = self.engine
        grid = sample_grid(engine.gan, engine.ema.network(), engine.data)
        if self.folder is not None:
            self.newest = self.folder.samples / f"step_{self.step:07d}.png"
            with self.folder.writing():
                grid.save(self.newest)
        self._for_loggers(lambda logger: logger.picture(self.step, grid))

    def _score(self, record: Record) -> None:
        """Score the averaged generator; the scores are told with the metrics of the step."""
        self._refuse_faults()  # in all processes, which go back together
        if self.engine.processes.rank or self.scoring is None:
            return
        since = time.perf_counter()
        try:
            scores = self.scoring.scores(self.engine.gan, self.engine.ema.network(), self.step)
        except DataError as error:
            # What was trained is worth as much without.
            self.tell(f"step {self.step:,} is not scored: {error}")
            return
        self._numbers = self.step, {**self._measured(record), **scores}
        if self.folder is not None:
            with self.folder.writing():
                self.folder.append(self.folder.metrics, {"step": self.step, **scores})
        self._for_loggers(lambda logger: logger.numbers(self.step, scores))
        told = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        seconds = time.perf_counter() - since
        self.tell(f"step {self.step:,}: {told}  (scored in {seconds:.1f} s)")
        # What scoring takes is not the speed of a step.
        self._clock = self._clock[0] + seconds, self._clock[1]

    def _for_loggers(self, call: Callable[[Logger], None]) -> None:
        """Call every logger; one that fails is told of and left out, and training goes on."""
        for logger in list(self.loggers):
            try:
                call(logger)
            except Exception as error:
                self.loggers.remove(logger)
                self.tell(f"{type(logger).__name__} is left out from here on: {error}")

    def save(self, record: Record | None = None) -> None:
        """Save the state as it is, in the folder if there is one.

        Raises:
            Diverged: the state is not one to go on from.
            SetupError: an earlier checkpoint could not be written.
        """
        if self._saved_at == self.step:
            return
        self._refuse_faults()
        self._refuse_nonfinite()
        writes = self._writer is not None
        self._saved_at = self.step
        if not writes and not self.train.rollbacks:
            return
        numbers = self._measured(record) if record and writes else {}
        made = replace(self.checkpoint(), numbers=numbers)
        self._good = made if self.train.rollbacks else None
        if self._writer is not None:
            self._writer.write(made)

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            SetupError: it could not be written.
        """
        if self._writer is not None:
            try:
                self._writer.wait()
            except BaseException:
                self._saved_at = -1  # it was not, so saving again is to mean something
                raise

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on from here: a copy, which later steps leave as it is."""
        engine = self.engine
        networks = {
            "generator": engine.gan.generator,
            "discriminator": engine.gan.discriminator,
            "ema": engine.ema.average,
        }
        weights = {name: network.state_dict() for name, network in networks.items()}
        return Checkpoint(self.step, _copied(weights), _copied(engine.state()), self.spec)

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
            engine.load_state(_copied(saved.state))
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit this spec: {error}") from error
        self.step = saved.step
        self._saved_at = -1
        self._numbers = -1, {}  # the steps from here on are measured anew
        self._torn = False
        self._good = saved if self.train.rollbacks else None

    def samples(self, count: int = SAMPLES, seed: int = 0) -> Tensor:
        """Images of the averaged generator."""
        return draw(self.engine.gan, self.engine.ema.network(), count, seed)

    def _roll_back(self, error: Diverged) -> None:
        """Go back to the last good state, and on with other draws, if that may still be."""
        rollbacks = self.engine.rollbacks
        if rollbacks >= self.train.rollbacks or self._good is None:
            error.rollbacks = rollbacks
            raise error
        self._go_back(self._good)
        self.engine.rollbacks = rollbacks + 1
        first = str(error).splitlines()[0]
        self.tell(f"{first}; back to step {self.step:,}, rollback {rollbacks + 1}")

    def _go_back(self, good: Checkpoint) -> None:
        """Be where a state was taken, and forget what came after."""
        self.restore(good)
        self._saved_at = self.step
        if self.folder is not None:
            self.folder.forget_after(self.step)
        self._clock = time.perf_counter(), self.step

    def _mend(self) -> None:
        """Leave a step that was begun and not finished."""
        if self._good is None:
            raise GankitError("a step was not finished; restore a checkpoint to go on from there")
        self._go_back(self._good)
        self.tell(f"a step was not finished; goes on from step {self.step:,}")

    def _refuse_faults(self) -> None:
        fault = self.engine.fault()
        if fault is not None:
            raise Diverged(fault.player, fault.step + 1, fault.what, fault.layer)

    def _refuse_nonfinite(self) -> None:
        """Refuse weights and statistics that nobody could continue from."""
        for name, player in self.engine.players.items():
            running = {n: b for n, b in player.network.named_buffers() if is_running(n, b)}
            tensors = dict(player.network.named_parameters()) | running
            finite = torch.stack([t.isfinite().all() for t in tensors.values()])
            if not bool(finite.all()):
                layer = list(tensors)[int(finite.to(torch.uint8).argmin())]
                raise Diverged(name, self.step, "weights", readable(layer))


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """What a module has to save, without what is no tensor."""
    return {n: value for n, value in module.state_dict().items() if isinstance(value, Tensor)}


def _copied(tree: Any) -> Any:
    """A copy in the host's memory."""
    return tree_map_only(Tensor, lambda t: t.detach().to("cpu", copy=True), tree)
