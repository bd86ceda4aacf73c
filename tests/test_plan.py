"""What a spec amounts to: shapes and counts by hand, turns, memory, and presets as their stages."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit import recipes
from gankit.build import build
from gankit.errors import SpecError
from gankit.registry import Entry, Kind, Provider, registry
from gankit.schedules import turns_of
from gankit.spec import dumps, load, loads
from gankit.train import memory
from gankit.train import plan as planning
from gankit.train.memory import LiveBytes, peak_bytes
from gankit.train.plan import Plan, expand, plan

STACK = """\
gankit = 1
name = "by hand"
loss = "hinge"
data = { use = "shapes", size = [8, 12], channels = 3 }
train = { steps = 10, batch = 4 }
[generator]
use = "stack"
latent = 5
stages = [
  { use = "dense", channels = 7, size = [4, 6] },
  { use = "transposed", channels = 8 },
  "normalise",
  { use = "attend", attention = { use = "self_attention", reduction = 4 } },
  { use = "conv", channels = 3, kernel = 3, bias = false },
]
norm = "batchnorm"
[discriminator]
use = "stack"
norm = "spectral"
stages = [
  { use = "conv", channels = 6, kernel = 4, stride = 2 },
  { use = "residual_down", channels = 10 },
  "sum_positions",
  { use = "dense", channels = 1 },
]
""".replace('name = "by hand"', 'name = "by-hand"')

SMALL = """\
gankit = 1
name = "small"
data = { use = "shapes", size = 16 }
generator = { use = "dcgan", width = 4, latent = 8 }
discriminator = { use = "dcgan", width = 4 }
loss = "hinge"
train = { steps = 10, batch = 4 }
"""


@cache
def planned(text: str, *overrides: str) -> Plan:
    return plan(loads(text, overrides))


# --- shapes, parameters and MACs by hand


def test_the_stages_of_a_generator_by_hand() -> None:
    places = 8 * 12
    dense = (5 * 7 * 24, 5 * 7 * 24 + 7 * 24)
    # Every input position is multiplied with the whole kernel, for every pair of channels.
    transposed = (4 * 6 * 7 * 8 * 16, 7 * 8 * 16 + 8)
    projections = 8 * (2 + 2 + 8)
    scores = places * places * 2 + places * places * 8
    attend = (places * projections + scores, projections + 2 + 2 + 8 + 1)
    conv = (places * 8 * 3 * 9, 8 * 3 * 9)
    generator = planned(STACK).generator
    assert [(s.name, s.output, s.macs, s.parameters) for s in generator.stages] == [
        ("dense_4", (7, 4, 6), *dense),
        ("transposed_8", (8, 8, 12), *transposed),
        ("normalise_8", (8, 8, 12), 0, 16),
        ("attend_8", (8, 8, 12), *attend),
        ("conv_8", (3, 8, 12), *conv),
    ]
    assert generator.output == (3, 8, 12)
    assert generator.macs == sum(stage.macs for stage in generator.stages)
    assert generator.parameters == sum(stage.parameters for stage in generator.stages)


def test_the_stages_of_a_discriminator_by_hand() -> None:
    conv = (4 * 6 * 3 * 6 * 16, 3 * 6 * 16 + 6)
    first, second, shortcut = 24 * 6 * 10 * 9, 24 * 10 * 10 * 9, 24 * 6 * 10
    residual = (6 * 10 * 9 + 10) + (10 * 10 * 9 + 10) + (6 * 10 + 10)
    discriminator = planned(STACK).discriminator
    assert [(s.name, s.output, s.macs, s.parameters) for s in discriminator.stages] == [
        ("conv_4", (6, 4, 6), *conv),
        ("residual_down_2", (10, 2, 3), first + second + shortcut, residual),
        ("sum_positions_1", (10, 1, 1), 0, 0),
        ("dense_1", (1, 1, 1), 10, 11),
    ]
    assert discriminator.output == (1,)


def test_what_a_norm_computes_is_not_counted_as_the_layers() -> None:
    """MACs are of the layers as they are written: power iterations do not count."""
    plain, normed = (planned(SMALL, f"discriminator.norm={n}") for n in ("none", "spectral"))
    assert plain.discriminator.macs == normed.discriminator.macs
    assert plain.discriminator.parameters == normed.discriminator.parameters


def test_norms_and_attention_are_named_where_they_act() -> None:
    stages = planned(
        SMALL,
        "generator.norm=['spectral', 'batchnorm']",
        "generator.attention=self_attention",
        "generator.attention_at=[8]",
    ).generator.stages
    shown = {stage.name: (stage.norm, stage.attention) for stage in stages}
    assert shown["transposed_8"] == ("spectral", "")
    assert shown["normalise_8"] == ("batchnorm", "")
    assert shown["attend_8"] == ("spectral", "self_attention")
    assert shown["activate_16"] == ("", "")


@pytest.mark.parametrize("batch", [1, 3])
def test_counts_are_of_one_image(batch: int) -> None:
    assert planned(SMALL, f"train.batch={batch}").generator == planned(SMALL).generator


# --- turns and images


@pytest.mark.parametrize(
    ("overrides", "turns", "images"),
    [
        ([], {"D": 10, "G": 10}, 40),
        (["schedule.ttur={}"], {"D": 10, "G": 10}, 40),
        (["schedule.n_critic.n=3"], {"D": 30, "G": 10}, 120),
        (["schedule.n_critic.n=3", "schedule.ttur={}", "train.batch=1"], {"D": 30, "G": 10}, 30),
        (["schedule.simultaneous={}"], {"DG": 10}, 40),
        (
            ["schedule.n_critic.n=5", "train.steps=1_000_000_000_000"],
            {"D": 5 * 10**12, "G": 10**12},
            20 * 10**12,
        ),
    ],
)
def test_turns_and_images(overrides: list[str], turns: dict[str, int], images: int) -> None:
    made = planned(SMALL, *overrides)
    assert (made.turns, made.images) == (turns, images)


class WarmUp:
    """D alone for a tenth of the steps, then two turns of D and one of G; once an odd round."""

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        if step == 0:
            return ("DG", "G")
        return ("D",) if step < total // 10 else ("D", "D", "G")


def with_schedule(monkeypatch: pytest.MonkeyPatch, target: type, steps: int) -> dict[str, int]:
    """The turns of a spec whose schedule is a class."""
    kind: Kind = registry.get("schedule", "ttur").kind
    entry = Entry(kind, "mine", target, Provider("test"))
    monkeypatch.setitem(registry._entries, ("schedule", "mine"), entry)
    spec = loads(SMALL, ["schedule.mine={}", f"train.steps={steps}"])
    return planning.count_turns(spec)


@pytest.mark.parametrize("steps", [1, 9, 100])
def test_turns_of_a_schedule_that_changes(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    for step in range(steps):
        counts.update(turns_of([WarmUp()], step, steps))
    assert with_schedule(monkeypatch, WarmUp, steps) == counts


def test_turns_of_very_many_steps_are_near_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LOOKED_AT", 1000)
    found = with_schedule(monkeypatch, WarmUp, 1_000_000)
    assert found["D"] == pytest.approx(1_900_000, rel=0.005)
    assert found["G"] == pytest.approx(900_000, rel=0.005)


def test_a_turn_that_is_none_is_the_schedules_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def turns(self, step: int, total: int) -> tuple[str, ...]:
            return ("D", "E") if step == 7 else ("D", "G")

    with pytest.raises(SpecError, match=r"at step 7; a turn is D, G or DG") as caught:
        with_schedule(monkeypatch, Wrong, 10)
    place = caught.value.problems[0].place
    assert place is not None
    assert place.source == "schedule.mine={}"


# --- memory


def test_memory_grows_with_the_batch_and_the_network() -> None:
    small = planned(SMALL).memory
    assert small is not None
    for override in ("train.batch=8", "generator.width=8", "discriminator.width=8"):
        more = planned(SMALL, override).memory
        assert more is not None
        assert more > small, override
    sizes = [planned(SMALL, f"train.batch={batch}").memory or 0 for batch in (8, 16, 32)]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.1)
    # For every image, D's feature maps of the real and of the fake one wait for the way back.
    kept = sum(math.prod(stage.output) for stage in planned(SMALL).discriminator.stages)
    assert (sizes[1] - sizes[0]) / 8 > 2 * 4 * kept


MEASURED = [
    (),
    ("generator.norm=batchnorm", "discriminator.norm=spectral", "optimizer=sgd"),
    ("penalty.r1={}", "train.ema=0.9"),
    ("schedule.simultaneous={}", "train.batches=joint"),
    ("generator=mlp", "discriminator=mlp", "data=ring"),
]


@pytest.mark.parametrize("overrides", MEASURED, ids=" ".join)
def test_memory_is_that_of_a_step_with_values(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dry run, and the same run on tensors that are there."""
    made = planned(SMALL, *overrides)
    monkeypatch.setattr(memory, "FakeTensorMode", lambda **options: nullcontext())
    real = peak_bytes(lambda: build(made.spec, "meta"), made.spec.train, tuple(made.turns))
    assert made.memory == pytest.approx(real, rel=0.02)


