"""How a data set is scored where nobody says: by which features, by which metrics, on how many."""

from __future__ import annotations

from gankit.fit import METRICS
from gankit.slots import Dataset

__all__ = ["default_count", "default_features", "default_metrics"]


def default_features(data: Dataset) -> tuple[str, str]:
    """The name of a part of the kind `features`, and a note where it is a makeshift.

    A data set says it in its attribute `features`; of one that does not, points are seen as they
    are and images by a random network, for want of weights that every machine has.
    """
    if name := getattr(data, "features", ""):
        return name, ""
    if not data.image.size:
        return "pixels", ""
    return "random", (
        "features of a random network rank runs on this data, and compare with no published score:"
        " that takes the features inception, and the file of their weights"
    )


def default_metrics(data: Dataset) -> tuple[str, ...]:
    """The names of metrics; a data set says them in its attribute `metrics`."""
    return tuple(getattr(data, "metrics", METRICS))


def default_count(data: Dataset) -> int:
    """How many generated images are scored; a data set says it in its attribute `samples`."""
    return int(getattr(data, "samples", 10_000))
