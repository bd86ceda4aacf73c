"""DCGAN: strided convolutions down, transposed convolutions up."""

from __future__ import annotations

from functools import partial
from typing import Literal

from gankit import blocks
from gankit.activations import leaky_relu, relu
from gankit.attentions import NoAttention
from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.networks.conditions import Conditions, Inputs, LabelConditions
from gankit.networks.sizes import (
    base_of,
    halvings_of,
    head_of,
    to_range,
    widths_of,
    with_attention,
)
from gankit.networks.stack import StackDiscriminator, StackGenerator
from gankit.registry import discriminator, generator
from gankit.slots import Activation, Attention, Block, Image, Initializer, Norm

__all__ = ["dcgan_discriminator", "dcgan_generator"]


@generator("dcgan")
def dcgan_generator(
    image: Image,
    /,
    *,
    latent: int = 128,
    width: int = 64,
    width_max: int = 1024,
    norm: Norm = Norm(),
    activation: Activation = relu,
    attention: Attention = NoAttention,
    attention_at: tuple[int, ...] = (),
    stem: Literal["dense", "transposed"] = "dense",
    head: Literal["conv", "transposed"] = "conv",
    input: Inputs = "latent",
    condition: Conditions = "none",
    embedding: int = 128,
    chunk: int = 20,
    initializer: Initializer = xavier,
) -> StackGenerator:
    """Transposed 4x4 convolutions of stride 2, each normalised and activated, up to the image.

    Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs" (2016),
    section 3, arXiv:1511.06434.

    Options:
        latent: width of z.
        width: channels of the last stage before the image, doubled per halving towards z.
        width_max: the most channels a stage may have.
        norm: for every stage.
        activation: after each norm.
        attention: which attention.
        attention_at: heights of the feature maps that it is placed at.
        stem: `dense` is a dense layer with bias and the activation alone; `transposed` is a
            transposed convolution without bias, norm and activation, as in the paper.
        head: `conv` is a 3x3 convolution at full size; `transposed` is one more transposed
            convolution without bias, as in the paper.
        input: what the first stage is given: `latent`, `label`, `embedding`, or several.
        condition: what conditional norms are given: `none`, `label`, `embedding`, `latent`,
            `chunk`, or several.
        embedding: width of the label's embedding.
        chunk: width of each chunk that z is cut into, for the input and for each stage that looks
            at the condition.
        initializer: of every layer's weight.

    Shape: z (B, latent) -> (B, C, H, W).
    """
    halvings = halvings_of(image, "dcgan")
    base = base_of(image, halvings)
    # With a transposed head the last doubling is the head's, so one normalised stage fewer.
    doublings = halvings if head == "conv" else halvings - 1
    inner = widths_of(width, width_max, doublings + 1)[::-1]
    if stem == "dense":
        first: list[Block] = [
            partial(blocks.dense, channels=inner[0], size=base),
            partial(blocks.activate, activation=activation),
        ]
    else:
        if base[0] != base[1]:
            raise OptionError("stem", f'a "transposed" stem makes square maps; the base is {base}')
        first = [
            partial(
                blocks.transposed,
                channels=inner[0],
                kernel=base[0],
                stride=1,
                padding="none",
                bias=False,
            ),
            partial(blocks.Normalise, activation=activation),
        ]
    rows = [(base[0], first)]
    for level, channels in enumerate(inner[1:], start=1):
        up: list[Block] = [
            partial(blocks.transposed, channels=channels, bias=False),
            partial(blocks.Normalise, activation=activation),
        ]
        rows.append((base[0] * 2**level, up))
    last: Block = (
        partial(blocks.conv, channels=image.channels)
        if head == "conv"
        else partial(blocks.transposed, channels=image.channels, bias=False)
    )
    return StackGenerator(
        image,
        stages=(*with_attention(rows, attention, attention_at), last, *to_range(image)),
        latent=latent,
        norm=norm,
        input=input,
        condition=condition,
        embedding=embedding,
        chunk=chunk,
        initializer=initializer,
    )


@discriminator("dcgan")
def dcgan_discriminator(
    image: Image,
    /,
    *,
    width: int = 64,
    width_max: int = 1024,
    norm: Norm = Norm(),
    activation: Activation = leaky_relu,
    attention: Attention = NoAttention,
    attention_at: tuple[int, ...] = (),
    before_head: tuple[Block, ...] = (),
    head: Literal["dense", "conv", "projection", "auxiliary", "rotation"] = "dense",
    bias: bool = True,
    condition: LabelConditions = "none",
    embedding: int = 128,
    initializer: Initializer = xavier,
) -> StackDiscriminator:
    """4x4 convolutions of stride 2 down to one logit; the first has no norm after it.

    Radford et al. (2016), section 3, arXiv:1511.06434.

    Options:
        width: channels of the first stage, doubled per halving.
        width_max: the most channels a stage may have.
        norm: for every stage; the activation norm acts from the second on.
        activation: after each norm.
        attention: which attention.
        attention_at: heights of the feature maps that it is placed at.
        before_head: stages between the last feature map and the head, such as `minibatch_std`.
        head: `dense` is a dense layer on all that is left; `conv` is a convolution without bias
            as large as the last feature map, as in the paper; `projection` sums over positions
            and adds the product with the label's vector; `auxiliary` is dense, with a second head
            that tells classes apart, `rotation` one that tells quarter turns of an image apart.
        bias: the strided convolutions have biases; the paper's, before batchnorm, have none.
        condition: what conditional norms and a projection are given: `none`, `label` or
            `embedding`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) -> (B, 1), or by head.
    """
    halvings = halvings_of(image, "dcgan")
    base = base_of(image, halvings)
    rows: list[tuple[int, list[Block]]] = []
    for level, channels in enumerate(widths_of(width, width_max, halvings), start=1):
        follows = blocks.activate if level == 1 else blocks.Normalise
        down: list[Block] = [
            partial(blocks.conv, channels=channels, kernel=4, stride=2, bias=bias),
            partial(follows, activation=activation),
        ]
        rows.append((image.size[0] // 2**level, down))  # type: ignore[misc]
    last: tuple[Block, ...]
    if head == "conv":
        if base[0] != base[1]:
            raise OptionError("head", f'a "conv" head needs a square base; it is {base}')
        last = (partial(blocks.conv, channels=1, kernel=base[0], padding="none", bias=False),)
    else:
        sums = (blocks.SumPositions,) if head == "projection" else ()
        last = (*sums, head_of(head, image, condition))
    return StackDiscriminator(
        image,
        stages=(*with_attention(rows, attention, attention_at), *before_head, *last),
        norm=norm,
        condition=condition,
        embedding=embedding,
        initializer=initializer,
    )