def test_a_count_that_forgets_to_let_go_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = planned(SMALL).memory
    assert sound is not None
    monkeypatch.setattr(LiveBytes, "_release", lambda self, key: self._sizes.pop(key))
    broken = plan(loads(SMALL)).memory
    assert broken is not None
    assert broken > sound


def test_live_bytes_by_hand() -> None:
    with LiveBytes() as live:
        a = torch.zeros(1000)
        assert (live.now, live.peak) == (4000, 4000)
        b = a[:10]  # a view has no bytes of its own
        c = a + 1
        assert (live.now, live.peak) == (8000, 8000)
        del a
        assert live.now == 8000  # the view holds it
        del b
        assert live.now == 4000
        c.add_(1)
        d = torch.zeros(250)
        assert (live.now, live.peak) == (5000, 8000)
        del c, d
    assert live.now == 0


def test_a_part_that_looks_at_values_leaves_memory_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looks(self: Any, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return fake.mean() * (1.0 if fake.sum().item() > 0 else 2.0)

    monkeypatch.setattr(registry.get("loss", "hinge").target, "discriminator", looks)
    assert plan(loads(SMALL)).memory is None


def test_a_step_that_refuses_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Any, real: torch.Tensor | None, fake: torch.Tensor) -> torch.Tensor:
        raise ValueError("no loss today")

    monkeypatch.setattr(registry.get("loss", "hinge").target, "generator", refuses)
    with pytest.raises(SpecError, match="a training step fails: ValueError: no loss today"):
        plan(loads(SMALL))


