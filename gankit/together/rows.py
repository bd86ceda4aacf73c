"""The order of rows: that of the engine outside, that of the members inside a stacked network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

__all__ = ["keep_order"]


def keep_order(network: nn.Module, members: int, batch: int) -> None:
    """Let a stacked network take several batches end to end, as where D judges two in one pass.

    A batch is (members x batch, ...), the rows of a member beside each other. Of several batches
    the network's layers are given all rows of the first member first, and so on.
    """
    network.register_forward_pre_hook(partial(_sorted, members, batch))
    network.register_forward_hook(partial(_restored, members, batch))


def _sorted(members: int, batch: int, network: nn.Module, given: tuple[Any, ...]) -> Any:
    """What a network is given, in order of the members."""
    times = len(given[0]) // (members * batch)
    if times == 1:
        return None
    return tuple(
        _exchanged(rows, times, members) if isinstance(rows, Tensor) else rows for rows in given
    )


def _restored(
    members: int, batch: int, network: nn.Module, given: tuple[Any, ...], made: Any
) -> Any:
    """What a network has made of it, in order of the batches."""
    times = len(given[0]) // (members * batch)
    if times == 1:
        return None
    if isinstance(made, Mapping):
        return {name: _exchanged(rows, members, times) for name, rows in made.items()}
    return _exchanged(made, members, times)


def _exchanged(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Rows that were (outer, inner, ...) as (inner, outer, ...); all of them in the first axis."""
    return rows.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)
