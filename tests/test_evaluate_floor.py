"""What real images score against other real ones: as good as a generator can be."""

from __future__ import annotations

from typing import Any

import pytest

from gankit.datasets import Digits, Ring
from gankit.evaluate import Evaluation, named
from gankit.evaluate.sets import Half, batches
from gankit.slots import Dataset


def evaluation(data: Dataset, features: str, *metrics: str, **more: Any) -> Evaluation:
    made = {name: named("metric", name, {}) for name in metrics}
    return Evaluation(data, repr(data), named("features", features, {}, data), made, **more)


def check_halves(make: type[Half]) -> None:
    """Every image is in one of them."""
    data = Digits(size=8)
    even, odd = (make(data, 101, which) for which in (False, True))
    assert (len(even), len(odd)) == (51, 50)
    places = [*even._places.tolist(), *odd._places.tolist()]
    assert sorted(places) == [*range(101)]
    for half in (even, odd):
        ((images, labels),) = batches(half, len(half))
        assert images.equal(data.images(half._places))
        assert labels is not None
        assert labels.equal(data.labels(half._places))


def test_the_halves_have_no_image_in_common() -> None:
    check_halves(Half)


def test_twin_halves_that_overlap_are_found() -> None:
    class Whole(Half):
        def __init__(self, data: Dataset, count: int, odd: bool) -> None:
            super().__init__(data, count, odd)
            self._places -= int(odd)

    with pytest.raises(AssertionError):
        check_halves(Whole)


def test_of_data_that_holds_images_out_those_are_compared() -> None:
    """Points of the exact mixture: all modes, and 98.89 % within three standard deviations."""
    data = Ring(length=4000)
    found = evaluation(data, "mixture", "modes").floor()
    assert found["modes"] == 8
    assert found["high_quality"] == pytest.approx(0.9889, abs=0.006)


def test_otherwise_one_half_is_compared_with_the_other() -> None:
    made = evaluation(Digits(size=8), "pixels", "prdc", floored=True)
    images = ((batch, labels) for batch, labels in batches(made.data, 200))
    scores = made.score(images, {}, 200)
    assert (
        scores.floor.keys()
        == scores.values.keys()
        == {"precision", "recall", "density", "coverage"}
    )
    assert 0.5 < scores.floor["recall"] < 1
    # Images that are among the real ones are nearer to them than any others.
    assert scores.values["precision"] == 1 > scores.floor["precision"]


def test_a_metric_that_takes_more_images_than_half_is_left_out() -> None:
    data = Digits(size=8)
    found = evaluation(data, "pixels", "frechet", "prdc", real=120).floor()
    assert "frechet" not in found  # 60 images of 64 numbers have no covariance of full rank
    assert "precision" in found
