"""What metrics check alike: options when they are made, and sets that are too small."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["at_least", "enough"]


def at_least(metric: str, least: int, **options: int) -> None:
    """Refuse whole numbers below `least`.

    Raises:
        ValueError: naming the metric and the option.
    """
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{metric}: {name} must be at least {least}, not {value}")


def enough(metric: str, counts: Mapping[str, int], least: int, remedy: str) -> None:
    """Refuse sets of fewer than `least` images.

    Raises:
        ValueError: naming the metric, the sets and what may be done about it.
    """
    few = " and ".join(f"{count} {name}" for name, count in counts.items() if count < least)
    if few:
        images = "image" if least == 1 else "images"
        raise ValueError(f"{metric}: needs at least {least} {images} and got {few}; {remedy}")
