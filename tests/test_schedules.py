"""Schedules, one by one and put together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gankit.registry import registry
from gankit.schedules import (
    TTUR,
    LinearDecay,
    NCritic,
    Simultaneous,
    factors_of,
    rates_of,
    turns_of,
)
from gankit.slots import Rates, ScalesKeys, ScalesRates, TakesTurns

SCHEDULES = [entry.name for entry in registry.find("schedule") if entry.provider.name == "gankit"]
PROTOCOLS = {"turns": TakesTurns, "rates": ScalesRates, "factors": ScalesKeys}
DECAYS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).filter(lambda s: s[0] < s[1])


@st.composite
def moments(draw: st.DrawFn) -> tuple[int, int]:
    """A step and the total it counts towards."""
    total = draw(st.integers(1, 10**7))
    return draw(st.integers(0, total)), total


@st.composite
def decays(draw: st.DrawFn, on: str = "") -> LinearDecay:
    start, end = draw(DECAYS)
    return LinearDecay(start=start, end=end, final=draw(st.floats(0, 3)), on=on)


def check_pure(one: Any, step: int, total: int) -> None:
    """The same answer however often, and whatever was asked in between."""
    for method in PROTOCOLS:
        ask = getattr(one, method, None)
        if ask is not None:
            first = ask(step, total)
            ask(total, total)
            assert ask(step, total) == first, method


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=40, deadline=None)
@given(moment=moments())
def test_is_pure_and_says_what_a_step_can_use(name: str, moment: tuple[int, int]) -> None:
    one = registry.get("schedule", name).bind()
    check_pure(one, *moment)
    assert any(isinstance(one, protocol) for protocol in PROTOCOLS.values())
    assert set(turns_of([one], *moment)) <= {"D", "G", "DG"}
    assert all(rate >= 0 for rate in rates_of([one], *moment))
    assert all(factor >= 0 for factor in factors_of([one], *moment).values())


def test_a_schedule_that_counts_its_calls_is_caught() -> None:
    class Counts:
        calls = count()

        def rates(self, step: int, total: int) -> Rates:
            return Rates(float(next(self.calls)))

    with pytest.raises(AssertionError):
        check_pure(Counts(), 3, 10)


@settings(deadline=None)
@given(moment=moments(), ratio=st.floats(1e-3, 1e3))
def test_ttur(moment: tuple[int, int], ratio: float) -> None:
    assert TTUR(ratio=ratio).rates(*moment) == Rates(generator=1.0, discriminator=ratio)


@settings(deadline=None)
@given(moment=moments(), n=st.integers(1, 100))
def test_n_critic(moment: tuple[int, int], n: int) -> None:
    turns = NCritic(n=n).turns(*moment)
    assert (turns.count("D"), turns.count("G"), turns[-1]) == (n, 1, "G")
    assert len(turns) == n + 1


def test_simultaneous() -> None:
    assert Simultaneous().turns(0, 1) == ("DG",)


def check_decay(decay: Any, moment: tuple[int, int]) -> None:
    """The factor is numpy's interpolation between (start, 1) and (end, final)."""
    step, total = moment
    expected = np.interp(step / total, [decay.start, decay.end], [1.0, decay.final])
    factor = decay.rates(step, total).generator
    # Within a line as short as a rounding error, only the range is certain.
    near = pytest.approx(expected, abs=1e-9 / (decay.end - decay.start))
    assert factor == near or decay.end - decay.start < 1e-9
    assert min(1.0, decay.final) - 1e-12 <= factor <= max(1.0, decay.final) + 1e-12


@settings(deadline=None)
@given(decay=decays(), moment=moments())
def test_linear_decay_is_a_line(decay: LinearDecay, moment: tuple[int, int]) -> None:
    check_decay(decay, moment)
    rates = decay.rates(*moment)
    assert rates.generator == rates.discriminator


@settings(deadline=None)
@given(decay=decays(), total=st.integers(1, 10**7), data=st.data())
def test_linear_decay_is_monotone(decay: LinearDecay, total: int, data: st.DataObject) -> None:
    steps = sorted(data.draw(st.lists(st.integers(0, total), min_size=2)))
    factors = [decay.rates(step, total).generator for step in steps]
    sign = 1 if decay.final >= 1 else -1
    assert all(sign * (after - before) >= -1e-12 for before, after in pairwise(factors))


@settings(deadline=None)
@given(decay=decays(), total=st.integers(1, 10**7))
def test_linear_decay_ends_exactly(decay: LinearDecay, total: int) -> None:
    assert decay.rates(0, total).generator == 1.0
    assume(decay.end == 1.0 or decay.end < 1 - 1e-9)
    assert decay.rates(total, total).generator == decay.final


def test_linear_decay_by_hand() -> None:
    decay = LinearDecay(start=0.5, end=0.75, final=0.2)
    assert [decay.rates(step, 8).generator for step in (0, 4, 6, 8)] == [1.0, 1.0, 0.2, 0.2]
    assert decay.rates(5, 8).generator == pytest.approx(0.6)
    assert LinearDecay().rates(99, 100).generator == pytest.approx(0.01)


