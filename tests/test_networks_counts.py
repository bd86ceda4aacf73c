"""Published systems as a page of a spec each, with the parameters that their code has.

The expected numbers are what the public code counts when it is run, unless it says otherwise here.
"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import torch
from torch import nn

from gankit.build import make_network
from gankit.slots import Image
from gankit.spec import Part, dumps, loads

HEAD = """
gankit = 1
data   = "ring"
loss   = "hinge"
train  = { steps = 1 }
"""

ATTENTION = '{ use = "self_attention", value_reduction = 2, pool = 2, bias = false }'
CBN = '{ use = "conditional_batchnorm", weight_norm = "network", initializer = "orthogonal" }'
BIGGAN = f"""
[generator]
use          = "resnet"
latent       = 120
width        = 96
width_max    = 1536
norm         = ["spectral", {CBN}]
last_norm    = "batchnorm"
attention    = {ATTENTION}
attention_at = [64]
condition    = ["embedding", "chunk"]
embedding    = 128
chunk        = 20
initializer  = "orthogonal"

[discriminator]
use          = "resnet"
width        = 96
width_max    = 1536
norm         = "spectral"
attention    = {ATTENTION}
attention_at = [64]
condition    = "label"
head         = "projection"
initializer  = "orthogonal"
"""
SAGAN = f"""
[generator]
use          = "resnet"
norm         = ["spectral", "conditional_batchnorm"]
last_norm    = "batchnorm"
attention    = {ATTENTION}
attention_at = [32]
condition    = "label"

[discriminator]
use          = "resnet"
norm         = "spectral"
attention    = {ATTENTION}
attention_at = [32]
condition    = "label"
head         = "projection"
"""
SNGAN_32 = """
[generator]
use        = "resnet"
width      = 256
width_max  = 256
norm       = "batchnorm"
upsampling = "bilinear"

[discriminator]
use    = "resnet"
widths = [128, 128, 128, 128]
flat   = 2
hidden = "in"
norm   = "spectral"
"""
SNGAN_128 = """
[generator]
use        = "resnet"
norm       = "batchnorm"
upsampling = "bilinear"

[discriminator]
use    = "resnet"
hidden = "in"
norm   = "spectral"
"""
WGAN_GP_64 = """
[generator]
use        = "resnet"
norm       = "batchnorm"
upsampling = "bilinear"

[discriminator]
use    = "resnet"
widths = [64, 128, 256, 512, 1024]
flat   = 0
hidden = "in"
pool   = "mean"
"""
DCGAN_64 = """
[generator]
use    = "dcgan"
latent = 100
norm   = "batchnorm"
stem   = "transposed"
head   = "transposed"

[discriminator]
use  = "dcgan"
norm = "batchnorm"
head = "conv"
bias = false
"""
R3GAN_CIFAR = """
[generator]
use         = "stack"
latent      = 64
initializer = { use = "kaiming", slope = 1.0 }
stages = [
  { use = "basis", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "interpolate_up", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "interpolate_up", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "interpolate_up", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "conv", channels = 3, kernel = 1, bias = false },
]

[discriminator]
use         = "stack"
initializer = { use = "kaiming", slope = 1.0 }
stages = [
  { use = "conv", channels = 768, kernel = 1, bias = false },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "interpolate_down", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "interpolate_down", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "interpolate_down", channels = 768 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "inverted_bottleneck", groups = 96, depth = 8 },
  { use = "conv", channels = 768, kernel = 4, padding = "none", groups = 768, bias = false },
  { use = "dense", channels = 1, bias = false },
]
"""
SNGAN_PLAIN = """
[generator]
use    = "stack"
latent = 128
norm   = "batchnorm"
stages = [
  { use = "dense", channels = 512, size = [4, 4] },
  { use = "transposed", channels = 256 },
  "normalise",
  { use = "transposed", channels = 128 },
  "normalise",
  { use = "transposed", channels = 64 },
  "normalise",
  { use = "conv", channels = 3 },
  { use = "activate", activation = "tanh" },
]

[discriminator]
use    = "stack"
norm   = "spectral"
stages = [
  { use = "conv", channels = 64 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "conv", channels = 64, kernel = 4, stride = 2 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "conv", channels = 128 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "conv", channels = 128, kernel = 4, stride = 2 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "conv", channels = 256 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "conv", channels = 256, kernel = 4, stride = 2 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "conv", channels = 512 },
  { use = "activate", activation = { use = "leaky_relu", slope = 0.1 } },
  { use = "dense", channels = 1 },
]
"""


def plain_sngan() -> tuple[int, int]:
    """Miyato et al. (2018), table 3: no code for it was released, so the table is added up."""

    def layer(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    up = ((512, 256), (256, 128), (128, 64))
    generator = layer(128, 512 * 4 * 4, 1) + layer(64, 3, 3)
    generator += sum(layer(*pair, 4) + 2 * pair[1] for pair in up)  # scale and shift of each norm
    discriminator = layer(3, 64, 3) + layer(64, 128, 3) + layer(128, 256, 3) + layer(256, 512, 3)
    discriminator += sum(layer(wide, wide, 4) for wide in (64, 128, 256))
    return generator, discriminator + layer(512 * 4 * 4, 1, 1)


def conditional_sagan() -> tuple[int, int]:
    """The released code is for TensorFlow 1: the unconditional counts, and what classes add.

    G has tables for two norms a block where it has a scale and a shift otherwise; its last norm
    has none. D has the table of the projection.
    """
    normed = sum(a + b for a, b in ((1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64)))
    return 32_232_708 + 2 * normed * (1000 - 1), 38_439_618 + 1000 * 1024


def altered(text: str, generator: str = "", discriminator: str = "") -> str:
    """A system's tables with other values in them."""
    tables = tomllib.loads(text)
    for section, more in (("generator", generator), ("discriminator", discriminator)):
        tables[section] |= tomllib.loads(more)
    return dumps(tables)


