"""Self-attention that uses both norms of its network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gankit
from gankit.errors import OptionError
from gankit.slots import Norm


@gankit.attention("normed_attention")
class NormedAttention(nn.Module):
    """Attends on normalised feature maps, and adds what it finds to the raw ones.

    Wang, Girshick, Gupta and He, "Non-local Neural Networks" (2018), section 3.3,
    arXiv:1711.07971, with the norm in front, as in Xiong et al., "On Layer Normalization in the
    Transformer Architecture" (2020), arXiv:2002.04745.

    Options:
        reduction: queries, keys and values have C / reduction channels.

    Shape: (B, C, H, W), condition (B, E) or None -> (B, C, H, W).

    Raises:
        OptionError: fewer channels than the reduction divides into at least one.
    """

    def __init__(self, channels: int, norm: Norm = Norm(), /, *, reduction: int = 2) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise OptionError("reduction", f"reduction {reduction} of {channels} channels")
        narrow = channels // reduction
        self.norm = norm.activation(channels)
        self.query = norm.weight(nn.Conv2d(channels, narrow, 1))
        self.key = norm.weight(nn.Conv2d(channels, narrow, 1))
        self.value = norm.weight(nn.Conv2d(channels, narrow, 1))
        self.output = norm.weight(nn.Conv2d(narrow, channels, 1))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.norm(x, condition)
        query, key, value = (make(h).flatten(2) for make in (self.query, self.key, self.value))
        scores = query.transpose(1, 2) @ key / query.shape[1] ** 0.5  # (B, HW, HW)
        found = (value @ scores.softmax(-1).transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gain * self.output(found)
