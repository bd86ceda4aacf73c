"""Every draw comes from a generator of its own, seeded by what the draw is for.

Nothing reads or moves torch's global generator, so a run that is resumed, or one whose parts are
exchanged, draws the same numbers for the same purpose at the same step.
"""

from __future__ import annotations

import hashlib

import torch

__all__ = ["derive", "generator"]


def derive(*words: int | str) -> int:
    """A seed below 2^63 from words such as (seed, step, turn, purpose)."""
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by words; the same words give the same draws on every device."""
    return torch.Generator().manual_seed(derive(*words))
