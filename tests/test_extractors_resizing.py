"""Resizing equals TensorFlow 1's to the last bit, and Pillow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from gankit.extractors.resizing import FILTERS, resized

PLANES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=random)


@given(shape=PLANES, side=st.integers(1, 40), seed=st.integers(0, 99))
def test_pillow_is_pillow(shape: tuple[int, int, int, int], side: int, seed: int) -> None:
    images = noise((shape[0], 3, *shape[2:]), seed)
    done = resized(images, side, "pillow")
    for image, ours in zip(images, done, strict=True):
        whole = Pillow.fromarray(image.permute(1, 2, 0).numpy())
        theirs = np.asarray(whole.resize((side, side), Pillow.Resampling.BICUBIC))
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), theirs)


def cubic(length: int, side: int, slope: float = -0.5, averages: bool = True) -> Tensor:
    """The weights of Keys' cubic filter, (side, length), widened where it shrinks."""
    scale = length / side
    wide = max(scale, 1.0) if averages else 1.0
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) * scale
    places = torch.arange(length, dtype=torch.float64) + 0.5
    x = ((places - centres[:, None]) / wide).abs()
    near = ((slope + 2) * x - (slope + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * slope
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdim=True)


def cubically(images: Tensor, side: int, **options: Any) -> Tensor:
    down = cubic(images.shape[2], side, **options)
    along = cubic(images.shape[3], side, **options)
    return (down @ images.double() @ along.T).clamp(0, 255).float()


@given(shape=PLANES, side=st.integers(1, 40), seed=st.integers(0, 99))
def test_clean_is_the_cubic_filter(shape: tuple[int, int, int, int], side: int, seed: int) -> None:
    images = noise(shape, seed)
    exact = cubically(images, side)
    torch.testing.assert_close(resized(images, side, "clean"), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("options", [{"slope": -0.75}, {"averages": False}])
def test_twin_another_cubic_filter_is_found(options: dict[str, Any]) -> None:
    images = noise((1, 1, 30, 40), 0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            resized(images, 20, "clean"), cubically(images, 20, **options), rtol=0, atol=1e-3
        )


def half_pixels(images: Tensor, side: int, how: object) -> Tensor:
    return F.interpolate(images.float(), (side, side), mode="bilinear")


def antialiased(images: Tensor, side: int, how: object) -> Tensor:
    return F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)


def on_corners(images: Tensor, side: int, how: object) -> Tensor:
    return F.interpolate(images.float(), (side, side), mode="bilinear", align_corners=True)


def rounded(images: Tensor, side: int, how: Any) -> Tensor:
    return resized(images, side, how).round()


def by_the_book(plane: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """TensorFlow 1's bilinear kernel, a pixel at a time."""
    height, width = plane.shape
    done = np.empty((side, side), np.float32)
    for row in range(side):
        y = np.float32(row) * np.float32(height / side)
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for column in range(side):
            x = np.float32(column) * np.float32(width / side)
            left, right = int(x), min(int(x) + 1, width - 1)
            above = plane[top, left] + (plane[top, right] - plane[top, left]) * (
                x - np.float32(left)
            )
            below = plane[bottom, left] + (plane[bottom, right] - plane[bottom, left]) * (
                x - np.float32(left)
            )
            done[row, column] = above + (below - above) * (y - np.float32(top))
    return done


@given(shape=PLANES, side=st.integers(1, 24), seed=st.integers(0, 99))
def test_tensorflow_is_tensorflow_1_to_the_last_bit(
    shape: tuple[int, int, int, int], side: int, seed: int
) -> None:
    images = noise(shape, seed)
    for plane, ours in zip(images[0], resized(images, side, "tensorflow")[0], strict=True):
        assert np.array_equal(ours.numpy(), by_the_book(plane.float().numpy(), side))


@pytest.mark.parametrize("twin", [half_pixels, antialiased, on_corners, rounded])
def test_twin_the_book_tells_filters_apart(twin: Callable[..., Tensor]) -> None:
    plane = noise((9, 13), 0)
    book = by_the_book(plane.float().numpy(), 7)
    assert not np.allclose(twin(plane[None, None], 7, "tensorflow")[0, 0].numpy(), book, atol=0.1)


@settings(max_examples=10)
@given(seed=st.integers(0, 99), how=st.sampled_from(list(FILTERS)))
def test_images_of_that_size_are_left_as_they_are(seed: int, how: Any) -> None:
    images = noise((2, 3, 17, 17), seed)
    assert torch.equal(resized(images, 17, how), images.float())


@pytest.mark.parametrize("how", FILTERS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_image_stays_flat(how: Any, level: int) -> None:
    images = torch.full((1, 1, 5, 9), level, dtype=torch.uint8)
    assert torch.allclose(resized(images, 31, how), torch.tensor(float(level)), atol=1e-4)
