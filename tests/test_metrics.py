"""What holds for every metric: documented, repeatable, and the same in whatever batches."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit.registry import Entry, registry
from gankit.registry.options import documented
from gankit.slots import Seen
from tests.scores import gathered, normal, scored

SMALL = {"kernel": {"subsets": 5, "size": 40}, "swd": {"projections": 20}}
"""Options with which a hundred images are enough."""

ENTRIES = [entry for entry in registry.find("metric") if entry.provider.name == "gankit"]

UNORDERED = {"frechet", "intra_frechet", "memorisation", "modes", "prdc", "swd"}
"""Those whose definition knows no order of images, and no draws of some of them."""


def metric_of(entry: Entry) -> Any:
    return entry.bind(**SMALL.get(entry.name, {}))


def images(seed: int, count: int = 110) -> Seen:
    """Features, logits, good ones and labels of images."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    good = torch.rand(count, generator=random) < 0.9
    return Seen(normal(seed, count, 4).float(), normal(seed + 1, count, 5), good, labels)


def sets_of(entry: Entry) -> list[Seen]:
    return [images(seed) for seed in (0, 10, 20)[: 2 + ("held_out" in entry.needs)]]


def each(*names: str) -> Any:
    chosen = [entry for entry in ENTRIES if not names or entry.name in names]
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry.name)


def test_these_are_there() -> None:
    wanted = {"frechet_infinity", "inception", "kernel"} | UNORDERED
    assert {entry.name for entry in ENTRIES} >= wanted


@each()
def test_is_documented(entry: Entry) -> None:
    assert entry.summary.endswith(".")
    assert len(entry.summary) <= 100
    assert set(documented(inspect.getdoc(entry.target) or "")) == set(entry.options)
    for option in entry.options.values():
        assert option.meaning, option.name
        assert repr(option.default) != "required", option.name


@each()
def test_says_which_way_is_better_of_scores_that_it_has(entry: Entry) -> None:
    metric = metric_of(entry)
    assert set(metric.better) <= set(scored(metric, *sets_of(entry)))
    assert set(metric.better.values()) <= {"lower", "higher"}


@each()
@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 109), max_size=9))
def test_batches_make_no_difference(entry: Entry, cuts: list[int]) -> None:
    metric, sets = metric_of(entry), sets_of(entry)
    assert scored(metric, *sets, cuts=cuts) == pytest.approx(scored(metric, *sets), rel=1e-9)


@each(*UNORDERED)
def test_order_makes_no_difference(entry: Entry) -> None:
    metric, sets = metric_of(entry), sets_of(entry)
    order = torch.randperm(110, generator=torch.Generator().manual_seed(3))
    turned = [Seen(*(None if f is None else f[order] for f in seen)) for seen in sets]
    assert scored(metric, *turned) == pytest.approx(scored(metric, *sets), rel=1e-9)


@each()
def test_scores_leave_what_was_gathered_and_the_global_generator_alone(entry: Entry) -> None:
    metric = metric_of(entry)
    collections = [gathered(metric, seen, [50]) for seen in sets_of(entry)]
    before = torch.random.get_rng_state()
    first, second = metric.scores(*collections), metric.scores(*collections)
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)


@each()
def test_what_was_gathered_comes_back_from_the_disk(entry: Entry) -> None:
    metric, fresh = metric_of(entry), []
    collections = [gathered(metric, seen, [50]) for seen in sets_of(entry)]
    for collection in collections:
        state = collection.state()
        assert all(tensor.is_contiguous() for tensor in state.values())
        taken = metric.gather()
        taken.load_state(state)
        assert taken.count == collection.count == 110
        fresh.append(taken)
    assert metric.scores(*fresh) == pytest.approx(metric.scores(*collections), rel=1e-9)


@each()
def test_features_alone_are_enough_or_a_value_error_says_what_is_missing(entry: Entry) -> None:
    sets = [Seen(seen.features) for seen in sets_of(entry)]
    if entry.name in ("inception", "intra_frechet", "modes"):
        with pytest.raises(ValueError, match=f"{entry.name}: needs (logits|labels)"):
            scored(metric_of(entry), *sets)
    else:
        scored(metric_of(entry), *sets)


@each()
def test_no_images_are_refused_in_the_metrics_name(entry: Entry) -> None:
    metric = metric_of(entry)
    with pytest.raises(ValueError, match=f"^{entry.name}: "):
        metric.scores(*(metric.gather() for _ in sets_of(entry)))


def test_twin_a_metric_that_is_told_batch_by_batch_is_caught() -> None:
    """The mean of what each batch would score."""

    class Batches:
        def __init__(self) -> None:
            self.means: list[torch.Tensor] = []

        def add(self, seen: Seen) -> None:
            self.means.append(seen.features.mean(0))

    class ByBatch:
        better = {"off": "lower"}  # noqa: RUF012

        def gather(self) -> Batches:
            return Batches()

        def scores(self, real: Batches, fake: Batches) -> dict[str, float]:
            return {"off": float(sum(real.means)[0] / len(real.means))}  # type: ignore[index]

    one, other = images(0), images(1)
    whole = scored(ByBatch(), one, other)
    assert scored(ByBatch(), one, other, cuts=[5]) != pytest.approx(whole, rel=1e-9)
