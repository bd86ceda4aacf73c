"""Residual networks, as in SNGAN and the authors' SAGAN."""

from __future__ import annotations

from functools import partial
from typing import Literal

from gankit import blocks
from gankit.activations import relu
from gankit.attentions import NoAttention
from gankit.initializers import xavier
from gankit.networks.sizes import base_of, halvings_of, to_range, widths_of, with_attention
from gankit.networks.stack import Conditions, StackDiscriminator, StackGenerator
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
    norm: Norm = Norm(),
    activation: Activation = relu,
    attention: Attention = NoAttention,
    attention_at: tuple[int, ...] = (),
    condition: Conditions = "none",
    embedding: int = 128,
    initializer: Initializer = xavier,
) -> StackGenerator:
    """A dense stem and residual blocks that double the size up to the image.

    Miyato et al., "Spectral Normalization for GANs" (2018), appendix B.4, arXiv:1802.05957; with
    spectral norm, batchnorm and attention at 32 the generator of the authors' released SAGAN.

    Options:
        latent: width of z.
        width: channels of the last stage, doubled per halving towards z.
        width_max: the most channels a stage may have.
        norm: for every stage.
        activation: after each norm.
        attention: which attention.
        attention_at: heights of the feature maps that it is placed at.
        condition: what conditional norms are given: `none`, `label`, `embedding` or `latent`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: z (B, latent) -> (B, C, H, W).
    """
    halvings = halvings_of(image, "resnet")
    base = base_of(image, halvings)
    widths = widths_of(width, width_max, halvings + 1)[::-1]
    rows: list[tuple[int, list[Block]]] = [
        (base[0], [partial(blocks.dense, channels=widths[0], size=base)])
    ]
    for level, channels in enumerate(widths[1:], start=1):
        up = partial(blocks.residual_up, channels=channels, activation=activation)
        rows.append((base[0] * 2**level, [up]))
    last: tuple[Block, ...] = (
        partial(blocks.Normalise, activation=activation),
        partial(blocks.conv, channels=image.channels),
        *to_range(image),
    )
    return StackGenerator(
        image,
        stages=(*with_attention(rows, attention, attention_at), *last),
        latent=latent,
        norm=norm,
        condition=condition,
        embedding=embedding,
        initializer=initializer,
    )


@discriminator("resnet")
def resnet_discriminator(
    image: Image,
    /,
    *,
    width: int = 64,
    width_max: int = 1024,
    norm: Norm = Norm(),
    activation: Activation = relu,
    attention: Attention = NoAttention,
    attention_at: tuple[int, ...] = (),
    condition: Literal["none", "label", "embedding"] = "none",
    embedding: int = 128,
    initializer: Initializer = xavier,
) -> StackDiscriminator:
    """Residual blocks that halve the size, one that does not, a sum over positions, one logit.

    Miyato et al. (2018), appendix B.4, arXiv:1802.05957; with spectral norm and attention at 32
    the discriminator of the authors' released SAGAN, without its projection of the label.

    Options:
        width: channels of the first stage, doubled per halving.
        width_max: the most channels a stage may have.
        norm: for every stage.
        activation: after each norm.
        attention: which attention.
        attention_at: heights of the feature maps that it is placed at.
        condition: what conditional norms are given: `none`, `label` or `embedding`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: images (B, C, H, W) -> (B, 1).
    """
    halvings = halvings_of(image, "resnet")
    rows: list[tuple[int, list[Block]]] = []
    widths = widths_of(width, width_max, halvings)
    for level, channels in enumerate(widths, start=1):
        make = blocks.residual_stem if level == 1 else blocks.residual_down
        down = partial(make, channels=channels, activation=activation)
        rows.append((image.size[0] // 2**level, [down]))  # type: ignore[misc]
    flat = partial(blocks.residual, channels=widths[-1], activation=activation)
    rows.append((rows[-1][0], [flat]))
    last: tuple[Block, ...] = (
        partial(blocks.activate, activation=activation),
        blocks.SumPositions,
        partial(blocks.dense, channels=1),
    )
    return StackDiscriminator(
        image,
        stages=(*with_attention(rows, attention, attention_at), *last),
        norm=norm,
        condition=condition,
        embedding=embedding,
        initializer=initializer,
    )
