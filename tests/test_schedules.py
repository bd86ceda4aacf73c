"""Schedules, one by one and put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gankit.errors import OptionError
from gankit.registry import registry
from gankit.schedules import (
    TTUR,
    Cosine,
    Exponential,
    Factor,
    LinearDecay,
    NCritic,
    Piecewise,
    Simultaneous,
    Turns,
    WarmUp,
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


@settings(deadline=None)
@given(moment=moments(), order=st.lists(st.sampled_from(["D", "G", "DG"]), min_size=1, max_size=9))
def test_turns(moment: tuple[int, int], order: list[str]) -> None:
    assert Turns(order=tuple(order)).turns(*moment) == tuple(order)
    assert turns_of([TTUR(), Turns(order=tuple(order))], *moment) == tuple(order)


@pytest.mark.parametrize(("turn", "index"), [("d", 1), ("GD", 0), ("", 2), ("D G", 1)])
def test_turns_tell_which_is_none(turn: str, index: int) -> None:
    order = ["D", "G", "G"]
    order[index] = turn
    with pytest.raises(OptionError, match=f"D, G, DG, not '{turn}'") as caught:
        Turns(order=tuple(order))
    assert (caught.value.option, caught.value.index) == ("order", index)


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


# --- the other factors, each against a formula written in another way

SMALL = 10_000


@st.composite
def stretches(draw: st.DrawFn) -> dict[str, float]:
    start, end = draw(DECAYS)
    assume(end - start > 1e-3)
    return {"start": start, "end": end, "final": draw(st.floats(0, 3))}


@st.composite
def jumps(draw: st.DrawFn) -> dict[str, Any]:
    at = sorted(draw(st.sets(st.integers(0, SMALL), max_size=5)))
    values = draw(st.lists(st.floats(0, 3), min_size=len(at), max_size=len(at)))
    return {"at": tuple(at), "values": tuple(values)}


OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "warm_up": st.fixed_dictionaries({"steps": st.integers(1, SMALL), "start": st.floats(0, 1)}),
    "linear_decay": stretches(),
    "cosine": stretches(),
    "exponential": st.fixed_dictionaries(
        {"rate": st.floats(0.01, 1), "every": st.integers(1, SMALL), "final": st.floats(0, 1)}
    ),
    "piecewise": jumps(),
}
"""Of every schedule that is one factor, the options it can have."""


def warm_up(one: Any, step: int, total: int) -> float:
    return float(np.interp(step, [0, one.steps], [one.start, 1.0]))


def cosine(one: Any, step: int, total: int) -> float:
    """The paper's equation, with the real part of a complex exponential for the cosine."""
    angle = np.interp(step / total, [one.start, one.end], [0.0, np.pi])
    return one.final + (1 - one.final) * (1 + np.exp(1j * angle).real) / 2


def exponential(one: Any, step: int, total: int) -> float:
    return max(one.final, math.exp(step * math.log(one.rate) / one.every))


def piecewise(one: Any, step: int, total: int) -> float:
    factor = 1.0
    for at, value in zip(one.at, one.values, strict=True):
        if step >= at:
            factor = value
    return factor


FORMULAS: dict[str, Callable[[Any, int, int], float]] = {
    "warm_up": warm_up,
    "cosine": cosine,
    "exponential": exponential,
    "piecewise": piecewise,
}


def check_formula(name: str, one: Any, step: int, total: int) -> None:
    assert one.factor(step, total) == pytest.approx(
        FORMULAS[name](one, step, total), rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("name", FORMULAS)
@settings(deadline=None)
@given(data=st.data(), step=st.integers(0, 2 * SMALL))
def test_factor_is_its_formula(name: str, data: st.DataObject, step: int) -> None:
    one = registry.get("schedule", name).bind(**data.draw(OPTIONS[name]))
    check_formula(name, one, step, 2 * SMALL)


def test_every_factor_is_among_the_tested() -> None:
    factors = {
        name for name in SCHEDULES if isinstance(registry.get("schedule", name).bind(), Factor)
    }
    assert factors == OPTIONS.keys() == FORMULAS.keys() | {"linear_decay"}


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), moment=moments())
def test_factor_is_on_the_rates_or_on_a_path(
    name: str, data: st.DataObject, moment: tuple[int, int]
) -> None:
    make, options = registry.get("schedule", name).bind, data.draw(OPTIONS[name])
    plain, on_a_path = make(**options), make(**options, on="train.top_k")
    factor = plain.factor(*moment)
    assert 0 <= factor < math.inf
    assert (plain.rates(*moment), plain.factors(*moment)) == (Rates(factor, factor), {})
    assert on_a_path.rates(*moment) == Rates()
    assert on_a_path.factors(*moment) == {"train.top_k": factor}
    check_pure(plain, *moment)
    check_pure(on_a_path, *moment)


