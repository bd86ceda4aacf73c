"""What was measured of a spec's training steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gankit.bench.seams import DISCRIMINATOR, GENERATOR, PENALTY
from gankit.spec import Spec

__all__ = ["Profile", "Span"]


@dataclass(frozen=True)
class Span:
    """A median and the quartiles on both sides of it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Span:
        """Of some numbers; of one alone there is no spread."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __add__(self, other: Span) -> Span:
        return Span(self.median + other.median, self.low + other.low, self.high + other.high)

    def __truediv__(self, count: float) -> Span:
        return Span(self.median / count, self.low / count, self.high / count)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of a step goes, and what it takes."""

    spec: Spec
    device: str
    """`cpu`, or a GPU's name."""
    gpu: bool
    threads: int
    cores: int
    """How many of them this process may use."""
    half: bool
    """Whether the device has instructions for bf16."""
    instead: str
    """Why there is noise in the place of the data; empty where the data itself was used."""
    round: int
    """How many steps were measured together."""
    rounds: int
    """How many times so many were; the spread is from round to round."""
    parts: Mapping[str, Span]
    """Seconds of a step, by part; of what is not done in every step, its share."""
    step: Span
    """Seconds of a step as a whole."""
    memory: int
    """Bytes at the peak of a step."""
    capacity: int
    """The bytes that the device has."""

    def share(self, *parts: str) -> float:
        """How much of a step some parts take together; what is not there takes nothing."""
        taken = sum(self.parts[part].median for part in parts if part in self.parts)
        return taken / self.step.median

    @property
    def penalties(self) -> list[str]:
        """The parts that are penalties."""
        return [part for part in self.parts if part.startswith(PENALTY)]

    @property
    def networks(self) -> float:
        """How much of a step goes through the two networks, penalties among it."""
        return self.share(GENERATOR, DISCRIMINATOR, *self.penalties)

    @property
    def speed(self) -> Span:
        """Images per second: a batch in the time of a step, as `gankit train` counts them."""
        batch = self.spec.train.batch
        return Span(batch / self.step.median, batch / self.step.high, batch / self.step.low)

    def json(self) -> dict[str, Any]:
        """The profile as `gankit bench --json` prints it, without what to change."""
        return {
            "name": self.spec.name,
            "hash": self.spec.hash,
            "device": self.device,
            "threads": self.threads,
            "precision": self.spec.train.precision,
            "batch": self.spec.train.batch,
            "noise": self.instead,
            "steps": self.round * self.rounds,
            "rounds": self.rounds,
            "images_per_second": vars(self.speed),
            "step_seconds": vars(self.step),
            "parts": {
                name: {**vars(span), "share": self.share(name)} for name, span in self.parts.items()
            },
            "memory_bytes": self.memory,
            "capacity_bytes": self.capacity,
        }
