"""Signals that end a run: the step at hand is finished and saved first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stopped", "stop_signals"]

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A signal ended the training after a step, which was saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that fills with the stop signals; a second Ctrl-C interrupts at once.

    SIGINT is Ctrl-C; SIGTERM and SIGUSR1 are what schedulers of clusters send before the end.
    """
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before: dict[int, Any] = {}
    try:
        for number in NUMBERS:
            before[number] = signal.signal(number, note)
    except ValueError:
        # Only the main thread may handle signals; elsewhere they stay as they are.
        pass
    try:
        yield caught
    finally:
        for caught_before, handler in before.items():
            signal.signal(caught_before, handler)
