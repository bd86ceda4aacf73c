"""A network as a list of stages, and what every list has: initial weights and a condition."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.randomness import seeded
from gankit.registry import discriminator, generator, hand
from gankit.slots import Block, Image, Initializer, Norm, Shape, kept

__all__ = ["Condition", "Conditions", "StackDiscriminator", "StackGenerator", "initialize"]

Conditions = Literal["none", "label", "embedding", "latent"]

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)


def initialize(
    network: nn.Module,
    initializer: Initializer,
    random: Callable[[str], torch.Generator | None] = lambda name: None,
) -> None:
    """Fill the weights of every convolution, dense and embedding layer, and zero their biases.

    Layers that their maker has marked with `keep`, and those of norms, stay as they are.

    `random` names the generator for a layer by its name; by default torch's global one is drawn
    from, as torch's own layers do. Layers inside parametrizations are set through them.
    """
    with torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, _LAYERS) and not kept(layer):
                _fill(layer, "weight", partial(_given, initializer, random(name)))
                if getattr(layer, "bias", None) is not None:
                    _fill(layer, "bias", Tensor.zero_)


def _given(initializer: Initializer, random: torch.Generator | None, weight: Tensor) -> None:
    initializer(weight, random)  # type: ignore[arg-type]


def _fill(layer: nn.Module, name: str, fill: Callable[[Tensor], object]) -> None:
    """Fill a layer's tensor in place; where it is parametrized, assign it."""
    if not parametrize.is_parametrized(layer, name):
        fill(getattr(layer, name))
        return
    stored = layer.parametrizations[name]  # type: ignore[index]
    # As it was drawn, where it is kept so: an initializer may leave it.
    tensor = stored.original if hasattr(stored, "original") else getattr(layer, name)
    tensor = tensor.detach().clone()
    fill(tensor)
    setattr(layer, name, tensor)


class Condition(nn.Module):
    """The vector that conditional norms are given, made from the latent and the labels.

    Shape: z (B, latent), labels (B,) -> (B, width), or None where there is no condition.

    Raises:
        OptionError: labels are wanted, and the data has no classes.
    """

    def __init__(self, kind: Conditions, image: Image, latent: int, embedding: int) -> None:
        super().__init__()
        if kind in ("label", "embedding") and not image.classes:
            raise OptionError("condition", f'condition "{kind}" needs labels; the data has none')
        if kind == "embedding":
            self.embedding = nn.Embedding(image.classes, embedding)
        self.kind = kind
        self.classes = image.classes
        self.width = {"none": 0, "label": image.classes, "embedding": embedding, "latent": latent}[
            kind
        ]

    def forward(self, z: Tensor | None, labels: Tensor | None) -> Tensor | None:
        if self.kind == "none":
            return None
        if self.kind == "latent":
            return z
        if labels is None:
            raise ValueError(f'a network with condition "{self.kind}" is called with labels')
        if self.kind == "embedding":
            return self.embedding(labels)
        return F.one_hot(labels, self.classes).to(torch.get_default_dtype())


def _word(make: Block) -> str:
    """What a stage is called by."""
    made = make.func if isinstance(make, partial) else make
    name = getattr(made, "__name__", type(made).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class _Stack(nn.Module):
    """Stages in a row, named by block and height: `stages.attend_32`.

    `arguments` are the options it was made from, so that any preset can be written out.
    """

    def __init__(
        self, shape: Shape, stages: Sequence[Block], norm: Norm, arguments: dict[str, Any]
    ) -> None:
        super().__init__()
        if not stages:
            raise OptionError("stages", "a network needs at least one stage")
        self.arguments = arguments
        self.stages = nn.ModuleDict()
        # A seed for each stage by name: what one draws does not depend on which others there are.
        origin = int(torch.randint(2**62, (), device="cpu"))
        made: Counter[str] = Counter()
        for index, make in enumerate(stages):
            drawn = f"{_word(make)} {shape}"
            made[drawn] += 1
            try:
                with seeded(origin, drawn, made[drawn], device=torch.get_default_device()):
                    stage = hand(make, shape, norm)
            except OptionError as error:
                error.stage = index
                raise
            except ValueError as error:
                raise OptionError("stages", f"stage {index + 1}: {error}", index) from error
            shape = stage.out
            self.stages[self._name(make, shape[1])] = stage
        self.out = shape

    def _name(self, make: Block, height: int) -> str:
        base = f"{_word(make)}_{height}"
        numbered = (f"{base}_{count}" for count in itertools.count(2))
        return next(name for name in itertools.chain([base], numbered) if name not in self.stages)

    def run(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """All stages, in order."""
        for stage in self.stages.values():
            x = stage(x, condition)
        return x


@generator("stack")
class StackGenerator(_Stack):
    """A generator from a list of stages; the first is handed the latent as (latent, 1, 1).

    Options:
        stages: the blocks, in order; the last gives the image.
        latent: width of z.
        norm: for every stage.
        condition: what conditional norms are given: `none`, the `label` (one-hot, so a dense
            layer on it is a table), an `embedding` of the label, or the `latent`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: z (B, latent), labels (B,) or None -> (B, C, H, W), or (B, C) for points.

    Raises:
        OptionError: the stages do not end in the image's shape.
    """

    def __init__(
        self,
        image: Image,
        /,
        *,
        stages: tuple[Block, ...],
        latent: int = 128,
        norm: Norm = Norm(),
        condition: Conditions = "none",
        embedding: int = 128,
        initializer: Initializer = xavier,
    ) -> None:
        if latent < 1:
            raise OptionError("latent", f"a latent of width {latent} has nothing in it")
        made = Condition(condition, image, latent, embedding)
        arguments = {
            "stages": stages,
            "latent": latent,
            "norm": norm,
            "condition": condition,
            "embedding": embedding,
            "initializer": initializer,
        }
        super().__init__((latent, 1, 1), stages, norm.given(made.width), arguments)
        self.condition = made
        self.latent = latent
        self.image = image
        wanted = (image.channels, *(image.size or (1, 1)))
        if self.out != wanted:
            raise OptionError("stages", f"the stages give {self.out}, the image is {wanted}")
        initialize(self, initializer)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.run(z[:, :, None, None], self.condition(z, labels))
        return x if self.image.size else x.flatten(1)


@discriminator("stack")
class StackDiscriminator(_Stack):
    """A discriminator from a list of stages; whatever the last one gives are the logits.

    Options:
        stages: the blocks, in order.
        norm: for every stage.
        condition: what conditional norms are given: `none`, the `label` or its `embedding`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) or points (B, C), labels (B,) or None -> (B, N).
    """

    def __init__(
        self,
        image: Image,
        /,
        *,
        stages: tuple[Block, ...],
        norm: Norm = Norm(),
        condition: Literal["none", "label", "embedding"] = "none",
        embedding: int = 128,
        initializer: Initializer = xavier,
    ) -> None:
        made = Condition(condition, image, 0, embedding)
        arguments = {
            "stages": stages,
            "norm": norm,
            "condition": condition,
            "embedding": embedding,
            "initializer": initializer,
        }
        height, width = image.size or (1, 1)
        super().__init__((image.channels, height, width), stages, norm.given(made.width), arguments)
        self.condition = made
        self.image = image
        initialize(self, initializer)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images if self.image.size else images[:, :, None, None]
        return self.run(x, self.condition(None, labels)).flatten(1)
