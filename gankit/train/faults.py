"""Updates that are not finite: left out on the device, remembered there, and told when read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Fault", "Faults", "first_layer", "readable"]

_INDEX, _TURN = 20, 8
"""Bits that the place of a number and that of a turn take in a record."""


@dataclass(frozen=True)
class Fault:
    """The first number that was not finite."""

    step: int
    """Counted from 0."""
    turn: int
    """Which turn of the step."""
    player: str
    what: str
    """`loss`, a penalty's name, or `gradient`."""
    layer: str = ""
    """Where it came from, as far as that is known."""


class Faults:
    """Remembers the first fault in one number on the device, so that nobody waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.record = torch.zeros((), dtype=torch.int64, device=device)

    def note(self, step: int, turn: int, player: str, finite: Tensor, counts: Tensor) -> None:
        """Look at the numbers of an update.

        Of several that are not finite the last counts: a loss behind all gradients, and of the
        gradients, which spread from back to front, the one nearest to where it began.

        Shape: finite (numbers,) bool; counts () bool, whether this may be a fault at all.
        """
        turn = min(turn, (1 << _TURN) - 1)  # of more turns than that, the last there is room for
        place = ((step + 1) << (_TURN + 1 + _INDEX)) | (turn << (1 + _INDEX))
        place |= ("DG".index(player) << _INDEX) + len(finite) - 1
        # The first that is smallest, from the back.
        code = place - finite.flip(0).to(torch.uint8).argmin()
        bad = counts & ~finite.all() & (self.record == 0)
        self.record = torch.where(bad, code, self.record)

    def read(self, names: Mapping[str, Sequence[str]]) -> Fault | None:
        """The first fault, if there was one; waits for the device.

        `names` are those of the numbers that a player's updates were noted with.
        """
        record = int(self.record)
        if not record:
            return None
        index = record & ((1 << _INDEX) - 1)
        player = "DG"[record >> _INDEX & 1]
        turn = record >> (_INDEX + 1) & ((1 << _TURN) - 1)
        step = (record >> (_INDEX + 1 + _TURN)) - 1
        what, _, layer = names[player][index].partition(" ")
        return Fault(step, turn, player, what, layer)

    def clear(self) -> None:
        """Forget it: the state it came from has been left."""
        self.record = torch.zeros_like(self.record)


def first_layer(networks: Mapping[str, nn.Module], run: Callable[[], object]) -> str:
    """The first layer, in the order of `run`, that gives numbers that are not finite, or ""."""
    found: list[str] = []

    def look(name: str, layer: nn.Module, given: Any, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not bool(output.isfinite().all()):
            found.append(name)

    # To the end, whatever is found: other processes may be waiting in a layer to come.
    with ExitStack() as hooks, torch.no_grad():
        for player, network in networks.items():
            for name, layer in network.named_modules():
                # What computes a weight is no layer; of nested ones the inner comes first.
                if "parametrizations" not in name:
                    hook = layer.register_forward_hook(partial(look, f"{player}.{name}".strip(".")))
                    hooks.callback(hook.remove)
        run()
    return found[0] if found else ""


def readable(parameter: str) -> str:
    """A parameter's name without what parametrizations put into it."""
    return re.sub(r"parametrizations\.(\w+)\.original\d?", r"\1", parameter)
