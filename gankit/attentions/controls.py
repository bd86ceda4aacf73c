"""Parts that stand where an attention could: nothing, and a residual block to compare with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gankit.attentions.checks import share_of
from gankit.errors import OptionError
from gankit.registry import attention
from gankit.slots import Norm

__all__ = ["NoAttention", "ResidualBlock"]


@attention("none")
class NoAttention(nn.Identity):
    """Looks at nothing: the feature map passes as it is."""

    def __init__(self, channels: int, norm: Norm = Norm(), /) -> None:
        super().__init__()


@attention("residual_block")
class ResidualBlock(nn.Module):
    """No attention, but its parameters: two convolutions added through a gain that starts at 0.

    The control of SAGAN's experiments, which asks whether attention helps by looking far or only
    by being there: Zhang et al., "Self-Attention Generative Adversarial Networks" (2019), section
    5.2, arXiv:1805.08318. With a kernel of 1 it has exactly the parameters of `self_attention`
    with the same reductions and without biases, where `value_reduction` is above 1.

    Options:
        reduction: that of the attention it is compared with.
        value_reduction: that of the attention it is compared with; 2 in the released form.
        kernel: height and width of both kernels; odd. The width between them makes up for it, as
            nearly as it can.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        OptionError: fewer channels than a reduction divides into at least one; an even kernel.

    Differs from the paper: which says neither how its blocks are made nor how wide they are. ReLU
        before each convolution, no norm on the activation.
    """

    def __init__(
        self,
        channels: int,
        norm: Norm = Norm(),
        /,
        *,
        reduction: int = 8,
        value_reduction: int = 2,
        kernel: int = 1,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise OptionError("kernel", f"a kernel is odd, not {kernel}")
        narrow = share_of(channels, "reduction", reduction)
        values = share_of(channels, "value_reduction", value_reduction)
        # Queries, keys, values and what brings those back: 2 C (narrow + values) weights.
        hidden = max(1, round((narrow + values) / kernel**2))
        around = kernel // 2
        self.conv1 = norm.weight(nn.Conv2d(channels, hidden, kernel, padding=around, bias=False))
        self.conv2 = norm.weight(nn.Conv2d(hidden, channels, kernel, padding=around, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.conv2(self.conv1(x.relu()).relu())
