"""The Frechet distance between Gaussians that are fitted to features of real and fake images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from gankit.metrics.checks import at_least, enough
from gankit.metrics.gathering import Kept, Moments
from gankit.metrics.gaussians import frechet_distance
from gankit.randomness import generator
from gankit.registry import metric

__all__ = ["Frechet", "FrechetInfinity", "IntraFrechet"]


@metric("frechet")
@dataclass(frozen=True, kw_only=True)
class Frechet:
    """The Frechet distance (FID on Inception features), of Gaussians fitted to both sets.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium", 2017, arXiv:1706.08500, section 3. It falls with the number of images, by more
    than generators often differ: compare at equal counts, or take frechet_infinity.

    Options:
        singular: score sets of no more images than features are wide, whose covariance is singular

    Raises:
        ValueError: in `scores`, of sets that are too small.

    Differs from the paper: nothing is added to the diagonals of singular covariances, and no
    imaginary part is dropped.
    """

    better: ClassVar[Mapping[str, str]] = {"frechet": "lower"}
    singular: bool = False

    def gather(self) -> Moments:
        """Mean and covariance."""
        return Moments()

    def scores(self, real: Moments, fake: Moments, /) -> dict[str, float]:
        """`frechet`, 0 or more, in squares of the features' unit."""
        counts = {"real": real.count, "fake": fake.count}
        _enough("frechet", counts, max(real.width, fake.width), self.singular)
        return {"frechet": frechet_distance(real, fake)}


@metric("frechet_infinity")
@dataclass(frozen=True, kw_only=True)
class FrechetInfinity:
    """The Frechet distance that infinitely many fake images would have, by extrapolation.

    Keeps all features. A line is fitted to the distance as a function of 1 / count, over fake sets
    of evenly spaced counts, each drawn anew from all fake images; its value at 0 is the score. It
    may fall below 0.

    Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", 2020,
    arXiv:1911.07023.

    Options:
        points: how many counts; at least 2
        share: of all fake images, the smallest count; below 1, above 0
        seed: of which images are drawn
        singular: score sets of no more images than features are wide, whose covariance is singular

    Raises:
        ValueError: an option out of range, or, in `scores`, sets that are too small.

    Differs from the paper: latents are whatever the fake images were made from, not a Sobol
    sequence. The counts there are 5,000 to 50,000.
    """

    better: ClassVar[Mapping[str, str]] = {"frechet_infinity": "lower"}
    points: int = 15
    share: float = 0.1
    seed: int = 0
    singular: bool = False

    def __post_init__(self) -> None:
        at_least("frechet_infinity", 2, points=self.points)
        at_least("frechet_infinity", 0, seed=self.seed)
        if not 0 < self.share < 1:
            raise ValueError(f"frechet_infinity: share must be in (0, 1), not {self.share}")

    def gather(self) -> Kept:
        """The features."""
        return Kept("features")

    def scores(self, real: Kept, fake: Kept, /) -> dict[str, float]:
        """`frechet_infinity`, in squares of the features' unit."""
        name = "frechet_infinity"
        moments, rows = Moments.of(real.rows("features", name)), fake.rows("features", name)
        smallest = round(self.share * len(rows))
        sizes = {"real": moments.count, "fake in the smallest set": smallest}
        _enough(name, sizes, moments.width, self.singular)
        remedy = "take more images, or fewer points"
        enough(name, {"fake": len(rows)}, smallest + self.points, remedy)
        counts = torch.linspace(smallest, len(rows), self.points, dtype=torch.float64).round()
        random = generator(name, self.seed)
        distances = []
        for count in counts.int().tolist():
            drawn = torch.randperm(len(rows), generator=random)[:count]
            distances.append(frechet_distance(moments, Moments.of(rows[drawn])))
        heights, places = torch.tensor(distances, dtype=torch.float64), 1 / counts
        # Least squares in two unknowns; torch's solver differs in the last bits from call to call.
        apart = places - places.mean()
        slope = (apart * heights).sum() / apart.square().sum()
        return {name: (heights.mean() - slope * places.mean()).item()}


@metric("intra_frechet", needs={"labels"})
@dataclass(frozen=True, kw_only=True)
class IntraFrechet:
    """The Frechet distance within each class, and its mean over classes (intra-FID).

    Miyato and Koyama, "cGANs with Projection Discriminator", 2018, arXiv:1802.05637.

    Keeps the features of all images, which is less than a covariance per class as long as a class
    has fewer images than features are wide, twice over.

    Options:
        singular: score classes of no more images than features are wide, as the paper's are

    Raises:
        ValueError: in `scores`, of images without labels, classes that one set alone has, or
            classes that are too small.
    """

    better: ClassVar[Mapping[str, str]] = {"intra_frechet": "lower"}
    singular: bool = False

    def gather(self) -> Kept:
        """The features and the labels."""
        return Kept("features", "labels")

    def scores(self, real: Kept, fake: Kept, /) -> dict[str, float]:
        """`intra_frechet`, the mean, and `intra_frechet/0`, ... for each class."""
        name = "intra_frechet"
        sets = [(each.rows("features", name), each.rows("labels", name)) for each in (real, fake)]
        classes = torch.cat([labels for _, labels in sets]).unique().tolist()
        distances = {}
        for label in classes:
            one, other = (Moments.of(features[labels == label]) for features, labels in sets)
            counts = {f"real of class {label}": one.count, f"fake of class {label}": other.count}
            _enough(name, counts, max(one.width, other.width), self.singular)
            distances[f"{name}/{label}"] = frechet_distance(one, other)
        return {name: sum(distances.values()) / len(distances), **distances}


def _enough(name: str, counts: Mapping[str, int], width: int, singular: bool) -> None:
    """Refuse sets whose covariance cannot have full rank, unless that is allowed.

    Raises:
        ValueError: saying how many images it takes, and what else there is to do.
    """
    if singular:
        enough(name, counts, 2, "take more images")
    else:
        remedy = "take more images, or narrower features, or allow `singular = true`"
        enough(name, counts, width + 1, f"features are {width} wide: {remedy}")