@pytest.mark.parametrize("name", OPTIONS)
def test_only_what_is_a_fraction_of_the_run_needs_the_total(name: str) -> None:
    one, needs = registry.get("schedule", name).bind(), registry.get("schedule", name).needs
    same = all(one.factor(step, 100) == one.factor(step, 10**7) for step in (0, 10, 50, 99))
    assert ("total" in needs) == (not same)


def test_warm_up_by_hand() -> None:
    assert [WarmUp(steps=4).factor(step, 1) for step in (0, 1, 2, 4, 5)] == [0, 0.25, 0.5, 1, 1]
    assert [WarmUp(steps=2, start=0.5).factor(step, 1) for step in (0, 1, 2)] == [0.5, 0.75, 1]
    assert WarmUp(steps=1).factor(1, 1) == 1.0


def test_cosine_by_hand() -> None:
    one = Cosine(start=0.5, end=1.0, final=0.5)
    assert [one.factor(step, 8) for step in (0, 4, 8)] == [1.0, 1.0, 0.5]
    assert one.factor(6, 8) == pytest.approx(0.75)
    assert Cosine().factor(25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert [Cosine(end=0.3).factor(step, 10) for step in (3, 10)] == [0.0, 0.0]


def test_exponential_by_hand() -> None:
    one = Exponential(rate=0.5, every=10, final=0.2)
    assert [one.factor(step, 1) for step in (0, 10, 20, 30, 10**7)] == [1.0, 0.5, 0.25, 0.2, 0.2]
    assert Exponential(rate=0.01, every=1).factor(10**7, 1) == 0.0
    assert Exponential(rate=1.0).factor(10**7, 1) == 1.0


def test_piecewise_by_hand() -> None:
    one = Piecewise(at=(0, 10, 20), values=(0.5, 0.0, 2.0))
    assert [one.factor(step, 1) for step in (0, 9, 10, 19, 20, 99)] == [0.5, 0.5, 0, 0, 2, 2]
    assert Piecewise(at=(3,), values=(0.1,)).factor(2, 1) == 1.0
    assert Piecewise().factor(10**7, 1) == 1.0


BROKEN: list[tuple[str, dict[str, Any], Callable[[Any, int, int], float]]] = [
    ("warm_up", {"steps": 8}, lambda one, step, total: min((step + 1) / one.steps, 1.0)),
    ("warm_up", {"steps": 8}, lambda one, step, total: step / one.steps),
    ("warm_up", {"steps": 8}, lambda one, step, total: min(step / total, 1.0)),
    ("warm_up", {"steps": 8, "start": 0.5}, lambda one, step, total: min(step / one.steps, 1.0)),
    ("cosine", {}, lambda one, step, total: 1 - step / total),
    ("cosine", {}, lambda one, step, total: (1 + math.cos(2 * math.pi * step / total)) / 2),
    ("cosine", {"final": 0.5}, lambda one, step, total: (1 + math.cos(math.pi * step / total)) / 2),
    ("exponential", {"every": 4}, lambda one, step, total: one.rate ** (step // one.every)),
    ("exponential", {"every": 1, "final": 0.5}, lambda one, step, total: one.rate**step),
    ("piecewise", {"at": (3,), "values": (0.1,)}, lambda one, step, total: 0.1 ** (step > 3)),
    ("piecewise", {"at": (3,), "values": (0.1,)}, lambda one, step, total: 0.1),
    (
        "piecewise",
        {"at": (3, 6), "values": (0.5, 0.25)},
        lambda one, step, total: math.prod(
            value for at, value in zip(one.at, one.values, strict=True) if step >= at
        ),
    ),
]


@pytest.mark.parametrize(("name", "options", "broken"), BROKEN)
def test_broken_factors_are_caught(
    name: str, options: dict[str, Any], broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = registry.get("schedule", name).bind(**options)
    for step in range(101):
        check_formula(name, one, step, 100)
    monkeypatch.setattr(type(one), "factor", broken)
    with pytest.raises(AssertionError):  # noqa: PT012
        for step in range(101):
            check_formula(name, one, step, 100)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Turns, {"order": ()}, "at least one turn"),
        (WarmUp, {"steps": 0}, "steps must be at least 1"),
        (WarmUp, {"start": -0.1}, r"start must be in \[0, 1\]"),
        (WarmUp, {"start": 1.1}, r"start must be in \[0, 1\]"),
        (WarmUp, {"start": float("nan")}, r"start must be in \[0, 1\]"),
        (Cosine, {"start": 0.5, "end": 0.5}, "cosine: start and end are fractions"),
        (Cosine, {"end": 1.1}, "0 <= start < end <= 1"),
        (Cosine, {"final": -1.0}, "cosine: final must be at least 0"),
        (Exponential, {"rate": 0.0}, "rate must be above 0 and at most 1"),
        (Exponential, {"rate": 1.1}, "rate must be above 0 and at most 1"),
        (Exponential, {"rate": float("nan")}, "rate must be above 0 and at most 1"),
        (Exponential, {"every": 0}, "every must be at least 1"),
        (Exponential, {"final": 1.1}, r"final must be in \[0, 1\]"),
        (Exponential, {"final": -0.1}, r"final must be in \[0, 1\]"),
        (Piecewise, {"at": (1,)}, "at has 1 steps, values has 0"),
        (Piecewise, {"at": (1, 1), "values": (1.0, 1.0)}, r"rising steps.*not \[1, 1\]"),
        (Piecewise, {"at": (2, 1), "values": (1.0, 1.0)}, "rising steps"),
        (Piecewise, {"at": (-1,), "values": (1.0,)}, "each at least 0"),
        (Piecewise, {"at": (1,), "values": (-1.0,)}, "values must be at least 0, not -1.0"),
        (Piecewise, {"at": (1,), "values": (float("nan"),)}, "values must be at least 0"),
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


COMPOSED = {
    "warm_up": WarmUp(steps=200, start=0.1),
    "linear_decay": LinearDecay(start=0.5, final=0.1),
    "cosine": Cosine(start=0.2, final=0.5),
    "exponential": Exponential(rate=0.9, every=100),
    "piecewise": Piecewise(at=(300, 700), values=(0.5, 0.1)),
    "ttur": TTUR(ratio=4.0),
    "n_critic": NCritic(n=3),
}


def check_composed(rates: Rates, chosen: list[str], step: int, total: int) -> None:
    """Each of G's factors, times 4 for D where there is TTUR."""
    factors = [COMPOSED[name].factor(step, total) for name in chosen if name in OPTIONS]
    expected = math.prod(factors)
    ratio = 4.0 if "ttur" in chosen else 1.0
    assert rates.generator == pytest.approx(expected)
    assert rates.discriminator == pytest.approx(expected * ratio)


@settings(deadline=None)
@given(chosen=st.permutations(list(COMPOSED)), k=st.integers(0, 7), step=st.integers(0, 1000))
def test_ttur_n_critic_and_decays_compose_in_any_order(
    chosen: list[str], k: int, step: int
) -> None:
    chosen = chosen[:k]
    schedules = [COMPOSED[name] for name in chosen]
    check_composed(rates_of(schedules, step, 1000), chosen, step, 1000)
    expected = ("D", "D", "D", "G") if "n_critic" in chosen else ("D", "G")
    assert turns_of(schedules, step, 1000) == expected
    assert factors_of(schedules, step, 1000) == {}


def test_a_composition_that_keeps_the_last_alone_is_caught() -> None:
    chosen = ["warm_up", "ttur", "cosine"]
    last = COMPOSED["cosine"].rates(900, 1000)
    with pytest.raises(AssertionError):
        check_composed(last, chosen, 900, 1000)


def test_several_factors_on_several_paths() -> None:
    schedules = [
        WarmUp(steps=10, on="penalty.r1.weight"),
        Exponential(rate=0.5, every=10, on="train.top_k"),
        Piecewise(at=(5,), values=(0.5,), on="penalty.r1.weight"),
        Cosine(),
    ]
    factors = factors_of(schedules, 5, 10)
    assert factors == pytest.approx({"penalty.r1.weight": 0.25, "train.top_k": math.sqrt(0.5)})
    assert rates_of(schedules, 5, 10) == pytest.approx(Rates(0.5, 0.5))


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
