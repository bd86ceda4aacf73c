"""Published systems, made from the recipes or from them with another key, count as their code does.

The expected numbers are what the public code counts when it is run, unless it says otherwise here.
"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import torch
from torch import nn

from gankit.build import make_network
from gankit.recipes import find
from gankit.slots import Image, heads_of
from gankit.spec import Part, dumps, loads

HEAD = """
gankit = 1
data   = "ring"
loss   = "hinge"
train  = { steps = 1 }
"""


def networks_of(name: str) -> str:
    """The two networks of a recipe, as TOML."""
    tables = tomllib.loads(find(name).read_text(encoding="utf-8"))
    return dumps({section: tables[section] for section in ("generator", "discriminator")})


BIGGAN = networks_of("biggan_128")
SAGAN = networks_of("sagan_imagenet_128")
SNGAN_32 = networks_of("sngan_32")
SNGAN_128 = networks_of("sngan_128")
WGAN_GP_64 = networks_of("wgan_gp_64")


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


def plain_lsgan() -> tuple[int, int]:
    """The authors' code without norms (5x5 kernels, z of 1024), which is for TensorFlow 0."""
    up = ((512, 256), (256, 128), (128, 64), (64, 3))
    down = ((3, 64), (64, 128), (128, 256), (256, 512))
    generator = (1024 + 1) * 512 * 4 * 4 + sum(a * b * 25 + b for a, b in up)
    return generator, sum(a * b * 25 + b for a, b in down) + 512 * 4 * 4 + 1


def first_gan() -> tuple[int, int]:
    """The authors' mnist.yaml: dense layers of 1200, then maxout of 240 units and 5 pieces."""
    generator = (100 + 1) * 1200 + (1200 + 1) * 1200 + (1200 + 1) * 784
    return generator, (784 + 1) * 240 * 5 + (240 + 1) * 240 * 5 + 240 + 1


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
    "SNGAN of plain convolutions, the paper's table 3": (
        networks_of("sngan_plain_32"),
        32,
        0,
        plain_sngan(),
    ),
    "SSGAN 128, mimicry": (networks_of("ssgan_128"), 128, 0, (32_150_787, 29_021_957)),
    "InfoMax-GAN 128, mimicry": (networks_of("infomax_gan_128"), 128, 0, (32_150_787, 35_315_457)),
    "LSGAN 64, added up": (networks_of("lsgan_64"), 64, 0, plain_lsgan()),
    "WGAN-GP 64, mimicry": (WGAN_GP_64, 64, 0, (12_220_675, 10_141_441)),
    "DCGAN 64, pytorch/examples": (networks_of("dcgan_64"), 64, 0, (3_576_704, 2_765_568)),
    "R3GAN CIFAR-10, its authors' code": (networks_of("r3gan_32"), 32, 0, (20_732_160, 20_683_776)),
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
        assert heads_of(networks[1](fake, labels))["logits"].shape == (2, 1)
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
        (WGAN_GP_64, "width = 32", 'hidden = "out"'),
    ],
)
def test_twin_another_value_has_other_counts(text: str, generator: str, discriminator: str) -> None:
    _, size, classes, expected = next(row for row in SYSTEMS.values() if row[0] == text)
    networks = made(altered(text, generator, discriminator), size, classes)
    for network, number in zip(networks, expected, strict=True):
        assert count(network) != number
