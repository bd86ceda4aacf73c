"""By which factor a number is scaled, at each step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from gankit.errors import OptionError
from gankit.registry import schedule
from gankit.slots import Rates

__all__ = ["TTUR", "Exponential", "Factor", "Piecewise", "WarmUp"]


class Factor(ABC):
    """A schedule that is one factor: on both learning rates, or on the number that `on` names."""

    on: str
    """A path such as penalty.r1.weight; empty for both learning rates."""

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """The factor at a step."""

    def rates(self, step: int, total: int) -> Rates:
        """The factor on both rates, or (1, 1) where `on` names something else."""
        if self.on:
            return Rates()
        factor = self.factor(step, total)
        return Rates(factor, factor)

    def factors(self, step: int, total: int) -> dict[str, float]:
        """The factor on what `on` names, if it does."""
        return {self.on: self.factor(step, total)} if self.on else {}


@schedule("ttur")
@dataclass(frozen=True, kw_only=True)
class TTUR:
    """D learns at a rate of its own: `ratio` times G's.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, arXiv:1706.08500,
    section 1; the ratio of 4 is SAGAN's, arXiv:1805.08318, section 4.

    Options:
        ratio: D's learning rate over G's; above 0, and below 1 makes D the slower one

    Raises:
        OptionError: a ratio that is not above 0.

    Differs from the paper: Heusel et al. tune two rates; here the optimizer has one, G's.
    """

    ratio: float = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise OptionError("ratio", f"ttur: ratio must be above 0, not {self.ratio}")

    def rates(self, step: int, total: int) -> Rates:
        """(1, ratio) at every step."""
        return Rates(generator=1.0, discriminator=self.ratio)


@schedule("warm_up")
@dataclass(frozen=True, kw_only=True)
class WarmUp(Factor):
    """A straight line from a factor of `start` up to 1, over the first steps.

    Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677, section 2.2. Step 0 has
    `start`, step `steps` and all after it have 1; so with `start` at 0 the first step of a warm-up
    of both learning rates moves no weight.

    Options:
        steps: how many steps the line takes; at least 1
        start: the factor at the first step; in [0, 1]
        on: path of the number that is scaled, such as penalty.r1.weight; both learning rates
            when empty

    Raises:
        OptionError: no steps, or a factor out of [0, 1].
    """

    steps: int = 1000
    start: float = 0.0
    on: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError("steps", f"warm_up: steps must be at least 1, not {self.steps}")
        if not 0 <= self.start <= 1:
            raise OptionError("start", f"warm_up: start must be in [0, 1], not {self.start}")

    def factor(self, step: int, total: int) -> float:
        """A line, then 1."""
        share = min(step / self.steps, 1.0)
        # Not start + share * (1 - start), which misses 1 by a rounding error at the end.
        return (1.0 - share) * self.start + share


@schedule("exponential")
@dataclass(frozen=True, kw_only=True)
class Exponential(Factor):
    """A factor that shrinks by the same ratio every so many steps, down to a floor.

    On `train.top_k` it anneals the share of a batch that G learns from, as Sinha et al., "Top-k
    Training of GANs", 2020, arXiv:2002.06224, do: from the whole batch, by gamma (`rate`) per epoch
    (`every`), down to nu (`final`, as a share of the batch).

    Options:
        rate: the ratio; above 0 and at most 1
        every: in how many steps the factor shrinks by it; at least 1
        final: the floor; in [0, 1]
        on: path of the number that is scaled, such as train.top_k; both learning rates when empty

    Raises:
        OptionError: a ratio or floor out of range, or `every` below 1.

    Differs from the paper: falls a little at every step, not at once at the end of an epoch.
    """

    rate: float = 0.99
    every: int = 1000
    final: float = 0.0
    on: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            message = f"exponential: rate must be above 0 and at most 1, not {self.rate}"
            raise OptionError("rate", message)
        if self.every < 1:
            raise OptionError("every", f"exponential: every must be at least 1, not {self.every}")
        if not 0 <= self.final <= 1:
            raise OptionError("final", f"exponential: final must be in [0, 1], not {self.final}")

    def factor(self, step: int, total: int) -> float:
        """rate ** (step / every), or the floor."""
        return max(self.final, self.rate ** (step / self.every))


@schedule("piecewise")
@dataclass(frozen=True, kw_only=True)
class Piecewise(Factor):
    """A factor that jumps at given steps, and stays as it is between them.

    As He et al., "Deep Residual Learning for Image Recognition", 2016, arXiv:1512.03385,
    section 4.2, divide their learning rate by 10, and by 10 again: `values = [0.1, 0.01]`.

    Options:
        at: the steps at which it jumps, rising; before the first the factor is 1
        values: the factor from each of these steps on; as many, each at least 0
        on: path of the number that is scaled, such as penalty.r1.weight; both learning rates
            when empty

    Raises:
        OptionError: steps that do not rise from 0, another number of values, or a negative one.
    """

    at: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    on: str = ""

    def __post_init__(self) -> None:
        if any(step < 0 for step in self.at) or any(a >= b for a, b in pairwise(self.at)):
            message = f"piecewise: at is rising steps, each at least 0, not {list(self.at)}"
            raise OptionError("at", message)
        if len(self.values) != len(self.at):
            message = f"piecewise: at has {len(self.at)} steps, values has {len(self.values)}"
            raise OptionError("values", message)
        for index, value in enumerate(self.values):
            if not 0 <= value < math.inf:
                message = f"piecewise: values must be at least 0, not {value}"
                raise OptionError("values", message, index)

    def factor(self, step: int, total: int) -> float:
        """The value of the last jump, or 1 before all of them."""
        jumps = bisect_right(self.at, step)
        return self.values[jumps - 1] if jumps else 1.0
