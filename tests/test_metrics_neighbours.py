"""Precision, recall, density, coverage and memorisation against brute force and public code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import gankit.metrics.neighbours as neighbours
from gankit.metrics import PRDC, Memorisation
from gankit.metrics.neighbours import blocks, nearest
from tests.scores import normal, rotation, scored

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(7, 40)


def distances(one: Tensor, other: Tensor) -> np.ndarray:
    """Between all pairs, from their differences."""
    return np.linalg.norm(one.numpy()[:, None] - other.numpy()[None], axis=2)


def check_blocks(
    squares: Callable[[Tensor, Tensor], Tensor], offset: float, dtype: torch.dtype = torch.float64
) -> None:
    """Distances of a thousandth around a large mean, as they are."""
    one, other = ((1e-3 * normal(seed, 30, 5) + offset).to(dtype) for seed in (0, 1))
    got = squares(one, other).sqrt().numpy()
    np.testing.assert_allclose(got, distances(one.double(), other.double()), rtol=1e-6)


def all_blocks(one: Tensor, other: Tensor) -> Tensor:
    return torch.cat([squares for _, squares in blocks(one, other)])


@pytest.mark.parametrize("entries", [1, 70, 2**23])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distances_come_in_blocks(
    entries: int, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "ENTRIES", entries)
    check_blocks(all_blocks, offset)
    found = list(blocks(normal(0, 30, 2), normal(1, 35, 2)))
    assert all(squares.numel() <= max(entries, 35) for _, squares in found)
    assert [start for start, _ in found] == list(range(0, 30, max(1, entries // 35)))


def test_twins_distances_that_large_means_swallow_are_caught() -> None:
    def uncentred(one: Tensor, other: Tensor) -> Tensor:
        return neighbours._squares(one.double(), other.double())

    def single(one: Tensor, other: Tensor) -> Tensor:
        return neighbours._squares(one.float(), other.float()).double()

    for twin in (uncentred, single):
        with pytest.raises(AssertionError):
            check_blocks(twin, 100.0)


@given(seed=SEEDS, count=st.integers(1, 5))
def test_nearest_leaves_oneself_out_but_not_ones_double(seed: int, count: int) -> None:
    points = normal(seed, 9, 3)
    points[4] = points[7]
    between = distances(points, points)
    np.fill_diagonal(between, np.inf)
    got = nearest(points, count=count).sqrt().numpy()
    np.testing.assert_allclose(got, np.sort(between, 1)[:, :count], atol=1e-7)
    other = normal(seed + 1, 6, 3)
    wanted = np.sort(distances(points, other), 1)[:, :count]
    np.testing.assert_allclose(nearest(points, other, count).sqrt().numpy(), wanted, atol=1e-7)


# --- precision, recall, density and coverage


def check_prdc(metric: Any, real: Tensor, fake: Tensor) -> None:
    """The definitions, image by image."""
    across = distances(real, fake)

    def reach(points: Tensor, k: int) -> np.ndarray:
        return np.sort(distances(points, points), 1)[:, k]  # its own 0 is the first

    precise = across <= reach(real, metric.precision_k)[:, None]
    dense = across <= reach(real, metric.density_k)[:, None]
    wanted = {
        "precision": np.mean([any(precise[:, j]) for j in range(len(fake))]),
        "recall": np.mean(np.any(across <= reach(fake, metric.precision_k)[None], axis=1)),
        "density": sum(dense[:, j].sum() for j in range(len(fake))) / metric.density_k / len(fake),
        "coverage": np.mean([any(dense[i]) for i in range(len(real))]),
    }
    assert scored(metric, real, fake, cuts=[3, 20]) == pytest.approx(wanted)


@given(
    seed=SEEDS, m=COUNTS, n=COUNTS, k=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    shift=st.floats(0, 3),
)  # fmt: skip
def test_prdc_is_its_definitions(
    seed: int, m: int, n: int, k: tuple[int, int], shift: float
) -> None:
    metric = PRDC(precision_k=k[0], density_k=k[1])
    check_prdc(metric, normal(seed, m, 3), normal(seed + 1, n, 3) + shift)


@pytest.mark.parametrize("seed", range(5))
def test_prdc_is_its_authors(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    prdc = pytest.importorskip("prdc")
    real, fake = normal(seed, 200, 6).float(), 1.2 * normal(seed + 9, 150, 6).float() + 0.3
    wanted = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=4)
    assert scored(PRDC(precision_k=4, density_k=4), real, fake) == pytest.approx(wanted)


def test_copies_are_within_reach() -> None:
    """Of the images whose nearest neighbours they are copies of, in single precision too."""
    real = (normal(0, 60, 3) + 5).float().double()
    check_prdc(PRDC(), real, real.flip(0))
    check_prdc(PRDC(), real, real[:20].repeat(2, 1))


class Exchanged(PRDC):
    """Real and fake in each other's place."""

    def scores(self, real: Any, fake: Any, /) -> dict[str, float]:
        return super().scores(fake, real)


class OneFurther(PRDC):
    """The image itself is not counted, and left out a second time."""

    def scores(self, real: Any, fake: Any, /) -> dict[str, float]:
        further = PRDC(precision_k=self.precision_k + 1, density_k=self.density_k + 1)
        return further.scores(real, fake)


