"""How those who wait are told how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Watch"]


class Watch(Protocol):
    """Called now and then while images are worked through."""

    def __call__(self, doing: str, done: int, total: int, bad: int, /) -> None:
        """What is done to images: `done` of `total` so far, `bad` of which cannot be used."""
        ...
