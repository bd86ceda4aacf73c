"""A moving average of the generator's weights, which is what samples are drawn from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gankit.ops import is_running, settle
from gankit.spec import HalfLife

__all__ = ["Ema"]


class Ema:
    """Averages parameters and running statistics; copies other buffers; settles estimates.

    Running statistics are the buffers that are called so, `running_mean` as in torch's norms.

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
        self._parameters = list(self.average.parameters()), list(source.parameters())
        # Places rather than tensors: there are modules that put another tensor into theirs.
        modules = zip(self.average.modules(), source.modules(), strict=True)
        self._places = [(mine, its, name) for mine, its in modules for name in its._buffers]

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
        averaged: list[Tensor] = list(self._parameters[0])
        newest: list[Tensor] = list(self._parameters[1])
        for mine, its, name in self._places:
            target, value = mine._buffers[name], its._buffers[name]
            if target is None or value is None:
                continue
            if is_running(name, value):
                averaged.append(target)
                newest.append(value)
            else:
                target.copy_(value)
        torch._foreach_lerp_(averaged, newest, 1 - keep)

    def network(self) -> nn.Module:
        """The averaged generator, in evaluation mode, its spectral estimates exact."""
        settle(self.average)
        return self.average
