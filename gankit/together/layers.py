"""Layers of several networks side by side: one call computes what each of them would.

A parameter or buffer here has those of all members in its first axis. Rows are those of all members
laid end to end, (members x B, ...), and each member's own layer sees its B.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit import norms
from gankit.norms import SpectralNorm
from gankit.norms.weight import Divided
from gankit.ops import Estimate, full_precision, power_iteration

__all__ = ["BatchNorm", "Dense", "GroupNorm", "Spectral"]


def _parameters(module: nn.Module, members: int, **given: Tensor | None) -> None:
    """Give a module a parameter for every member, in the place of each that is not None."""
    for name, tensor in given.items():
        module.register_parameter(name, None if tensor is None else _repeated(tensor, members))


def _repeated(tensor: Tensor, members: int) -> nn.Parameter:
    copies = tensor.detach().expand(members, *tensor.shape).clone()
    return nn.Parameter(copies, requires_grad=tensor.requires_grad)


class Dense(nn.Module):
    """A dense layer of each member, as one batched product.

    Shape: (members x B, in) -> (members x B, out); weight (members, out, in).
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, members: int) -> None:
        super().__init__()
        self.members = members
        _parameters(self, members, weight=layer.weight, bias=layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(0, (self.members, -1))
        if self.bias is None:
            return torch.bmm(rows, self.weight.mT).flatten(0, 1)
        if self.weight.shape[1] == 1:
            # Weights first: so a single output is rounded as that of a layer by itself.
            return torch.baddbmm(self.bias[:, :, None], self.weight, rows.mT).mT.flatten(0, 1)
        return torch.baddbmm(self.bias[:, None], rows, self.weight.mT).flatten(0, 1)


class BatchNorm(nn.Module):
    """Batch normalisation of each member: over its own rows alone, with statistics of its own.

    Shape: (members x B, C, H, W) -> the same; running statistics (members, C).
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: norms.BatchNorm, members: int) -> None:
        super().__init__()
        self.members = members
        self.eps = norm.eps
        assert norm.momentum is not None, "only standing statistics are without"
        self.momentum = norm.momentum
        _parameters(self, members, weight=norm.weight, bias=norm.bias)
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer.expand(members, *buffer.shape).clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1
        # Members beside each other in the channels, each of which is normalised by itself.
        beside = x.unflatten(0, (self.members, -1)).transpose(0, 1)
        normal = F.batch_norm(
            beside.flatten(1, 2),
            self.running_mean.view(-1),
            self.running_var.view(-1),
            None if self.weight is None else self.weight.view(-1),
            None if self.bias is None else self.bias.view(-1),
            self.training,
            self.momentum,
            self.eps,
        )
        return normal.view(beside.shape).transpose(0, 1).flatten(0, 1)


class GroupNorm(nn.Module):
    """Group or layer normalisation, whose scale and shift are each member's own.

    Shape: (members x B, C, H, W) -> the same.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: nn.GroupNorm, members: int) -> None:
        super().__init__()
        self.members = members
        self.groups = norm.num_groups
        self.eps = norm.eps
        _parameters(self, members, weight=norm.weight, bias=norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        normal = F.group_norm(x, self.groups, eps=self.eps).unflatten(0, (self.members, -1))
        if self.weight is not None:
            normal = normal * self.weight[:, None, :, None, None]
        if self.bias is not None:
            normal = normal + self.bias[:, None, :, None, None]
        return normal.flatten(0, 1)


class Spectral(Estimate):
    """Spectral norm of each member's dense layer, with singular vectors of its own.

    It is never settled: whoever samples does so from a member's own network.

    Shape: weight (members, out, in) -> the same; u (members, out), v (members, in).
    """

    u: Tensor
    v: Tensor

    def __init__(self, norm: SpectralNorm, members: int) -> None:
        super().__init__()
        self.norm = (norm,)  # not a module of this one, whose buffers are its own
        self._moved: tuple[tuple[Tensor, ...], int] | None = None
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer.expand(members, *buffer.shape).clone())

    @torch.no_grad()
    def move(self, weight: Tensor, /) -> None:
        """Take the option's number of power iterations."""
        (norm,) = self.norm
        with full_precision(weight):
            for _ in range(norm.iterations):
                sigmas = power_iteration(
                    weight.unbind(), self.u.unbind(), self.v.unbind(), norm.eps
                )
        self._moved = sigmas, weight._version

    def forward(self, weight: Tensor) -> Tensor:
        """As `SpectralNorm` does for each member, so that rounding is the same."""
        if self.training and not self.held:
            self.move(weight)
        (norm,), (moved, self._moved) = self.norm, (self._moved, None)
        # Copies, because the next move overwrites the buffers that this graph would hold.
        columns = weight.unbind(), self.u.clone().unbind(), self.v.clone().unbind()
        with torch.no_grad(), full_precision(weight):
            if moved and moved[1] == weight._version:
                sigmas = moved[0]
            else:
                sigmas = tuple(torch.dot(u, w.mv(v)) for w, u, v in zip(*columns, strict=True))
        return torch.stack(
            [Divided.apply(*own, norm) for own in zip(*columns, sigmas, strict=True)]
        )
