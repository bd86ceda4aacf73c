"""Adversarial losses: what each player minimises, on logits.

Every loss is a mean over all logits, whatever their shape (B, ...), so one logit per image and a
map of them weigh the same. D's output is a logit, never a probability: where a paper writes
D(x) in (0, 1), read sigmoid(logit); the logarithms are softplus here, so that logits of +-10,000
have finite values and gradients in float32. In the formulas, r is a real logit, f a fake one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gankit.registry import loss

__all__ = [
    "Hinge",
    "LeastSquares",
    "Minimax",
    "NonSaturating",
    "Relativistic",
    "Wasserstein",
]


@loss("hinge")
@dataclass(frozen=True, kw_only=True)
class Hinge:
    """D separates real from fake by a margin; G pushes its logits up without end.

    D: mean relu(margin - r) + mean relu(margin + f). G: -mean f.

    Lim and Ye, "Geometric GAN", 2017, arXiv:1705.02894; used so by SAGAN, arXiv:1805.08318,
    section 3, equation 4.

    Options:
        margin: the logit beyond which a row no longer moves D; above 0

    Shape: two tensors (B, ...) to a scalar.

    Raises:
        ValueError: a margin that is not above 0.

    Differs from the paper: the margin is 1 there.
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"hinge: margin must be above 0, not {self.margin}")

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """mean relu(margin - r) + mean relu(margin + f)."""
        return F.relu(self.margin - real).mean() + F.relu(self.margin + fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """-mean f."""
        return -fake.mean()


@loss("nonsaturating")
@dataclass(frozen=True, kw_only=True)
class NonSaturating:
    """D classifies by cross-entropy; G maximises the log-probability of passing for real.

    D: mean softplus(-r) + mean softplus(f). G: mean softplus(-f).

    Goodfellow et al., "Generative Adversarial Nets", 2014, arXiv:1406.2661, section 3: G maximises
    log D(G(z)), whose gradient is largest where D is surest.

    Shape: two tensors (B, ...) to a scalar.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-mean log sigmoid(r) - mean log(1 - sigmoid(f))."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """-mean log sigmoid(f)."""
        return F.softplus(-fake).mean()


@loss("minimax")
@dataclass(frozen=True, kw_only=True)
class Minimax:
    """The zero-sum game: G minimises the log-probability of being found out.

    D: mean softplus(-r) + mean softplus(f). G: -mean softplus(f), at most 0.

    Goodfellow et al., "Generative Adversarial Nets", 2014, arXiv:1406.2661, section 3, equation 1.
    G's gradient vanishes where D is sure; it is here to show that.

    Shape: two tensors (B, ...) to a scalar.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-mean log sigmoid(r) - mean log(1 - sigmoid(f))."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """mean log(1 - sigmoid(f))."""
        return -F.softplus(fake).mean()


@loss("wasserstein")
@dataclass(frozen=True, kw_only=True)
class Wasserstein:
    """D estimates an earth mover's distance, and G shortens it.

    D: mean f - mean r. G: -mean f.

    Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, arXiv:1701.07875, section 3,
    algorithm 1.

    Shape: two tensors (B, ...) to a scalar.

    Differs from the paper: D's weights are not clipped; what bounds its slope is a part of its
    own, such as the penalty wgan_gp or the norm spectral.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """mean f - mean r."""
        return fake.mean() - real.mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """-mean f."""
        return -fake.mean()


@loss("least_squares")
@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """Each player pulls the logits towards a target, with the square of the distance.

    D: 1/2 mean (r - real_target)^2 + 1/2 mean (f - fake_target)^2.
    G: 1/2 mean (f - generator_target)^2. The halves are the paper's.

    Mao et al., "Least Squares Generative Adversarial Networks", 2017, arXiv:1611.04076, section 3.
    The defaults are its 0-1 coding; real 1, fake -1, generator 0 is its other one, under which G
    minimises a Pearson chi-square divergence.

    Options:
        real_target: what D should answer for real images, the paper's b
        fake_target: what D should answer for fake images, the paper's a
        generator_target: what G wants D to answer for fake images, the paper's c

    Shape: two tensors (B, ...) to a scalar.

    Raises:
        ValueError: the same target for real and fake images.
    """

    real_target: float = 1.0
    fake_target: float = 0.0
    generator_target: float = 1.0

    def __post_init__(self) -> None:
        if self.real_target == self.fake_target:
            raise ValueError(
                f"least_squares: real_target and fake_target are both {self.real_target}, "
                "so D would have nothing to tell apart"
            )

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """1/2 mean (r - real_target)^2 + 1/2 mean (f - fake_target)^2."""
        on_real = (real - self.real_target).square().mean()
        on_fake = (fake - self.fake_target).square().mean()
        return (on_real + on_fake) / 2

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """1/2 mean (f - generator_target)^2."""
        return (fake - self.generator_target).square().mean() / 2


@loss("relativistic", needs={"real_in_generator"})
@dataclass(frozen=True, kw_only=True)
class Relativistic:
    """Every fake logit is compared with one real logit: only their difference counts.

    D: mean softplus(-(r - f)). G: mean softplus(-(f - r)).

    The relativistic pairing GAN: Jolicoeur-Martineau, "The relativistic discriminator", 2018,
    arXiv:1807.00734, section 4; R3GAN (Huang et al., "The GAN is dead; long live the GAN!", 2024),
    arXiv:2501.05441, section 2, adds zero-centred penalties to it.

    Shape: two tensors of one shape (B, ...), paired as they stand, to a scalar.

    Raises:
        ValueError: real and fake logits of different shapes, or no real ones in G's turn.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-mean log sigmoid(r - f)."""
        return _lead(real, fake)

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """-mean log sigmoid(f - r)."""
        if real is None:
            raise ValueError("relativistic: G's loss compares with real logits, and there are none")
        return _lead(fake, real)


def _lead(ahead: Tensor, behind: Tensor) -> Tensor:
    """-mean log sigmoid(ahead - behind): small once `ahead` leads by far."""
    # (B, 1) minus (B,) would broadcast to every pair, and train on something else.
    if ahead.shape != behind.shape:
        shapes = f"{tuple(ahead.shape)} and {tuple(behind.shape)}"
        raise ValueError(f"relativistic: logits are compared in pairs, but have shapes {shapes}")
    return F.softplus(behind - ahead).mean()
