"""Self-attention, as in SAGAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.attentions.checks import share_of
from gankit.errors import OptionError
from gankit.registry import attention
from gankit.slots import Norm

__all__ = ["SelfAttention2d", "explicit", "fused", "padded"]


@attention("self_attention")
class SelfAttention2d(nn.Module):
    """Adds to each position a weighted sum over all positions, scaled by a gain that starts at 0.

    Zhang et al., "Self-Attention Generative Adversarial Networks" (2019), section 3,
    arXiv:1805.08318. The defaults are the form of the paper's equations, with biases. The
    authors' released code is `value_reduction = 2, pool = 2, bias = false`.

    Options:
        reduction: queries and keys have C / reduction channels.
        value_reduction: values have C / value_reduction channels; above 1 a further 1x1
            convolution brings them back to C.
        pool: keys and values are max-pooled by this factor.
        bias: the 1x1 convolutions have biases.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        OptionError: fewer channels than a reduction divides into at least one; a pool below 1.
    """

    fast_path = "attention"
    fast = True

    second_order = True
    """Whether the gradient of a gradient may be asked for; torch's fused kernels have none.

    The build says no where no penalty asks for it.
    """

    def __init__(
        self,
        channels: int,
        norm: Norm = Norm(),
        /,
        *,
        reduction: int = 8,
        value_reduction: int = 1,
        pool: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if pool < 1:
            raise OptionError("pool", f"pool must be at least 1, not {pool}")
        narrow = share_of(channels, "reduction", reduction)
        values = share_of(channels, "value_reduction", value_reduction)
        self.query = norm.weight(nn.Conv2d(channels, narrow, 1, bias=bias))
        self.key = norm.weight(nn.Conv2d(channels, narrow, 1, bias=bias))
        self.value = norm.weight(nn.Conv2d(channels, values, 1, bias=bias))
        self.output = (
            nn.Identity()
            if values == channels
            else norm.weight(nn.Conv2d(values, channels, 1, bias=bias))
        )
        self.pool: nn.Module = nn.Identity() if pool == 1 else nn.MaxPool2d(pool)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self._projected(x)
        query = queries.flatten(2).transpose(1, 2)  # (B, HW, C / reduction)
        key = self.pool(keys).flatten(2).transpose(1, 2)
        value = self.pool(values).flatten(2).transpose(1, 2)
        attended = self._form(query, key)(query, key, value)
        attended = attended.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.gamma * self.output(attended)

    def _projected(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values: one convolution where all three are, and nobody listens."""
        layers: list[Any] = [self.query, self.key, self.value]
        if not self.fast or not all(map(_silent, layers)):
            return [layer(x) for layer in layers]
        weights = [layer.weight for layer in layers]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        every = F.conv2d(x, torch.cat(weights), torch.cat(biases) if biases else None)
        return every.split([len(weight) for weight in weights], 1)

    def _form(self, query: Tensor, key: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        if self.second_order or not self.fast:
            return explicit
        if query.is_cuda:
            return fused
        return padded if query.shape[1] * key.shape[1] >= LEAST else explicit


def _silent(layer: nn.Module) -> bool:
    """Whether a layer is a convolution whose hooks nobody waits for."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks
    return isinstance(layer, nn.Conv2d) and not any(hooks)


LEAST = 2**20
"""Of so many pairs of positions torch's CPU kernel is the faster one; docs/benchmarks.md."""


def explicit(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax of the plain products, written out; differentiable any number of times.

    No 1 / sqrt(d), which the paper's scores have not.

    Shape: (B, queries, d), (B, keys, d), (B, keys, e) -> (B, queries, e).
    """
    return F.softmax(query @ key.transpose(1, 2), dim=-1) @ value


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by torch's fused kernels, which keep no matrix of queries x keys."""
    query, key, value = query[:, None], key[:, None], value[:, None]
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]


def padded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`fused` with zeros for the channels that queries and keys, or values, have fewer of.

    They change no product, and torch's CPU kernel is for all of one width.
    """
    wide = max(query.shape[2], value.shape[2])
    query, key, widened = (F.pad(t, (0, wide - t.shape[2])) for t in (query, key, value))
    return fused(query, key, widened)[:, :, : value.shape[2]]
