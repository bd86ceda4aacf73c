"""Dense networks, for points in space and small images."""

from __future__ import annotations

from functools import partial

from gankit import blocks
from gankit.activations import leaky_relu, relu
from gankit.errors import OptionError
from gankit.initializers import normal
from gankit.networks.conditions import Conditions, Inputs, LabelConditions
from gankit.networks.sizes import Heads, head_of, to_range
from gankit.networks.stack import StackDiscriminator, StackGenerator
from gankit.registry import discriminator, generator
from gankit.slots import Activation, Block, Image, Initializer, Norm

__all__ = ["mlp_discriminator", "mlp_generator"]


def _hidden(count: int, width: int, activation: Activation) -> list[Block]:
    """Dense layers with norm and activation."""
    if count < 1:
        raise OptionError("layers", "an mlp needs at least one hidden layer")
    pair: list[Block] = [
        partial(blocks.dense, channels=width),
        partial(blocks.Normalise, activation=activation),
    ]
    return pair * count


@generator("mlp")
def mlp_generator(
    image: Image,
    /,
    *,
    latent: int = 2,
    width: int = 128,
    layers: int = 3,
    norm: Norm = Norm(),
    activation: Activation = relu,
    input: Inputs = "latent",
    condition: Conditions = "none",
    embedding: int = 128,
    chunk: int = 20,
    initializer: Initializer = normal,
) -> StackGenerator:
    """Dense layers from z to points in space, or to small images.

    Goodfellow et al., "Generative Adversarial Nets" (2014), section 5, arXiv:1406.2661.

    Options:
        latent: width of z.
        width: of each hidden layer.
        layers: how many hidden layers.
        norm: for every layer; handed feature maps of one position.
        activation: after each norm.
        input: what the first stage is given: `latent`, `label`, `embedding`, or several.
        condition: what conditional norms are given: `none`, `label`, `embedding`, `latent`,
            `chunk`, or several.
        embedding: width of the label's embedding.
        chunk: width of each chunk that z is cut into, for the input and for each stage that looks
            at the condition.
        initializer: of every layer's weight.

    Shape: z (B, latent) -> points (B, C), or images (B, C, H, W).
    """
    last = partial(blocks.dense, channels=image.channels, size=image.size or (1, 1))
    return StackGenerator(
        image,
        stages=(*_hidden(layers, width, activation), last, *to_range(image)),
        latent=latent,
        norm=norm,
        input=input,
        condition=condition,
        embedding=embedding,
        chunk=chunk,
        initializer=initializer,
    )


@discriminator("mlp")
def mlp_discriminator(
    image: Image,
    /,
    *,
    width: int = 128,
    layers: int = 3,
    norm: Norm = Norm(),
    activation: Activation = leaky_relu,
    head: Heads = "dense",
    condition: LabelConditions = "none",
    embedding: int = 128,
    initializer: Initializer = normal,
) -> StackDiscriminator:
    """Dense layers from points in space, or small images, to one logit.

    Goodfellow et al. (2014), section 5, arXiv:1406.2661.

    Options:
        width: of each hidden layer.
        layers: how many hidden layers.
        norm: for every layer; handed feature maps of one position.
        activation: after each norm.
        head: `dense` gives one logit; `projection` adds the product with the label's vector;
            `auxiliary` has a second head that tells classes apart, `rotation` one that tells by
            how many quarter turns an image is rotated.
        condition: what conditional norms and a projection are given: `none`, `label` or
            `embedding`.
        embedding: width of the label's embedding.
        initializer: of every layer's weight.

    Shape: points (B, C) or images (B, C, H, W) -> (B, 1), or by head.
    """
    return StackDiscriminator(
        image,
        stages=(*_hidden(layers, width, activation), head_of(head, image, condition)),
        norm=norm,
        condition=condition,
        embedding=embedding,
        initializer=initializer,
    )
