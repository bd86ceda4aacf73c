"""Who moves when."""

from __future__ import annotations

from dataclasses import dataclass

from gankit.errors import OptionError
from gankit.registry import schedule

__all__ = ["PLAYERS", "NCritic", "Simultaneous", "Turns"]

PLAYERS = ("D", "G", "DG")
"""What a turn can be: one player's, or both players' at once."""


@schedule("n_critic")
@dataclass(frozen=True, kw_only=True)
class NCritic:
    """D moves `n` times, each on fresh data, for every move of G.

    Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, arXiv:1701.07875, section 3,
    algorithm 1 (n_critic = 5).

    Options:
        n: turns of D in a step, before G's; at least 1

    Raises:
        OptionError: n below 1.
    """

    n: int = 5

    def __post_init__(self) -> None:
        if self.n < 1:
            raise OptionError("n", f"n_critic: n must be at least 1, not {self.n}")

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        """n turns of D and one of G."""
        return ("D",) * self.n + ("G",)


@schedule("simultaneous")
@dataclass(frozen=True, kw_only=True)
class Simultaneous:
    """Both players move at once, each from where the other stood.

    Simultaneous gradient ascent, as analysed by Mescheder, Nowozin and Geiger, "The Numerics of
    GANs", 2017, arXiv:1705.10461, section 2.
    """

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        """One turn, of both."""
        return ("DG",)


@schedule("turns")
@dataclass(frozen=True, kw_only=True)
class Turns:
    """The turns of a step as they are listed, such as two of G for one of D.

    D first is the order of Goodfellow et al., "Generative Adversarial Networks", 2014,
    arXiv:1406.2661, algorithm 1; carpedm20/DCGAN-tensorflow moves G twice for one move of D.

    Options:
        order: who moves, one after the other: D, G, or DG for both at once; at least one turn

    Raises:
        OptionError: no turn at all, or one that is none of these.
    """

    order: tuple[str, ...] = ("D", "G")

    def __post_init__(self) -> None:
        if not self.order:
            raise OptionError("order", "turns: order must have at least one turn")
        for index, turn in enumerate(self.order):
            if turn not in PLAYERS:
                message = f"turns: order is made of {', '.join(PLAYERS)}, not {turn!r}"
                raise OptionError("order", message, index)

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        """The same turns at every step."""
        return tuple(self.order)
