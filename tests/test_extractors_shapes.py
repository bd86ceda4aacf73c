"""Drawn shapes are read back from their pixels: decode(render(factors)) == factors."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import gankit.extractors.decoding as decoding
from gankit.datasets import Factors, render
from gankit.datasets import Shapes as Source
from gankit.datasets.shapes import CLASSES, SIDES
from gankit.errors import SpecError
from gankit.extractors import Shapes, decode
from gankit.extractors.fitting import Outline, first_guess, fitted
from gankit.slots import Image

Size = tuple[int, int]


def lengths_off(seen: Factors, drawn: Factors, size: Size) -> Tensor:
    """How far the outlines lie apart, in pixels: the most of place, radius and turn."""
    height, width = size
    turn = torch.tensor([2 * math.pi / folds if folds else 1.0 for folds in SIDES])[drawn.label]
    turned = (seen.rotation - drawn.rotation + turn / 2) % turn - turn / 2
    turned = turned * (torch.tensor(SIDES)[drawn.label] > 0)
    return torch.stack(
        [
            (seen.x - drawn.x) * width,
            (seen.y - drawn.y) * height,
            (seen.radius - drawn.radius) * min(size),
            turned * drawn.radius * min(size),
        ]
    ).abs()


def hue_off(seen: Factors, drawn: Factors) -> Tensor:
    return ((seen.hue - drawn.hue + 0.5) % 1 - 0.5).abs()


def check_read_back(drawn: Factors, size: Size, channels: int) -> None:
    """The bounds that `decode` states."""
    seen, unexplained = decode(render(drawn, size, channels))
    assert torch.equal(seen.label, drawn.label)
    assert torch.equal(unexplained.argmin(1), drawn.label)
    close = min(size) >= 24
    assert float(lengths_off(seen, drawn, size).max()) < (0.02 if close else 0.25)
    assert float((seen.shade - drawn.shade).abs().max()) <= 0.5 / 255 + 1e-6
    assert float(unexplained.amin(1).max()) < (0.002 if close else 0.008)
    if channels == 3:
        assert float(hue_off(seen, drawn).max()) < 1e-3
    else:
        assert float(seen.hue.abs().max()) == 0


SIZES = [(16, 16), (16, 40), (24, 24), (33, 21), (32, 32), (64, 64), (97, 71), (128, 128)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_data_is_read_back(size: Size, channels: int) -> None:
    count = min(300, 2**19 // (size[0] * size[1]))
    source = Source(size=size, channels=channels, seed=3)
    check_read_back(source.factors(torch.arange(count)), size, channels)


unit = st.floats(0, 1, width=32)


@given(
    label=st.integers(0, len(CLASSES) - 1),
    draws=st.tuples(unit, unit, unit, unit, unit, unit),
    size=st.tuples(st.integers(16, 64), st.integers(16, 64)),
    channels=st.sampled_from([1, 3]),
)
@example(label=3, draws=(0.0, 0.0, 0.5, 0.5, 0.0, 0.0), size=(16, 16), channels=1)
@example(label=0, draws=(1.0, 1.0, 0.0, 1.0, 1.0, 0.0), size=(128, 128), channels=3)
def test_any_factors_are_read_back(
    label: int, draws: tuple[float, ...], size: Size, channels: int
) -> None:
    hue, shade, x, y, radius, turn = draws
    folds = SIDES[label]
    reals = (
        *(hue % 1, 0.1 + 0.5 * shade, 0.3 + 0.4 * x, 0.3 + 0.4 * y, 0.15 + 0.15 * radius),
        turn % 1 * 2 * math.pi / folds if folds else 0.0,
    )
    drawn = Factors(torch.tensor([label]), *(torch.tensor([real]) for real in reals))
    check_read_back(drawn, size, channels)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 24, 64])
def test_very_many_are_read_back(side: int, channels: int) -> None:
    source = Source(size=side, channels=channels, seed=7)
    for rows in torch.arange(20_000 if side < 64 else 3000).split(1000):
        check_read_back(source.factors(rows), (side, side), channels)


def test_twin_a_decoder_that_does_not_fit_misses_the_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Moments alone are a good guess, and no more."""
    monkeypatch.setattr(decoding, "fitted", lambda label, start, covered, steps: start)
    for size in ((16, 16), (64, 64)):
        with pytest.raises(AssertionError):
            check_read_back(Source(size=size).factors(torch.arange(200)), size, 3)


@pytest.mark.parametrize("spoil", ["mirrored", "turned", "swapped"])
def test_twin_another_drawing_is_not_taken_for_the_same(spoil: str) -> None:
    source = Source(size=48)
    drawn = source.factors(torch.arange(100))
    images = render(drawn, (48, 48), 3)
    other = {
        "mirrored": images.flip(-1),
        "turned": images.transpose(-1, -2),
        "swapped": images.flip(1),
    }[spoil]
    seen = decode(other).factors
    wrong = hue_off(seen, drawn) if spoil == "swapped" else lengths_off(seen, drawn, (48, 48))
    assert float(wrong.mean()) > 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_left_unexplained_is_the_distance_to_the_drawing(channels: int) -> None:
    source = Source(size=32, channels=channels)
    images = source.images(torch.arange(100))
    noisy = (images + 20 * torch.randn(images.shape)).clamp(0, 255).byte()
    factors, unexplained = decode(noisy)
    drawn = render(factors, (32, 32), channels)
    expected = ((noisy.float() - drawn.float()) / 255).square().mean((1, 2, 3)).sqrt()
    assert float((unexplained.amin(1) - expected).abs().max()) < 1e-3


