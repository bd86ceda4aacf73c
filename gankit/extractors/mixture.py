"""Points judged by the mixture of Gaussians that they should come from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from torch import Tensor

from gankit.errors import SpecError
from gankit.registry import features, registry
from gankit.slots import Dataset, Seen

__all__ = ["Mixture"]

NEAR = 3
"""A good point is within so many standard deviations of the nearest centre."""


@features("mixture")
class Mixture:
    """The points themselves, and how likely each Gaussian of the data is to have drawn them.

    The protocol of VEEGAN, arXiv:1705.07761, and PacGAN, arXiv:1712.04086, for the ring and the
    grid: a point is of high quality within 3 standard deviations of the nearest centre. The logits
    are -d^2 / (2 std^2), of the distance d to each centre.

    Shape: points (B, C) float32 to features (B, C), logits (B, modes) and good (B,).

    Raises:
        SpecError: data without `centres` (modes, C) and `std`, both of which ring and grid have.
    """

    def __init__(self, data: Dataset, /) -> None:
        centres, std = getattr(data, "centres", None), getattr(data, "std", None)
        if not isinstance(centres, Tensor) or not isinstance(std, float | int):
            entry = registry.entry_of("dataset", data)
            name = entry.name if entry else type(data).__name__
            raise SpecError(
                'features "mixture" need the centres and the std of the data\'s Gaussians,'
                f' and "{name}" has none: "ring" and "grid" do'
            )
        self.centres, self.std = centres.double(), float(std)

    @property
    def width(self) -> int:
        """As many as a point has coordinates."""
        return self.centres.shape[1]

    @cached_property
    def card(self) -> Mapping[str, str]:
        """The mixture, as far as it decides modes and quality."""
        modes = f"{len(self.centres)} Gaussians of std {self.std:g}"
        return {"mixture": modes, "good": f"within {NEAR} std of the nearest centre"}

    def __call__(self, points: Tensor, /) -> Seen:
        """The points, which mode each belongs to, and whether it is near enough.

        Raises:
            TypeError: anything but (B, C) floats.
        """
        if points.dim() != 2 or points.shape[1] != self.width or not points.is_floating_point():
            shape = tuple(points.shape)
            raise TypeError(f"points are (B, {self.width}) float32, not {shape} {points.dtype}")
        # Differences, not products: those would lose the digits that a std of 0.01 needs.
        offsets = points.double()[:, None] - self.centres.to(points.device)
        squares = (offsets / self.std).square().sum(2)
        good = squares.amin(1) <= NEAR**2
        return Seen(points.float(), (-squares / 2).float(), good)
