"""Attention whose cost grows with the positions, and not with their square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.attentions.checks import share_of
from gankit.errors import OptionError
from gankit.registry import attention
from gankit.slots import Norm

__all__ = ["EfficientAttention2d"]


@attention("efficient_attention")
class EfficientAttention2d(nn.Module):
    """Adds to each position a mixture of summaries of all positions, through a gain of 0 at first.

    Keys, by a softmax over all positions, sum the values up, each channel of them its own way;
    queries, by a softmax over channels, mix those sums: softmax(Q) (softmax(K)^T V).

    Shen et al., "Efficient Attention: Attention with Linear Complexities" (2021), section 3.2,
    arXiv:1812.01243, with its normalisation by softmax.

    Options:
        reduction: queries and keys have C / reduction channels.
        value_reduction: values have C / value_reduction channels; a further 1x1 convolution
            brings them back to C.
        heads: queries, keys and values fall into so many groups, each by itself; must divide both.
        bias: the 1x1 convolutions have biases.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        OptionError: fewer channels than a reduction divides into at least one; heads that do not
            divide what is left.

    Differs from the paper: what is added starts at 0, through a gain, so that placing one changes
        nothing at first. The reductions are SAGAN's; the paper tries several.
    """

    def __init__(
        self,
        channels: int,
        norm: Norm = Norm(),
        /,
        *,
        reduction: int = 8,
        value_reduction: int = 2,
        heads: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        narrow = share_of(channels, "reduction", reduction)
        values = share_of(channels, "value_reduction", value_reduction)
        if heads < 1 or narrow % heads or values % heads:
            message = (
                f"{heads} heads do not divide {narrow} channels of keys and {values} of values"
            )
            raise OptionError("heads", message)
        self.heads = heads
        self.query = norm.weight(nn.Conv2d(channels, narrow, 1, bias=bias))
        self.key = norm.weight(nn.Conv2d(channels, narrow, 1, bias=bias))
        self.value = norm.weight(nn.Conv2d(channels, values, 1, bias=bias))
        self.output = norm.weight(nn.Conv2d(values, channels, 1, bias=bias))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key = self._shares(x)
        value = self.value(x).flatten(2).unflatten(1, (self.heads, -1))
        attended = (value @ key.transpose(2, 3)) @ query
        return x + self.gamma * self.output(attended.flatten(1, 2).unflatten(2, x.shape[2:]))

    def _shares(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys after their softmax, (B, heads, channels of one, HW)."""
        query, key = (
            layer(x).flatten(2).unflatten(1, (self.heads, -1)) for layer in (self.query, self.key)
        )
        return query.softmax(dim=2), key.softmax(dim=3)

    def attention_map(self, x: Tensor) -> Tensor:
        """How much each position takes of each, on average over the heads; not needed to attend.

        Shape: (B, C, H, W) -> (B, HW, HW), each row adding up to 1.
        """
        query, key = self._shares(x)
        return (query.transpose(2, 3) @ key).mean(dim=1)
