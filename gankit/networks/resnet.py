"""Residual networks, as in SNGAN and the authors' SAGAN."""

from __future__ import annotations

from functools import partial
from typing import Literal

from gankit import blocks
from gankit.activations import relu
from gankit.attentions import NoAttention
from gankit.blocks import Hidden, Shortcut, Upsampling
from gankit.errors import OptionError
from gankit.initializers import xavier
from gankit.networks.conditions import Conditions, Inputs, LabelConditions
from gankit.networks.sizes import (
    Heads,
    base_of,
    given_widths,
    halvings_of,
    head_of,
    to_range,
    widths_of,
    with_attention,
)
from gankit.networks.stack import StackDiscriminator, StackGenerator
from gankit.registry import discriminator, generator
from gankit.slots import Activation, Attention, Block, Image, Initializer, Norm

__all__ = ["resnet_discriminator", "resnet_generator"]


@generator("resnet")
def resnet_generator(
    image: Image,
    /,
    *,
    latent: int = 128,
    width: int = 64,
    width_max: int = 1024,
    widths: tuple[int, ...] = (),
    norm: Norm = Norm(),
    last_norm: Literal["network", "batchnorm"] = "network",
    activation: Activation = relu,
    upsampling: Upsampling = "nearest",
    attention: Attention = NoAttention,
    attention_at: tuple[int, ...] = (),
    input: Inputs = "latent",
    condition: Conditions = "none",
    embedding: int = 128,
    chunk: int = 20,
    initializer: Initializer = xavier,
) -> StackGenerator:
    """A dense stem and residual blocks that double the size up to the image.

    Miyato et al., "Spectral Normalization for GANs" (2018), appendix B.4, arXiv:1802.05957; with
    spectral norm, batchnorm and attention at 32 the generator of the authors' released SAGAN.
    With classes: Miyato and Koyama (2018), arXiv:1802.05637, SAGAN, and BigGAN, Brock et al.
    (2019), arXiv:1809.11096.

    Options:
        latent: width of z.
        width: channels of the last stage, doubled per halving towards z.
        width_max: the most channels a stage may have.
        widths: the channels of every stage, from the dense layer's to the image, where they do
            not double; `width` and `width_max` are not looked at then.
        norm: for every stage.
        last_norm: before the image, `network` is that norm too; `batchnorm` a plain one, as the
            class-conditional networks have it.
        activation: after each norm.
        upsampling: `nearest` as in the authors' code, or `bilinear` as in mimicry.
        attention: which attention.
        attention_at: heights of the feature maps that it is placed at.
        input: what the first stage is given: `latent`, `label`, `embedding`, or several.
        condition: what conditional norms are given: `none`, `label`, `embedding`, `latent`,
            `chunk`, or several.
        embedding: width of the label's embedding.
        chunk: width of each chunk that z is cut into, for the input and for each stage that looks
            at the condition.
        initializer: of every layer's weight.

    Shape: z (B, latent) -> (B, C, H, W).
    """
    if widths:
        first, *others = given_widths(widths, image, len(widths) - 1, "resnet")
    else:
        first, *others = widths_of(width, width_max, halvings_of(image, "resnet") + 1)[::-1]
    base = base_of(image, len(others))
    rows: list[tuple[int, list[Block]]] = [
        (base[0], [partial(blocks.dense, channels=first, size=base)])
    ]
    for level, channels in enumerate(others, start=1):
        up = partial(
            blocks.residual_up, channels=channels, activation=activation, upsampling=upsampling
        )
        rows.append((base[0] * 2**level, [up]))
    normalise = {"network": blocks.Normalise, "batchnorm": blocks.NormaliseWith}[last_norm]
    last: tuple[Block, ...] = (
        partial(normalise, activation=activation),
        partial(blocks.conv, channels=image.channels),
        *to_range(image),
    )
    return StackGenerator(
        image,
        stages=(*with_attention(rows, attention, attention_at), *last),
        latent=latent,
        norm=norm,
        input=input,
        condition=condition,
        embedding=embedding,
        chunk=chunk,
        initializer=initializer,
    )


@discriminator("resnet")
def resnet_discriminator(
    image: Image,
    /,
    *,
    width: int = 64,
    width_max: int = 1024,
    widths: tuple[int, ...] = (),
    flat: int = 1,
    hidden: Hidden = "out",
    shortcut: Shortcut = "input",
    norm: Norm = Norm(),
    activation: Activation = relu,
    attention: Attention = NoAttention,
    attention_at: tuple[int, ...] = (),
    before_head: tuple[Block, ...] = (),
    pool: Literal["sum", "mean"] = "sum",
    head: Heads = "dense",
    condition: LabelConditions = "none",
    embedding: int = 128,
    initializer: Initializer = xavier,
) -> StackDiscriminator:
    """Residual blocks that halve the size, one that does not, a sum over positions, one logit.

    Miyato et al. (2018), appendix B.4, arXiv:1802.05957; with spectral norm and attention at 32
    the discriminator of the authors' released SAGAN, with a projection that of its classes too.

    Options:
        width: channels of the first stage, doubled per halving.
        width_max: the most channels a stage may have.
        widths: the channels of every block, from the image on, where they do not double; all but
            the last `flat` halve the size. `width` and `width_max` are not looked at then.
        flat: how many blocks at the end keep the size.
        hidden: the channels between the convolutions of every block but the first: as many as go
            `out`, as in SAGAN's and BigGAN's code, or as come `in`, as in SNGAN's.
        shortcut: of every block but the first; it carries the `input`, or that `activated`, as
            activations that work in place leave it: in mimicry and StudioGAN.
        norm: for every stage.
        activation: after each norm.
        attention: which attention.
        attention_at: heights of the feature maps that it is placed at.
        before_head: stages between the last feature map and the head, such as `minibatch_std`.
        pool: `sum` or `mean` over all positions, before the head.
        head: `dense` gives one logit; `projection` adds the product with the label's vector;
            `auxiliary` has a second head that tells classes apart, `rotation` one that tells by
            how many quarter turns an image is rotated.
        condition: what conditional norms and a projection are given: `none`, `label` or
            `embedding`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) -> (B, 1), or by head.
    """
    if flat < 0:
        raise OptionError("flat", f"flat counts blocks: {flat} is below 0")
    if widths:
        channels = given_widths(widths, image, len(widths) - flat, "resnet")
    else:
        channels = widths_of(width, width_max, halvings_of(image, "resnet"))
        channels += channels[-1:] * flat
    halvings = len(channels) - flat
    rows: list[tuple[int, list[Block]]] = []
    for level, wide in enumerate(channels, start=1):
        if level == 1:
            make: Block = blocks.residual_stem
        elif level <= halvings:
            make = partial(blocks.residual_down, hidden=hidden, shortcut=shortcut)
        else:
            make = partial(blocks.residual, hidden=hidden, shortcut=shortcut)
        height = image.size[0] // 2 ** min(level, halvings)  # type: ignore[misc]
        rows.append((height, [partial(make, channels=wide, activation=activation)]))
    pooled = {"sum": blocks.SumPositions, "mean": blocks.MeanPositions}[pool]
    last = (
        *before_head,
        partial(blocks.activate, activation=activation),
        pooled,
        head_of(head, image, condition),
    )
    return StackDiscriminator(
        image,
        stages=(*with_attention(rows, attention, attention_at), *last),
        norm=norm,
        condition=condition,
        embedding=embedding,
        initializer=initializer,
    )
