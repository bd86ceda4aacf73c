"""What a turn is played on, and how it is divided: over processes, and into shares of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gankit.randomness import ShareGenerator, generator
from gankit.spec import Train
from gankit.train.processes import Processes

__all__ = ["Batch", "Draws", "Share", "check_shares"]


def check_shares(train: Train, processes: Processes) -> None:
    """Refuse a batch that cannot be divided as it should be.

    Raises:
        ValueError: naming how many shares it would have.
    """
    shares = train.accumulate * processes.count
    if train.batch % shares:
        raise ValueError(f"a batch of {train.batch} cannot be divided into {shares} equal shares")


@dataclass(frozen=True)
class Draws:
    """The generators of a turn, by what is drawn; seeded by (seed, rollbacks, step, turn)."""

    words: tuple[int, ...]

    def __call__(self, purpose: str) -> torch.Generator:
        """For draws of the whole batch at once, which every process makes alike."""
        return generator(*self.words, purpose)

    def of(self, share: Share, purpose: str) -> torch.Generator:
        """For draws of one share of the batch."""
        if share.count == 1:
            return self(purpose)
        rows = len(share.latent)
        return ShareGenerator.of(
            *self.words, purpose, index=share.index, count=share.count, rows=rows
        )


@dataclass(frozen=True)
class Share:
    """Rows of a batch that go through the networks together."""

    real: Tensor | None
    labels: Tensor | None
    latent: Tensor
    index: int
    count: int


@dataclass(frozen=True)
class Batch:
    """The rows of a batch that are this process's, on the device."""

    real: Tensor | None
    labels: Tensor | None
    latent: Tensor

    def shares(self, accumulate: int, processes: Processes) -> Iterator[Share]:
        """The rows in equal shares, each with its place among those of all processes."""
        columns = [
            [None] * accumulate if rows is None else rows.chunk(accumulate)
            for rows in (self.real, self.labels, self.latent)
        ]
        for index, (real, labels, latent) in enumerate(zip(*columns, strict=True)):
            assert latent is not None
            place = processes.rank * accumulate + index
            yield Share(real, labels, latent, place, processes.count * accumulate)
