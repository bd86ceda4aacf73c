"""Real data by index, and the pictures made of it.

A source is a `gankit.slots.Dataset`: making one touches no disk and draws nothing, and the image at
an index is always the same, whatever else is asked for with it.
"""

from __future__ import annotations

from gankit.datasets.checks import height_width
from gankit.datasets.digits import Digits, StackedDigits
from gankit.datasets.folder import Folder
from gankit.datasets.images import image_grid, scatter, to_float, to_uint8
from gankit.datasets.packed import Packed
from gankit.datasets.points import Grid, Ring
from gankit.datasets.shapes import Factors, Shapes, render

__all__ = [
    "Digits",
    "Factors",
    "Folder",
    "Grid",
    "Packed",
    "Ring",
    "Shapes",
    "StackedDigits",
    "height_width",
    "image_grid",
    "render",
    "scatter",
    "to_float",
    "to_uint8",
]
