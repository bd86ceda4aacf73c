"""What a network makes of the latent and the labels: its input, and what conditional norms see."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.errors import OptionError
from gankit.slots import Image

__all__ = ["Condition", "Conditions", "Given", "Inputs", "LabelConditions"]

Given = Literal["none", "label", "embedding", "latent", "chunk"]
Conditions = Given | tuple[Given, ...]
"""What a generator's conditional norms are given; of several, one beside the other."""

LabelConditions = Literal["none", "label", "embedding"]
"""What a discriminator's are given."""

Inputs = (
    Literal["latent", "label", "embedding"] | tuple[Literal["latent", "label", "embedding"], ...]
)
"""What a generator's first stage is given."""


def _listed(kinds: Conditions | Inputs) -> tuple[str, ...]:
    return (kinds,) if isinstance(kinds, str) else kinds


class Condition(nn.Module):
    """Vectors made from the latent and the labels: for conditional norms, and for the input.

    Both see one embedding of the label. `chunk` is as wide as it is said to be; whoever calls
    this hands over a chunk of z in place of z.

    Shape: z (B, latent), or for a D its images, labels (B,) -> (B, width), of the same floating
        type; or None where there is no condition.

    Raises:
        OptionError: labels are wanted, and the data has no classes; something is named twice, or
            z is wanted whole and in chunks.
    """

    def __init__(
        self,
        kinds: Conditions,
        image: Image,
        latent: int,
        embedding: int,
        *,
        chunk: int = 0,
        inputs: Inputs = (),
    ) -> None:
        super().__init__()
        self.kinds, self.inputs = _listed(kinds), _listed(inputs)
        self.classes = image.classes
        for option, listed in (("condition", self.kinds), ("input", self.inputs)):
            if len(set(listed)) < len(listed):
                raise OptionError(option, f"{option} names one thing twice")
            for kind in listed:
                if kind in ("label", "embedding") and not image.classes:
                    message = f'{option} "{kind}" needs labels; the data has none'
                    raise OptionError(option, message)
        self.chunked = "chunk" in self.kinds
        if self.chunked and "latent" in self.kinds:
            raise OptionError("condition", '"latent" is all of z, "chunk" a part: keep one of them')
        if "embedding" in (*self.kinds, *self.inputs):
            self.embedding = nn.Embedding(image.classes, embedding)
        own = chunk if self.chunked else latent
        wide = {"none": 0, "label": image.classes, "embedding": embedding}
        wide |= {"latent": own, "chunk": own}
        self.width, self.input_width = (
            sum(wide[kind] for kind in kinds) for kinds in (self.kinds, self.inputs)
        )

    def forward(self, z: Tensor | None, labels: Tensor | None) -> Tensor | None:
        return self._beside(self.kinds, z, labels)

    def input(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What the first stage is given, (B, input_width)."""
        made = self._beside(self.inputs, z, labels)
        assert made is not None, "whoever makes a generator looks at input_width"
        return made

    def _beside(
        self, kinds: tuple[str, ...], z: Tensor | None, labels: Tensor | None
    ) -> Tensor | None:
        parts = [self._of(kind, z, labels) for kind in kinds if kind != "none"]
        if len(parts) < 2:
            return parts[0] if parts else None
        return torch.cat(parts, dim=1)

    def _of(self, kind: str, z: Tensor | None, labels: Tensor | None) -> Tensor:
        if kind in ("latent", "chunk"):
            assert z is not None, "a discriminator has none of these"
            return z
        if labels is None:
            raise ValueError(f'a network with condition "{kind}" is called with labels')
        if kind == "embedding":
            return self.embedding(labels)
        wide = torch.get_default_dtype() if z is None else z.dtype
        return F.one_hot(labels, self.classes).to(wide)
