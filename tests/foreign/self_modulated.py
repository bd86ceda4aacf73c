"""Self-modulation: the latent scales and shifts every feature map it has led to."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

import gankit
from gankit.errors import OptionError
from gankit.norms import BatchNorm


@gankit.norm("self_modulated", on="activation", needs={"batch_statistics"})
class SelfModulated(nn.Module):
    """Normalises each channel over the batch; a small MLP of the latent gives scale and shift.

    Chen, Lucic, Houlsby and Gelly, "On Self Modulation for Generative Adversarial Networks" (2019),
    section 2, arXiv:1810.01365. For a generator with `condition = "latent"`.

    Options:
        hidden: width of the MLP's hidden layer.
        eps: added to the variance.

    Shape: (B, C, H, W), condition (B, E) -> (B, C, H, W).

    Raises:
        OptionError: a hidden layer of no width.
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        weight_norm: Callable[[nn.Module], nn.Module],
        /,
        *,
        hidden: int = 32,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise OptionError("hidden", f"a hidden layer of width {hidden} has nothing in it")
        self.normal = BatchNorm(channels, scale=False, shift=False, eps=eps)
        self.hidden = nn.Sequential(weight_norm(nn.Linear(condition, hidden)), nn.ReLU())
        self.scale = weight_norm(nn.Linear(hidden, channels))
        self.shift = weight_norm(nn.Linear(hidden, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.hidden(condition)
        # 1 + ..., not a bias that starts at 1: the network's initializer zeroes biases.
        scale = 1 + self.scale(hidden)[:, :, None, None]
        return scale * self.normal(x) + self.shift(hidden)[:, :, None, None]
