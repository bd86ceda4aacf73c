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
from gankit.ops import Estimate, full_precision

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
        self.iterations = norm.iterations
        self.eps = norm.eps
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer.expand(members, *buffer.shape).clone())

    @torch.no_grad()
    def move(self, weight: Tensor, /) -> None:
        """Take the option's number of power iterations, as `gankit.ops.power_iteration` does."""
        with full_precision(weight):
            for _ in range(self.iterations):
                for vector, other, matrix in (
                    (self.v, self.u, weight.mT),
                    (self.u, self.v, weight),
                ):
                    image = _products(matrix, other)
                    length = torch.linalg.vector_norm(image, dim=1, keepdim=True)
                    moved = image / length.clamp_min(self.eps)
                    vector.copy_(torch.where(length > self.eps, moved, vector))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training and not self.held:
            self.move(weight)
        # Copies, because the next move overwrites the buffers that this graph would hold.
        columns = (weight.unbind(), self.u.clone().unbind(), self.v.clone().unbind())
        with full_precision(weight):
            return torch.stack([self._divided(*own) for own in zip(*columns, strict=True)])

    def _divided(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """One member's; a weight of zero has no direction to normalise, and stays zero."""
        sigma = torch.dot(u, weight.mv(v))
        return weight / torch.where(sigma > self.eps, sigma, torch.ones_like(sigma))


def _products(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each matrix times its vector; one by one, which a batched product rounds another way."""
    pairs = zip(matrices.unbind(), vectors.unbind(), strict=True)
    return torch.stack([matrix.mv(vector) for matrix, vector in pairs])
