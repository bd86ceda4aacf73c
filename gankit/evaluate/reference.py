"""What metrics keep of real images, on the disk: looked at once, whoever is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from gankit.extractors import cache
from gankit.slots import Gathered

__all__ = ["kept"]

LARGEST = 2**30
"""Bytes beyond which nothing is kept on the disk; what is kept of real images is usually less."""


def kept(
    key: str, empty: Mapping[str, Gathered], look: Callable[[], dict[str, Gathered]]
) -> dict[str, Gathered]:
    """What is kept under a key; else what `look` gathers, which is kept from then on."""
    tensors = cache.found("real", key)
    if tensors is None:
        made = look()
        tensors = {
            f"{name}/{field}": tensor.contiguous()
            for name, gathered in made.items()
            for field, tensor in gathered.state().items()
        }
        if sum(tensor.nbytes for tensor in tensors.values()) <= LARGEST:
            cache.keep("real", key, tensors)
        return made
    for name, gathered in empty.items():
        gathered.load_state(_of(name, tensors))
    return dict(empty)


def _of(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{name}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
