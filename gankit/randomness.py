"""Every draw comes from a generator of its own, seeded by what the draw is for.

Nothing reads or moves torch's global generator, so a run that is resumed, or one whose parts are
exchanged, draws the same numbers for the same purpose at the same step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["derive", "generator", "seeded"]


def derive(*words: int | str) -> int:
    """A seed below 2^63 from words such as (seed, step, turn, purpose)."""
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by words; the same words give the same draws on every device."""
    return torch.Generator().manual_seed(derive(*words))


@contextmanager
def seeded(*words: int | str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Torch's global generators seeded by words, and put back as they were at the end.

    For modules that draw from them, as dropout and torch's own initial weights do.
    """
    device = torch.device(device)
    devices = []
    if device.type == "cuda":
        devices = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=devices):
        # Not `torch.manual_seed`, which seeds every GPU there is and would not put those back.
        torch.default_generator.manual_seed(derive(*words))
        for each in devices:
            torch.cuda.default_generators[each].manual_seed(derive(*words))
        yield
