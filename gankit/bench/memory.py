"""How much memory a real step takes at its peak."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gankit.train.engine import Engine
from gankit.train.memory import LiveBytes

__all__ = ["peak"]


def peak(engine: Engine, step: int, device: torch.device) -> int:
    """The most bytes alive at once, as they were asked for.

    On a GPU, in what was measured since torch's peak was last reset; on the CPU, in one more step,
    in which every penalty is due.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    for player in engine.players.values():
        player.turns_taken = 0  # penalties that are due now and then are due now
        player.optimizer.zero_grad(set_to_none=True)
    with LiveBytes() as live:
        for tensor in _kept(engine):
            tensor.detach()  # what is there before is counted when it is looked at
        engine.step(step)
    return live.peak


def _kept(engine: Engine) -> Iterator[Tensor]:
    """What lies in memory from one step to the next."""
    networks = (*engine.networks.values(), *engine.gan.stateful().values(), engine.ema.average)
    for network in networks:
        yield from network.parameters()
        yield from network.buffers()
    for player in engine.players.values():
        for state in player.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