@pytest.mark.parametrize(
    ("path", "schedule", "step", "said"),
    [
        ("latent.std", "warm_up={ ON }", "0", "normal: std must be above 0, not 0.0"),
        ("loss.margin", "warm_up={ ON }", "0", "hinge: margin must be above 0, not 0.0"),
        (
            "augment.flip.p",
            "piecewise={ at = [7], values = [3.0], ON }",
            "7",
            "p must be in [0, 1]",
        ),
        ("latent.std", "piecewise={ at = [9], values = [0.0], ON }", "9", "not 0.0"),
    ],
)
def test_a_schedule_that_takes_a_number_too_far_is_refused_at_its_place(
    path: str, schedule: str, step: str, said: str
) -> None:
    override = "schedule." + schedule.replace("ON", f"on = '{path}'")
    spec = loads(SMALL, ["augment.flip={}", override])
    with pytest.raises(SpecError) as caught:
        plan(spec)
    (problem,) = caught.value.problems
    name = schedule.partition("=")[0]
    assert problem.message.startswith(f'schedule "{name}" takes {path} too far at step {step}: ')
    assert said in problem.message
    assert problem.place is not None
    start = problem.place.column - 1
    assert override[start : start + problem.place.width] == f"'{path}'"


@pytest.mark.parametrize(
    "override",
    [
        "schedule.warm_up={ on = 'train.ema' }",
        "schedule.warm_up={ on = 'penalty.r1.weight' }",
        "schedule.piecewise={ at = [2], values = [1.9], on = 'augment.flip.p' }",
        "schedule.linear_decay={ on = 'latent.std' }",  # 0 is where it ends, and is not reached
        "schedule.piecewise={ at = [10], values = [0.0], on = 'latent.std' }",
        "schedule.warm_up={}",
    ],
)
def test_and_one_that_does_not_is_not(override: str) -> None:
    plan(loads(SMALL, ["augment.flip={}", "penalty.r1={}", override]))


