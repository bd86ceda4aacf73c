"""The Frechet distance against closed forms and scipy, with singular covariances, and its kin."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from gankit.metrics import Frechet, FrechetInfinity, IntraFrechet, Moments, frechet_distance
from gankit.metrics.gaussians import root_trace
from gankit.slots import Seen
from tests.scores import normal, rotation, scored

SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = st.integers(1, 12)

Trace = Callable[[Tensor, Tensor], Tensor]


def moments(mean: Tensor, covariance: Tensor) -> Moments:
    """Moments that are exactly these."""
    made = Moments()
    state = {"count": torch.tensor(101), "mean": mean, "scatter": covariance * 100}
    made.load_state(state)
    return made


def of_scipy(one: Tensor, other: Tensor) -> float:
    return float(np.trace(linalg.sqrtm(one.numpy() @ other.numpy())).real)


def of_factors(one: Tensor, other: Tensor) -> float:
    """Of one one^T and other other^T: the sum of the singular values of one^T other."""
    return float(np.linalg.svd(one.numpy().T @ other.numpy(), compute_uv=False).sum())


def check_trace(trace: Trace, one: Tensor, other: Tensor, tolerance: float = 1e-9) -> None:
    """Of covariances given by their factors, (D, anything)."""
    wanted = of_factors(one, other)
    got = trace(one @ one.mT, other @ other.mT).item()
    scale = float(torch.linalg.matrix_norm(one) * torch.linalg.matrix_norm(other))
    assert got == pytest.approx(wanted, abs=tolerance * scale)


@given(seed=SEEDS, width=WIDTHS)
def test_the_trace_is_scipys(seed: int, width: int) -> None:
    one, other = normal(seed, width, width + 3), normal(seed + 1, width, width + 3)
    covariances = one @ one.mT, other @ other.mT
    wanted = of_scipy(*covariances)
    assert root_trace(*covariances).item() == pytest.approx(wanted, rel=1e-7)
    assert of_factors(one, other) == pytest.approx(wanted, rel=1e-7)
    check_trace(root_trace, one, other)


@given(seed=SEEDS, width=WIDTHS, ranks=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_the_trace_of_singular_covariances(seed: int, width: int, ranks: tuple[int, int]) -> None:
    if 0 in ranks:
        one, other = normal(seed, width, width), torch.zeros(width, 1, dtype=torch.float64)
    else:
        one, other = normal(seed, width, ranks[0]), normal(seed + 1, width, ranks[1])
    check_trace(root_trace, one, other)
    check_trace(root_trace, other, one)
    check_trace(root_trace, one, one)


@given(seed=SEEDS, decay=st.floats(0.5, 16))
def test_the_trace_of_nearly_singular_covariances(seed: int, decay: float) -> None:
    """Deviations that fall by as many decades, along axes of their own in each set."""
    deviations = 10 ** -torch.linspace(0, decay, 24, dtype=torch.float64)
    one, other = rotation(seed, 24) * deviations, rotation(seed + 1, 24) * deviations
    check_trace(root_trace, one, other, tolerance=1e-7)
    check_trace(root_trace, one, one, tolerance=1e-7)


def test_directions_without_variance_bring_no_noise_in() -> None:
    """Ten images in 300 dimensions: 290 zeros of 1e-8 each would show."""
    one, other = normal(0, 300, 10), normal(1, 300, 10)
    check_trace(root_trace, one, one, tolerance=1e-12)
    check_trace(root_trace, one, other, tolerance=1e-12)


def test_sets_without_any_variance() -> None:
    metric = Frechet(singular=True)
    one, other = torch.zeros(5, 3), torch.ones(4, 3)
    assert scored(metric, one, one)["frechet"] == 0
    assert scored(metric, one, other)["frechet"] == 3
    assert scored(metric, one, normal(0, 50, 3))["frechet"] > 1


def no_root(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other).trace()


def root_of_each(one: Tensor, other: Tensor) -> Tensor:
    """tr A^(1/2) B^(1/2), which is as large only where A and B commute."""
    roots = []
    for matrix in (one, other):
        values, vectors = torch.linalg.eigh(matrix)
        roots.append(vectors * values.clamp(min=0).sqrt() @ vectors.mT)
    return (roots[0] @ roots[1]).trace()


def offset(one: Tensor, other: Tensor) -> Tensor:
    """The usual remedy for singular covariances."""
    eye = 1e-6 * torch.eye(len(one), dtype=one.dtype)
    return root_trace(one + eye, other + eye)


def unsymmetric(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.eigvals(one @ other).sqrt().real.sum()


@pytest.mark.parametrize("twin", [no_root, root_of_each, offset, unsymmetric])
def test_twins_other_traces_are_caught(twin: Trace) -> None:
    with pytest.raises(AssertionError):
        check_trace(twin, normal(0, 300, 10), normal(1, 300, 10))


@given(
    seed=SEEDS,
    means=st.lists(st.floats(-9, 9), min_size=3, max_size=3),
    deviations=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 3)).map(sorted), min_size=3, max_size=3
    ),
)
def test_the_distance_between_known_gaussians(
    seed: int, means: list[float], deviations: list[list[float]]
) -> None:
    """Of covariances that commute: the squared distances of means and of deviations."""
    turned = rotation(seed, 3)
    one, other = torch.tensor(deviations, dtype=torch.float64).T
    apart = turned @ torch.tensor(means, dtype=torch.float64)
    covariances = [turned * deviation.square() @ turned.mT for deviation in (one, other)]
    real = moments(torch.zeros(3, dtype=torch.float64), covariances[0])
    fake = moments(apart, covariances[1])
    wanted = sum(mean**2 for mean in means) + (one - other).square().sum().item()
    assert frechet_distance(real, fake) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def check_distance(distance: Callable[[Tensor, Tensor], float], real: Tensor, fake: Tensor) -> None:
    """The published formula, by numpy and scipy."""
    one, other = real.double().numpy(), fake.double().numpy()
    covariances = [np.cov(each, rowvar=False) for each in (one, other)]
    apart = one.mean(0) - other.mean(0)
    spread = np.trace(covariances[0]) + np.trace(covariances[1])
    wanted = apart @ apart + spread - 2 * np.trace(linalg.sqrtm(covariances[0] @ covariances[1]))
    assert distance(real, fake) == pytest.approx(wanted.real, rel=1e-6)


def ours(real: Tensor, fake: Tensor) -> float:
    return scored(Frechet(), real, fake, cuts=[5, 17])["frechet"]


@given(seed=SEEDS, shift=st.floats(0, 2), offset=st.sampled_from([0.0, 1e3]))
def test_the_score_is_the_published_formula(seed: int, shift: float, offset: float) -> None:
    one, other = normal(seed, 40, 6), 1.5 * normal(seed + 1, 30, 6) + shift
    check_distance(ours, (one + offset).float(), (other + offset).float())


def biased(real: Tensor, fake: Tensor) -> float:
    sets = [moments(each.double().mean(0), torch.cov(each.mT, correction=0).double()) for each in
            (real, fake)]  # fmt: skip
    return frechet_distance(*sets)


@pytest.mark.parametrize("twin", [biased, lambda real, fake: ours(real, fake) ** 0.5])
def test_twins_other_distances_are_caught(twin: Callable[[Tensor, Tensor], float]) -> None:
    with pytest.raises(AssertionError):
        check_distance(twin, normal(0, 40, 6), 1.5 * normal(1, 30, 6))


@given(seed=SEEDS, width=WIDTHS, count=st.integers(2, 20), scale=st.floats(0.1, 10))
def test_what_holds_for_all_sets(seed: int, width: int, count: int, scale: float) -> None:
    real, fake = normal(seed, 20, width), normal(seed + 1, count, width) * 2
    metric = Frechet(singular=True)

    def distance(one: Tensor, other: Tensor) -> float:
        return scored(metric, one, other)["frechet"]

    score = distance(real, fake)
    near = pytest.approx(score, rel=1e-6, abs=1e-6)
    assert distance(fake, real) == near
    turned = rotation(seed + 2, width)
    assert distance(real @ turned + 3, fake @ turned + 3) == near
    assert distance(scale * real, scale * fake) / scale**2 == near
    assert distance(real, real) == pytest.approx(0, abs=1e-6)
    assert distance(real, real.flip(0)) == pytest.approx(0, abs=1e-6)
    further = [distance(real, real + shift) for shift in (0.5, 1.0, 2.0)]
    assert further == pytest.approx([width * shift**2 for shift in (0.5, 1.0, 2.0)], rel=1e-6)


def test_sets_that_are_too_small_are_refused_and_told_what_it_takes() -> None:
    sets = normal(0, 17, 16), normal(1, 16, 16)
    with pytest.raises(ValueError, match="frechet: needs at least 17 images and got 16 fake") as e:
        scored(Frechet(), *sets)
    assert "features are 16 wide: take more images" in str(e.value)
    assert "`singular = true`" in str(e.value)
    assert scored(Frechet(singular=True), *sets)["frechet"] > 0
    assert scored(Frechet(), sets[0], normal(1, 17, 16))["frechet"] > 0
    with pytest.raises(ValueError, match="at least 2 images and got 1 real and 0 fake"):
        Frechet(singular=True).scores(Moments.of(sets[0][:1]), Moments())
    with pytest.raises(ValueError, match="real features of width 16, fake ones of 4"):
        scored(Frechet(), sets[0], normal(0, 30, 4))


# --- at infinity


def check_line(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances that are a line in 1 / count give the value at none."""
    counts = []

    def line(real: Moments, fake: Moments) -> float:
        counts.append(fake.count)
        return 3.0 + 70 / fake.count

    module = sys.modules[type(metric).__module__]
    monkeypatch.setattr(module, "frechet_distance", line)
    score = scored(metric, normal(0, 300, 4), normal(1, 200, 4))["frechet_infinity"]
    assert counts == np.linspace(20, 200, 15).round().astype(int).tolist()
    assert score == pytest.approx(3.0)


