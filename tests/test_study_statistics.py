"""How sure a study can be: intervals of means, sign-flip tests, Holm's correction."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from gankit.study.statistics import (
    Estimate,
    Interval,
    holm,
    interval_of,
    intervals,
    judge,
    seeds_needed,
    sign_flip,
    significance,
    smallest_p,
)
from gankit.study.statistics.ranks import ranks

Numbers = Sequence[float]

NUMBERS = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
SAMPLES = st.lists(NUMBERS, min_size=3, max_size=10)
PAIRS = st.lists(st.integers(-20, 20), min_size=1, max_size=9)
PS = st.lists(st.floats(0, 1), min_size=1, max_size=6)


# --- intervals


def by_hand(values: Numbers, resamples: int, seed: int) -> float:
    """The half width of the interval as the docstring has it, one resample after the other."""
    chance = random.Random(seed)
    n, mean = len(values), sum(values) / len(values)
    std = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    found = []
    for _ in range(resamples):
        drawn = [chance.choice(values) + chance.gauss(0, std / math.sqrt(n)) for _ in range(n)]
        middle = sum(drawn) / n
        error = math.sqrt(sum((x - middle) ** 2 for x in drawn) / (n - 1) / n)
        found.append(abs(middle - mean) / error)
    return sorted(found)[int(0.95 * resamples)] * std / math.sqrt(n)


@pytest.mark.parametrize("values", [[3.0, 5.0, 4.0], [1.0, 1.5, 1.2, 9.0, 1.1, 2.0]])
def test_an_interval_is_that_of_a_slow_bootstrap(values: list[float]) -> None:
    interval = interval_of(values)
    assert interval is not None
    assert (interval.low + interval.high) / 2 == pytest.approx(sum(values) / len(values))
    half = (interval.high - interval.low) / 2
    assert half == pytest.approx(by_hand(values, 20_000, seed=1), rel=0.06)


def test_with_many_seeds_it_is_everyones_interval() -> None:
    values = np.random.default_rng(0).normal(20.0, 2.0, 60)
    ours = interval_of(values.tolist())
    assert ours is not None
    error = float(scipy.stats.sem(values))
    students = scipy.stats.t.interval(0.95, 59, values.mean(), error)
    bca = scipy.stats.bootstrap((values,), np.mean, rng=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(students, abs=0.1 * error)
    assert (ours.low, ours.high) == pytest.approx((bca.low, bca.high), abs=0.25 * error)


def covered(
    interval: Callable[[list[float]], Interval | None], n: int, studies: int = 400
) -> float:
    """In how many studies of n seeds with skewed noise, a lognormal of 0.25, the mean is in it."""
    samples = np.random.default_rng(n).lognormal(0.0, 0.25, (studies, n))
    found = [interval(sample) for sample in samples.tolist()]
    return sum(i is not None and math.exp(0.25**2 / 2) in i for i in found) / studies


def percentile(values: list[float]) -> Interval:
    drawn = np.random.default_rng(0).choice(values, (500, len(values))).mean(1)
    return Interval(*np.quantile(drawn, [0.025, 0.975]).tolist())


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_mean_is_in_95_of_100_intervals(n: int) -> None:
    # Three standard errors of 400 studies are 3.3 %.
    assert 0.95 - 0.033 < covered(interval_of, n) < 0.95 + 0.04


def test_twin_percentiles_of_means_do_not_keep_their_word() -> None:
    assert covered(percentile, 3) < 0.8
    assert covered(percentile, 5) < 0.9


def test_twin_the_wrong_end_of_the_resamples_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "LEVEL", 0.05)
    assert covered(interval_of, 5, 100) < 0.2


def test_twin_resamples_without_noise_are_too_sure_of_three_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smoothed = covered(interval_of, 3)
    drawn = intervals._draws(3, 0)
    uneven = np.ptp(drawn[0], axis=0) > 0
    still = drawn[0][:, uneven], 0 * drawn[1][:, uneven]
    monkeypatch.setattr(intervals, "_draws", lambda n, seed: still)
    assert covered(interval_of, 3) < smoothed - 0.02


def test_few_numbers_have_no_interval() -> None:
    assert interval_of([]) is interval_of([1.0]) is interval_of([1.0, 2.0]) is None
    assert interval_of([2.5, 2.5, 2.5]) == Interval(2.5, 2.5)
    assert Estimate.of([]) is None
    assert Estimate.of([4.0]) == Estimate(1, 4.0, None, None)
    two = Estimate.of([4.0, 6.0])
    assert two is not None
    assert (two.n, two.mean, two.interval) == (2, 5.0, None)
    assert two.std == pytest.approx(math.sqrt(2))


@given(values=SAMPLES, seed=st.integers(0, 3))
def test_seeds_may_change_places(values: list[float], seed: int) -> None:
    assert interval_of(sorted(values), seed=seed) == interval_of(values, seed=seed)
    assert Estimate.of(values[::-1]) == Estimate.of(values)


@given(values=SAMPLES, scale=st.sampled_from([1e-6, 0.3, 7.0, 1e6]), shift=NUMBERS)
def test_units_do_not_matter(values: list[float], scale: float, shift: float) -> None:
    plain, other = Estimate.of(values), Estimate.of([scale * x + shift for x in values])
    assert plain is not None
    assert other is not None
    assert plain.interval is not None
    assert other.interval is not None
    near = 1e-6 * scale * (max(values) - min(values)) + 1e-9 * (scale + abs(shift))
    for ours, theirs in [
        (plain.mean, other.mean),
        (plain.interval.low, other.interval.low),
        (plain.interval.high, other.interval.high),
    ]:
        assert theirs == pytest.approx(scale * ours + shift, abs=near)
    assert other.std == pytest.approx(scale * (plain.std or 0.0), abs=near)


@given(values=SAMPLES)
def test_a_score_that_is_turned_round_has_its_interval_turned_round(values: list[float]) -> None:
    ours, theirs = interval_of(values), interval_of([-x for x in values])
    assert ours is not None
    assert theirs is not None
    size = max(map(abs, values)) + 1e-300
    assert (-theirs.high, -theirs.low) == pytest.approx((ours.low, ours.high), abs=1e-9 * size)
    assert ours.low <= np.mean(values) + 1e-9 * size
    assert ours.high >= np.mean(values) - 1e-9 * size


@pytest.mark.parametrize("scale", [1e-310, 1e300])
def test_sizes_at_the_end_of_the_range_are_sizes(scale: float) -> None:
    estimate = Estimate.of([1 * scale, 2 * scale, 3 * scale])
    assert estimate is not None
    assert estimate.mean == pytest.approx(2 * scale)
    assert estimate.std == pytest.approx(scale, rel=1e-3)


def test_the_seed_of_the_resamples_hardly_matters() -> None:
    values = [3.0, 4.0, 4.5, 7.0, 5.0]
    found = [interval_of(values, seed=seed) for seed in range(8)]
    assert found[0] == interval_of(values)
    assert len(set(found)) == 8
    widths = [i.high - i.low for i in found if i]
    assert max(widths) < 1.1 * min(widths)


# --- the sign-flip test


def all_flips(differences: Sequence[int] | Sequence[Fraction]) -> float:
    """The definition, without rounding."""
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(found >= abs(sum(differences)) for found in sums) / len(sums)


@given(differences=PAIRS)
def test_p_is_the_share_of_flips(differences: list[int]) -> None:
    assert sign_flip(differences) == all_flips(differences)
    # In units in which sums are rounded.
    assert sign_flip([0.1 * d for d in differences]) == all_flips(differences)


@given(differences=st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_p_is_scipys(differences: list[int]) -> None:
    theirs = scipy.stats.permutation_test(
        (np.array(differences, float),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(differences) == pytest.approx(theirs.pvalue)


@given(
    differences=st.lists(
        st.one_of(st.integers(-5, 5), st.sampled_from([math.inf, -math.inf])),
        min_size=2,
        max_size=8,
    )
)
@example(differences=[-math.inf, -math.inf, 0, 1, 1])
def test_with_failures_p_is_that_of_signed_ranks(differences: list[float]) -> None:
    theirs = signed_ranks(differences)
    if math.inf in map(abs, differences):
        assert sign_flip(differences) == pytest.approx(theirs)
    finite = [d if abs(d) < math.inf else math.copysign(1e3, d) for d in differences]
    assert signed_ranks(finite) == pytest.approx(theirs)


def signed_ranks(differences: Numbers) -> float:
    """Wilcoxon's p, over all flips of ranks that scipy gives."""
    sizes = scipy.stats.rankdata(np.abs(differences)) * np.sign(differences)
    return all_flips([Fraction(float(size)) for size in sizes])


