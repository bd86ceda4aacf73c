"""What every penalty asks of its options."""

from __future__ import annotations

import math

__all__ = ["check_options"]


def check_options(part: str, every: int, **strengths: float) -> None:
    """Refuse what would never be applied, and strengths that are negative or not finite.

    Raises:
        ValueError: naming the part and the option.
    """
    for name, strength in strengths.items():
        if not 0 <= strength < math.inf:
            raise ValueError(f"{part}: {name} must be at least 0, not {strength}")
    if every < 1:
        raise ValueError(f"{part}: every must be at least 1, not {every}")