def test_a_fit_never_ends_worse_than_it_began() -> None:
    covered = torch.rand(50, 24, 24)
    for label in range(len(CLASSES)):
        start = first_guess(label, covered)
        errors = []
        for steps in (0, 1, 2, 5):
            outline = fitted(label, start, covered, steps=steps)
            drawn = decoding.coverage(label, outline, (24, 24))
            errors.append((covered - drawn).square().sum((1, 2)))
        for before, after in pairwise(errors):
            assert bool((after <= before + 1e-3).all())


def test_what_shows_no_shape_at_all_is_read_as_something() -> None:
    flat = torch.full((2, 3, 20, 20), 90, dtype=torch.uint8)
    noise = torch.randint(256, (20, 3, 20, 20)).byte()
    white = torch.full((2, 3, 20, 20), 255, dtype=torch.uint8)
    for images in (flat, noise, white, noise[:, :1], white[:, :1]):
        data: Any = SimpleNamespace(image=Image(images.shape[1], (20, 20)))
        seen = Shapes(data)(images)
        assert bool(seen.features.isfinite().all())
        assert seen.good is not None
        assert not bool(seen.good.any()) or images is not noise


# --- the features


def check_quality(images: Tensor, channels: int = 3) -> float:
    """The share of good images."""
    data: Any = SimpleNamespace(image=Image(channels, (32, 32)))
    good = Shapes(data)(images).good
    assert good is not None
    return float(good.float().mean())


def test_good_images_are_clean_drawings() -> None:
    source, rows = Source(size=32), torch.arange(200)
    images = source.images(rows)
    assert check_quality(images) == 1
    grain = torch.randn(images.shape)
    # Off by a fiftieth and by a twentieth of white; the bound lies between.
    assert check_quality((images + 0.02 * 255 * grain).clamp(0, 255).byte()) > 0.95
    assert check_quality((images + 0.05 * 255 * grain).clamp(0, 255).byte()) < 0.05
    # Two shapes in one image, and half a shape.
    assert check_quality(torch.maximum(images, images.roll(1, 0))) < 0.2
    right = torch.arange(32) > source.factors(rows).x.view(-1, 1, 1, 1) * 32
    assert check_quality(torch.where(right, images[..., :1, :1], images)) < 0.25


def test_classes_are_seen_through_noise() -> None:
    source = Source(size=32)
    rows = torch.arange(300)
    images = source.images(rows)
    noisy = (images + 25 * torch.randn(images.shape)).clamp(0, 255).byte()
    logits = Shapes(source)(noisy).logits
    assert logits is not None
    assert float((logits.argmax(1) == source.labels(rows)).float().mean()) > 0.99


def test_every_factor_varies_by_one() -> None:
    source = Source(size=24)
    seen = Shapes(source)(source.images(torch.arange(1000))).features
    assert seen.mean(0).abs().max() < 0.15
    variances = seen.var(0)
    groups = {"class": variances[:4].sum(), "hue": variances[10:].sum()}
    groups |= dict(zip(("shade", "x", "y", "radius"), variances[4:8], strict=True))
    for name, variance in groups.items():
        assert float(variance) == pytest.approx(1, abs=0.1), name
    # Three classes of five have a rotation that can be seen.
    assert float(variances[8:10].sum()) == pytest.approx(0.6, abs=0.05)
    spectrum = torch.linalg.eigvalsh(seen.double().T.cov())
    assert float(spectrum[0]) > 0.1, "no number follows from the others"


def vector(label: str, *, hue: float = 0.2, rotation: float = 0.3) -> Tensor:
    reals = (hue, 0.3, 0.5, 0.5, 0.25, rotation)
    factors = Factors(torch.tensor([CLASSES.index(label)]), *(torch.tensor([r]) for r in reals))
    return Shapes(Source())(render(factors, (64, 64), 3)).features[0]


def test_distances_mean_something() -> None:
    def apart(one: Tensor, other: Tensor) -> float:
        return float((one - other).norm())

    assert apart(vector("star", hue=0.99), vector("star", hue=0.01)) < 0.15
    assert apart(vector("star", hue=0.0), vector("star", hue=0.5)) == pytest.approx(2, abs=0.02)
    full = 2 * math.pi / 4
    square = vector("square", rotation=0.01)
    assert apart(square, vector("square", rotation=full - 0.01)) < 0.1
    assert apart(square, vector("square", rotation=full / 2 + 0.01)) == pytest.approx(2, abs=0.02)
    assert apart(vector("circle", rotation=0.0), vector("circle", rotation=1.0)) < 0.01
    classes = torch.stack([vector(label)[:4] for label in CLASSES])
    between = torch.cdist(classes, classes)
    assert torch.allclose(between, math.sqrt(2.5) * (1 - torch.eye(5)), atol=1e-3)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels: int) -> None:
    data: Any = SimpleNamespace(image=Image(channels, (16, 16)))
    with pytest.raises(SpecError, match=f"grey or coloured images, not of {channels} channels"):
        Shapes(data)


def test_images_of_other_channels_than_the_data_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes: images of 1 channels, not 3"):
        Shapes(Source())(torch.zeros(1, 1, 64, 64).byte())


def test_outlines_are_the_same_on_finer_pixels() -> None:
    outline = Outline(*(torch.tensor([value]) for value in (4.0, 5.0, 2.0, 0.3)))
    assert [float(part) for part in outline.scaled(3)] == pytest.approx([12, 15, 6, 0.3])
