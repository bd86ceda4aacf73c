"""Health: numbers that tell a run in trouble from a sound one, and the lines they should not cross.

`health` measures what losses do not show; the engine notes gradients and logits by itself. `LINES`
says of each number where trouble begins and what it means, and `crossed` which lines are crossed.
docs/health.md has the same table.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gankit.norms import SpectralNorm
from gankit.ops import estimates
from gankit.registry import registry

__all__ = ["LINES", "Line", "crossed", "health"]

MOVES = 5
"""Power iterations beyond an estimate, to see how far off it is; so many show most of an error."""

LEAST = 1e-6
"""How much images are taken to differ at least: what is divided by it stays finite."""


@torch.no_grad()
def health(
    generator: nn.Module, discriminator: nn.Module, real: Tensor | None, fake: Tensor
) -> dict[str, Tensor]:
    """What is to be seen of two networks and of what one of them made, on the device and unread.

    For a player P, where its network has such layers:

    - sigma_P: the largest singular value of any weight under a spectral norm, before it is divided
    - stretch_P: by how much such a layer stretches a vector, at least; 1 if the estimate is right
    - gain_P: the largest |gamma| of an attention

    And diversity: how much fakes differ from each other, as a share of how much real images do;
    where there are at least two of each.

    Nothing is changed by it, neither networks nor random states.

    Shape: real and fake (B, ...), of any B each -> tensors with one number.
    """
    numbers: dict[str, Tensor] = {}
    for player, network in (("D", discriminator), ("G", generator)):
        if spectral := list(_sigmas(network)):
            sigmas, divisors = (torch.stack(column) for column in zip(*spectral, strict=True))
            numbers[f"sigma_{player}"] = sigmas.amax()
            numbers[f"stretch_{player}"] = (sigmas / divisors).amax()
        if gains := list(_gains(network)):
            numbers[f"gain_{player}"] = torch.stack(gains).amax()
    if real is not None and min(len(real), len(fake)) > 1:
        numbers["diversity"] = _spread(fake) / _spread(real).clamp_min(LEAST)
    return numbers


def _sigmas(network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each weight under a spectral norm the singular value, and what it is divided by."""
    for estimate, weight in estimates(network):
        if isinstance(estimate, SpectralNorm):
            sharper = copy.deepcopy(estimate)
            for _ in range(MOVES):
                sharper.move(weight)
            divisor = estimate.sigma(weight)
            divisor = torch.where(divisor > estimate.eps, divisor, torch.ones_like(divisor))
            yield sharper.sigma(weight).float(), divisor.float()


def _gains(network: nn.Module) -> Iterator[Tensor]:
    """|gamma| of each module that is an attention on the plug board and has one."""
    targets = [entry.target for entry in registry.find("attention")]
    kinds = tuple(target for target in targets if isinstance(target, type))
    for module in network.modules():
        gamma = getattr(module, "gamma", None) if isinstance(module, kinds) else None
        if isinstance(gamma, nn.Parameter):
            yield gamma.abs().amax().float()


def _spread(images: Tensor) -> Tensor:
    """The standard deviation over the batch, averaged over pixels."""
    return images.float().std(dim=0, correction=0).mean()


@dataclass(frozen=True, kw_only=True)
class Line:
    """How far a number goes in a sound run, and what it means when it goes further."""

    monitor: str
    """The number's name in the metrics, without the player; `gap` is D_real - D_fake."""
    above: float = math.inf
    below: float = -math.inf
    means: str
    """What is wrong, and what to try."""

    @property
    def limit(self) -> str:
        """`above 10`, `below 0.1`."""
        return f"above {self.above:g}" if self.above < math.inf else f"below {self.below:g}"

    def crossed_by(self, number: float) -> bool:
        """Whether a number lies beyond; of what is no number the engine tells."""
        return number < self.below or number > self.above


LINES = (
    # Cross-entropy puts D's errors at a gap of 10, 5 to either side, at e^-5: one image in 150.
    # The hinge is content with a gap of 2.
    Line(
        monitor="gap",
        above=10,
        means="D tells real from fake beyond doubt, and G learns little from it; a smaller learning"
        " rate for D, a gradient penalty such as r1, or spectral norm in D",
    ),
    # Over ten thousand weights this is 1e-8 each, Adam's eps: below it, steps shrink with the
    # gradient. Both recipes stay above 1e-4, the first steps included.
    Line(
        monitor="gradient",
        below=1e-6,
        means="the player's loss hardly depends on its weights any more, so it stands still; a"
        " smaller learning rate for D, or a loss that does not saturate",
    ),
    # A thousand times what is usual: the quickstart's stay below 50, those of ring below 1.
    Line(
        monitor="gradient",
        above=1e4,
        means="the loss is so steep that a step says nothing of where it leads; a smaller learning"
        " rate, spectral norm, or a smaller weight on a penalty",
    ),
    # Adam moves a weight by about the learning rate however long it is, so at 100 the normalised
    # weight moves at a hundredth of the rate that was asked for. Drawn weights start at 1 or 2.
    Line(
        monitor="sigma",
        above=100,
        means="weights under a spectral norm have grown so long that updates hardly turn them; a"
        " smaller learning rate, or weight_decay in the optimizer",
    ),
    # The promise is 1. The quickstart, whose D learns fast, has 1.8 for moments early on, and 1.0
    # nearly always; three layers of 2 make a network 8 times as steep as it should be.
    Line(
        monitor="stretch",
        above=2,
        means="spectral norm's estimate lags behind the weights, and the network is steeper than"
        " it should be; a smaller learning rate, or more iterations of the norm",
    ),
    # What attention adds is an average of values as large as the features themselves, so at 10 the
    # features are a tenth of the sum. Gains start at 0, and are below 1 in the quickstart.
    Line(
        monitor="gain",
        above=10,
        means="attention drowns the features that it is added to; a smaller learning rate, or"
        " spectral norm in that network",
    ),
    # The digits of one class alone differ half as much as all of them or more; the points of one
    # cluster of ring, a hundredth. Sound runs end near 1.
    Line(
        monitor="diversity",
        below=0.1,
        means="G makes nearly the same of every latent, which is mode collapse; a smaller learning"
        " rate for G, a larger batch, or a gradient penalty on D",
    ),
)
"""Where trouble begins."""


def crossed(numbers: Mapping[str, float]) -> dict[str, str]:
    """A warning for each number of a log that has crossed a line, by the number's name.

    Of numbers that are not there nothing is said.
    """
    known = {**_gap(numbers), **numbers}
    return {
        name: f"{name} is {number:.3g}, {line.limit}: {line.means}"
        for name, number in known.items()
        for line in LINES
        if name.removesuffix("_D").removesuffix("_G") == line.monitor and line.crossed_by(number)
    }


def _gap(numbers: Mapping[str, float]) -> dict[str, float]:
    """How far apart D holds real and fake, where that has a scale.

    Wasserstein's loss is minus the gap, whose scale is that of the data: it alone is below 0.
    """
    if {"D_real", "D_fake"} <= numbers.keys() and numbers.get("loss_D", 0.0) >= 0:
        return {"gap": numbers["D_real"] - numbers["D_fake"]}
    return {}
