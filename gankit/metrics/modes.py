"""Captured modes: which of a known set of modes or classes a generator has learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gankit.metrics.checks import enough
from gankit.registry import metric
from gankit.slots import Seen

__all__ = ["Counted", "Modes"]


class Counted:
    """How many images of each mode there are, and how many good ones."""

    def __init__(self) -> None:
        self.count = 0
        self._modes = torch.zeros(0, dtype=torch.int64)
        self._told = False

    def add(self, seen: Seen, /) -> None:
        """Count a batch.

        Raises:
            ValueError: logits that are not numbers, or of another width than before, or fields
                that were there before and are missing now, or the other way round.
        """
        if not len(seen.features):
            return
        fields = seen.logits is not None, seen.good is not None
        if self.count and fields != (len(self._modes) > 0, self._told):
            raise ValueError("all batches must have the same fields")
        if seen.logits is not None:
            modes = _modes_of(seen.logits.detach().cpu())
            if seen.good is not None:
                modes = modes[seen.good.detach().cpu()]
            self._add(torch.bincount(modes, minlength=seen.logits.shape[1]))
        self._told = seen.good is not None
        self.count += len(seen.features)

    def _add(self, found: Tensor) -> None:
        if self.count and len(self._modes) != len(found):
            raise ValueError(f"logits of {len(found)} modes among those of {len(self._modes)}")
        self._modes = self._modes + found if self.count else found

    @property
    def modes(self) -> Tensor:
        """(K,) int64: good images of each mode, or all where features do not tell good ones.

        Raises:
            ValueError: of features without logits.
        """
        if not len(self._modes):
            raise ValueError("modes: needs logits, and the features tell none")
        return self._modes

    @property
    def share(self) -> float | None:
        """Of good images, in all; None where features do not tell."""
        return self._modes.sum().item() / self.count if self._told else None

    def state(self) -> dict[str, Tensor]:
        """All of it, to be kept on disk."""
        numbers = {"count": torch.tensor(self.count), "told": torch.tensor(self._told)}
        return {**numbers, "modes": self._modes.clone()}

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Take up what `state` gave."""
        self.count = int(state["count"])
        self._told = bool(state["told"])
        self._modes = state["modes"].clone()


def _modes_of(logits: Tensor) -> Tensor:
    if logits.isnan().any():
        raise ValueError("logits that are not numbers: nothing can be told of these images")
    return logits.argmax(1)


@metric("modes")
@dataclass(frozen=True, kw_only=True)
class Modes:
    """How many modes are captured, how many images are good, and how evenly modes are hit.

    An image's mode is the one of its largest logit; features say what is good, which for mixtures
    is within three standard deviations of the nearest centre. A mode is captured that has a good
    image. The reverse KL divergence, in nats, is that of the good images' modes from what they
    should be. Where features do not tell good images, as classifiers do not, all count.

    Srivastava et al., "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning",
    2017, arXiv:1705.07761; Lin et al., "PacGAN: The power of two samples in generative adversarial
    networks", 2018, arXiv:1712.04086, in whose public code modes should be hit evenly, for stacked
    digits too. The published tables are of 2,500 points of a mixture and
    26,000 stacked digits. Exact samples of a mixture in the plane are 98.89 % good.

    Options:
        against: what the modes should be, all alike, or as often as among the real images

    Raises:
        ValueError: in `scores`, of features without logits, sets without images, or, against real
            images, a mode that those do not have.

    Differs from the paper: without a good image the divergence is that of all images in the rarest
    mode, the largest there is; the public code divides by zero.
    """

    better: ClassVar[Mapping[str, str]] = {
        "modes": "higher",
        "high_quality": "higher",
        "reverse_kl": "lower",
    }
    against: Literal["uniform", "real"] = "uniform"

    @property
    def reference_free(self) -> bool:
        """Whether real images are not looked at."""
        return self.against == "uniform"

    def gather(self) -> Counted:
        """Counts of images by mode."""
        return Counted()

    def scores(self, real: Counted, fake: Counted, /) -> dict[str, float]:
        """`modes`, a count, `high_quality`, from 0 to 1 where it is told, and `reverse_kl`."""
        enough("modes", {"fake": fake.count}, 1, "take more images")
        found = fake.modes
        wanted = torch.ones_like(found)
        if self.against == "real":
            enough("modes", {"real": real.count}, 1, "take more images")
            wanted = real.modes
        scores = {"modes": float((found > 0).sum())}
        if fake.share is not None:
            scores["high_quality"] = fake.share
        return scores | {"reverse_kl": _divergence(found, wanted)}


def _divergence(found: Tensor, wanted: Tensor) -> float:
    """KL(found || wanted) of two histograms, in nats.

    Raises:
        ValueError: something was found where nothing is wanted.
    """
    extra = (wanted == 0) & (found > 0)
    if extra.any():
        which = ", ".join(map(str, extra.nonzero().flatten().tolist()[:5]))
        raise ValueError(
            f"modes: fake images of {int(extra.sum())} modes that no real image has ({which}): "
            'take more real images, or against = "uniform"'
        )
    q = wanted.double() / wanted.sum()
    if not found.sum():
        return -math.log(q[wanted > 0].min().item())
    p = found.double() / found.sum()
    terms = torch.special.xlogy(p, p / q)[found > 0]
    # Rounding: it is 0 for equal histograms, and never below.
    return max(terms.sum().item(), 0.0)
