"""What every block asks of its options and of the shape going out."""

from __future__ import annotations

from gankit.slots import Shape

__all__ = ["at_least_one", "something"]


def something(out: Shape) -> Shape:
    """The shape, unless there is nothing in it."""
    if min(out) < 1:
        raise ValueError(f"nothing is left of the feature map: it would be {out}")
    return out


def at_least_one(**options: int) -> None:
    """Refuse what torch would make into a layer of nothing, or trip over later."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
