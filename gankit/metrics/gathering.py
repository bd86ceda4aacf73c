"""What metrics keep of a set of images: moments of its features, or the rows themselves.

Both are kept on the CPU, wherever the features were computed, and come out the same, to rounding,
in whatever batches the images were shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gankit.randomness import derive
from gankit.slots import Seen

__all__ = ["Kept", "Moments"]


class Moments:
    """Mean and covariance of features, gathered a batch at a time in float64.

    Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances", 1979: deviations from a batch's own mean are squared, never the values, so nothing
    is lost where means are large. Takes D x D numbers, however many images there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Those of vectors (B, D)."""
        moments = cls()
        # So that float64 is never more than a part of them.
        for part in features.split(4096):
            moments.add(Seen(part))
        return moments

    @property
    def width(self) -> int:
        """D, the length of a vector; 0 before the first."""
        return len(self._mean)

    @property
    def mean(self) -> Tensor:
        """(D,) float64."""
        return self._mean.clone()

    @property
    def covariance(self) -> Tensor:
        """(D, D) float64, unbiased: divided by one less than the count.

        Raises:
            ValueError: of fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a covariance takes at least 2 images, and there are {self.count}")
        return self._scatter / (self.count - 1)

    def add(self, seen: Seen, /) -> None:
        """Take the features of a batch in.

        Raises:
            ValueError: features that are not (B, D) and finite, or of another width than before.
        """
        rows = _vectors(seen).double()
        if len(rows):
            mean = rows.mean(0)
            self._join(len(rows), mean, rows - mean)

    def merge(self, other: Moments) -> None:
        """Take in what another has gathered, as if it had been shown here.

        Raises:
            ValueError: features of another width.
        """
        if other.count:
            self._join(other.count, other._mean, other._mean.new_zeros(0, other.width))
            self._scatter += other._scatter

    def _join(self, count: int, mean: Tensor, deviations: Tensor) -> None:
        if not self.count:
            self._mean = torch.zeros_like(mean)
            self._scatter = mean.new_zeros(len(mean), len(mean))
        _same_width(self.width, len(mean))
        total = self.count + count
        apart = mean - self._mean
        # How far the two means are apart is one more deviation, of the weight of both sets.
        rows = torch.cat([deviations, apart[None] * math.sqrt(self.count / total * count)])
        self._scatter.addmm_(rows.mT, rows)
        self._mean += apart * (count / total)
        self.count = total

    def state(self) -> dict[str, Tensor]:
        """All of it, to be kept on disk."""
        count = torch.tensor(self.count)
        return {"count": count, "mean": self.mean, "scatter": self._scatter.clone()}

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Take up what `state` gave."""
        self.count = int(state["count"])
        self._mean = state["mean"].clone()
        self._scatter = state["scatter"].clone()


class Kept:
    """The rows themselves, of those fields of `Seen` that are named.

    With `most`, at most so many images, drawn evenly from all that were shown: which ones depends
    on the seed and on the order of the images, and not on how they were batched.
    """

    def __init__(
        self,
        *fields: Literal["features", "logits", "labels"],
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        self.count = 0
        self._fields = fields
        self._most = most
        self._seed = seed
        self._batches: dict[str, list[Tensor]] = {}
        """Tensors of equal lengths per field, and under `key` what was drawn for each row."""

    def __len__(self) -> int:
        """How many are kept."""
        return min(self.count, self._most or self.count)

    def add(self, seen: Seen, /) -> None:
        """Keep a batch's rows.

        Raises:
            ValueError: features that are not (B, D) and finite, logits that are not numbers, or
                fields that were there before and are missing now, or the other way round.
        """
        count = len(_vectors(seen))
        if not count:
            return
        told = {name: getattr(seen, name) for name in self._fields}
        rows: dict[str, Tensor] = {}
        rows |= {name: field.detach().cpu() for name, field in told.items() if field is not None}
        if self._most:
            rows["key"] = self._keys(count)
        self._check(rows, count)
        for name, field in rows.items():
            # Not a view, which would keep all of what it was taken from.
            self._batches.setdefault(name, []).append(field.clone())
        self.count += count
        # Not at every batch: what is copied stays in proportion to what was shown.
        if self._most and sum(map(len, self._batches["key"])) > 2 * self._most:
            self._prune()

    def _check(self, rows: Mapping[str, Tensor], count: int) -> None:
        if "logits" in rows and rows["logits"].isnan().any():
            raise ValueError("logits that are not numbers: nothing can be told of these images")
        if self.count and set(self._batches) != set(rows):
            raise ValueError("all batches must have the same fields")
        for name, field in rows.items():
            if len(field) != count:
                raise ValueError(f"{len(field)} {name} of {count} images")
            if self.count:
                _same_width(self._batches[name][0][0].numel(), field[0].numel())

    def _keys(self, count: int) -> Tensor:
        """A number for each of the next rows, by its place; those of the smallest are kept."""
        bits = np.random.PCG64(derive("kept", self._seed)).advance(self.count)
        return torch.from_numpy(np.random.Generator(bits).random(count))

    def _prune(self) -> None:
        """Let go of rows beyond `most`."""
        if self._most and self._most < self.count:
            chosen = self._rows("key").topk(len(self), largest=False).indices.sort().values
            self._batches = {name: [self._rows(name)[chosen]] for name in self._batches}

    def _rows(self, field: str) -> Tensor:
        batches = self._batches[field]
        if len(batches) > 1:
            batches[:] = [torch.cat(batches)]
        return batches[0]

    def rows(self, field: Literal["features", "logits", "labels"], metric: str) -> Tensor:
        """A field of all images that are kept, in the order in which they were shown.

        Raises:
            ValueError: in the metric's name, where no image was shown or this was not told.
        """
        if not self.count:
            raise ValueError(f"{metric}: there are no images")
        if field not in self._batches:
            raise ValueError(f"{metric}: needs {field}, and the features tell none")
        self._prune()
        return self._rows(field)

    def state(self) -> dict[str, Tensor]:
        """All of it, to be kept on disk."""
        self._prune()
        rows = {name: self._rows(name).contiguous() for name in self._batches}
        return {"count": torch.tensor(self.count), **rows}

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Take up what `state` gave."""
        self.count = int(state["count"])
        self._batches = {name: [rows] for name, rows in state.items() if name != "count"}


def _vectors(seen: Seen) -> Tensor:
    """The features of a batch on the CPU, (B, D)."""
    features = seen.features.detach().cpu()
    if features.ndim != 2:
        raise ValueError(f"features are (B, D), not {tuple(features.shape)}")
    broken = len(features) - int(features.isfinite().all(1).sum())
    if broken:
        raise ValueError(f"features of {broken} in {len(features)} images are not finite")
    return features


def _same_width(before: int, now: int) -> None:
    if before != now:
        raise ValueError(f"features of width {now} among those of width {before}")
