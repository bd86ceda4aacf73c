"""Networks side by side: one network in which every layer is those of all members at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from gankit import norms
from gankit.norms.weight import Clip
from gankit.together.layers import BatchNorm, Dense, GroupNorm, Spectral

__all__ = ["Unstackable", "stacked"]

LAYERS: Mapping[type, Callable[[Any, int], nn.Module]] = {
    nn.Linear: Dense,
    norms.BatchNorm: BatchNorm,
    norms.LayerNorm: GroupNorm,
    norms.GroupNorm: GroupNorm,
}
"""What stands in the place of a layer that has weights or buffers."""

PARAMETRIZATIONS: Mapping[type, Callable[[Any, int], nn.Module]] = {
    norms.SpectralNorm: Spectral,
    Clip: lambda clip, members: copy.deepcopy(clip),  # each value by itself
}
"""And of what a weight is computed by."""


class Unstackable(ValueError):
    """A layer of which several cannot be put side by side."""

    def __init__(self, path: str, layer: nn.Module) -> None:
        known = ", ".join(sorted(kind.__name__ for kind in (*LAYERS, *PARAMETRIZATIONS)))
        kind = parametrize.type_before_parametrizations(layer).__name__
        super().__init__(f"{path} is a {kind}; those of several seeds are stacked of {known} alone")


def stacked(network: nn.Module, members: int) -> nn.Module:
    """A network of as many members, each of which has the weights of the one given.

    Its `state_dict` has the names of the network's; every tensor in it has those of all members in
    its first axis. Modules without tensors stay what they are: rows are rows to them.

    Raises:
        Unstackable: a layer has tensors, and nothing here does its work for several.
    """
    made: dict[nn.Module, nn.Module] = {}

    def replaced(path: str, module: nn.Module) -> nn.Module:
        if module not in made:
            layer = _layer(path, module, members)
            made[module] = layer or module
            # Not `named_children`, which leaves out a layer's second place.
            children = {} if layer else dict(module._modules)
            for name, child in children.items():
                if child is not None:
                    module._modules[name] = replaced(f"{path}.{name}".strip("."), child)
        return made[module]

    return replaced("", copy.deepcopy(network))


def _layer(path: str, module: nn.Module, members: int) -> nn.Module | None:
    """What stands in the place of a module; None where it has no tensors and may stay."""
    kind = parametrize.type_before_parametrizations(module)
    lists: Mapping[str, Any] = getattr(module, "parametrizations", {})
    if kind not in LAYERS:
        if lists or any(
            t is not None for t in (*module._parameters.values(), *module._buffers.values())
        ):
            raise Unstackable(path, module)
        return None
    layer = LAYERS[kind](module, members)
    for name, chain in lists.items():
        for parametrization in chain:
            maker = PARAMETRIZATIONS.get(type(parametrization))
            if maker is None:
                raise Unstackable(f"the {name} of {path}", parametrization)
            parametrize.register_parametrization(layer, name, maker(parametrization, members))
    return layer.train(module.training)
