"""R3GAN's blocks, against its filters written out and what fixup initialisation promises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit import blocks
from gankit.blocks.resnext import smooth
from gankit.initializers import kaiming
from gankit.networks import StackGenerator
from gankit.norms import spectral, weightnorm
from gankit.slots import Image, Norm

Array = np.ndarray


def drawn(module: nn.Module, seed: int = 0) -> Any:
    random = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, generator=random)
    return module


def maps(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- interpolation, with the filter [1, 3, 3, 1] and zeros around the map

TAPS = np.array([1.0, 3.0, 3.0, 1.0]) / 4


def enlarged(line: Array) -> Array:
    """Zeros between the values, then the filter; a value of the input stands at 2 i and 2 i + 1."""
    out = np.zeros(2 * len(line) + 2)
    for index, value in enumerate(line):
        out[2 * index : 2 * index + 4] += value * TAPS
    return out[1:-1]


def shrunk(line: Array) -> Array:
    """The filter at every second place, of a line with a zero at each end."""
    padded = np.pad(line, 1)
    count = len(line) // 2
    return np.array([sum(padded[2 * i : 2 * i + 4] * TAPS) / 2 for i in range(count)])


def along_both(x: Array, change: Any) -> Array:
    return np.apply_along_axis(change, 3, np.apply_along_axis(change, 2, x))


def check_interpolation(stage: Any, change: Any, height: int, width: int) -> None:
    x = maps(2, 3, height, width)
    np.testing.assert_allclose(stage(x), along_both(x.numpy(), change), rtol=1e-9, atol=1e-12)


@given(st.integers(1, 7), st.integers(1, 7))
def test_interpolation_is_the_filter_written_out(height: int, width: int) -> None:
    up = blocks.interpolate_up((3, height, width), Norm(), channels=3)
    check_interpolation(up, enlarged, height, width)
    if min(height, width) > 1:
        down = blocks.interpolate_down((3, height, width), Norm(), channels=3)
        check_interpolation(down, shrunk, height, width)


def test_twin_other_interpolations_fail() -> None:
    for twin in (partial(F.interpolate, scale_factor=2, mode=m) for m in ("nearest", "bilinear")):
        with pytest.raises(AssertionError):
            check_interpolation(twin, enlarged, 4, 4)
    with pytest.raises(AssertionError):
        check_interpolation(partial(F.avg_pool2d, kernel_size=2), shrunk, 4, 4)


def test_smoothing_keeps_what_is_even_but_for_the_border() -> None:
    y = smooth(torch.ones(1, 1, 5, 5))
    assert y[0, 0, 1:-1, 1:-1].eq(1).all()
    assert y[0, 0, 0].tolist() == [0.5625, 0.75, 0.75, 0.75, 0.5625]


@pytest.mark.parametrize("name", ["interpolate_up", "interpolate_down"])
def test_a_convolution_only_where_channels_change(name: str) -> None:
    make = getattr(blocks, name)
    assert list(make((3, 4, 4), Norm(), channels=3).parameters()) == []
    stage, x = drawn(make((3, 4, 4), Norm(), channels=5)), maps(2, 3, 4, 4)
    ((weight),) = stage.parameters()
    assert weight.shape == (5, 3, 1, 1)
    plain = make((3, 4, 4), Norm(), channels=3)(x)
    # A 1x1 convolution and the interpolation commute, so it is on the side with fewer positions.
    torch.testing.assert_close(stage(x), F.conv2d(plain, weight))


# --- the block


def by_formula(stage: Any, x: Tensor, groups: int) -> Tensor:
    state = stage.state_dict()
    h = F.conv2d(x, state["conv1.weight"], state["conv1.bias"])
    h = torch.where(h > 0, h, 0.2 * h)
    wide = h.shape[1] // groups
    parts = [
        F.conv2d(part, weight, bias, padding=1)
        for part, weight, bias in zip(
            h.split(wide, 1),
            state["conv2.weight"].split(wide),
            state["conv2.bias"].split(wide),
            strict=True,
        )
    ]
    h = torch.cat(parts, dim=1)
    return x + F.conv2d(torch.where(h > 0, h, 0.2 * h), state["conv3.weight"])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("expansion", [1, 2])
def test_inverted_bottleneck_is_its_formula(groups: int, expansion: int) -> None:
    make = partial(blocks.InvertedBottleneck, depth=3, expansion=expansion, groups=groups)
    stage, x = drawn(make((4, 3, 2), Norm())), maps(2, 4, 3, 2)
    torch.testing.assert_close(stage(x), by_formula(stage, x, groups))
    wide = 4 * expansion
    weights = 4 * wide + wide * wide // groups * 9 + wide * 4
    assert sum(p.numel() for p in stage.parameters()) == weights + 2 * wide


def check_start(stage: Any, depth: int) -> None:
    """Fixup, with three layers to a block: L^(-1/4) of what keeps the variance; the last is 0."""
    x = torch.randn(2, 64, 3, 3)
    assert torch.equal(stage(x), x)
    gain = math.sqrt(2 / 1.04) * depth**-0.25
    for layer, inputs in ((stage.conv1, 64), (stage.conv2, 128 // 4 * 9)):
        assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(inputs), rel=0.05)
        assert abs(layer.weight.mean().item()) < 0.01
        assert not layer.bias.any()


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_inverted_bottleneck_starts_as_the_identity(depth: int) -> None:
    check_start(blocks.InvertedBottleneck((64, 3, 3), Norm(), groups=4, depth=depth), depth)


@pytest.mark.parametrize("weight", [spectral, weightnorm])
def test_a_weight_norm_leaves_the_start_as_it_is(weight: Any) -> None:
    stage = blocks.InvertedBottleneck((8, 3, 3), Norm(weight), groups=4, depth=8)
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(stage(x), x)


def test_twin_another_depth_fails_the_start() -> None:
    stage = blocks.InvertedBottleneck((64, 3, 3), Norm(), groups=4, depth=8)
    with pytest.raises(AssertionError):
        check_start(stage, 1)


def test_the_networks_initializer_leaves_the_block_as_it_starts() -> None:
    block = partial(blocks.InvertedBottleneck, groups=2, depth=1)
    stages = (partial(blocks.Basis, channels=8), block, partial(blocks.conv, channels=3, kernel=1))
    network = StackGenerator(
        Image(3, (4, 4)), latent=200, stages=stages, initializer=partial(kaiming, slope=1.0)
    )
    assert not network.stages["inverted_bottleneck_4"].conv3.weight.any()  # type: ignore[union-attr]
    scale = network.stages["basis_4"].scale.weight  # type: ignore[union-attr]
    assert scale.std().item() == pytest.approx(1 / math.sqrt(200), rel=0.05)  # type: ignore


# --- the start of the generator


def test_basis_scales_a_map_for_each_channel() -> None:
    stage, z = drawn(blocks.Basis((6, 1, 1), Norm(), channels=5, size=(2, 3))), maps(4, 6, 1, 1)
    expected = torch.einsum("bi,oi,ohw->bohw", z[:, :, 0, 0], stage.scale.weight, stage.basis)
    torch.testing.assert_close(stage(z), expected)
    assert stage.out == (5, 2, 3)


def test_the_maps_of_the_basis_start_normal() -> None:
    basis = blocks.Basis((6, 1, 1), Norm(), channels=400).basis.detach()
    assert basis.std().item() == pytest.approx(1, abs=0.05)
    assert abs(basis.mean().item()) < 0.05
