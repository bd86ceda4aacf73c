"""A network as a list of stages, and its initial weights."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.networks.conditions import Condition, Conditions, Inputs, LabelConditions
from gankit.ops import channels_last
from gankit.randomness import seeded
from gankit.registry import discriminator, generator, hand
from gankit.slots import Block, Image, Initializer, Logits, Norm, Shape, kept

__all__ = ["StackDiscriminator", "StackGenerator", "initialize"]

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


def _word(make: Block) -> str:
    """What a stage is called by."""
    made = make.func if isinstance(make, partial) else make
    name = getattr(made, "__name__", type(made).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _looks(stage: nn.Module) -> bool:
    """Whether there is something in a stage that looks at the condition."""
    return any(getattr(module, "conditioned", False) for module in stage.modules())


class _Stack(nn.Module):
    """Stages in a row, named by block and height: `stages.attend_32`.

    `arguments` are the options it was made from, so that any preset can be written out.
    """

    fast_path = "channels_last"
    fast = True

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
        looking = list(itertools.accumulate(map(_looks, self.stages.values())))
        self.looking = looking[-1]
        """How many stages look at the condition."""
        self.places = [max(0, count - 1) for count in looking]
        """Of several conditions, which one each stage is given."""

    def _name(self, make: Block, height: int) -> str:
        base = f"{_word(make)}_{height}"
        numbered = (f"{base}_{count}" for count in itertools.count(2))
        return next(name for name in itertools.chain([base], numbered) if name not in self.stages)

    def run(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        """All stages, in order: with one condition for all, or one for each that looks at it."""
        for stage, place in zip(self.stages.values(), self.places, strict=True):
            # Where it is so already, as after a convolution of one that was, nothing is copied.
            x = channels_last(x) if self.fast else x
            x = stage(x, conditions[min(place, len(conditions) - 1)])
        return x.contiguous()


@generator("stack")
class StackGenerator(_Stack):
    """A generator from a list of stages; the first is handed the latent as (latent, 1, 1).

    Options:
        stages: the blocks, in order; the last gives the image.
        latent: width of z.
        norm: for every stage.
        input: what the first stage is given: the `latent`, the `label` (one-hot), an `embedding`
            of the label; of a list, one beside the other.
        condition: what conditional norms are given: `none`, the `label` (one-hot, so a dense
            layer on it is a table), an `embedding` of the label, the `latent`, or a `chunk` of it;
            of a list, one beside the other.
        embedding: width of the label's embedding, one for all that look at it.
        chunk: width of a chunk: z is cut into one for the input and one for each stage that looks
            at the condition, as in BigGAN (Brock et al., 2019, appendix B, arXiv:1809.11096).
        initializer: of every layer's weight.

    Shape: z (B, latent), labels (B,) or None -> (B, C, H, W), or (B, C) for points.

    Raises:
        OptionError: the stages do not end in the image's shape; the chunks do not make up z.
    """

    def __init__(
        self,
        image: Image,
        /,
        *,
        stages: tuple[Block, ...],
        latent: int = 128,
        norm: Norm = Norm(),
        input: Inputs = "latent",
        condition: Conditions = "none",
        embedding: int = 128,
        chunk: int = 20,
        initializer: Initializer = xavier,
    ) -> None:
        for name, wide in (("latent", latent), ("chunk", chunk)):
            if wide < 1:
                raise OptionError(name, f"a {name} of width {wide} has nothing in it")
        made = Condition(condition, image, latent, embedding, chunk=chunk, inputs=input)
        if not made.inputs:
            raise OptionError("input", "the first stage is given nothing")
        arguments = {
            "stages": stages,
            "latent": latent,
            "norm": norm,
            "input": input,
            "condition": condition,
            "embedding": embedding,
            "chunk": chunk,
            "initializer": initializer,
        }
        super().__init__((made.input_width, 1, 1), stages, norm.given(made.width), arguments)
        self.condition = made
        self.latent = latent
        self.image = image
        self.chunks = [latent]
        """How z is cut: the first enters, each of the others is for a stage."""
        if made.chunked:
            self.chunks = self._cut(latent, chunk)
        wanted = (image.channels, *(image.size or (1, 1)))
        if self.out != wanted:
            raise OptionError("stages", f"the stages give {self.out}, the image is {wanted}")
        initialize(self, initializer)

    def _cut(self, latent: int, chunk: int) -> list[int]:
        """Equal chunks of z: for the input, and for each stage that looks at the condition."""
        if not self.looking:
            raise OptionError("condition", "no stage looks at a condition, so chunks of z are lost")
        count = 1 + self.looking
        if latent != count * chunk:
            raise OptionError(
                "latent",
                f"the input and {self.looking} stages are given {chunk} values of z each:"
                f" {count * chunk}, not {latent}",
            )
        return [chunk] * count

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *chunks = z.split(self.chunks, dim=1)
        conditions = [self.condition(piece, labels) for piece in chunks or [z]]
        x = self.run(self.condition.input(first, labels)[:, :, None, None], *conditions)
        return x if self.image.size else x.flatten(1)


@discriminator("stack")
class StackDiscriminator(_Stack):
    """A discriminator from a list of stages; whatever the last one gives are the logits.

    Options:
        stages: the blocks, in order; a last one that is several heads, as `classify`, makes it a
            discriminator of those.
        norm: for every stage.
        condition: what conditional norms and `project` are given: `none`, the `label` (one-hot)
            or its `embedding`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) or points (B, C), labels (B,) or None -> (B, N), or by head.
    """

    def __init__(
        self,
        image: Image,
        /,
        *,
        stages: tuple[Block, ...],
        norm: Norm = Norm(),
        condition: LabelConditions = "none",
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
        *_, last = self.stages.values()
        self.heads: dict[str, int] = getattr(last, "heads", {})
        """The width of each head, where the last stage is several side by side."""
        initialize(self, initializer)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Logits:
        x = images if self.image.size else images[:, :, None, None]
        logits = self.run(x, self.condition(images, labels)).flatten(1)
        if not self.heads:
            return logits
        return dict(zip(self.heads, logits.split([*self.heads.values()], dim=1), strict=True))