# --- as JSON


def test_json_is_the_plan() -> None:
    made = planned(SMALL, "schedule.n_critic.n=2")
    told = json.loads(json.dumps(made.json()))
    assert set(told) == {
        *("name", "hash", "generator", "discriminator", "steps", "batch"),
        *("turns", "images", "memory_bytes", "choices"),
    }
    assert told["name"] == "small"
    assert told["hash"] == made.spec.hash
    assert (told["steps"], told["batch"], told["images"]) == (10, 4, 80)
    assert told["turns"] == {"D": 20, "G": 10}
    assert told["memory_bytes"] == made.memory
    for name, network in (("generator", made.generator), ("discriminator", made.discriminator)):
        assert set(told[name]) == {"use", "parameters", "macs", "output", "stages"}
        assert told[name]["output"] == list(network.output)
        assert told[name]["parameters"] == network.parameters
        for stage, row in zip(told[name]["stages"], network.stages, strict=True):
            assert stage == {**vars(row), "output": list(row.output)}
            assert set(stage) == {"name", "output", "parameters", "macs", "norm", "attention"}


def test_the_plan_counts_what_is_built() -> None:
    made = planned(SMALL, "generator.norm=['spectral', 'batchnorm']")
    gan, _ = build(made.spec)
    for network, told in ((gan.generator, made.generator), (gan.discriminator, made.discriminator)):
        assert sum(p.numel() for p in network.parameters()) == told.parameters
    images = gan.generator(torch.randn(2, 8))
    assert images.shape[1:] == made.generator.output
    assert gan.discriminator(images).shape[1:] == made.discriminator.output


