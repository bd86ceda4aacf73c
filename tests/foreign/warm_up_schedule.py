"""A discriminator that is trained alone at first."""

from __future__ import annotations

from dataclasses import dataclass

import gankit


@gankit.schedule("warm_then_alternate")
@dataclass(frozen=True, kw_only=True)
class WarmThenAlternate:
    """D moves alone for the first steps, then `ratio` times for every move of G.

    Two moves of D for one of G are Miyato et al.'s and mimicry's for residual networks; the warm-up
    is as in Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, arXiv:1701.07875, whose code
    trains its critic a hundred times in each of the first 25 steps.

    Options:
        warm: steps of D alone; at least 0
        ratio: turns of D in a step, before G's; at least 1

    Raises:
        ValueError: an option out of range.
    """

    warm: int = 100
    ratio: int = 2

    def __post_init__(self) -> None:
        if self.warm < 0 or self.ratio < 1:
            raise ValueError(f"warm_then_alternate: warm {self.warm}, ratio {self.ratio}")

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        """One turn of D, or `ratio` of D and one of G."""
        return ("D",) if step < self.warm else ("D",) * self.ratio + ("G",)
