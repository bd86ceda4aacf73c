"""What a study says of its cells: summaries, comparisons with a baseline, effects of its axes."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit.study.statistics import (
    Better,
    Effect,
    Estimate,
    Row,
    compare,
    comparison,
    interactions,
    judge,
    main_effects,
    ranked,
    summaries,
)
from gankit.study.statistics.rows import Runs

Scores = Mapping[str, Sequence[float | None]]


def rows_of(cells: Scores) -> list[Row]:
    """Cells without axes, by their values; a row of another score is among them."""
    found = [
        Row(cell=cell, seed=seed, score="fid", value=value)
        for cell, values in cells.items()
        for seed, value in enumerate(values)
    ]
    return [Row(cell="plain", seed=0, score="precision", value=0.5), *found]


VALUES = st.lists(
    st.one_of(st.none(), st.integers(-40, 40).map(lambda x: x / 4)), min_size=1, max_size=7
)
CELLS = st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=2)

# --- rows


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"seed": 0}, r"cell 'a' has two rows of 'fid' with seed 0"),
        ({"levels": {"norm": "y"}}, r"cell 'a' has two sets of levels"),
        ({"cell": "b", "levels": {"loss": "x"}}, r"cell 'b' has other axes than the rest: loss"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(more: dict[str, Any], says: str) -> None:
    row: dict[str, Any] = {"cell": "a", "levels": {"norm": "x"}, "score": "fid", "value": 1.0}
    rows = [Row(**row, seed=0), Row(**{**row, "seed": 1, **more})]
    with pytest.raises(ValueError, match=says):
        summaries(rows, "fid", better="lower")


def test_a_direction_is_lower_or_higher() -> None:
    wrong: Any = "less"
    with pytest.raises(ValueError, match="better is 'less'"):
        summaries([], "fid", better=wrong)


# --- a cell by itself


@given(values=st.lists(st.integers(-40, 40).map(lambda x: x / 4), min_size=1, max_size=9))
def test_a_summary_is_what_python_says(values: list[float]) -> None:
    [cell] = summaries(rows_of({"a": values}), "fid", better="lower")
    assert (cell.cell, cell.score, cell.n, cell.failed) == ("a", "fid", len(values), ())
    assert cell.finished == Estimate.of(values)
    assert cell.mean == pytest.approx(statistics.fmean(values))
    assert cell.median == statistics.median(values)
    assert values[cell.best] == min(values)
    assert values[cell.worst] == max(values)
    if len(values) > 1:
        assert cell.finished is not None
        assert cell.finished.std == pytest.approx(statistics.stdev(values))
    assert (cell.interval is None) == (len(values) < 3)


def test_a_run_that_failed_is_the_worst_and_shown() -> None:
    [cell] = summaries(rows_of({"a": [3.0, None, 1.0, math.nan, 2.0]}), "fid", better="lower")
    assert (cell.n, cell.failed, cell.best, cell.worst) == (5, (1, 3), 2, 1)
    assert cell.mean is cell.interval is None
    assert cell.finished == Estimate.of([3.0, 1.0, 2.0])
    assert cell.median == 3.0
    [gone] = summaries(rows_of({"a": [None, -math.inf]}), "fid", better="higher")
    assert (gone.n, gone.failed, gone.finished, gone.median) == (2, (0, 1), None, None)


def test_cells_with_failures_rank_behind_those_without() -> None:
    cells: Scores = {"one": [1.0, None, 1.0], "none": [9.0, 9.0], "all": [None], "good": [5.0, 6.0]}
    lower = ranked(summaries(rows_of(cells), "fid", better="lower"))
    assert [cell.cell for cell in lower] == ["good", "none", "one", "all"]
    higher = ranked(summaries(rows_of(cells), "fid", better="higher"))
    assert [cell.cell for cell in higher] == ["none", "good", "one", "all"]


@given(cells=CELLS)
def test_higher_is_lower_turned_round(cells: dict[str, list[float | None]]) -> None:
    turned = {cell: [None if v is None else -v for v in values] for cell, values in cells.items()}
    lower = summaries(rows_of(cells), "fid", better="lower")
    higher = summaries(rows_of(turned), "fid", better="higher")
    assert [c.cell for c in ranked(lower)] == [c.cell for c in ranked(higher)]
    for one, other in zip(lower, higher, strict=True):
        assert (one.best, one.worst, one.failed) == (other.best, other.worst, other.failed)
        assert (one.median is None) == (other.median is None)
        assert one.median is None or one.median == -(other.median or 0.0)


# --- a cell and the baseline


def test_a_comparison_is_of_common_seeds() -> None:
    rows = [
        Row(cell=cell, seed=seed, score="fid", value=value)
        for cell, seed, value in [
            *(("new", seed, float(seed)) for seed in (1, 2, 3, 4)),
            *(("plain", seed, 2.0 * seed) for seed in (4, 3, 2, 9)),
        ]
    ]
    [found] = compare(rows, "fid", "plain", better="lower")
    assert (found.cell, found.baseline, found.score) == ("new", "plain", "fid")
    assert found.seeds == (2, 3, 4)
    assert found.finished == Estimate.of([-2.0, -3.0, -4.0])
    assert found.difference == pytest.approx(-3.0)
    assert found.interval is not None
    assert found.words == "not resolvable with 3 seeds"
    assert found.judgement == judge([[-2.0, -3.0, -4.0]])[0]


def test_a_baseline_without_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="the baseline 'gone' has no 'fid' yet"):
        compare(rows_of({"a": [1.0]}), "fid", "gone", better="lower")


CRASHES: Scores = {
    "plain": [5.0, 4.0, 5.5, 4.5, 5.2, 4.8, None, None],
    "crashes": [4.0, None, None, None, None, None, None, None],
    "holds": [4.9, 3.8, 5.2, 4.1, 4.7, 4.2, 9.9, 8.8],
}


def test_failures_count_as_worst_in_comparisons() -> None:
    crashes, holds = compare(rows_of(CRASHES), "fid", "plain", better="lower")
    assert crashes.seeds == tuple(range(8))
    assert crashes.failed == tuple(range(1, 8))
    assert crashes.baseline_failed == (6, 7)
    assert crashes.finished == Estimate.of([-1.0])
    assert crashes.difference is crashes.interval is None
    assert crashes.judgement.p < 0.2
    assert (holds.failed, holds.baseline_failed) == ((), (6, 7))
    assert holds.words == "better"
    differences = [[-1.0, *[math.inf] * 5, 0.0, 0.0], [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]]
    differences[1] += [-math.inf] * 2
    expected = judge(differences)
    assert [crashes.judgement, holds.judgement] == expected


def test_twin_failures_that_are_dropped_turn_a_verdict_round() -> None:
    cells: Scores = {"plain": [5.0 + i / 9 for i in range(16)], "b": [*[4.0] * 6, *[None] * 10]}
    [kept] = compare(rows_of(cells), "fid", "plain", better="lower")
    dropped = [row for row in rows_of(cells) if row.value is not None]
    [lost] = compare(dropped, "fid", "plain", better="lower")
    assert lost.words == "better"
    assert kept.words == "worse"


def test_a_verdict_goes_with_the_direction_of_the_score() -> None:
    cells: Scores = {"plain": [0.1 * i for i in range(8)], "more": [0.11 * i + 1 for i in range(8)]}
    for better, words in (("lower", "worse"), ("higher", "better")):
        direction: Better = "higher" if better == "higher" else "lower"
        [found] = compare(rows_of(cells), "fid", "plain", better=direction)
        assert found.words == words
        assert found.difference == pytest.approx(1.035)


@given(cells=CELLS, seeds=st.permutations(range(7)))
def test_names_of_seeds_and_cells_do_not_matter(
    cells: dict[str, list[float | None]], seeds: list[int]
) -> None:
    rows, baseline = rows_of(cells), next(iter(cells))
    renamed = [
        Row(cell=row.cell.upper(), seed=seeds[row.seed] + 50, score=row.score, value=row.value)
        for row in reversed(rows)
    ]
    ours = {of.cell: of for of in compare(rows, "fid", baseline, better="lower")}
    theirs = compare(renamed, "fid", baseline.upper(), better="lower")
    assert len(theirs) == len(ours) == len(cells) - 1
    for other in theirs:
        one = ours[other.cell.lower()]
        assert (one.finished, one.judgement) == (other.finished, other.judgement)
        assert (len(one.failed), one.words) == (len(other.failed), other.words)


@given(cells=CELLS)
def test_cell_and_baseline_change_places_with_the_sign(
    cells: dict[str, list[float | None]],
) -> None:
    first, second, *_ = cells
    rows = rows_of({cell: cells[cell] for cell in (first, second)})
    [there] = compare(rows, "fid", first, better="lower")
    [back] = compare(rows, "fid", second, better="lower")
    assert there.judgement.p == back.judgement.p
    assert (there.failed, there.baseline_failed) == (back.baseline_failed, back.failed)
    opposite = {"better": "worse", "worse": "better"}
    assert opposite.get(there.words, there.words) == back.words
    if there.difference is not None:
        assert there.difference == pytest.approx(-(back.difference or 0.0))


def test_twin_a_pair_in_which_both_failed_as_a_difference_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plain(runs: Runs, cell: str, baseline: str) -> dict[int, float]:
        return {
            seed: runs.losses[cell][seed] - runs.losses[baseline][seed]
            for seed in runs.common(cell, baseline)
        }

    monkeypatch.setattr(comparison, "_differences", plain)
    with pytest.raises(ValueError, match="not a number"):
        compare(rows_of(CRASHES), "fid", "plain", better="lower")


# --- effects

AXES = {"norm": ["batch", "spectral"], "loss": ["hinge", "softplus", "square"], "n": ["1", "5"]}

Grid = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def grid_rows(values: Grid, axes: Mapping[str, Sequence[str]] = AXES) -> list[Row]:
    """The rows of an array of axes and, last, seeds; none where it is nan, failed where inf."""
    found = []
    for index in np.ndindex(*values.shape):
        levels = {axis: of[i] for (axis, of), i in zip(axes.items(), index, strict=False)}
        if not np.isnan(values[index]):
            value = None if np.isinf(values[index]) else float(values[index])
            name = "/".join(levels.values())
            found.append(Row(cell=name, levels=levels, seed=index[-1], score="fid", value=value))
    return found


def grid(seeds: int = 5, noise: float = 1.0) -> Grid:
    """Additive, but for noise and what each seed does to all cells."""
    chance = np.random.default_rng(seeds)
    norm, loss, n = np.ix_([0.0, 4.0], [1.0, 0.0, -2.0], [0.0, 1.0])
    shape = (2, 3, 2, seeds)
    seeded = chance.normal(0, 5.0, seeds)
    return (norm + loss + n)[..., None] + seeded + noise * chance.normal(size=shape)


def main(rows: list[Row], better: Better = "lower") -> dict[tuple[str, ...], Effect]:
    return {
        (*effect.levels.values(),): effect for effect in main_effects(rows, "fid", better=better)
    }


def pairs(rows: list[Row], better: Better = "lower") -> dict[tuple[str, ...], Effect]:
    return {
        (*effect.levels.values(),): effect for effect in interactions(rows, "fid", better=better)
    }


def check(found: Estimate | None, per_seed: Grid) -> None:
    """An estimate is that of the effect within each seed."""
    expected = Estimate.of(per_seed.tolist())
    assert found is not None
    assert expected is not None
    assert found.n == expected.n
    assert found.mean == pytest.approx(expected.mean, abs=1e-9)
    assert found.std == pytest.approx(expected.std, abs=1e-9)
    if found.interval is None or expected.interval is None:
        assert found.interval is expected.interval
    else:
        assert found.interval.low == pytest.approx(expected.interval.low, abs=1e-7)
        assert found.interval.high == pytest.approx(expected.interval.high, abs=1e-7)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_in_a_full_grid_effects_are_those_of_an_anova(better: Better) -> None:
    values = grid()
    found, grand = main(grid_rows(values), better), values.mean((0, 1, 2))
    assert len(found) == 2 + 3 + 2
    for place, (axis, levels) in enumerate(AXES.items()):
        for i, level in enumerate(levels):
            effect = found[(level,)]
            assert (effect.levels, effect.failed) == ({axis: level}, 0)
            assert effect.cells == 12 // len(levels)
            check(effect.finished, np.take(values, i, place).mean((0, 1)) - grand)


def test_in_a_full_grid_interactions_are_those_of_an_anova() -> None:
    values = grid()
    found = pairs(grid_rows(values))
    assert len(found) == 2 * 3 + 2 * 2 + 3 * 2
    grand = values.mean((0, 1, 2))
    for a, b in itertools.combinations(range(3), 2):
        other = 3 - a - b
        table = values.mean(other)
        rest = table - table.mean(0) - table.mean(1)[:, None] + grand
        names = list(AXES.values())
        for i, j in np.ndindex(len(names[a]), len(names[b])):
            effect = found[names[a][i], names[b][j]]
            check(effect.finished, rest[i, j])
            assert effect.cells == 12 // len(names[a]) // len(names[b])


def test_the_variance_that_effects_explain_is_scipys() -> None:
    """Of one axis, as a one-way analysis of variance has it."""
    values = np.random.default_rng(3).normal(size=(4, 6)) + np.arange(4)[:, None]
    axes = {"width": ["8", "16", "32", "64"]}
    found = main_effects(grid_rows(values, axes), "fid", better="lower")
    effects = np.array([effect.finished.mean for effect in found if effect.finished])
    within = values.var(1, ddof=1).mean()
    theirs = scipy.stats.f_oneway(*values)
    assert 6 * (effects**2).sum() / 3 / within == pytest.approx(theirs.statistic)


def test_places_are_ranks_within_each_seed() -> None:
    values = grid()
    values[1, 2, 0, 3] = values[0, 0, 0, 3] = math.inf
    flat = values.reshape(12, 5)
    places = np.array([scipy.stats.rankdata(column) for column in flat.T]).T.reshape(values.shape)
    found = main(grid_rows(values))
    for i, level in enumerate(AXES["loss"]):
        check(found[(level,)].places, places[:, i].mean((0, 1)) - 6.5)
    assert found[("spectral",)].failed == found[("batch",)].failed == 1


def solved(values: Grid, kept: Grid, axis: int) -> Grid:
    """Effects by least squares, coded so that those of an axis sum to 0; by level and seed."""
    columns = [np.ones(kept.shape)]
    places: list[int] = []
    for place, size in enumerate(kept.shape):
        for level in range(size - 1):
            index = np.arange(size)
            coded = (index == level) * 1.0 - (index == size - 1)
            shape = [size if p == place else 1 for p in range(kept.ndim)]
            columns.append(np.broadcast_to(coded.reshape(shape), kept.shape))
            places.append(place)
    mask = kept.astype(bool)
    design = np.array([column[mask] for column in columns]).T
    found = np.linalg.lstsq(design, values[mask], rcond=None)[0][1:]
    chosen = found[[p == axis for p in places]]
    return np.concatenate([chosen, -chosen.sum(0, keepdims=True)])


@given(gone=st.sets(st.integers(0, 11), max_size=5))
def test_in_a_grid_with_gaps_effects_are_those_of_least_squares(gone: set[int]) -> None:
    values = grid()
    kept = np.array([i not in gone for i in range(12)], float).reshape(2, 3, 2)
    rows = grid_rows(np.where(kept[..., None] > 0, values, math.nan))
    found = main(rows)
    for place, levels in enumerate(AXES.values()):
        expected = solved(values, kept, place)
        for level, per_seed in zip(levels, expected, strict=True):
            # Where not everything can be told, least squares has more than one answer.
            if (level,) in found and found[(level,)].finished and solvable(kept):
                check(found[(level,)].finished, per_seed)
    if solvable(kept):
        assert all(effect.finished for effect in found.values())


def solvable(kept: Grid) -> bool:
    """Whether the cells tell all axes apart."""
    cells = np.argwhere(kept > 0)
    design = [
        [1, *(level == i for level, size in zip(c, kept.shape, strict=True) for i in range(size))]
        for c in cells
    ]
    return np.linalg.matrix_rank(np.array(design, float)) == 1 + sum(n - 1 for n in kept.shape)


def test_excluded_cells_do_not_mix_axes_up() -> None:
    values = grid(noise=0.0)
    values[1, 0] = values[1, 1, 0] = math.nan
    found = main(grid_rows(values))
    for levels, effects in (("batch", -2.0), ("spectral", 2.0), ("hinge", 4 / 3), ("1", -0.5)):
        estimate = found[(levels,)].finished
        assert estimate is not None
        assert estimate.mean == pytest.approx(effects)
        assert estimate.std == pytest.approx(0.0, abs=1e-9)
    for effect in pairs(grid_rows(values)).values():
        assert effect.finished is None or effect.finished.mean == pytest.approx(0.0, abs=1e-9)
    # The twin: means over the cells that are there.
    assert np.nanmean(values[:, 0]) - np.nanmean(values) < 4 / 3 - 1


def test_axes_that_only_change_together_cannot_be_told_apart() -> None:
    values = grid()[:, :2, :1]
    values[0, 1] = values[1, 0] = math.nan
    found, both = main(grid_rows(values)), pairs(grid_rows(values))
    assert set(found) == {("batch",), ("spectral",), ("hinge",), ("softplus",)}
    assert all(effect.finished is effect.places is None for effect in found.values())
    assert all(effect.finished is effect.places is None for effect in both.values())
    assert both["batch", "softplus"].cells == 0


def test_an_interaction_that_is_there_is_found_and_others_are_not() -> None:
    values = grid(noise=0.1)
    values[1, :, 1] += 4.0
    both = pairs(grid_rows(values))
    there, elsewhere = both["spectral", "5"].finished, both["batch", "hinge"].finished
    assert there is not None
    assert elsewhere is not None
    assert there.mean == pytest.approx(1.0, abs=0.1)
    assert there.interval is not None
    assert 0.0 not in there.interval
    assert elsewhere.mean == pytest.approx(0.0, abs=0.1)


def test_cells_with_failures_are_told_by_places_and_left_out_of_scores_alone() -> None:
    values = grid(noise=0.0)
    values[:, 2] = math.inf
    values[1, 0, 0, 0] = math.inf
    found = main(grid_rows(values))
    assert (found[("square",)].failed, found[("square",)].cells) == (20, 4)
    assert found[("square",)].finished is None
    places = found[("square",)].places
    assert places is not None
    assert places.mean == pytest.approx(10.5 - 6.5, abs=0.2)
    hinge = found[("hinge",)]
    assert hinge.failed == 1
    assert hinge.finished is not None
    # Against the one other loss that is left, and by all seeds of the cells that are.
    assert hinge.finished.n == 5
    assert hinge.finished.mean == pytest.approx(0.5)


def test_effects_are_of_the_seeds_that_all_cells_have() -> None:
    values = grid(seeds=6)
    values[0, 1, 1, 2:4] = math.nan
    found = main(grid_rows(values))
    common = values[..., [0, 1, 4, 5]]
    check(found[("batch",)].finished, common[0].mean((0, 1)) - common.mean((0, 1, 2)))
    values[1, 1, 1, [0, 1, 4, 5]] = math.nan
    assert main(grid_rows(values))[("batch",)].finished is None


@settings(max_examples=6)
@given(
    scale=st.sampled_from([0.01, 3.0]), shift=st.floats(-50, 50), order=st.permutations(range(60))
)
def test_effects_go_with_the_unit_and_not_with_the_order(
    scale: float, shift: float, order: list[int]
) -> None:
    values = grid()
    ours = main(grid_rows(values)) | pairs(grid_rows(values))
    rows = grid_rows(scale * values + shift)
    rows = [rows[i] for i in order]
    theirs = {frozenset(k): v for k, v in (main(rows) | pairs(rows)).items()}
    for levels, one in ours.items():
        other = theirs[frozenset(levels)]
        assert one.finished is not None
        assert other.finished is not None
        assert one.places is not None
        assert other.places is not None
        assert other.finished.mean == pytest.approx(scale * one.finished.mean, abs=1e-9)
        assert other.places.mean == pytest.approx(one.places.mean, abs=1e-9)


def test_a_study_without_rows_or_axes_has_no_effects() -> None:
    assert main_effects([], "fid", better="lower") == []
    rows = rows_of({"a": [1.0, 2.0], "b": [2.0, 3.0]})
    assert main_effects(rows, "fid", better="lower") == []
    assert interactions(rows, "fid", better="lower") == []
