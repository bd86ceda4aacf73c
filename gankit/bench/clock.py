"""A clock by which every moment of a step belongs to one part of it, and to no other."""

from __future__ import annotations

import operator
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

__all__ = ["LOOP", "REST", "Clock"]

LOOP = "loop"
"""What lies between steps."""

REST = "rest"
"""What a step does in no part of its own."""


class Clock:
    """Marks where parts begin; the time up to the next mark is the part's.

    So the parts of a round add up to the round. `now` takes a mark and `between` gives the
    seconds from one to a later one. Nothing is read before the end: on a GPU, marks are events in
    its queue, and nobody waits for it meanwhile.
    """

    def __init__(
        self,
        now: Callable[[], Any] = time.perf_counter,
        between: Callable[[Any, Any], float] = lambda earlier, later: operator.sub(later, earlier),
    ) -> None:
        self._now = now
        self._between = between
        self._rounds: list[list[tuple[str, Any]]] = []
        self._inner = ""

    @classmethod
    def of(cls, device: torch.device) -> Clock:
        """The clock of a device: a GPU's own, where work is done long after it was asked for."""
        if device.type != "cuda":
            return cls()

        def event() -> torch.cuda.Event:
            mark = torch.cuda.Event(enable_timing=True)
            mark.record(torch.cuda.current_stream(device))
            return mark

        def seconds(earlier: torch.cuda.Event, later: torch.cuda.Event) -> float:
            later.synchronize()
            return earlier.elapsed_time(later) / 1e3

        return cls(event, seconds)

    @contextmanager
    def round(self) -> Iterator[None]:
        """What is measured together; all of it is the loop's, but for parts within."""
        self._rounds.append([])
        with self.part(LOOP):
            yield

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a round, but for parts within it."""
        outer, self._inner = self._inner, name
        self._mark(name)
        try:
            yield
        finally:
            self._inner = outer
            self._mark(outer)

    def passes(self, name: str) -> None:
        """A backward pass comes to what a part has computed: up to the next mark it is that part's.

        Only the pass that the step itself asks for counts; one within a part, as gradient penalties
        take, is that part's as a whole.
        """
        if self._inner == REST:
            self._mark(name)

    def read(self) -> list[dict[str, float]]:
        """The seconds of each part in each round since the last reading."""
        rounds, self._rounds = self._rounds, []
        read = []
        for marks in rounds:
            seconds: dict[str, float] = defaultdict(float)
            for (name, began), (_, ended) in pairwise(marks):
                seconds[name] += self._between(began, ended)
            read.append(dict(seconds))
        return read

    def _mark(self, name: str) -> None:
        self._rounds[-1].append((name, self._now()))
