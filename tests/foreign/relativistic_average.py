"""The relativistic average loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

import gankit


@gankit.loss("relativistic_average", needs={"real_in_generator"})
@dataclass(frozen=True, kw_only=True)
class RelativisticAverage:
    """Every logit is compared with the mean logit of the other side.

    D: mean softplus(-(r - mean f)) + mean softplus(f - mean r). G: the same, r and f exchanged.

    Jolicoeur-Martineau, "The relativistic discriminator", 2018, arXiv:1807.00734, section 3.4,
    equations 13 and 14 (RaSGAN).

    Shape: two tensors (B, ...), not necessarily of one shape, to a scalar.

    Raises:
        ValueError: no real logits in G's turn.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-mean log sigmoid(r - mean f) - mean log(1 - sigmoid(f - mean r))."""
        return _apart(real, fake)

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """-mean log sigmoid(f - mean r) - mean log(1 - sigmoid(r - mean f))."""
        if real is None:
            raise ValueError("relativistic_average: G's loss compares with real logits")
        return _apart(fake, real)


def _apart(above: Tensor, below: Tensor) -> Tensor:
    """Small once `above` lies above the mean of `below`, and `below` below that of `above`."""
    return F.softplus(below.mean() - above).mean() + F.softplus(below - above.mean()).mean()
