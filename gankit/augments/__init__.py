"""Augments: what D sees of an image, real and fake alike, in D's turn and in G's.

Differentiable, so that G's gradient comes back through them. They draw with
`gankit.randomness.drawn`, so that a batch in several shares is the batch in one.
"""

from __future__ import annotations

from gankit.augments.adaptive import Adaptive
from gankit.augments.images import color, cutout, flip, translation

__all__ = ["Adaptive", "color", "cutout", "flip", "translation"]
