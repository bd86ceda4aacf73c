"""Views: pictures of what a generator has learned, for `gankit sample --as`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL.Image import Image as Picture

from gankit.views.attention import show_attention
from gankit.views.making import Drawing
from gankit.views.neighbours import show_neighbours
from gankit.views.walks import show_interpolation, show_truncation

__all__ = [
    "VIEWS",
    "Drawing",
    "View",
    "show_attention",
    "show_interpolation",
    "show_neighbours",
    "show_truncation",
]

View = Callable[[Drawing, int], Picture]
"""Handed what to draw, and a number of rows or columns."""

VIEWS: Mapping[str, View] = {
    "interpolation": show_interpolation,
    "truncation": show_truncation,
    "attention": show_attention,
    "neighbours": show_neighbours,
}
"""By the word behind `--as`; `grid` is the picture that training draws too."""
