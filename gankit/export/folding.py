"""Folding: a network without its training-time arithmetic, and with the same outputs.

Weight norms become the weights they amount to. A batch norm in evaluation mode is one factor and
one offset per channel, and goes into the layer before it where nothing stands between the two and
nobody else reads that layer: both exact, up to rounding. What cannot be folded stays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from gankit.ops import TRANSPOSED, parametrizations, unparametrized

__all__ = ["Passed", "fold_batchnorms", "fold_weights", "restructured"]

aten = torch.ops.aten

LAYERS = {
    *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
    *(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding),
    *(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input),
    aten.linear.default,
}
"""Calls with a weight and a bias as their second and third argument."""

RESHAPES = {aten.view.default, aten.reshape.default, aten.unflatten.int}


class Passed(nn.Module):
    """What stands where a batch norm was folded: x as it is, whatever else is handed over."""

    def forward(self, x: Tensor, *others: object) -> Tensor:
        return x


def fold_weights(network: nn.Module) -> tuple[nn.Module, int]:
    """A copy in which no weight is parametrized, and how many were; in evaluation mode."""
    count = sum(1 for _ in parametrizations(network))
    return unparametrized(network).eval().requires_grad_(False), count


def fold_batchnorms(network: nn.Module, program: ExportedProgram) -> tuple[list[str], int]:
    """Fold what batch norms can be folded, in place; their names, and how many there are.

    `program` is the network as torch.export has traced it: who reads what is seen there, so that a
    shortcut around a norm, a layer used twice or a function in between is never overlooked.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    norms = [node for node in nodes if node.target is aten.batch_norm.default]
    folded = []
    for norm in norms:
        path = _alone(norm, nodes, program)
        layer = _layer_before(norm, network, program)
        if path is None or layer is None or norm.args[5]:
            continue
        # As the call has them: None where the norm has no scale or no shift.
        scale, shift, mean, variance = (_value(arg, network, program) for arg in norm.args[1:5])
        if mean is None or variance is None:
            continue
        factor = torch.rsqrt(variance + float(norm.args[7]))
        factor = factor if scale is None else factor * scale
        offset = -mean * factor if shift is None else shift - mean * factor
        _absorb(layer, factor, offset)
        network.set_submodule(path, Passed())
        folded.append(path)
    return folded, len(norms)


def _alone(norm: Node, nodes: list[Node], program: ExportedProgram) -> str | None:
    """The module that does nothing else than this norm; None where it does more, or twice."""
    path = (_name(norm.args[3], program) or "").rpartition(".")[0]
    if not _read_once(norm.args[1:5]):
        return None
    inside = [node for node in nodes if path in _modules(node)]
    return path if path and inside == [norm] else None


def _modules(node: Node) -> list[str]:
    """The modules a call is made in, from the outside in."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def _layer_before(norm: Node, network: nn.Module, program: ExportedProgram) -> nn.Module | None:
    """The layer whose output is read by this norm alone, as it is or as a feature map."""
    found = norm.args[0]
    assert isinstance(found, Node)
    reshaped = found.target in RESHAPES
    if reshaped and len(found.users) == 1:
        found = found.args[0]
        assert isinstance(found, Node)
    if found.target not in LAYERS or len(found.users) != 1:
        return None
    if reshaped and not (found.target is aten.linear.default and _per_channel(found, norm)):
        return None
    weights = [arg for arg in found.args[1:3] if arg is not None]
    path = (_name(weights[0], program) or "").rpartition(".")[0]
    layer = network.get_submodule(path)
    if not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
        return None
    own = [f"{path}.{name}" for name in ("weight", "bias") if getattr(layer, name) is not None]
    alone = _read_once(weights) and [_name(arg, program) for arg in weights] == own
    return layer if alone else None


def _read_once(args: Iterable[object]) -> bool:
    """Whether nobody else reads these."""
    return all(len(arg.users) == 1 for arg in args if isinstance(arg, Node))


def _per_channel(dense: Node, norm: Node) -> bool:
    """Whether a dense layer's outputs, (B, C * positions), become (B, C, ...)."""
    flat, map_ = dense.meta["val"].shape, norm.args[0].meta["val"].shape  # type: ignore[union-attr]
    return len(flat) == 2 and len(map_) >= 2 and flat[1] == math.prod(map_[1:])


def _name(arg: object, program: ExportedProgram) -> str | None:
    """The name that a tensor has in the network."""
    if not isinstance(arg, Node):
        return None
    signature = program.graph_signature
    known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return known.get(arg.name)


def _value(arg: object, network: nn.Module, program: ExportedProgram) -> Tensor | None:
    """A tensor of the network in float64, where rounding is out of the way."""
    name = _name(arg, program)
    if name is None:
        return None
    path, _, attribute = name.rpartition(".")
    value: Tensor = getattr(network.get_submodule(path), attribute)
    return value.double()


@torch.no_grad()
def _absorb(layer: nn.Module, factor: Tensor, offset: Tensor) -> None:
    """Multiply a layer's output channels by factors and add offsets, in its weight and bias."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, nn.Parameter)
    if isinstance(layer, nn.Linear):
        positions = layer.out_features // len(factor)
        factor, offset = factor.repeat_interleave(positions), offset.repeat_interleave(positions)
    if isinstance(layer, TRANSPOSED):
        # Output channels are in the second axis, those of each group beside its input channels.
        groups = weight.double().unflatten(0, (layer.groups, -1))
        spread = factor.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        scaled = (groups * spread).flatten(0, 1)
    else:
        scaled = weight.double() * factor.view(-1, *[1] * (weight.dim() - 1))
    moved = offset if bias is None else offset + factor * bias.double()  # type: ignore[operator]
    layer.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=False)
    layer.bias = nn.Parameter(moved.to(weight.dtype), requires_grad=False)


def restructured(network: nn.Module, folded: Iterable[str], names: Collection[str]) -> nn.Module:
    """A copy with the places that folded tensors of these names go into.

    Raises:
        AttributeError: the network has no such modules.
    """
    plain, _ = fold_weights(network)
    for path in folded:
        plain.get_submodule(path)
        plain.set_submodule(path, Passed())
    for path, module in plain.named_modules():
        layer = isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
        if layer and module.bias is None and f"{path}.bias" in names:
            outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            module.bias = nn.Parameter(module.weight.new_zeros(outputs), requires_grad=False)
    return plain
