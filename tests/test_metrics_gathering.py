"""Moments and rows: equal to numpy's, however images are batched, and no larger than promised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gankit.metrics import Kept, Moments
from gankit.slots import Seen
from tests.scores import normal, pieces

SEEDS = st.integers(0, 2**32 - 1)
CUTS = st.lists(st.integers(0, 10_000), max_size=6)

Summary = Callable[[Tensor, list[int]], tuple[Tensor, Tensor]]


def ours(features: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor]:
    moments = Moments()
    for piece in pieces(Seen(features), cuts):
        moments.add(piece)
    assert moments.count == len(features)
    return moments.mean, moments.covariance


def check_moments(summary: Summary, features: Tensor, cuts: list[int]) -> None:
    """numpy's mean and covariance, in float64 of what float32 features are."""
    mean, covariance = summary(features, cuts)
    exact = features.double().numpy()
    spread = exact.std(0).max()
    np.testing.assert_allclose(mean.numpy(), exact.mean(0), atol=1e-9 * spread, rtol=1e-14)
    wanted = np.cov(exact, rowvar=False).reshape(covariance.shape)
    np.testing.assert_allclose(covariance.numpy(), wanted, atol=1e-9 * spread**2)


@given(
    seed=SEEDS,
    cuts=CUTS,
    count=st.integers(2, 60),
    width=st.integers(1, 9),
    offset=st.sampled_from([0.0, 1.0, 1e4, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_moments_are_numpys_in_any_batches(
    seed: int, cuts: list[int], count: int, width: int, offset: float, dtype: torch.dtype
) -> None:
    check_moments(ours, (normal(seed, count, width) + offset).to(dtype), cuts)


def biased(features: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor]:
    mean, covariance = ours(features, cuts)
    return mean, covariance * (len(features) - 1) / len(features)


def squares(features: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor]:
    """The mean of the squares less the square of the mean, in the features' precision."""
    mean, count = features.mean(0), len(features)
    spread = features.mT @ features - count * torch.outer(mean, mean)
    return mean.double(), spread.double() / (count - 1)


def unweighted(features: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor]:
    parts = [piece.features.double() for piece in pieces(Seen(features), cuts)]
    mean = torch.stack([part.mean(0) for part in parts]).mean(0)
    return mean, ours(features, cuts)[1]


def apart(features: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor]:
    """Without what lies between the means of batches."""
    parts = [piece.features.double() for piece in pieces(Seen(features), cuts)]
    scatter = sum((p - p.mean(0)).mT @ (p - p.mean(0)) for p in parts)
    assert isinstance(scatter, Tensor)
    return ours(features, cuts)[0], scatter / (len(features) - 1)


@pytest.mark.parametrize("twin", [biased, squares, unweighted, apart])
def test_twins_other_moments_are_caught(twin: Summary) -> None:
    features = (normal(0, 50, 4) + 1e4).float()
    check_moments(ours, features, [7])
    with pytest.raises(AssertionError):
        check_moments(twin, features, [7])


@given(seed=SEEDS, counts=st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_merged_moments_are_those_of_all(seed: int, counts: list[int]) -> None:
    features = normal(seed, sum(counts) + 2, 3)
    parts = features.split([*counts, 2])
    together = Moments()
    for part in parts:
        together.merge(Moments.of(part))
    whole = Moments.of(features)
    assert together.count == whole.count
    torch.testing.assert_close(together.mean, whole.mean)
    torch.testing.assert_close(together.covariance, whole.covariance)


def test_moments_take_the_same_room_whatever_the_count() -> None:
    few, many = Moments.of(normal(0, 3, 16)), Moments.of(normal(0, 5000, 16))
    room = [sum(t.nbytes for t in m.state().values()) for m in (few, many)]
    assert room[0] == room[1] == 8 * (16 * 16 + 16 + 1)


@pytest.mark.parametrize("make", [Moments, lambda: Kept("features"), lambda: Kept(most=9)])
def test_what_is_taken_up_from_the_disk_goes_on_as_if_nothing_had_been(
    make: Callable[[], Moments | Kept],
) -> None:
    whole, first, second = make(), make(), make()
    one, other = Seen(normal(0, 40, 3)), Seen(normal(1, 50, 3))
    whole.add(one)
    whole.add(other)
    first.add(one)
    state = first.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    first.add(other)
    assert all(torch.equal(state[name], before[name]) for name in before)
    second.load_state(state)
    second.add(other)
    for name, tensor in whole.state().items():
        assert torch.equal(second.state()[name], tensor)
    assert whole.count == second.count == 90


@pytest.mark.parametrize("make", [Moments, lambda: Kept("features"), lambda: Kept(most=9)])
def test_nothing_is_kept_of_nothing(make: Callable[[], Moments | Kept]) -> None:
    empty, other = make(), make()
    empty.add(Seen(torch.zeros(0, 3)))
    other.load_state(empty.state())
    assert empty.count == other.count == 0
    other.add(Seen(torch.zeros(2, 3)))
    assert other.count == 2


@pytest.mark.parametrize("make", [Moments, lambda: Kept("features")])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(4), r"are \(B, D\), not \(4,\)"),
        (torch.tensor([[1.0, torch.nan], [0, 0], [torch.inf, 0]]), "2 in 3 images are not finite"),
        (torch.zeros(2, 5), "width 5 among those of width 2"),
    ],
)
def test_what_says_nothing_is_refused(
    make: Callable[[], Moments | Kept], features: Tensor, message: str
) -> None:
    collection = make()
    collection.add(Seen(torch.zeros(1, 2)))
    with pytest.raises(ValueError, match=message):
        collection.add(Seen(features))
    assert collection.count == 1


def test_no_covariance_of_one() -> None:
    with pytest.raises(ValueError, match="at least 2 images, and there are 1"):
        _ = Moments.of(torch.zeros(1, 2)).covariance


# --- rows

Choice = Callable[[int, int, list[int], int], list[int]]


def chosen(most: int, count: int, cuts: list[int], seed: int) -> list[int]:
    """Which of `count` images are kept."""
    kept = Kept("features", most=most, seed=seed)
    for piece in pieces(Seen(torch.arange(count)[:, None].double()), cuts):
        kept.add(piece)
        assert sum(map(len, kept._batches["key"])) <= 2 * most + len(piece.features)
    assert (len(kept), kept.count) == (min(most, count), count)
    return kept.rows("features", "test").flatten().int().tolist()


def check_choice(choice: Choice) -> None:
    """As many as asked for, each image as likely as any other, in their order, in any batches."""
    hits = np.zeros(40)
    for seed in range(400):
        one = choice(10, 40, [], seed)
        assert one == choice(10, 40, list(range(1, 40, 1 + seed % 5)), seed)
        assert len(one) == 10
        assert one == sorted(set(one))
        hits[one] += 1
    # Chi-square of 39 degrees, of counts without replacement: below 90 but once in a million.
    assert ((hits - 100) ** 2 / 75).sum() < 90


def test_of_many_images_some_are_drawn_evenly() -> None:
    check_choice(chosen)
    assert chosen(50, 40, [3], 0) == list(range(40))


def first(most: int, count: int, cuts: list[int], seed: int) -> list[int]:
    return list(range(most))


def by_batch(most: int, count: int, cuts: list[int], seed: int) -> list[int]:
    """Draws that are made anew for each batch."""
    batches = len(pieces(Seen(torch.zeros(count, 1)), cuts))
    random = torch.Generator().manual_seed(1000 * seed + batches)
    return sorted(torch.randperm(count, generator=random)[:most].tolist())


@pytest.mark.parametrize("twin", [first, by_batch])
def test_twins_other_choices_are_caught(twin: Choice) -> None:
    with pytest.raises(AssertionError):
        check_choice(twin)


@given(seed=SEEDS, cuts=CUTS)
def test_rows_stay_together_and_in_order(seed: int, cuts: list[int]) -> None:
    features, labels = normal(seed, 30, 2), torch.arange(30)
    for most in (None, 7):
        kept = Kept("features", "labels", most=most)
        for piece in pieces(Seen(features, labels=labels), cuts):
            kept.add(piece)
        which = kept.rows("labels", "test")
        assert torch.equal(kept.rows("features", "test"), features[which])
        assert len(which) == (most or 30)


def test_what_is_kept_is_not_what_the_caller_writes_over() -> None:
    kept, features = Kept("features"), torch.zeros(2, 2)
    kept.add(Seen(features))
    features += 1
    assert not kept.rows("features", "test").any()


def test_fields_that_are_missing_are_named() -> None:
    kept = Kept("features", "logits")
    with pytest.raises(ValueError, match="test: there are no images"):
        kept.rows("features", "test")
    kept.add(Seen(torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="test: needs logits, and the features tell none"):
        kept.rows("logits", "test")
    with pytest.raises(ValueError, match="all batches must have the same fields"):
        kept.add(Seen(torch.zeros(2, 2), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="2 logits of 3 images"):
        Kept("logits").add(Seen(torch.zeros(3, 2), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="logits that are not numbers"):
        Kept("logits").add(Seen(torch.zeros(1, 2), torch.tensor([[0, torch.nan]])))
