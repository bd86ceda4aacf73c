"""Views: pictures of what a generator has learned, for `gankit sample --as`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL.Image import Image as Picture

from gankit.export import Live
from gankit.slots import Latent
from gankit.views.attention import attention
from gankit.views.neighbours import neighbours
from gankit.views.walks import interpolation, sweep

__all__ = ["VIEWS", "View", "attention", "interpolation", "neighbours", "sweep"]

View = Callable[[Live, int, int, Latent | None], Picture]
"""Handed a live network, a number of rows or columns, a seed, and latents if not its own."""

VIEWS: Mapping[str, View] = {
    "interpolation": interpolation,
    "truncation": sweep,
    "attention": attention,
    "neighbours": neighbours,
}
"""By the word behind `--as`; `grid` is the picture that training draws too."""
