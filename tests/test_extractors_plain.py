"""Features that are arithmetic: of mixtures, of pixels, of a random network."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from gankit.datasets import Digits, Folder, Grid, Ring, Shapes
from gankit.errors import OptionError, SpecError
from gankit.extractors import Mixture, Pixels, Random
from gankit.slots import Image

# --- mixture


@pytest.mark.parametrize("data", [Ring(), Grid(), Ring(modes=3, std=0.2, radius=5.0)])
def test_logits_of_points_are_log_densities_up_to_a_constant(data: Ring | Grid) -> None:
    points = data.images(torch.arange(50))
    seen = Mixture(data)(points)
    assert torch.equal(seen.features, points)
    assert seen.logits is not None
    densities = np.stack(
        [
            stats.multivariate_normal(centre, data.std**2).logpdf(points.double().numpy())
            for centre in data.centres.double().numpy()
        ],
        1,
    )
    constant = math.log(2 * math.pi * data.std**2)
    expected = torch.from_numpy(densities + constant).float()
    assert torch.allclose(seen.logits, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("data", [Ring(), Grid()])
def test_of_exact_points_98_89_percent_are_good(data: Ring | Grid) -> None:
    good = Mixture(data)(data.images(torch.arange(len(data)))).good
    assert good is not None
    share, expected = float(good.double().mean()), 1 - math.exp(-4.5)
    error = math.sqrt(expected * (1 - expected) / len(data))
    assert abs(share - expected) < 4 * error
    # The broken twin: within two standard deviations, or within three along each axis.
    assert abs(share - (1 - math.exp(-2.0))) > 100 * error
    assert abs(share - math.erf(3 / math.sqrt(2)) ** 2) > 4 * error


@given(mode=st.integers(0, 24), far=st.floats(0, 6), angle=st.floats(0, 7))
def test_a_point_is_good_within_three_std(mode: int, far: float, angle: float) -> None:
    data = Grid()
    offset = torch.tensor([math.cos(angle), math.sin(angle)]) * far * data.std
    seen = Mixture(data)((data.centres[mode] + offset)[None])
    assert seen.good is not None
    assert seen.logits is not None
    assert int(seen.logits.argmax()) == mode
    if abs(far - 3) > 1e-3:
        assert bool(seen.good) == (far < 3)


def test_points_that_are_no_numbers_are_not_good() -> None:
    seen = Mixture(Ring())(torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [1.0, 0.0]]))
    assert seen.good is not None
    assert seen.good.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (Digits(), "digits"),
        (Folder(root="somewhere"), "folder"),
        (SimpleNamespace(image=Image(2, (), bounded=False)), "SimpleNamespace"),
        (SimpleNamespace(image=Image(2, ()), centres=torch.zeros(3, 2)), "SimpleNamespace"),
    ],
)
def test_data_without_centres_is_refused(data: Any, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        Mixture(data)
    assert str(caught.value) == (
        'error: features "mixture" need the centres and the std of the data\'s Gaussians, and'
        f' "{name}" has none: "ring" and "grid" do'
    )


@pytest.mark.parametrize("points", [torch.zeros(3, 3), torch.zeros(2), torch.zeros(3, 2).long()])
def test_what_is_no_point_of_the_plane_is_refused(points: Tensor) -> None:
    with pytest.raises(TypeError, match=r"points are \(B, 2\) float32, not \("):
        Mixture(Ring())(points)


# --- pixels


def test_pixels_are_the_values_in_their_order() -> None:
    data = Shapes(size=(8, 12))
    images = data.images(torch.arange(5))
    seen = Pixels(data)(images)
    assert torch.equal(seen.features, (images.double() / 255).float().flatten(1))
    assert seen.logits is None
    points = Ring().images(torch.arange(5))
    assert torch.equal(Pixels(Ring())(points).features, points)


@given(
    cells=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    times=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_smaller_pixels_are_means_of_whole_ones(
    cells: tuple[int, int], times: tuple[int, int], channels: int, seed: int
) -> None:
    size = cells[0] * times[0], cells[1] * times[1]
    data: Any = SimpleNamespace(image=Image(channels, size))
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (3, channels, *size), dtype=np.uint8)
    seen = Pixels(data, size=cells)(torch.from_numpy(images)).features
    expected = [
        images[:, c, i * times[0] : (i + 1) * times[0], j * times[1] : (j + 1) * times[1]].mean(
            (1, 2), dtype=np.float64
        )
        / 255
        for c in range(channels)
        for i in range(cells[0])
        for j in range(cells[1])
    ]
    assert np.abs(seen.numpy() - np.stack(expected, 1)).max() < 1e-7
    assert Pixels(data, size=cells).width == seen.shape[1]


def test_twin_other_ways_to_shrink_would_be_noticed() -> None:
    data = Shapes(size=16)
    images = data.images(torch.arange(4))
    seen = Pixels(data, size=4)(images).features.view(4, 3, 4, 4)
    floats = images.float() / 255
    assert torch.allclose(F.avg_pool2d(floats, 4), seen, atol=1e-6)
    for other in (floats[..., ::4, ::4], F.interpolate(floats, (4, 4), mode="bilinear")):
        assert not torch.allclose(other, seen, atol=1e-3)


@pytest.mark.parametrize(
    ("data", "size", "says"),
    [
        (Shapes(size=16), 5, r"size 5 must divide that of the images, 16 x 16 \(height x width\)"),
        (Shapes(size=(16, 12)), (12, 16), r"size \(12, 16\) must divide"),
        (Shapes(size=16), 32, "size 32 must divide"),
        (Shapes(size=16), -2, "size = -2: must be 1 or more"),
        (Shapes(size=16), (0, 4), "size = 0: must be 1 or more"),
        (Ring(), 4, "size is 4, but points in space have none"),
    ],
)
def test_sizes_that_cannot_be_are_refused(data: Any, size: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        Pixels(data, size=size)
    assert caught.value.option == "size"


def test_the_card_says_what_was_averaged() -> None:
    data = Shapes(size=16)
    assert Pixels(data).card == {"pixels": "16 x 16 (height x width), as they are"}
    assert Pixels(data, size=4).card == {
        "pixels": "4 x 4 (height x width), averaged over whole pixels"
    }
    assert Pixels(Ring()).card == {"pixels": "coordinates"}


# --- random


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(1, 5),
    width=st.integers(1, 100),
)
def test_a_random_network_takes_any_size(size: tuple[int, int], channels: int, width: int) -> None:
    data: Any = SimpleNamespace(image=Image(channels, size))
    images = torch.randint(256, (2, channels, *size), generator=torch.Generator().manual_seed(1))
    seen = Random(data, width=width)(images.byte())
    assert seen.features.shape == (2, width)
    assert bool(seen.features.isfinite().all())


def test_random_weights_follow_the_seed_and_have_their_variance() -> None:
    data = Shapes(size=32)
    one, same, other = Random(data), Random(data), Random(data, seed=1)
    assert one.card == same.card
    assert one.card["weights"] != other.card["weights"]
    for weight in one.weights.values():
        expected = 2 / (1.04 * weight[0].numel())
        assert float(weight.var()) == pytest.approx(expected, rel=0.12)


def test_random_features_tell_images_apart_and_keep_their_scale() -> None:
    data = Shapes(size=32)
    seen = Random(data)(data.images(torch.arange(200))).features.double()
    spectrum = torch.linalg.eigvalsh(seen.T.cov())
    assert float(spectrum[0]) > 1e-6 * float(spectrum[-1])
    assert 0.05 < float(seen.std()) < 5
    # The broken twin: one grey for all is one vector for all.
    flat = Random(data)(torch.full((5, 3, 32, 32), 90, dtype=torch.uint8)).features
    assert float(flat.std(0).max()) < 1e-5


def test_random_features_see_where_things_are() -> None:
    data = Shapes(size=32)
    images = data.images(torch.arange(50))
    seen, mirrored = (Random(data)(each).features for each in (images, images.flip(-1)))
    assert float((seen - mirrored).norm(dim=1).mean()) > 0.3 * float(seen.std(0).norm())


@pytest.mark.parametrize(("option", "value"), [("seed", -1), ("width", 0)])
def test_random_options_out_of_range_are_refused(option: str, value: int) -> None:
    with pytest.raises(OptionError, match=f"random: {option} must be at least") as caught:
        Random(Shapes(), **{option: value})
    assert caught.value.option == option


def test_random_weights_stay_as_they_were_first_drawn() -> None:
    """The hash that stands on cards: a change here makes them unlike."""
    assert Random(Shapes(size=32)).card["weights"][:16] == "9a3f9b0fdf3e25c8"