WIDE = """
latent = 140
widths = [1536, 1536, 768, 768, 384, 192, 96]
"""
SYSTEMS: dict[str, tuple[str, int, int, tuple[int, int]]] = {
    "BigGAN 128, BigGAN-PyTorch": (BIGGAN, 128, 1000, (70_433_988, 87_982_370)),
    "BigGAN 256, BigGAN-PyTorch": (
        altered(BIGGAN, WIDE, "widths = [96, 192, 384, 768, 768, 1536, 1536]"),
        256,
        1000,
        (82_235_844, 99_225_890),
    ),
    "BigGAN 64 of 100 classes, BigGAN-PyTorch": (
        altered(
            BIGGAN,
            "width = 128\nwidth_max = 1024\nattention_at = [32]\nchunk = 24",
            "widths = [64, 128, 256, 512, 1024]\nattention_at = [32]",
        ),
        64,
        100,
        (31_854_340, 19_650_242),
    ),
    "BigGAN CIFAR-10, BigGAN-PyTorch": (
        altered(
            SNGAN_32,
            'norm = ["spectral", "conditional_batchnorm"]\ncondition = "label"'
            '\nlast_norm = "batchnorm"',
            'widths = [256, 256, 256, 256]\nhidden = "out"'
            '\ncondition = "label"\nhead = "projection"',
        ),
        32,
        10,
        (4_304_387, 4_207_361),
    ),
    "SAGAN 128, from the authors' code": (SAGAN, 128, 1000, conditional_sagan()),
    "SAGAN 128, BigGAN-PyTorch": (
        altered(SAGAN, "attention_at = [64]", "attention_at = [64]"),
        128,
        1000,
        (42_017_412, 39_448_258),
    ),
    "SNGAN 32, mimicry": (SNGAN_32, 32, 0, (4_276_739, 1_053_825)),
    "SNGAN 128, mimicry": (SNGAN_128, 128, 0, (32_150_787, 29_017_857)),
    "SNGAN with projection 32, mimicry": (
        altered(
            SNGAN_32,
            'norm = "conditional_batchnorm"\ncondition = "label"\nlast_norm = "batchnorm"',
            'condition = "label"\nhead = "projection"',
        ),
        32,
        10,
        (4_304_387, 1_055_105),
    ),
    "SNGAN with projection 128, mimicry at ndf 1024": (
        altered(
            SNGAN_128,
            'norm = "conditional_batchnorm"\ncondition = "label"\nlast_norm = "batchnorm"',
            'condition = "label"\nhead = "projection"',
        ),
        128,
        1000,
        (41_996_931, 30_041_857),
    ),
    "SNGAN of plain convolutions, the paper's table 3": (SNGAN_PLAIN, 32, 0, plain_sngan()),
    "WGAN-GP 64, mimicry": (WGAN_GP_64, 64, 0, (12_220_675, 10_141_441)),
    "DCGAN 64, pytorch/examples": (DCGAN_64, 64, 0, (3_576_704, 2_765_568)),
    "R3GAN CIFAR-10, its authors' code": (R3GAN_CIFAR, 32, 0, (20_732_160, 20_683_776)),
}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def made(text: str, size: int, classes: int) -> tuple[Any, Any]:
    """Both networks, without memory; they judge and make images of that size."""
    spec = loads(HEAD + text)
    image = Image(3, (size, size), classes=classes)
    parts: list[Part] = [spec.generator, spec.discriminator]
    with torch.device("meta"):
        networks = [make_network(part, image, 0) for part in parts]
        labels = torch.zeros(2, dtype=torch.int64)
        fake = networks[0](torch.empty(2, int(networks[0].latent)), labels)  # type: ignore
        assert fake.shape == (2, 3, size, size)
        assert networks[1](fake, labels).shape == (2, 1)
    return networks[0], networks[1]


@pytest.mark.parametrize("name", SYSTEMS)
def test_has_the_parameters_of_its_code(name: str) -> None:
    text, size, classes, expected = SYSTEMS[name]
    assert tuple(map(count, made(text, size, classes))) == expected


@pytest.mark.parametrize(
    ("text", "generator", "discriminator"),
    [
        (BIGGAN, 'last_norm = "network"\nlatent = 140', 'head = "dense"'),
        (BIGGAN, 'condition = "embedding"', 'attention = "none"'),
        (SAGAN, 'condition = "latent"', 'hidden = "in"'),
        (SNGAN_128, 'norm = "none"', 'hidden = "out"'),
        (WGAN_GP_64, "width = 32", "flat = 1"),
    ],
)
def test_twin_another_value_has_other_counts(text: str, generator: str, discriminator: str) -> None:
    _, size, classes, expected = next(row for row in SYSTEMS.values() if row[0] == text)
    networks = made(altered(text, generator, discriminator), size, classes)
    for network, number in zip(networks, expected, strict=True):
        assert count(network) != number