def test_wilcoxons_p_is_scipys() -> None:
    scores = [1.5, -0.5, 2.5, 3.5, math.inf]
    theirs = scipy.stats.wilcoxon([1.5, -0.5, 2.5, 3.5, 99.0], method="exact")
    assert sign_flip(scores) == pytest.approx(theirs.pvalue)


@given(values=st.lists(st.sampled_from([-math.inf, 0.0, 1.0, 2.0, math.inf]), min_size=1))
def test_ranks_are_scipys(values: list[float]) -> None:
    assert ranks(np.array(values)).tolist() == scipy.stats.rankdata(values).tolist()


@pytest.mark.parametrize("n", [17, 20])
def test_of_many_pairs_p_is_near_the_exact_one(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(n).normal(0.45, 1.0, n).tolist()
    drawn = sign_flip(values)
    assert drawn == sign_flip(values[::-1]) == sign_flip([-x for x in values])
    assert drawn != sign_flip(values, seed=1)
    monkeypatch.setattr(significance, "EXACT", 20)
    exact = sign_flip(values)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / significance.FLIPS))
    assert 0.001 < exact < 0.5


@given(differences=PAIRS, order=st.randoms(use_true_random=False), scale=st.floats(1e-9, 1e9))
def test_p_knows_neither_order_nor_sign_nor_unit(
    differences: list[int], order: random.Random, scale: float
) -> None:
    p = sign_flip(differences)
    assert sign_flip(order.sample(differences, len(differences))) == p
    assert sign_flip([-d for d in differences]) == p
    assert sign_flip([scale * d for d in differences]) == p
    assert smallest_p(len(differences)) <= p <= 1