@pytest.mark.parametrize("twin", [Exchanged, OneFurther])
def test_twins_other_reaches_are_caught(twin: type[PRDC]) -> None:
    with pytest.raises(AssertionError):
        check_prdc(twin(), normal(0, 40, 3), normal(1, 40, 3) + 1)


def test_prdc_of_generators_whose_faults_are_known() -> None:
    real = normal(0, 300, 4)
    same = scored(PRDC(), real, real.clone())
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert same["density"] == pytest.approx(1, abs=0.3)
    alike = scored(PRDC(), real, normal(1, 300, 4))
    assert min(alike.values()) > 0.8
    far = scored(PRDC(), real, real + 100)
    assert set(far.values()) == {0}
    collapsed = scored(PRDC(), real, real[:1] + 1e-3 * normal(2, 300, 4))
    assert collapsed["precision"] == 1
    assert max(collapsed["recall"], collapsed["coverage"]) < 0.1


@given(seed=SEEDS)
def test_prdc_of_turned_and_moved_features(seed: int) -> None:
    real, fake, turned = normal(seed, 30, 4), normal(seed + 1, 30, 4), rotation(seed, 4)
    metric = PRDC()
    scores = scored(metric, real, fake)
    assert scored(metric, 3 * real @ turned + 7, 3 * fake @ turned + 7) == pytest.approx(scores)
    assert scored(metric, real.flip(0), fake.flip(0)) == pytest.approx(scores)


def test_of_many_images_prdc_takes_some() -> None:
    real, fake = normal(0, 400, 3), normal(1, 500, 3)
    some = [scored(PRDC(most=100, seed=seed), real, fake, cuts=[9, 80]) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    assert all(value * 100 == round(value * 100) for value in some[0].values() if value <= 1)


def test_prdc_refuses_too_few_images_and_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="prdc: needs at least 6 images and got 5 real"):
        scored(PRDC(), normal(0, 5, 2), normal(1, 9, 2))
    for options in ({"precision_k": 0}, {"density_k": 0}, {"most": 1}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"prdc: {next(iter(options))} must be at least"):
            PRDC(**options)


# --- memorisation


def check_memorisation(metric: Any, training: Tensor, fake: Tensor, held_out: Tensor) -> None:
    """scipy's Mann-Whitney statistic of the distances, as a share of pairs and in deviations."""
    near = [distances(each, training).min(1).round(9) for each in (fake, held_out)]
    m, n = map(len, near)
    u = stats.mannwhitneyu(*near).statistic
    scores = scored(metric, training, fake, held_out, cuts=[4])
    assert scores["memorisation"] == pytest.approx(1 - u / (m * n), abs=1e-12)
    z = (u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12)
    assert scores["memorisation_z"] == pytest.approx(z)


@given(seed=SEEDS, m=st.integers(1, 30), n=st.integers(1, 30), copies=st.integers(0, 30))
def test_memorisation_is_mann_and_whitneys(seed: int, m: int, n: int, copies: int) -> None:
    training, held_out, fake = normal(seed, 20, 3), normal(seed + 1, n, 3), normal(seed + 2, m, 3)
    fake[:copies] = training[:copies].repeat(2, 1)[: min(copies, m)]
    check_memorisation(Memorisation(), training, fake, held_out)


@given(seed=SEEDS)
def test_equal_distances_count_half(seed: int) -> None:
    """On the integers, where most distances are shared."""
    training, held_out, fake = (normal(seed + i, 15, 1).mul(4).round() for i in range(3))
    check_memorisation(Memorisation(), training, fake, held_out)


class AmongEachOther(Memorisation):
    """Held-out images against the fake ones, instead of the training images."""

    def scores(self, real: Any, fake: Any, held_out: Any, /) -> dict[str, float]:
        return super().scores(fake, real, held_out)


class Backwards(Memorisation):
    def scores(self, real: Any, fake: Any, held_out: Any, /) -> dict[str, float]:
        return super().scores(real, held_out, fake)


@pytest.mark.parametrize("twin", [AmongEachOther, Backwards])
def test_twins_other_comparisons_are_caught(twin: type[Memorisation]) -> None:
    with pytest.raises(AssertionError):
        check_memorisation(twin(), *(normal(seed, 20, 3) for seed in range(3)))


def test_memorisation_of_generators_whose_faults_are_known() -> None:
    training, held_out = normal(0, 500, 4), normal(1, 200, 4)

    def scores(fake: Tensor) -> dict[str, float]:
        return scored(Memorisation(), training, fake, held_out)

    perfect = scores(normal(2, 300, 4))
    assert perfect["memorisation"] == pytest.approx(0.5, abs=0.1)
    assert abs(perfect["memorisation_z"]) < 4
    copies = scores(training[:300] + 1e-3 * normal(3, 300, 4))
    assert copies["memorisation"] > 0.99
    assert copies["memorisation_z"] < -15
    far = scores(training[:300] + 50)
    assert (far["memorisation"], far["memorisation_z"] > 15) == (0, True)
    noise = [scores(training[:300] + s * normal(4, 300, 4))["memorisation"] for s in (0.1, 0.3, 1)]
    assert noise == sorted(noise, reverse=True)


def test_memorisation_needs_images_of_all_three() -> None:
    with pytest.raises(ValueError, match="memorisation: needs at least 1 image and got 0 held-out"):
        scored(Memorisation(), normal(0, 3, 2), normal(1, 3, 2), torch.zeros(0, 2))