# --- what does not fit


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batch=4611686018427387904"], "is more than any memory holds"),
        (
            ["discriminator={ use = 'stack', stages = ['activate'] }"],
            'discriminator "stack" has nothing to train',
        ),
    ],
)
def test_what_cannot_be_planned(overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        plan(loads(SMALL, overrides))
    assert caught.value.problems[0].place is not None


# --- recipes


LONG = {"biggan_128", "r3gan_32", "sagan_imagenet_128"}
"""Recipes whose step takes seconds even without values."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in recipes.names()]
)
def test_every_recipe_is_planned(name: str) -> None:
    spec = load(recipes.find(name))
    made = plan(spec)
    assert made.generator.output == build(spec, "meta")[0].image.shape
    assert made.images >= spec.train.steps * spec.train.batch
    assert made.memory is not None
    assert spec.name.replace("-", "_") == name
    assert recipes.summary(name)
    assert loads(dumps(spec.resolved())).hash == spec.hash


# --- presets as the stages that they are

LABELLED = "data={ use = 'digits', size = 16 }"

PRESETS: dict[str, list[str]] = {
    "dcgan": [],
    "dcgan of the paper": [
        *("generator.stem=transposed", "generator.head=transposed", "generator.norm=batchnorm"),
        *("discriminator.head=conv", "discriminator.bias=false", "discriminator.norm=batchnorm"),
        *(
            "generator.initializer={ use = 'normal', std = 0.03 }",
            "discriminator.initializer=default",
        ),
    ],
    "dcgan with all": [
        "generator.norm=['spectral', { use = 'groupnorm', groups = 2, eps = 1e-4 }]",
        "generator.attention={ use = 'self_attention', value_reduction = 2, pool = 2 }",
        "generator.attention.reduction=4",
        *("generator.attention_at=[8, 16]", "generator.activation=silu", "seed=3"),
        *("discriminator.norm=weightnorm", "discriminator.activation.slope=0.1"),
        *("discriminator.attention=self_attention", "discriminator.attention_at=[4]"),
        *("discriminator.attention.reduction=2", "data.size=[16, 24]"),
    ],
    "resnet": ["generator.use=resnet", "discriminator.use=resnet"],
    "resnet with all": [
        *("generator.use=resnet", "discriminator.use=resnet", LABELLED, "generator.latent=9"),
        *("generator.norm=['spectral', 'batchnorm']", "generator.condition=embedding"),
        *("generator.embedding=3", "generator.initializer=orthogonal"),
        *(
            "discriminator.norm={ use = 'spectral', iterations = 2 }",
            "discriminator.condition=label",
        ),
        *("discriminator.attention={ use = 'self_attention', reduction = 2, bias = false }",),
        *("discriminator.attention_at=[8]", "discriminator.activation=leaky_relu"),
    ],
    "mlp": [
        *("data=ring", "generator={ use = 'mlp', width = 8 }", "discriminator={ use = 'mlp' }"),
        *("discriminator.width=8", "discriminator.norm=spectral", "generator.norm=batchnorm"),
    ],
    "mlp of images": [
        *("generator={ use = 'mlp', layers = 1, width = 8 }", "discriminator={ use = 'mlp' }"),
        *("discriminator.layers=2", "discriminator.width=4", "discriminator.activation=tanh"),
    ],
}


def states(text: str) -> list[dict[str, torch.Tensor]]:
    gan, _ = build(loads(text))
    return [gan.generator.state_dict(), gan.discriminator.state_dict()]


def assert_same_networks(text: str, other: str) -> None:
    for one, two in zip(states(text), states(other), strict=True):
        assert list(one) == list(two)
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_stages_are_the_same_networks(name: str) -> None:
    spec = loads(SMALL, PRESETS[name])
    original = dumps(spec.plain())
    text = dumps(expand(spec))
    expanded = loads(text)
    assert (expanded.generator.name, expanded.discriminator.name) == ("stack", "stack")
    assert_same_networks(original, text)
    # Once more changes nothing, and the plans agree but for the names of the presets.
    assert dumps(expand(expanded)) == text
    one, two = plan(spec), plan(expanded)
    assert (one.generator.stages, one.discriminator.stages) == (
        two.generator.stages,
        two.discriminator.stages,
    )
    assert (one.turns, one.memory) == (two.turns, two.memory)


def test_the_comparison_sees_another_network() -> None:
    spec = loads(SMALL)
    text = dumps(expand(spec))
    for wrong in (text.replace("latent = 8", "latent = 9"), text.replace("seed = 0", "seed = 1")):
        assert wrong != text
        with pytest.raises(AssertionError):
            assert_same_networks(dumps(spec.plain()), wrong)


def test_an_expanded_spec_says_no_more_than_it_must() -> None:
    tables = expand(loads(SMALL, ["generator.norm=['spectral', 'batchnorm']"]))
    assert tables["generator"]["norm"] == ["spectral", "batchnorm"]
    assert tables["generator"]["stages"][:3] == [
        {"use": "dense", "channels": 16, "size": [4, 4]},
        "activate",
        {"use": "transposed", "channels": 8, "bias": False},
    ]
    assert "initializer" not in tables["generator"]


def test_a_network_that_is_no_list_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(image: Any, /, *, latent: int = 8) -> torch.nn.Module:
        network = torch.nn.Sequential(
            torch.nn.Linear(latent, 768), torch.nn.Unflatten(1, (3, 16, 16))
        )
        network.latent = latent  # type: ignore[assignment]
        return network

    kind = registry.get("generator", "dcgan").kind
    entry = Entry(kind, "whole", whole, Provider("test"))
    monkeypatch.setitem(registry._entries, ("generator", "whole"), entry)
    spec = loads(SMALL, ["generator=whole"])
    assert [stage.name for stage in plan(spec).generator.stages] == ["0", "1"]
    with pytest.raises(SpecError, match='generator "whole" is not a list of stages') as caught:
        expand(spec)
    assert caught.value.problems[0].place is not None


@settings(max_examples=15)
@given(
    st.sampled_from(["dcgan", "resnet"]),
    st.sampled_from([8, 12, 16, 20]),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.sampled_from(["none", "spectral", "pixelnorm"]),
    st.sampled_from(["relu", "silu"]),
)
def test_every_size_and_width_is_expanded(
    use: str, size: int, width: int, channels: int, norm: str, activation: str
) -> None:
    spec = loads(
        SMALL,
        [
            *(f"generator.use={use}", f"discriminator.use={use}", f"data.size={size}"),
            *(f"generator.width={width}", f"data.channels={channels}", f"generator.norm={norm}"),
            f"discriminator.activation={activation}",
        ],
    )
    assert_same_networks(dumps(spec.plain()), dumps(expand(spec)))
