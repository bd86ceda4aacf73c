"""What is done between steps, every so many of them: logs, grids of samples, checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from gankit.bench.clock import LOOP, Clock
from gankit.bench.profile import Span
from gankit.spec import Train
from gankit.train import Trainer
from gankit.train.engine import Engine

__all__ = ["NEVER", "between"]

TIMES = 5
"""How often each is measured."""
NEVER = sys.maxsize
"""So many steps are not taken."""


def between(trainer: Trainer, clock: Clock, train: Train) -> dict[str, Span]:
    """Seconds of each step's share, were they done as often as `train` has it.

    The trainer itself does none of them, but where it is told to here. Of a checkpoint, the copy
    counts that the loop waits for; it is written while training goes on.
    """
    never = trainer.train
    log, samples = replace(never, log=1), replace(never, samples=1)

    def step() -> None:
        for _ in islice(trainer, 1):
            pass

    with _without_steps(trainer.engine):
        trainer.train = log
        found = {"log": _timed(clock, step) / train.log}
        trainer.train = samples
        found["samples"] = _timed(clock, step) / train.samples
    trainer.train = never
    found["checkpoint"] = _timed(clock, trainer.checkpoint) / train.checkpoint
    return found


def _timed(clock: Clock, call: Callable[[], object]) -> Span:
    for _ in range(TIMES):
        with clock.round():
            call()
    return Span.of([seconds[LOOP] for seconds in clock.read()])


@contextmanager
def _without_steps(engine: Engine) -> Iterator[None]:
    """Steps that measure what one has measured, and do nothing more."""
    measured = engine.step(0)
    setattr(engine, "step", lambda step: measured)  # noqa: B010
    try:
        yield
    finally:
        delattr(engine, "step")
