"""The kernel and the sliced Wasserstein distance: sums over pairs, closed forms, honest errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from gankit.metrics import Kernel, SlicedWasserstein
from gankit.metrics.kernel import discrepancy
from gankit.metrics.sliced import transport
from tests.scores import gathered, normal, rotation, scored

SEEDS = st.integers(0, 2**32 - 1)

Estimate = Callable[[Tensor, Tensor], Tensor]


def k(x: Tensor, y: Tensor) -> float:
    return ((x @ y).item() / len(x) + 1) ** 3


def check_estimate(estimate: Estimate, seed: int, m: int, n: int, width: int) -> None:
    """Mean over all pairs of two images, of one set and of both."""
    one, other = normal(seed, m, width), normal(seed + 1, n, width) + 0.3
    within = [
        np.mean([k(x, y) for x, y in itertools.permutations(each, 2)]) for each in (one, other)
    ]
    between = np.mean([k(x, y) for x, y in itertools.product(one, other)])
    assert estimate(one, other).item() == pytest.approx(sum(within) - 2 * between, rel=1e-9)


def check_unbiased(estimate: Estimate) -> None:
    """0 in the mean over many pairs of small sets of one distribution, within 4 errors."""
    values = np.array(
        [estimate(normal(2 * s, 6, 4), normal(2 * s + 1, 9, 4)).item() for s in range(2000)]
    )
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5


@given(seed=SEEDS, m=st.integers(2, 8), n=st.integers(2, 8), width=st.integers(1, 5))
def test_the_estimate_is_the_sum_over_pairs(seed: int, m: int, n: int, width: int) -> None:
    check_estimate(discrepancy, seed, m, n, width)


def test_the_estimate_is_unbiased() -> None:
    check_unbiased(discrepancy)


def likeness(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT / a.shape[1] + 1) ** 3


def biased(one: Tensor, other: Tensor) -> Tensor:
    """Images are like themselves too."""
    same = likeness(one, one).mean() + likeness(other, other).mean()
    return same - 2 * likeness(one, other).mean()


def not_over_width(one: Tensor, other: Tensor) -> Tensor:
    return discrepancy(one * one.shape[1] ** 0.5, other * one.shape[1] ** 0.5)


def one_too_many(one: Tensor, other: Tensor) -> Tensor:
    """Divided by M^2 where there are M (M - 1)."""
    m, n = len(one), len(other)
    parts = [likeness(a, a).sum() - likeness(a, a).trace() for a in (one, other)]
    return parts[0] / m**2 + parts[1] / n**2 - 2 * likeness(one, other).mean()


@pytest.mark.parametrize("twin", [biased, not_over_width, one_too_many])
def test_twins_other_estimates_are_caught(twin: Estimate) -> None:
    with pytest.raises(AssertionError):
        check_estimate(twin, 0, 5, 7, 4)


@pytest.mark.parametrize("twin", [biased, one_too_many])
def test_twins_biased_estimates_are_caught(twin: Estimate) -> None:
    with pytest.raises(AssertionError):
        check_unbiased(twin)


def moments_apart(shift: float) -> float:
    """Between N(0, 1) and N(shift, 1), expanding the cube into moments."""
    first, second, third = shift, 1 + shift**2, 3 * shift + shift**3
    return third**2 + 3 * (second - 1) ** 2 + 3 * first**2


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
def test_the_score_of_two_gaussians(shift: float) -> None:
    real, fake = normal(0, 20_000, 1), normal(1, 20_000, 1) + shift
    scores = scored(Kernel(), real, fake)
    assert abs(scores["kernel"] - moments_apart(shift)) < 3 * scores["kernel_error"]
    assert scores["kernel_error"] < 0.02 + moments_apart(shift) / 10


def scatter(error: Callable[[dict[str, float]], float], shift: float) -> float:
    """The error that is told, as a multiple of how far scores of other images are apart."""
    metric = Kernel(subsets=40, size=100)
    told = [
        scored(metric, normal(2 * s, 500, 4), normal(2 * s + 1, 500, 4) + shift) for s in range(150)
    ]
    return float(np.mean([error(s) for s in told]) / np.std([s["kernel"] for s in told]))


def check_error(error: Callable[[dict[str, float]], float]) -> None:
    assert scatter(error, 0.4) == pytest.approx(1, abs=0.25)


def test_the_error_is_how_far_scores_of_other_images_are() -> None:
    check_error(lambda scores: scores["kernel_error"])


def test_of_equal_distributions_the_error_is_no_smaller_than_that() -> None:
    assert 1 < scatter(lambda scores: scores["kernel_error"], 0.0) < 4


@pytest.mark.parametrize("share", [1, 40**-0.5])
def test_twins_the_deviation_of_subsets_is_not_the_error(share: float) -> None:
    with pytest.raises(AssertionError):
        check_error(lambda scores: share * scores["kernel_std"])


@given(seed=SEEDS)
def test_kernel_of_turned_features_and_of_sets_exchanged(seed: int) -> None:
    metric, turned = Kernel(subsets=20, size=30), rotation(seed, 5)
    real, fake = normal(seed, 40, 5), normal(seed + 1, 50, 5) + 1
    scores = scored(metric, real, fake)
    assert scored(metric, real @ turned, fake @ turned) == pytest.approx(scores)
    assert scores == scored(metric, real, fake, cuts=[3, 35])
    assert scores != scored(Kernel(subsets=20, size=30, seed=1), real, fake)
    swapped = scored(metric, fake, real)["kernel"]
    assert swapped == pytest.approx(scores["kernel"], abs=5 * scores["kernel_error"])


def test_kernel_refuses_what_leaves_no_error() -> None:
    with pytest.raises(ValueError, match=r"kernel: needs at least 1001 images and got 1000 fake; "):
        scored(Kernel(), normal(0, 1001, 2), normal(1, 1000, 2))
    for options in ({"subsets": 1}, {"size": 1}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"kernel: {next(iter(options))} must be at least"):
            Kernel(**options)


# --- sliced Wasserstein

Cost = Callable[[Tensor, Tensor, int], Tensor]


def check_transport(cost: Cost, seed: int, m: int, n: int, order: int) -> None:
    """On the line: scipy's for order 1; for others each value M N times over, in order."""
    one, other = normal(seed, m, 2).round(decimals=1), normal(seed + 1, n, 2).round(decimals=1) + 1
    got = cost(one, other, order)
    pairs = one.repeat_interleave(n, 0).sort(0).values, other.repeat_interleave(m, 0).sort(0).values
    wanted = (pairs[0] - pairs[1]).abs().pow(order).mean(0)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    if order == 1:
        for column in range(2):
            distance = stats.wasserstein_distance(one[:, column], other[:, column])
            assert got[column].item() == pytest.approx(distance)


