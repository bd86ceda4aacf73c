"""Attention that weighs channels, then positions, by what it finds in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.attentions.checks import share_of
from gankit.errors import OptionError
from gankit.registry import attention
from gankit.slots import Norm

__all__ = ["CBAM"]


@attention("cbam")
class CBAM(nn.Module):
    """Weighs each channel, then each position, with factors between 0 and 1.

    The channels' come from an MLP of their means and of their largest values over all positions,
    the positions' from a convolution of the mean and the largest value over all channels.

    Woo et al., "CBAM: Convolutional Block Attention Module" (2018), section 3, equations 1 to 3,
    arXiv:1807.06521.

    Options:
        reduction: the MLP's hidden layer has C / reduction channels.
        kernel: height and width of the convolution; odd.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        OptionError: fewer channels than the reduction divides into at least one; an even kernel.

    Differs from the paper: with x'' the paper's output this gives x + gain (x'' - x), the gain
        starting at 0, so that placing one changes nothing at first; at 1 it is the paper's. The
        convolution has a bias, where the authors' code has a batchnorm after it.
    """

    def __init__(
        self, channels: int, norm: Norm = Norm(), /, *, reduction: int = 16, kernel: int = 7
    ) -> None:
        super().__init__()
        narrow = share_of(channels, "reduction", reduction)
        if kernel < 1 or kernel % 2 == 0:
            raise OptionError("kernel", f"a kernel is odd, not {kernel}")
        self.mlp = nn.Sequential(
            norm.weight(nn.Linear(channels, narrow)),
            nn.ReLU(),
            norm.weight(nn.Linear(narrow, channels)),
        )
        self.conv = norm.weight(nn.Conv2d(2, 1, kernel, padding=kernel // 2))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        weighed = x * scores.sigmoid()[:, :, None, None]
        found = torch.cat([weighed.mean(1, keepdim=True), weighed.amax(1, keepdim=True)], dim=1)
        weighed = weighed * self.conv(found).sigmoid()
        return x + self.gamma * (weighed - x)
