"""Every draw comes from a generator of its own, seeded by what the draw is for.

Nothing reads or moves torch's global generator, so a run that is resumed, or one whose parts are
exchanged, draws the same numbers for the same purpose at the same step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["ShareGenerator", "derive", "drawn", "first_row", "generator", "seeded", "sent"]


def derive(*words: int | str) -> int:
    """A seed below 2^63 from words such as (seed, step, turn, purpose)."""
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by words; the same words give the same draws on every device."""
    return torch.Generator().manual_seed(derive(*words))


class ShareGenerator(torch.Generator):
    """A generator for one share of a batch that is worked off in several, by turns or processes.

    What `drawn` draws from it for the share's rows is what those rows have in the whole batch.
    Draws made without `drawn` are the share's own.
    """

    whole: torch.Generator
    index: int
    count: int
    rows: int

    @classmethod
    def of(cls, *words: int | str, index: int, count: int, rows: int) -> ShareGenerator:
        """The generator of share `index` of `count`, each of so many rows."""
        made = cls()
        made.manual_seed(derive(*words, "share", index))
        made.whole = generator(*words)
        made.index, made.count, made.rows = index, count, rows
        return made

    def drawn(self, rows: int, *shape: int, draw: Callable[..., Tensor], **how: Any) -> Tensor:
        """A draw for the whole batch, and the share's rows of it."""
        if rows % self.rows:
            raise ValueError(f"{rows} rows are not those of a share of {self.rows}")
        whole = draw(rows * self.count, *shape, generator=self.whole, **how)
        return whole.unflatten(0, (-1, self.count, self.rows))[:, self.index].flatten(0, 1)


def drawn(
    random: torch.Generator,
    rows: int,
    *shape: int,
    draw: Callable[..., Tensor] = torch.rand,
    **how: Any,
) -> Tensor:
    """Numbers for every row, on the CPU in float32: uniform in [0, 1), or as `draw` has them.

    Of a share, a draw for the whole batch is made and the share's rows of it kept, so that a
    batch in shares is the batch in one. Rows may be those of the share several times over.

    Shape: (rows, *shape).
    """
    how = {"dtype": torch.float32, "device": "cpu"} | how
    if isinstance(random, ShareGenerator):
        return random.drawn(rows, *shape, draw=draw, **how)
    return draw(rows, *shape, generator=random, **how)


def first_row(random: torch.Generator) -> int:
    """Which row of the whole batch is the first of the share that is drawn for."""
    return random.index * random.rows if isinstance(random, ShareGenerator) else 0


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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
