"""What a group draws: for the rows of each member what that member draws by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gankit.randomness import ShareGenerator
from gankit.train.batches import Draws, Share

__all__ = ["GroupDraws"]


@dataclass(frozen=True)
class GroupDraws(Draws):
    """The generators of a turn of every member."""

    each: tuple[Draws, ...]

    def of(self, share: Share, purpose: str) -> torch.Generator:
        """For the draws of parts; those made without `drawn` are no member's."""
        made = _GroupGenerator()
        made.index, made.count, made.rows = 0, 1, len(share.latent)
        made.draws, made.purpose = self.each, purpose
        return made


class _GroupGenerator(ShareGenerator):
    """A generator of which `drawn` gets the members' draws, end to end."""

    draws: tuple[Draws, ...]
    purpose: str

    @cached_property
    def generators(self) -> list[torch.Generator]:
        """One of each member; most turns have parts that draw nothing."""
        return [draws(self.purpose) for draws in self.draws]

    def drawn(self, rows: int, *shape: int, draw: Callable[..., Tensor], **how: Any) -> Tensor:
        """The draws of all members; of several batches, for each batch."""
        times, each = rows // self.rows, rows // len(self.draws)
        made = [draw(each, *shape, generator=own, **how) for own in self.generators]
        return torch.stack([own.unflatten(0, (times, -1)) for own in made], dim=1).flatten(0, 2)
