"""The Inception Score and captured modes: definitions, known generators, published protocol."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from gankit.datasets import Grid, Ring
from gankit.datasets.points import Mixture
from gankit.metrics import InceptionScore, Modes
from gankit.slots import Seen
from tests.scores import gathered, normal, scored

SEEDS = st.integers(0, 2**32 - 1)
NOTHING = torch.zeros(1, 1)


def told(logits: Tensor, good: Tensor | None = None) -> Seen:
    return Seen(torch.zeros(len(logits), 1), logits, good)


# --- Inception Score


def check_inception(metric: Any, logits: Tensor) -> None:
    """The published code's loop over consecutive splits."""
    values = []
    for i in range(metric.splits):
        n = len(logits)
        part = logits[i * n // metric.splits : (i + 1) * n // metric.splits].double()
        p = part.softmax(1).numpy()
        divergences = [stats.entropy(row, p.mean(0)) for row in p]
        values.append(np.exp(np.mean(divergences)))
    scores = scored(metric, NOTHING, told(logits), cuts=[7, 30])
    assert scores["inception"] == pytest.approx(np.mean(values))
    assert scores["inception_std"] == pytest.approx(np.std(values), abs=1e-9)


@given(seed=SEEDS, count=st.integers(11, 60), splits=st.integers(1, 11), scale=st.floats(0, 20))
def test_the_inception_score_is_its_definition(
    seed: int, count: int, splits: int, scale: float
) -> None:
    check_inception(InceptionScore(splits=splits), scale * normal(seed, count, 5))


class Doubled(InceptionScore):
    """Probabilities taken for logits."""

    def scores(self, real: Any, fake: Any, /) -> dict[str, float]:
        fake._batches["logits"] = [rows.softmax(1) for rows in fake._batches["logits"]]
        return super().scores(real, fake)


class Whole(InceptionScore):
    """One score of all images."""

    def scores(self, real: Any, fake: Any, /) -> dict[str, float]:
        return InceptionScore(splits=1).scores(real, fake)


@pytest.mark.parametrize("twin", [Doubled, Whole])
def test_twins_other_inception_scores_are_caught(twin: type[InceptionScore]) -> None:
    with pytest.raises(AssertionError):
        check_inception(twin(), 3 * normal(0, 60, 5))


def test_the_inception_score_of_generators_that_are_known() -> None:
    sure = torch.eye(10).repeat(30, 1).log()  # logits of -inf, whose probability is 0
    scores = scored(InceptionScore(), NOTHING, told(sure))
    assert scores == pytest.approx({"inception": 10, "inception_std": 0})
    one = told(torch.tensor([[40.0, 0, 0]]).expand(50, 3))
    assert scored(InceptionScore(), NOTHING, one)["inception"] == pytest.approx(1)
    unsure = told(torch.zeros(50, 3) + normal(0, 50, 1))
    assert scored(InceptionScore(), NOTHING, unsure)["inception"] == pytest.approx(1)


def test_the_inception_score_needs_logits_and_an_image_for_each_split() -> None:
    with pytest.raises(ValueError, match="inception: needs logits, and the features tell none"):
        scored(InceptionScore(), NOTHING, torch.zeros(20, 3))
    with pytest.raises(ValueError, match=r"at least 10 images and got 9 fake; .* fewer `splits`"):
        scored(InceptionScore(), NOTHING, told(torch.zeros(9, 3)))
    with pytest.raises(ValueError, match="inception: splits must be at least 1, not 0"):
        InceptionScore(splits=0)


# --- modes


def seen(points: Tensor, data: Mixture) -> Seen:
    """By the protocol: the nearest centre, and good within three standard deviations of it."""
    distances = torch.cdist(points.double(), data.centres.double())
    good = distances.amin(1) <= 3 * data.std
    return Seen(points, -distances.square() / (2 * data.std**2), good)


def drawn(data: Mixture, count: int) -> Seen:
    return seen(data.images(torch.arange(count)), data)


Scores = dict[str, float]


def check_modes(metric: Any, modes: Tensor, good: Tensor, count: int) -> None:
    """The public code's counts, one image at a time."""
    histogram = np.zeros(count)
    for mode, fine in zip(modes.tolist(), good.tolist(), strict=True):
        histogram[mode] += fine
    logits = torch.nn.functional.one_hot(modes, count).double()
    scores = scored(metric, NOTHING, told(logits, good), cuts=[5, 11])
    assert scores["modes"] == np.count_nonzero(histogram)
    assert scores["high_quality"] == pytest.approx(histogram.sum() / len(modes))
    wanted = math.log(count)
    if histogram.any():
        wanted = stats.entropy(histogram, np.ones(count))  # of the first from the second
    assert scores["reverse_kl"] == pytest.approx(wanted, abs=1e-12)


@given(seed=SEEDS, images=st.integers(1, 60), count=st.integers(1, 9), share=st.floats(0, 1))
def test_modes_are_counted_as_published(seed: int, images: int, count: int, share: float) -> None:
    random = torch.Generator().manual_seed(seed)
    modes = torch.randint(count, (images,), generator=random)
    check_modes(Modes(), modes, torch.rand(images, generator=random) < share, count)


def twin_of(change: Callable[[Scores, Any], Scores]) -> Any:
    class Twin(Modes):
        def scores(self, real: Any, fake: Any, /) -> Scores:
            return change(super().scores(real, fake), fake)

    return Twin()


def of_all(scores: Scores, fake: Any) -> Scores:
    """A mode counts that any image is nearest to."""
    return scores | {"modes": float(len(fake.modes))}


def forwards(scores: Scores, fake: Any) -> Scores:
    return scores | {"reverse_kl": float(stats.entropy(np.ones(len(fake.modes)), fake.modes + 0.1))}


def bits(scores: Scores, fake: Any) -> Scores:
    return scores | {"reverse_kl": scores["reverse_kl"] / math.log(2)}


def of_good(scores: Scores, fake: Any) -> Scores:
    return scores | {"high_quality": 1.0}


@pytest.mark.parametrize("change", [of_all, forwards, bits, of_good])
def test_twins_other_counts_are_caught(change: Callable[[Scores, Any], Scores]) -> None:
    modes = torch.tensor([0] * 30 + [1] * 10 + [2] * 5 + [3])
    with pytest.raises(AssertionError):
        check_modes(twin_of(change), modes, modes < 3, 4)


@pytest.mark.parametrize(("data", "modes"), [(Ring(), 8), (Grid(), 25)])
def test_exact_samples_capture_all_and_98_89_percent_are_good(data: Mixture, modes: int) -> None:
    """Three standard deviations of a round Gaussian in the plane hold 1 - exp(-9/2)."""
    scores = scored(Modes(), drawn(data, 2500), drawn(data, 100_000), cuts=[777])
    assert scores["modes"] == modes
    share = 1 - math.exp(-4.5)
    assert share == pytest.approx(0.9889, abs=1e-4)
    error = math.sqrt(share * (1 - share) / 100_000)
    assert abs(scores["high_quality"] - share) < 4 * error
    assert scores["reverse_kl"] < 20 * modes / (2 * 100_000)
    assert scored(Modes(), drawn(data, 9), drawn(data, 2500))["reverse_kl"] < 0.04


def test_modes_of_generators_whose_faults_are_known() -> None:
    ring = Ring()
    exact = ring.images(torch.arange(2500))
    narrow = seen(ring.centres.repeat(300, 1) + 1e-3 * normal(0, 2400, 2), ring)
    assert scored(Modes(), narrow, narrow)["high_quality"] == 1
    one = seen(ring.centres[:1] + 0.01 * normal(0, 2500, 2), ring)
    collapsed = scored(Modes(), one, one)
    assert (collapsed["modes"], collapsed["reverse_kl"]) == (1, pytest.approx(math.log(8)))
    blurred = seen(exact + 0.03 * normal(1, 2500, 2), ring)
    assert 0.2 < scored(Modes(), blurred, blurred)["high_quality"] < 0.5
    nowhere = seen(torch.zeros(50, 2), ring)
    lost = {"modes": 0.0, "high_quality": 0.0, "reverse_kl": math.log(8)}
    assert scored(Modes(), nowhere, nowhere) == pytest.approx(lost)


def test_of_classified_images_all_count() -> None:
    """Three classes of four, in the shares 1/2, 1/4, 1/4."""
    fake = told(torch.eye(4)[[0, 0, 1, 2]].repeat(5, 1))
    wanted = {"modes": 3.0, "reverse_kl": math.log(4) - 1.5 * math.log(2)}
    assert scored(Modes(), NOTHING, fake, cuts=[3]) == pytest.approx(wanted)


def test_against_real_images_their_shares_are_wanted() -> None:
    metric = Modes(against="real")
    fake = told(torch.eye(3)[[0, 0, 1]])
    assert scored(metric, told(torch.eye(3)[[0, 0, 1] * 7]), fake)["reverse_kl"] == 0
    even = scored(metric, told(torch.eye(3)[[0, 1, 2]]), fake)
    assert even == pytest.approx(scored(Modes(), NOTHING, fake))
    with pytest.raises(ValueError, match=r"modes: fake images of 1 modes that no real .* \(1\)"):
        scored(metric, told(torch.eye(3)[[0, 2]]), fake)
    rare = told(torch.eye(3)[[0] * 9 + [1]])
    none = told(torch.eye(3)[[0]], torch.tensor([False]))
    assert scored(metric, rare, none)["reverse_kl"] == pytest.approx(math.log(10))


def test_modes_need_logits_and_images() -> None:
    with pytest.raises(ValueError, match="modes: needs logits, and the features tell none"):
        scored(Modes(), NOTHING, torch.zeros(3, 2))
    metric = Modes()
    with pytest.raises(ValueError, match="modes: needs at least 1 image and got 0 fake"):
        metric.scores(metric.gather(), metric.gather())
    with pytest.raises(ValueError, match="logits that are not numbers"):
        scored(Modes(), NOTHING, told(torch.tensor([[0, torch.nan]])))
    counted = gathered(Modes(), told(torch.zeros(2, 3)))
    for other in (told(torch.zeros(2, 3), torch.ones(2) > 0), Seen(torch.zeros(2, 1))):
        with pytest.raises(ValueError, match="all batches must have the same fields"):
            counted.add(other)
    with pytest.raises(ValueError, match="logits of 4 modes among those of 3"):
        counted.add(told(torch.zeros(2, 4)))