@given(seed=SEEDS, m=st.integers(1, 12), n=st.integers(1, 12), order=st.integers(1, 3))
def test_on_the_line_values_go_in_order(seed: int, m: int, n: int, order: int) -> None:
    check_transport(transport, seed, m, n, order)


def cut(one: Tensor, other: Tensor, order: int) -> Tensor:
    """Only as many of the larger set as the smaller one has."""
    least = min(len(one), len(other))
    return transport(one[:least], other[:least], order)


def unsorted(one: Tensor, other: Tensor, order: int) -> Tensor:
    least = min(len(one), len(other))
    return (one[:least] - other[:least]).abs().pow(order).mean(0)


@pytest.mark.parametrize("twin", [cut, unsorted])
@pytest.mark.parametrize("order", [1, 2])
def test_twins_other_plans_are_caught(twin: Cost, order: int) -> None:
    with pytest.raises(AssertionError):
        check_transport(twin, 0, 7, 11, order)


def check_directions(metric: Any) -> None:
    """A set that is moved by t is |t . u| apart along u: its mean square is |t|^2 / D."""
    for move in MOVES:
        score = scored(metric, REAL, REAL + move)["swd"]
        assert score == pytest.approx((move.square().sum().item() / 8) ** 0.5, rel=0.1)


REAL, MOVES = normal(0, 50, 8), (*torch.eye(8).double()[[0, 5]], normal(1, 8))


def test_a_set_that_is_moved() -> None:
    check_directions(SlicedWasserstein())


@pytest.mark.parametrize("name", ["randn", "vector_norm"])
def test_twins_other_directions_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All along the first axis, or not of length 1."""
    if name == "randn":
        axis = torch.eye(8, dtype=torch.float64)[:, :1].expand(-1, 512)
        monkeypatch.setattr(
            "gankit.metrics.sliced.torch.randn",
            lambda shape, **how: axis.clone() if shape == (8, 512) else 1 / 0,
        )
    else:
        monkeypatch.setattr("gankit.metrics.sliced.torch.linalg.vector_norm", lambda *_, **__: 1)
    with pytest.raises(AssertionError):
        check_directions(SlicedWasserstein())


@given(seed=SEEDS, times=st.integers(1, 3), order=st.integers(1, 2))
def test_swd_is_a_distance_between_distributions(seed: int, times: int, order: int) -> None:
    metric = SlicedWasserstein(projections=16, order=order)
    one, other, third = (normal(seed + i, 10 + i, 3) + i for i in range(3))

    def distance(a: Tensor, b: Tensor) -> float:
        return scored(metric, a, b, cuts=[4])["swd"]

    score = distance(one, other)
    assert distance(other, one) == pytest.approx(score)
    assert distance(one, one.flip(0)) == pytest.approx(0, abs=1e-12)
    assert distance(one.repeat(times, 1), other) == pytest.approx(score)
    assert distance(2 * one + 1, 2 * other + 1) == pytest.approx(2 * score)
    assert score <= distance(one, third) + distance(third, other) + 1e-9


def test_swd_refuses_nothing_to_compare() -> None:
    metric = SlicedWasserstein()
    with pytest.raises(ValueError, match="swd: needs at least 1 image and got 0 fake"):
        metric.scores(gathered(metric, normal(0, 3, 2)), metric.gather())
    for options in ({"projections": 0}, {"order": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"swd: {next(iter(options))} must be at least"):
            SlicedWasserstein(**options)
