"""One seed of several: its run, and the steps that it takes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from gankit.errors import Diverged, GankitError
from gankit.spec import Spec
from gankit.train import Outcome, Record, Stopped, Trainer
from gankit.train.folder import RunFolder

__all__ = ["Member"]


@dataclass
class Member:
    """One seed of several: its run, and how that has ended."""

    spec: Spec
    folder: RunFolder
    trainer: Trainer
    count: int
    """How many seeds are trained together."""
    error: Diverged | None = None
    signal: int | None = None
    taken: Iterator[Record] = field(init=False)

    def __post_init__(self) -> None:
        self.taken = iter(self.trainer)

    @property
    def running(self) -> bool:
        """Whether there are steps left to take."""
        left = self.trainer.step < self.spec.train.steps
        return left and self.error is None and self.signal is None

    @property
    def outcome(self) -> Outcome:
        """How the run has ended."""
        trainer = self.trainer
        finished = trainer.step >= self.spec.train.steps
        return Outcome(finished, trainer.step, trainer.newest, self.signal)

    def begin(self) -> None:
        """Open the folder for writing; its trainer does so at its first step."""
        self._say("running")
        self.take(self.trainer.step + 1)

    def take(self, until: int) -> None:
        """Steps by itself, to that one, or to where it has gone back to an earlier one."""
        reached = self.trainer.step
        try:
            while self.running and reached < until:
                next(self.taken)
                if self.trainer.step <= reached:
                    return
                reached = self.trainer.step
            if not self.running:
                next(self.taken, None)  # which waits until everything is on the disk
                self._say("finished")
        except Stopped as stopped:
            self.signal = stopped.signal
            self.trainer.tell(f"stopped at step {self.trainer.step:,}, saved")
            self._say("stopped")
        except Diverged as error:
            self.error = error
            self._say("diverged", reason=str(error))
            self.trainer.tell(f"{error}; the other seeds go on")

    def fail(self, error: BaseException) -> None:
        """Keep what was saved, where something else than its numbers has ended the run."""
        if self.running:
            with suppress(OSError):
                self._say("failed", reason=str(error) or type(error).__name__)
            with suppress(GankitError):
                self.trainer.wait()

    def _say(self, state: str, **more: str) -> None:
        step, steps = self.trainer.step, self.spec.train.steps
        self.folder.write_status(state, step, steps, packed=self.count, **more)
