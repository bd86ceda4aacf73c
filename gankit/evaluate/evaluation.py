"""Features, metrics and real images, ready to score what a generator makes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import torch

import gankit
from gankit.errors import DataError
from gankit.evaluate.card import Card
from gankit.evaluate.naming import Named, versions
from gankit.evaluate.reference import kept
from gankit.evaluate.scores import Scores
from gankit.evaluate.sets import Batch, Half, batches, content, unflipped
from gankit.registry import hand
from gankit.slots import Dataset, Features, Gathered, Seen

__all__ = ["Evaluation"]


class Evaluation:
    """Scores images against a data set.

    Real images are looked at once: what metrics keep of them is on the disk from then on. Nothing
    here draws from a global generator.

    Raises:
        DataError: a metric wants images that were held out, and the data set has none.
    """

    def __init__(
        self,
        data: Dataset,
        about: str,
        features: Named,
        metrics: Mapping[str, Named],
        *,
        device: torch.device | str = "cpu",
        real: int = 0,
        tell: Callable[[str], object] = lambda message: None,
        notes: Sequence[str] = (),
        floored: bool = False,
    ) -> None:
        self.data = unflipped(data)
        self.about = about
        self.features = features
        self.metrics = metrics
        self.device = torch.device(device)
        self.tell = tell
        self.notes = notes
        self.floored = floored
        """Whether real images are scored against other real ones too."""
        self._most = real
        self._references: dict[str, dict[str, Gathered]] = {}
        wanting = [name for name, each in metrics.items() if "held_out" in each.entry.needs]
        if wanting and self.held_out is None:
            raise DataError(
                f'metric "{wanting[0]}" compares with real images that were not trained on, and '
                f'this data holds none out\n  a split = "train" does, of data that has splits'
            )

    @property
    def held_out(self) -> Dataset | None:
        """Real images that were not trained on, where the data set knows of any."""
        found: Dataset | None = getattr(self.data, "held_out", None)
        return found

    @property
    def real_count(self) -> int:
        """How many real images are looked at: the first so many, or all."""
        return min(self._most or len(self.data), len(self.data))

    @torch.no_grad()
    def rehearse(self) -> None:
        """Look at one real image, so that features without their weights are known of at once.

        Raises:
            SetupError: of the features or the data.
        """
        for images, _ in batches(self.data, 1):
            self.features.part(images.to(self.device))

    def score(self, images: Iterable[Batch], about: Mapping[str, str], count: int) -> Scores:
        """The scores of generated images; `about` are the lines of the card that tell of them.

        Raises:
            DataError: a metric cannot be computed from these images.
        """
        needed = self._needed()
        real = self._reference("real", self.data, self.real_count) if "real" in needed else None
        held: dict[str, Gathered] | None = None
        if "held_out" in needed and self.held_out is not None:
            held = self._reference("held out", self.held_out, len(self.held_out))
        fake = self._gathered(images, "generated", count)
        values, of, better = self._scored(real, fake, held)
        least = self.floor() if self.floored else {}
        return Scores(values, of, better, self.card(about, count), tuple(self.notes), least)

    def floor(self) -> dict[str, float]:
        """The scores of real images against other real ones, which are as good as can be.

        Of those that were held out, or else of every second one against the others. A metric that
        takes more images than there are is left out.
        """
        if self.held_out is None:
            even, odd = (Half(self.data, self.real_count, odd) for odd in (False, True))
            one = self._reference("half of the real", even, len(even))
            other = self._reference("the other half of the real", odd, len(odd))
        else:
            one = self._reference("real", self.data, self.real_count)
            other = self._reference("held out", self.held_out, len(self.held_out))
        found: dict[str, float] = {}
        for name in self.metrics:
            with suppress(DataError):
                found |= self._scored(one, other, other, only=name)[0]
        return found

    def _scored(
        self,
        real: Mapping[str, Gathered] | None,
        fake: Mapping[str, Gathered],
        held: Mapping[str, Gathered] | None,
        only: str = "",
    ) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
        """Scores by name, which metric gave each, and what is better."""
        values: dict[str, float] = {}
        of: dict[str, str] = {}
        better: dict[str, str] = {}
        for name, metric in self.metrics.items():
            if only not in ("", name):
                continue
            sets = [each[name] if each else metric.part.gather() for each in (real, fake, held)]
            try:
                found = hand(metric.part.scores, *sets)
            except ValueError as error:
                raise DataError(str(error)) from error
            for score, value in found.items():
                if score in of:
                    raise DataError(f'metrics "{of[score]}" and "{name}" both give "{score}"')
                if not math.isfinite(value):
                    raise DataError(f'metric "{name}": {score} is {value} for these images')
                values[score], of[score] = float(value), name
            better |= {
                score: metric.part.better[score] for score in found if score in metric.part.better
            }
        return values, of, better

    def card(self, about: Mapping[str, str], count: int) -> Card:
        """How scores of so many images are made."""
        held = self.held_out if "held_out" in self._needed() else None
        seen: Features = self.features.part
        return Card(
            {
                **about,
                "count": f"{count:,} generated, {self.real_count:,} real",
                "data": self.about,
                **({"held out": f"{len(held):,} real"} if held is not None else {}),
                "features": self.features.text,
                **{f"features {line}": text for line, text in seen.card.items()},
                **{f"metric {name}": metric.text for name, metric in self.metrics.items()},
                "device": str(self.device),
                "versions": versions(),
            }
        )

    def _needed(self) -> set[str]:
        """Which sets of real images some metric looks at."""
        needed = {"held_out" for each in self.metrics.values() if "held_out" in each.entry.needs}
        alone = all(getattr(each.part, "reference_free", False) for each in self.metrics.values())
        return needed | (set() if alone else {"real"})

    def _reference(self, what: str, data: Dataset, count: int) -> dict[str, Gathered]:
        """What metrics keep of real images: from this evaluation, the disk, or the images."""
        if what not in self._references:
            seen: Features = self.features.part
            key = {
                "data": [self.about, what, count, content(data)],
                "features": [self.features.text, dict(seen.card)],
                "metrics": {name: each.text for name, each in self.metrics.items()},
                "gankit": gankit.__version__,
            }
            digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
            empty = {name: each.part.gather() for name, each in self.metrics.items()}
            self._references[what] = kept(
                digest, empty, lambda: self._gathered(batches(data, count), what, count)
            )
        return self._references[what]

    @torch.no_grad()
    def _gathered(self, images: Iterable[Batch], what: str, count: int) -> dict[str, Gathered]:
        """What every metric keeps of a set of images."""
        found: dict[str, Gathered] = {name: m.part.gather() for name, m in self.metrics.items()}
        self.tell(f"looks at {count:,} images: {what}")
        for batch, labels in images:
            try:
                seen: Seen = self.features.part(batch.to(self.device))
                for gathered in found.values():
                    gathered.add(seen._replace(labels=labels))
            except ValueError as error:
                raise DataError(f"{what} images: {error}") from error
        return found
