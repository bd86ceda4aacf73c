"""Factors that go from 1 to another over a stretch of the run, given as fractions of all steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from gankit.errors import OptionError
from gankit.registry import schedule
from gankit.schedules.factors import Factor

__all__ = ["Cosine", "LinearDecay"]


@dataclass(frozen=True, kw_only=True)
class _Stretch(Factor):
    """From 1 to `final`, on a way that a subclass knows."""

    name: ClassVar[str]

    start: float = 0.0
    end: float = 1.0
    final: float = 0.0
    on: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"{self.name}: start and end are fractions of all steps, 0 <= start < end <= 1, "
                f"not {self.start} and {self.end}"
            )
        if not 0 <= self.final < math.inf:
            raise OptionError("final", f"{self.name}: final must be at least 0, not {self.final}")

    @staticmethod
    @abstractmethod
    def moved(share: float) -> float:
        """How far it has come, 0 to 1, when a share of the stretch lies behind it."""

    def factor(self, step: int, total: int) -> float:
        """1 until `start`, `final` from `end` on."""
        travelled = (step / total - self.start) / (self.end - self.start)
        moved = self.moved(min(max(travelled, 0.0), 1.0))
        # Not 1 + moved * (final - 1), which misses `final` by a rounding error at the end.
        return (1.0 - moved) + moved * self.final


@schedule("linear_decay", needs={"total"})
@dataclass(frozen=True, kw_only=True)
class LinearDecay(_Stretch):
    """A straight line from a factor of 1 to `final`, on both learning rates or on one other number.

    The factor is 1 until `start`, `final` from `end` on. Steps count from 0, so with `end` at 1 the
    last step, total - 1, still has a little more than `final`: a decay to 0 wastes no step.
    WGAN-GP decays its learning rate so on CIFAR-10, Gulrajani et al., 2017, arXiv:1704.00028.

    Options:
        start: where the line begins, as a fraction of all steps
        end: where the line ends, as a fraction of all steps
        final: the factor at the end; at least 0, and above 1 makes it grow
        on: path of the number that is scaled, such as penalty.r1.weight; both learning rates
            when empty

    Raises:
        ValueError: fractions not in order within [0, 1], or a negative factor.
    """

    name: ClassVar[str] = "linear_decay"

    @staticmethod
    def moved(share: float) -> float:
        """As far as the share."""
        return share


@schedule("cosine", needs={"total"})
@dataclass(frozen=True, kw_only=True)
class Cosine(_Stretch):
    """Half a cosine from a factor of 1 to `final`, on both learning rates or on one other number.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    arXiv:1608.03983, section 3, equation 5. The factor is 1 until `start`, `final` from `end` on.

    Options:
        start: where the curve begins, as a fraction of all steps
        end: where the curve ends, as a fraction of all steps
        final: the factor at the end; at least 0, and above 1 makes it grow
        on: path of the number that is scaled, such as penalty.r1.weight; both learning rates
            when empty

    Raises:
        ValueError: fractions not in order within [0, 1], or a negative factor.

    Differs from the paper: no restarts.
    """

    name: ClassVar[str] = "cosine"

    @staticmethod
    def moved(share: float) -> float:
        """Slowly at first and at last."""
        return (1.0 - math.cos(math.pi * share)) / 2