@settings(deadline=None)
@given(decay=decays(on="penalty.r1.weight"), moment=moments())
def test_linear_decay_on_a_path_leaves_the_rates_alone(
    decay: LinearDecay, moment: tuple[int, int]
) -> None:
    rates = LinearDecay(start=decay.start, end=decay.end, final=decay.final)
    assert decay.rates(*moment) == Rates()
    assert decay.factors(*moment) == {"penalty.r1.weight": rates.rates(*moment).generator}
    assert rates.factors(*moment) == {}


@dataclass(frozen=True)
class Twin:
    """A decay that goes wrong in one way."""

    fault: str
    start: float = 0.25
    end: float = 0.75
    final: float = 0.1

    def rates(self, step: int, total: int) -> Rates:
        start = 0.0 if self.fault == "ignores start" else self.start
        share = (step / total - start) / (self.end - start)
        if self.fault != "does not stop":
            share = min(max(share, 0.0), 1.0)
        if self.fault == "ends at 0":
            return Rates(1 - share)
        return Rates(1 + share * (self.final - 1))


@pytest.mark.parametrize("fault", ["ignores start", "does not stop", "ends at 0"])
def test_broken_decays_are_caught(fault: str) -> None:
    moments = [(step, 100) for step in range(0, 101, 10)]
    for moment in moments:
        check_decay(Twin("none"), moment)
    with pytest.raises(AssertionError):  # noqa: PT012
        for moment in moments:
            check_decay(Twin(fault), moment)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (TTUR, {"ratio": 0.0}, "ratio must be above 0"),
        (TTUR, {"ratio": float("nan")}, "ratio must be above 0"),
        (TTUR, {"ratio": float("inf")}, "ratio must be above 0"),
        (NCritic, {"n": 0}, "n must be at least 1"),
        (LinearDecay, {"start": 0.5, "end": 0.5}, "0 <= start < end <= 1"),
        (LinearDecay, {"start": -0.1}, "0 <= start < end <= 1"),
        (LinearDecay, {"end": 1.1}, "0 <= start < end <= 1"),
        (LinearDecay, {"start": float("nan")}, "0 <= start < end <= 1"),
        (LinearDecay, {"final": -1.0}, "final must be at least 0"),
        (LinearDecay, {"final": float("nan")}, "final must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


# --- together


@settings(deadline=None)
@given(moment=moments())
def test_nothing_is_the_identity(moment: tuple[int, int]) -> None:
    assert turns_of([], *moment) == ("D", "G")
    assert rates_of([], *moment) == Rates(1.0, 1.0)
    assert factors_of([], *moment) == {}


@settings(deadline=None)
@given(moment=moments(), ratios=st.lists(st.floats(0.1, 10), max_size=4), decay=decays())
def test_rates_multiply(moment: tuple[int, int], ratios: list[float], decay: LinearDecay) -> None:
    schedules: list[object] = [*(TTUR(ratio=ratio) for ratio in ratios), NCritic(), decay]
    factor = decay.rates(*moment).generator
    rates = rates_of(schedules, *moment)
    assert rates.generator == factor
    assert rates.discriminator == pytest.approx(factor * np.prod(ratios))
    assert turns_of(schedules, *moment) == ("D",) * 5 + ("G",)


@settings(deadline=None)
@given(moment=moments(), paths=st.lists(st.sampled_from("ab"), max_size=5), final=st.floats(0, 2))
def test_factors_multiply_by_path(moment: tuple[int, int], paths: list[str], final: float) -> None:
    factor = LinearDecay(final=final).rates(*moment).generator
    factors = factors_of([LinearDecay(final=final, on=path) for path in paths], *moment)
    assert set(factors) == set(paths)
    for path, product in factors.items():
        assert product == pytest.approx(factor ** paths.count(path))


def test_two_that_take_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="NCritic and Simultaneous both say who moves"):
        turns_of([NCritic(), TTUR(), Simultaneous()], 0, 1)


@pytest.mark.parametrize("turns", [(), ("d",), ("D", "GD"), ("D", "")])
def test_turns_of_nobody_are_refused(turns: tuple[str, ...]) -> None:
    class Odd:
        def turns(self, step: int, total: int) -> tuple[str, ...]:
            return turns

    with pytest.raises(ValueError, match="a turn is D, G or DG"):
        turns_of([Odd()], 7, 10)


def test_one_object_may_do_all_three() -> None:
    class All:
        def turns(self, step: int, total: int) -> list[str]:
            return ["G", "D"]

        def rates(self, step: int, total: int) -> Rates:
            return Rates(0.5, 0.25)

        def factors(self, step: int, total: int) -> dict[str, float]:
            return {"loss.hinge.margin": 2.0}

    assert turns_of([All()], 0, 1) == ("G", "D")
    assert rates_of([All(), TTUR()], 0, 1) == Rates(0.5, 1.0)
    assert factors_of([All()], 0, 1) == {"loss.hinge.margin": 2.0}
