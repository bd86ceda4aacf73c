"""The order of the data: shuffled epochs laid end to end, cut into batches."""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor

from gankit.errors import DataError
from gankit.randomness import generator
from gankit.slots import Dataset

__all__ = ["Epochs"]


class Epochs:
    """Batch k is the same whenever it is asked for, so nothing has to be saved to continue.

    Every image comes once per epoch; the order of each epoch follows from the seed alone.

    Raises:
        DataError: when the first batch is asked for, and there are fewer images than it has rows.
    """

    def __init__(self, data: Dataset, batch: int, seed: int) -> None:
        self.data = data
        self.size = batch
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    @cached_property
    def count(self) -> int:
        """How many images an epoch has."""
        count = len(self.data)
        if count < self.size:
            raise DataError(f"the data has {count} images, fewer than a batch of {self.size}")
        return count

    def batch(self, k: int) -> Tensor:
        """The indices of the k-th batch, (batch,) int64."""
        start, stop = k * self.size, (k + 1) * self.size
        epoch, first = divmod(start, self.count)
        indices = self._order(epoch)[first : first + self.size]
        if len(indices) < self.size:
            rest = stop - (epoch + 1) * self.count
            indices = torch.cat([indices, self._order(epoch + 1)[:rest]])
        return indices

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(self.count, generator=generator(self.seed, "epoch", epoch))