class AgainstCount(FrechetInfinity):
    """The line is fitted to counts instead."""

    def scores(self, real: Any, fake: Any, /) -> dict[str, float]:
        counts = np.linspace(20, 200, 15).round().astype(int)
        rows = fake.rows("features", "test")
        module = sys.modules[__name__]
        distances = [
            module.frechet_distance(Moments(), Moments.of(rows[:count])) for count in counts
        ]
        return {"frechet_infinity": float(np.polyfit(counts, distances, 1)[1])}


def test_infinity_is_where_the_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    check_line(FrechetInfinity(), monkeypatch)


def test_twin_a_line_in_counts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="comparison failed"):
        check_line(AgainstCount(), monkeypatch)


def test_infinity_takes_away_most_of_what_few_images_add() -> None:
    real, fake = normal(0, 20_000, 24), normal(1, 1000, 24)
    plain = scored(Frechet(), real, fake)["frechet"]
    assert plain > 0.1
    at_infinity = [
        scored(FrechetInfinity(seed=seed), real, fake)["frechet_infinity"] for seed in (0, 0, 1)
    ]
    assert at_infinity[0] == at_infinity[1] != at_infinity[2]
    assert max(map(abs, at_infinity)) < 0.35 * plain


def test_infinity_refuses_small_sets_and_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="at least 9 images and got 8 fake in the smallest set"):
        scored(FrechetInfinity(), normal(0, 90, 8), normal(1, 80, 8))
    with pytest.raises(ValueError, match=r"at least 31 images and got 20 fake; .*fewer points"):
        scored(FrechetInfinity(share=0.8), normal(0, 90, 8), normal(1, 20, 8))
    for options in ({"points": 1}, {"share": 0.0}, {"share": 1.0}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"frechet_infinity: {next(iter(options))} must be"):
            FrechetInfinity(**options)