@pytest.mark.parametrize("n", [*range(1, 17), 25])
def test_the_smallest_p_is_that_of_seeds_that_all_agree(n: int) -> None:
    assert sign_flip([1.0 + 0.1 * i for i in range(n)]) == smallest_p(n)


def test_five_seeds_cannot_go_below_0_0625() -> None:
    assert smallest_p(5) == 0.0625
    assert [smallest_p(n) for n in (0, 1, 2, 6)] == [1.0, 1.0, 0.5, 0.03125]
    assert sign_flip([]) == sign_flip([0.0, 0.0, 0.0]) == 1.0


def test_a_difference_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="differ by inf, or by 0"):
        sign_flip([1.0, math.nan])


# --- Holm


@given(ps=PS)
def test_holm_is_the_closed_test_of_bonferronis(ps: list[float]) -> None:
    """Each p adjusted is the largest of Bonferroni's over all sets that it is in."""
    for index, adjusted in enumerate(holm(ps)):
        others = [p for i, p in enumerate(ps) if i != index]
        sets = [
            (ps[index], *more)
            for size in range(len(ps))
            for more in itertools.combinations(others, size)
        ]
        assert adjusted == pytest.approx(max(min(1.0, len(s) * min(s)) for s in sets))


@given(ps=PS, index=st.integers(0, 5), lower=st.floats(0, 1))
def test_holm_is_monotone(ps: list[float], index: int, lower: float) -> None:
    adjusted = holm(ps)
    for p, found in zip(ps, adjusted, strict=True):
        assert p <= found <= min(1.0, len(ps) * p)
    changed = list(ps)
    changed[index % len(ps)] *= lower
    assert all(new <= old for new, old in zip(holm(changed), adjusted, strict=True))
    assert holm(ps[::-1]) == adjusted[::-1]
    assert sorted(adjusted) == [adjusted[i] for i in np.argsort(ps, kind="stable")]


# --- verdicts


@pytest.mark.parametrize("comparisons", [1, 2, 3, 10, 100])
def test_so_many_seeds_are_needed_and_no_fewer(comparisons: int) -> None:
    n = seeds_needed(comparisons)
    agreed = [[-1.0 - i for i in range(n)]] + [[1.0] * n] * (comparisons - 1)
    assert [of.verdict for of in judge(agreed)] == ["better"] + ["worse"] * (comparisons - 1)
    fewer = [of[1:] for of in agreed]
    assert {of.verdict for of in judge(fewer)} == {"not resolvable"}


def test_seeds_that_are_needed() -> None:
    assert [seeds_needed(m) for m in (1, 2, 10)] == [6, 7, 9]
    with pytest.raises(ValueError, match="10000 comparisons are more than can be told apart"):
        seeds_needed(10_000)


