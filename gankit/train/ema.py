"""A moving average of the generator's weights, which is what samples are drawn from."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gankit.ops import estimates, settle
from gankit.spec import HalfLife

__all__ = ["Ema"]


class Ema:
    """Averages parameters and running statistics; copies other buffers; settles estimates.

    Karras et al. (2018), section 4.1, arXiv:1710.10196; the half-life in images with its ramp-up
    is that of StyleGAN2-ADA's code. A decay of 0 keeps the newest weights.

    An average of singular vectors is not a singular vector, so those are never averaged but
    brought to where they stand still for the averaged weights, whenever the network is asked for.
    """

    def __init__(self, source: nn.Module, decay: float | HalfLife, batch: int) -> None:
        self.source = source
        self.decay = decay
        self.batch = batch
        self.average = copy.deepcopy(source).requires_grad_(False)
        self.average.eval()
        self._averaged = list(_averaged(self.average).values()), list(_averaged(source).values())
        self._copied = list(_copied(self.average)), list(_copied(source))

    def factor(self, step: int) -> float:
        """The weight of the past at a step, counted from 0."""
        if not isinstance(self.decay, HalfLife):
            return self.decay
        half_life = self.decay.half_life
        if self.decay.ramp_up:
            half_life = min(half_life, (step + 1) * self.batch * self.decay.ramp_up)
        return float(0.5 ** (self.batch / half_life))

    @torch.no_grad()
    def update(self, step: int, scale: float = 1.0) -> None:
        """Move the average towards the source's weights as they are now."""
        keep = min(self.factor(step) * scale, 1.0)
        torch._foreach_lerp_(*self._averaged, 1 - keep)
        for mine, newest in zip(*self._copied, strict=True):
            mine.copy_(newest)

    def network(self) -> nn.Module:
        """The averaged generator, in evaluation mode, its spectral estimates exact."""
        settle(self.average)
        return self.average


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating buffers, without those of estimates."""
    vectors = {id(b) for estimate, _ in estimates(network) for b in estimate.buffers()}
    found: dict[str, Tensor] = dict(network.named_parameters())
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point() and id(buffer) not in vectors:
            found[name] = buffer
    return found


def _copied(network: nn.Module) -> Iterator[Tensor]:
    """The buffers that an average would make no sense of: counters, singular vectors."""
    averaged = _averaged(network)
    for name, buffer in network.named_buffers():
        if name not in averaged:
            yield buffer