# --- within classes


def check_classes(metric: Any) -> None:
    """The distance of each class by itself, and their mean."""
    sets = []
    for seed, counts in ((0, (20, 30, 25)), (1, (24, 12, 18))):
        labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        features = normal(seed, len(labels), 4) * (1 + labels[:, None]) + seed * labels[:, None]
        sets.append(Seen(features[order], labels=labels[order]))
    scores = scored(metric, *sets, cuts=[7, 31])
    each = [
        scored(Frechet(), *(seen.features[seen.labels == label] for seen in sets))["frechet"]
        for label in range(3)
    ]
    assert [scores[f"intra_frechet/{label}"] for label in range(3)] == pytest.approx(each)
    assert scores["intra_frechet"] == pytest.approx(sum(each) / 3)


def test_each_class_is_scored_by_itself() -> None:
    check_classes(IntraFrechet())


def test_twin_labels_that_are_not_the_images_are_caught() -> None:
    class Mixed(IntraFrechet):
        def scores(self, real: Any, fake: Any, /) -> dict[str, float]:
            fake._batches["labels"] = [rows.flip(0) for rows in fake._batches["labels"]]
            return super().scores(real, fake)

    with pytest.raises(AssertionError):
        check_classes(Mixed())


def test_classes_that_are_missing_or_too_small_are_named() -> None:
    real = Seen(normal(0, 40, 4), labels=torch.arange(40) % 4)
    fake = Seen(normal(1, 40, 4), labels=torch.arange(40) % 3)
    with pytest.raises(ValueError, match=r"intra_frechet: .* got 0 fake of class 3"):
        scored(IntraFrechet(), real, fake)
    with pytest.raises(ValueError, match="intra_frechet: needs labels"):
        scored(IntraFrechet(), real, fake._replace(labels=None))


# --- how fast


def test_the_benchmark_compares_equal_scores(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("side_by_side", "frechet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    benchmark = importlib.import_module("frechet")
    benchmark.main(["--width", "24", "--count", "60", "--rounds", "2", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert {"ratio", "gankit_s", "peer_s", "quartiles", "relative_error"} <= set(told)
    assert (told["benchmark"], told["width"], told["relative_error"] < 1e-6) == (
        "frechet",
        24,
        True,
    )
    monkeypatch.setattr(benchmark, "frechet_distance", lambda real, fake: 1.0)
    with pytest.raises(SystemExit, match="is not the same score"):
        benchmark.main(["--width", "24", "--count", "60", "--rounds", "2", "--json"])
    for name in ("side_by_side", "frechet"):
        sys.modules.pop(name, None)