def test_verdicts_in_words() -> None:
    eight = [-3.0, -1.0, -2.0, -4.0, -1.5, -2.5, -1.2, -3.3]
    found = judge([eight, [-x for x in eight], [1.0, -1.0] * 4, [1.0] * 5, [1.0], []])
    assert [of.words for of in found] == [
        "better",
        "worse",
        "not told apart",
        "not resolvable with 5 seeds",
        "not resolvable with 1 seed",
        "not resolvable with 0 seeds",
    ]
    assert [of.n for of in found] == [8, 8, 8, 5, 1, 0]
    assert found[0].p == found[0].smallest == 2 / 2**8
    assert found[0].adjusted == found[0].smallest_adjusted == 6 * 2 / 2**8
    assert judge([]) == []


def test_failures_decide_a_verdict() -> None:
    assert judge([[math.inf] * 6])[0].verdict == "worse"
    assert judge([[-math.inf] * 6])[0].verdict == "better"
    assert judge([[math.inf] * 5 + [-0.1] * 2])[0].verdict == "not told apart"
    assert judge([[math.inf] * 9 + [-0.1]])[0].verdict == "worse"


# --- how often verdicts are right, over many studies

Studies = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def studies(count: int, seeds: int, effects: Numbers, failing: Numbers | None = None) -> Studies:
    """Losses by study, cell and seed: a part of the seed, in all cells, and skewed noise of std 1.

    The first cell is the baseline. `failing` is how often each cell has no number.
    """
    chance = np.random.default_rng(seeds)
    shape = count, len(effects), seeds
    noise = chance.exponential(1.0, shape) + chance.normal(0.0, 3.0, (count, 1, seeds))
    noise[chance.random(shape) < np.reshape(failing or [0.0] * len(effects), (1, -1, 1))] = math.inf
    return noise + np.reshape(effects, (1, -1, 1))


def told(losses: Studies, test: Callable[[list[Numbers]], list[float]]) -> float:
    """In which share of studies a cell is told from the baseline, by p adjusted."""
    found = 0
    for study in losses:
        with np.errstate(invalid="ignore"):
            apart = np.where(study[1:] == study[:1], 0.0, study[1:] - study[:1])
        found += min(test(apart.tolist())) <= 0.05
    return found / len(losses)


def ours(differences: list[Numbers]) -> list[float]:
    return [judgement.adjusted for judgement in judge(differences)]


def uncorrected(differences: list[Numbers]) -> list[float]:
    return [judgement.p for judgement in judge(differences)]


def one_sided(differences: list[Numbers]) -> list[float]:
    return holm([sign_flip(of) / 2 for of in differences])


def finished_alone(differences: list[Numbers]) -> list[float]:
    return ours([[d for d in of if abs(d) < math.inf] for of in differences])


ALIKE = [0.0] * 5
TOLERANCE = 3 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("seeds", [5, 8, 10])
@pytest.mark.parametrize("failing", [None, [0.2] * 5])
def test_cells_that_are_alike_are_told_apart_in_5_of_100_studies_at_most(
    seeds: int, failing: list[float] | None
) -> None:
    found = told(studies(600, seeds, ALIKE, failing), ours)
    assert found <= (0.05 + TOLERANCE if seeds > 5 else 0.0)


@pytest.mark.parametrize("test", [uncorrected, one_sided])
def test_twin_many_comparisons_without_holm_and_halved_ps_are_found_out(
    test: Callable[[list[Numbers]], list[float]],
) -> None:
    assert told(studies(600, 10, ALIKE), test) > 0.05 + TOLERANCE


PLANTED = [0.0, -3.0, 0.0, 0.0]


def test_an_effect_that_is_there_is_found() -> None:
    """An effect of three times a run's noise, by 8 seeds, among 3 comparisons."""
    assert told(studies(300, 8, PLANTED), ours) > 0.85


def test_twin_runs_that_are_not_paired_do_not_find_it() -> None:
    losses = studies(300, 8, PLANTED)
    shuffled = np.random.default_rng(0).permuted(losses, axis=2)
    assert told(shuffled, ours) < 0.5
    unpaired = [scipy.stats.ttest_ind(study[1], study[0]).pvalue * 3 for study in losses]
    assert np.mean(np.array(unpaired) <= 0.05) < 0.5


def test_a_cell_that_fails_with_most_seeds_is_worse() -> None:
    losses = studies(300, 10, [0.0, 0.0], [0.0, 0.9])
    assert told(losses, ours) > 0.9
    assert told(losses, finished_alone) < 0.05
