"""The auxiliary classifier's penalty: its formula, its players, and what it teaches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gankit.build import build
from gankit.errors import SpecError
from gankit.penalties import AuxiliaryClassifier
from gankit.slots import Turn, conditional
from gankit.spec import loads
from gankit.train.engine import Engine
from gankit.train.plan import plan
from tests.turns import Net, batches, turn_of

CLASSES = 3


def turn(player: str, real: Tensor, fake: Tensor, labels: list[int]) -> Turn:
    """A turn in which D's head `classes` says what is given."""
    played = turn_of(Net((2,)), *batches(1, len(labels), (2,)))
    return replace(
        played,
        player=player,
        labels=torch.tensor(labels),
        real_heads=None if player == "G" else {"logits": real[:, :1], "classes": real},
        fake_heads={"logits": fake[:, :1], "classes": fake},
    )


def surprise(logits: Tensor, labels: list[int]) -> float:
    """-log P(class), on average, with P the softmax of the logits."""
    each = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        total = sum(math.exp(value) for value in row)
        each.append(-math.log(math.exp(row[label]) / total))
    return sum(each) / len(each)


def check_formula(penalty: Any, seed: int, labels: list[int]) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = (len(labels), CLASSES)
    real, fake = (torch.randn(shape, generator=random) for _ in range(2))
    of_real, of_fake = surprise(real, labels), surprise(fake, labels)
    by_hand = 2 * (of_real + 0.5 * of_fake)
    assert penalty(turn("D", real, fake, labels)).item() == pytest.approx(by_hand, rel=1e-5)
    by_hand = 2 * 0.1 * of_fake
    assert penalty(turn("G", real, fake, labels)).item() == pytest.approx(by_hand, rel=1e-5)


@given(st.integers(0, 99), st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=5))
def test_is_the_papers(seed: int, labels: list[int]) -> None:
    check_formula(AuxiliaryClassifier(weight=2.0, fake=0.5, generator=0.1), seed, labels)


@pytest.mark.parametrize("twin", [{"weight": 1.0}, {"fake": 1.0}, {"generator": 1.0}])
def test_twin_other_strengths_fail(twin: dict[str, float]) -> None:
    options = {"weight": 2.0, "fake": 0.5, "generator": 0.1} | twin
    with pytest.raises(AssertionError):
        check_formula(AuxiliaryClassifier(**options), 1, [0, 1, 2])


def test_what_it_is_of_no_opinion_and_of_a_right_one() -> None:
    even = torch.zeros(4, CLASSES)
    labels = [0, 1, 2, 0]
    plain = AuxiliaryClassifier()
    assert plain(turn("G", even, even, labels)).item() == pytest.approx(math.log(CLASSES))
    sure = 100 * torch.eye(CLASSES)[labels]
    assert plain(turn("D", sure, sure, labels)).item() == pytest.approx(0)
    assert plain(turn("D", sure, -sure, labels)).item() == pytest.approx(100 + math.log(2))


def test_has_first_and_second_derivatives() -> None:
    labels, penalty = [0, 2], AuxiliaryClassifier()

    def value(real: Tensor, fake: Tensor) -> Tensor:
        return penalty(turn("D", real, fake, labels))

    random = torch.Generator().manual_seed(0)
    heads = tuple(
        torch.randn(2, CLASSES, generator=random, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    assert gradcheck(value, heads)
    assert gradgradcheck(value, heads)


@pytest.mark.parametrize("option", ["weight", "fake", "generator"])
def test_strengths_below_zero_are_refused(option: str) -> None:
    message = f"auxiliary_classifier: {option} must be at least 0, not -1.0"
    with pytest.raises(ValueError, match=message):
        AuxiliaryClassifier(**{option: -1.0})


SPEC = """
gankit = 1
loss = "hinge"
data = { use = "digits", size = 16 }
penalty = ["auxiliary_classifier"]
optimizer = { use = "adam", lr = 0.005 }
train = { steps = 30, batch = 32 }

[generator]
use = "dcgan"
latent = 8
width = 8
input = ["latent", "label"]

[discriminator]
use = "dcgan"
width = 8
head = "auxiliary"
"""


def entropy(gan: Any, data: Any) -> float:
    """How surprised D is of the classes of real digits."""
    rows = torch.arange(64)
    images = data.images(rows).float() / 127.5 - 1
    with torch.no_grad():
        heads = conditional(gan.discriminator, "labels")(images, data.labels(rows))
    return torch.nn.functional.cross_entropy(heads["classes"], data.labels(rows)).item()


def test_d_learns_the_classes_from_it_alone() -> None:
    spec = loads(SPEC)
    measured = {}
    for taught in (True, False):
        gan, data = build(loads(SPEC, [] if taught else ["penalty.auxiliary_classifier=none"]))
        engine = Engine(gan, data, spec.train, torch.device("cpu"))
        before = entropy(gan, data)
        metrics = [engine.step(step) for step in range(spec.train.steps if taught else 2)]
        measured[taught] = (before, entropy(gan, data))
        keys = {"auxiliary_classifier_D", "auxiliary_classifier_G"}
        assert (keys <= metrics[0].keys()) == taught
    assert measured[True][0] == measured[False][0]
    assert measured[True][1] < 0.7 * measured[True][0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("discriminator.head=dense", 'D has no head "classes", only logits; give it head ='),
        ("data={use='folder', root='x'}", "needs labels; the data has none"),
        ("generator.input=latents", 'generator.input must be "latent" | "label" | "embedding"'),
    ],
)
def test_a_spec_that_cannot_is_refused(override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(loads(SPEC, [override]))
    assert message in str(caught.value)
