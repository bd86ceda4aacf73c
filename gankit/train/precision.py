"""Precisions: in which floating type the networks compute, and what keeps gradients in range."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LossScale", "Precision", "Unscaled"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """`fp32` computes as weights are; `bf16` and `fp16` run products in half precision.

    Micikevicius et al., "Mixed Precision Training" (2018), arXiv:1710.03740: weights stay float32,
    and float16, whose range is narrow, needs its losses scaled.

    Raises:
        ValueError: another name.
    """

    name: str
    device: torch.device

    def __post_init__(self) -> None:
        if self.name not in ("fp32", *_TYPES):
            raise ValueError(f"unknown precision {self.name!r}; there are fp32, bf16 and fp16")

    def networks(self) -> AbstractContextManager[object]:
        """Around whatever calls the networks."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self._kind, _TYPES[self.name])

    def second_order(self) -> AbstractContextManager[object]:
        """Around what differentiates a gradient, which is out of float16's range unscaled."""
        if self.name == "fp16":
            return torch.autocast(self._kind, enabled=False)
        return self.networks()

    def scale(self) -> LossScale:
        """A fresh loss scale; each player has one, or an overflow of D's would halve G's."""
        return LossScale(self.device) if self.name == "fp16" else Unscaled(self.device)

    @property
    def _kind(self) -> str:
        return "cpu" if self.device.type == "meta" else self.device.type


class LossScale:
    """A power of two that keeps gradients in float16's range; it adapts on the device.

    Micikevicius et al. (2018), section 3.2, with the constants of torch's GradScaler: doubled
    after 2000 good updates, halved after one that overflowed, which is left out.
    """

    PATIENCE = 2000
    FLOOR = 1.0
    CEILING = 2.0**64
    """Beyond it a scale says only that there is no gradient."""

    def __init__(self, device: torch.device, start: float = 2.0**16) -> None:
        self.value = torch.full((), start, device=device)
        self.good = torch.zeros((), dtype=torch.int64, device=device)

    def __call__(self, loss: Tensor) -> Tensor:
        """The loss to go backward from."""
        return loss * self.value

    def unscale(self, gradients: list[Tensor]) -> None:
        """Bring gradients back to what they are, in place."""
        torch._foreach_mul_(gradients, self.value.reciprocal())

    def exhausted(self) -> Tensor:
        """Whether the scale is no more to blame when a number is not finite."""
        return self.value <= self.FLOOR

    def update(self, good: Tensor) -> None:
        """Adapt to an update that was good, or was not."""
        self.good = torch.where(good, self.good + 1, 0)
        grows = self.good >= self.PATIENCE
        grown = torch.where(grows, (self.value * 2).clamp_max(self.CEILING), self.value)
        self.value = torch.where(good, grown, (self.value / 2).clamp_min(self.FLOOR))
        self.good = torch.where(grows, 0, self.good)

    def state(self) -> dict[str, Tensor]:
        """What has to be saved."""
        return {"value": self.value, "good": self.good}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up a state."""
        self.value = state["value"].to(self.value.device)
        self.good = state["good"].to(self.good.device)


class Unscaled(LossScale):
    """The loss scale of precisions with range enough: none."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, start=self.FLOOR)

    def __call__(self, loss: Tensor) -> Tensor:
        return loss

    def unscale(self, gradients: list[Tensor]) -> None:
        """Leave them as they are."""

    def update(self, good: Tensor) -> None:
        """Nothing adapts."""
