"""What `gankit bench` says to change: each rule where it is due, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gankit.bench import RULES, Profile, Span, advice
from gankit.bench.advice import _round_number
from gankit.bench.clock import REST
from gankit.spec import loads
from tests.specs import IMAGES


def made_up(*overrides: str, text: str = IMAGES, **changes: Any) -> Profile:
    """A profile in which nothing stands out, but for what is changed."""
    parts = {"generator": 0.2, "discriminator": 0.28, REST: 0.02} | changes.pop("parts", {})
    whole = sum(parts.values())
    given: dict[str, Any] = {
        "device": "cpu",
        "gpu": False,
        "threads": 2,
        "cores": 2,
        "half": True,
        "instead": "",
        "round": 1,
        "rounds": 5,
        "memory": 1,
        "capacity": 100,
        "parts": {name: Span(part, part, part) for name, part in parts.items()},
        "step": Span(whole, whole, whole),
    }
    return Profile(spec=loads(text, overrides), **(given | changes))


def taking(part: str, share: float) -> dict[str, Any]:
    """A part that takes a share of the step, beside the 0.5 of the others."""
    return {"parts": {part: 0.5 * share / (1 - share)}}


GPU = {"gpu": True, "device": "a GPU"}
PHOTOS = ("data={ use = 'folder', root = 'my photos', size = [16, 8] }",)
PACKED = ("data={ use = 'packed', root = 'packed', size = 16 }",)
LAZY = ("penalty.r1.every=4",)
SAYS: dict[str, tuple[str, Profile, str]] = {
    "data from a folder": (
        "data",
        made_up(*PHOTOS, **taking("data", 0.11)),
        "11% of the step waits for data: decode it once, with gankit data pack folder"
        " --root 'my photos' --out DIR --crop 0 --size 16x8",
    ),
    "data beside a GPU": (
        "data",
        made_up(*PACKED, **GPU, **taking("data", 0.5)),
        "50% of the step waits for data: data.on_gpu=true keeps it in the GPU's memory, if it fits",
    ),
    "penalty": (
        "penalty",
        made_up(*LAZY, **taking("penalty r1", 0.3)),
        "30% of the step goes into r1: with penalty.r1.every=16 it takes 25% of that, at the same"
        " strength on average; it is another experiment",
    ),
    "batch": (
        "batch",
        made_up(**taking("optimizer", 0.49)),
        "51% of the step is the same for any batch: with train.batch=16 at least 1.3 times as many"
        " images a second; it is another experiment",
    ),
    "log": (
        "log",
        made_up("train.log=3", **taking("log", 0.2)),
        "20% of the step goes into logs: train.log=60 makes it 1 %",
    ),
    "samples": (
        "samples",
        made_up("train.samples=70", **taking("samples", 0.1)),
        "10% of the step goes into grids of samples: train.samples=700 makes it 1 %",
    ),
    "checkpoint": (
        "checkpoint",
        made_up("train.checkpoint=31", **taking("checkpoint", 0.08)),
        "8% of the step goes into checkpoints: train.checkpoint=300 makes it 1 %",
    ),
    "bf16": (
        "bf16",
        made_up(**GPU),
        "96% of the step is the networks, in fp32: train.precision=bf16 uses the GPU's faster"
        " products; it rounds more, so it is another experiment",
    ),
    "fp32": (
        "fp32",
        made_up("train.precision=bf16", half=False),
        "this CPU computes bf16 without instructions of its own: compare train.precision=fp32,"
        " which is another experiment",
    ),
    "threads": (
        "threads",
        made_up(threads=1, cores=4),
        "1 of 4 cores compute the networks: compare --threads 4",
    ),
    "memory": (
        "memory",
        made_up("train.accumulate=2", memory=90),
        "90% of the memory is taken: train.accumulate=4 works the same batch off in smaller shares",
    ),
    "spread": (
        "spread",
        made_up(step=Span(1.0, 0.8, 1.1)),
        "the quartiles of the step are 30% apart: something else uses the machine, and the parts"
        " need not add up; measure again when it is idle",
    ),
    "shares": (
        "shares",
        made_up("train.accumulate=2", memory=40),
        "40% of the memory is taken: the batch fits in one share, which is quicker:"
        " train.accumulate=1",
    ),
}
SILENT: dict[str, Profile] = {
    "nothing stands out": made_up(),
    "data below its line": made_up(*PHOTOS, **taking("data", 0.09)),
    "data that is drawn": made_up(**taking("data", 0.5)),
    "noise": made_up(*PHOTOS, instead="it is not there", **taking("data", 0.5)),
    "packed, on a CPU": made_up(*PACKED, **taking("data", 0.5)),
    "packed, on the GPU": made_up(
        *PACKED, "data.on_gpu=true", "train.precision=bf16", **GPU, **taking("data", 0.5)
    ),
    "a penalty below its line": made_up(*LAZY, **taking("penalty r1", 0.24)),
    "a penalty that is lazy already": made_up("penalty.r1.every=16", **taking("penalty r1", 0.5)),
    "two penalties, neither of them large": made_up(
        *("penalty.r1={}", "penalty.r2={}"), parts={"penalty r1": 0.15, "penalty r2": 0.15}
    ),
    "fixed costs below their line": made_up(**taking("optimizer", 0.26)),
    "logs below their line": made_up(**taking("log", 0.04)),
    "bf16 on a GPU": made_up("train.precision=bf16", **GPU),
    "an old GPU": made_up(half=False, **GPU),
    "a GPU that waits for its data": made_up(**GPU, **taking("data", 0.6)),
    "a CPU with bf16": made_up("train.precision=bf16"),
    "threads of a GPU's host": made_up("train.precision=bf16", threads=1, cores=4, **GPU),
    "threads that wait": made_up(threads=1, cores=4, **taking("data", 0.6)),
    "memory below its line": made_up(memory=79),
    "memory, one image at a time": made_up("train.batch=2", "train.accumulate=2", memory=90),
    "a batch that fits in no fewer shares": made_up("train.accumulate=2", memory=41),
    "a spread below its line": made_up(step=Span(0.5, 0.46, 0.55)),
}


@pytest.mark.parametrize(("rule", "profile", "says"), SAYS.values(), ids=SAYS)
def test_a_rule_says_what_to_change_and_the_others_nothing(
    rule: str, profile: Profile, says: str
) -> None:
    assert advice(profile) == {rule: says}


@pytest.mark.parametrize("profile", SILENT.values(), ids=SILENT)
def test_what_was_not_triggered_is_not_said(profile: Profile) -> None:
    assert advice(profile) == {}


def test_every_rule_has_a_profile_that_triggers_it() -> None:
    assert {rule for rule, *_ in SAYS.values()} == {rule.name for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_twin_a_rule_that_always_speaks_is_noticed(
    rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(rule, above=-1.0, says=lambda profile: "do something")
    monkeypatch.setitem(advice.__globals__, "RULES", (broken,))
    with pytest.raises(AssertionError):
        test_what_was_not_triggered_is_not_said(made_up())


SHARES = st.dictionaries(
    st.sampled_from(["data", "penalty r1", "weight norms", "optimizer", "log", "samples"]),
    st.floats(0.0, 1.0),
)


@given(SHARES, st.integers(1, 4), st.integers(1, 100), st.booleans())
def test_what_is_said_was_measured(
    parts: dict[str, float], threads: int, memory: int, gpu: bool
) -> None:
    profile = made_up(*LAZY, parts=parts, threads=threads, cores=4, memory=memory, gpu=gpu)
    said = advice(profile)
    lines = {rule.name: rule.share(profile) >= rule.above for rule in RULES}
    assert all(lines[name] for name in said)
    for key in ("log", "samples"):
        assert (key in said) == (profile.share(key) >= 0.05)
    assert ("penalty" in said) == (profile.share("penalty r1") >= 0.25)
    assert ("memory" in said) == (memory >= 80)


def test_the_costliest_penalty_is_named() -> None:
    both = made_up(
        *("penalty.r1={}", "penalty.wgan_gp={}"),
        parts={"penalty r1": 0.3, "penalty wgan_gp": 0.5},
    )
    assert "penalty.wgan_gp.every" in advice(both)["penalty"]


@given(st.floats(0.1, 1e6))
def test_numbers_to_write_down_are_round_and_large_enough(number: float) -> None:
    rounded = _round_number(number)
    assert number <= rounded <= max(1, 2 * number)
    assert len(str(rounded).rstrip("0")) <= 1 or rounded == 10 ** (len(str(rounded)) - 1)
