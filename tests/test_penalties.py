"""What holds for every penalty: its options, its weight, what it draws, a batch in shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gankit.penalties import (
    DRAGAN,
    R1,
    R2,
    WGANGP,
    AuxiliaryClassifier,
    Consistency,
    FeatureMatching,
    InfoMax,
    LeCam,
    Orthogonal,
    Rotation,
)
from gankit.randomness import ShareGenerator, generator
from gankit.registry import registry
from gankit.slots import Observer, Penalty, Turn
from tests import turns
from tests.turns import Net, batches

NAMES = [entry.name for entry in registry.find("penalty") if entry.provider.name == "gankit"]
BALANCED = "consistency of fakes too"
IMAGES = (3, 4, 4)

TYPED: list[Penalty] = [
    *(R1(), R2(), WGANGP(), DRAGAN()),
    *(Consistency(), LeCam(), Orthogonal(), FeatureMatching(), AuxiliaryClassifier()),
    *(Rotation(), InfoMax()),
]
OBSERVER: Observer = LeCam()


def turn_of(discriminator: Any, real: Tensor, fake: Tensor, **how: Any) -> Turn:
    """A turn on images of two classes, of which D thinks as it does of real and fake."""
    played = turns.turn_of(discriminator, real, fake, **how)
    assert played.real_heads is not None

    def more(heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        said = heads["logits"]
        widths = {"classes": 2, "rotations": 4, "global": 2, "local": 6}
        return {**heads, **{key: said * torch.arange(1, 1 + w) for key, w in widths.items()}}

    return replace(
        played,
        labels=(real.detach().flatten(1).sum(1) > 0).long(),
        real_heads=more(played.real_heads),
        fake_heads=more(played.fake_heads),
        heads=lambda images: more(played.heads(images)),
    )


def made(name: str, **options: Any) -> Any:
    """The penalty; one with state has seen a turn already."""
    if name == BALANCED:
        return Consistency(fake=1.0, **options)
    part = registry.get("penalty", name).bind(**options)
    if isinstance(part, Observer):
        part.observe(turn_of(Net(IMAGES), *batches(77, shape=IMAGES)))
    return part


def turn(seed: int = 1, rows: int = 6, random: torch.Generator | None = None) -> Turn:
    """A turn that has all that any penalty here asks for."""
    real, fake = batches(seed, rows, IMAGES)
    return turn_of(Net(IMAGES), real, fake, generator=Net((3,)), random=random)


def test_all_of_the_issue_are_there() -> None:
    known = ["auxiliary_classifier", "consistency", "dragan", "feature_matching"]
    known += ["infomax", "lecam", "orthogonal", "r1", "r2", "rotation", "wgan_gp"]
    assert known == NAMES
    assert {type(part) for part in TYPED} == {registry.get("penalty", n).target for n in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_says_for_whom_and_how_often(name: str) -> None:
    part = registry.get("penalty", name)
    both = {"auxiliary_classifier", "infomax", "rotation"}
    assert part.bind().players in ({"DG"} if name in both else {"D", "G"})
    assert part.bind().every == 1
    assert part.bind(every=16).every == 16
    assert part.bind(weight=0.5).weight == 0.5
    assert "players" not in part.options


def test_needs_are_declared() -> None:
    needs = {name: registry.get("penalty", name).needs for name in NAMES}
    assert {n for n in NAMES if "second_order" in needs[n]} == {"r1", "r2", "wgan_gp", "dragan"}
    assert {n for n in NAMES if "independent_rows" in needs[n]} == {"wgan_gp", "dragan"}
    assert {n for n in NAMES if "real_in_generator" in needs[n]} == {"feature_matching"}
    assert {n for n in NAMES if "labels" in needs[n]} == {"auxiliary_classifier"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight must be at least 0, not -1.0"),
        ({"weight": float("nan")}, "weight must be at least 0, not nan"),
        ({"weight": float("inf")}, "weight must be at least 0, not inf"),
        ({"every": 0}, "every must be at least 1, not 0"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        registry.get("penalty", name).bind(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DRAGAN(std=-0.1), "dragan: std must be at least 0, not -0.1"),
        (lambda: Consistency(fake=-1.0), "consistency: fake must be at least 0, not -1.0"),
        (lambda: LeCam(start=-1), "lecam: start must be at least 0, not -1"),
        (lambda: LeCam(decay=1.0), r"lecam: decay must be in \[0, 1\), not 1.0"),
    ],
)
def test_options_of_their_own_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5)
@given(weight=st.floats(1e-3, 1e3))
def test_scales_with_its_weight(name: str, weight: float) -> None:
    none, one, some = (made(name, weight=w)(turn()) for w in (0.0, 1.0, weight))
    assert none.item() == 0
    assert one.item() > 0
    assert one.ndim == 0
    torch.testing.assert_close(some, weight * one)


@pytest.mark.parametrize("name", [*NAMES, BALANCED])
def test_leaves_the_turn_and_the_global_generator_alone(name: str) -> None:
    penalty, played = made(name), [turn(), turn()]
    assert played[0].real is not None
    before, state = played[0].real.clone(), torch.get_rng_state()
    played[0].fake.requires_grad_()
    values = [penalty(each) for each in played]
    values[0].backward()
    assert values[0].item() == values[1].item()
    assert torch.equal(played[0].real, before)
    assert not played[0].real.requires_grad
    if penalty.players == "D":
        assert played[0].fake.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [*NAMES, BALANCED])
def test_is_computed_in_float32_too(name: str) -> None:
    penalty = made(name)
    real, fake = (images.float() for images in batches(1, shape=IMAGES))
    played = turn_of(Net(IMAGES).float(), real, fake, generator=Net((3,)).float())
    value = penalty(played)
    assert value.dtype == torch.float32
    assert value.isfinite()


# --- a batch in shares is the batch in one

SHARED = [name for name in NAMES if name not in ("feature_matching", "infomax")]
"""Features are compared within a share, as the docstrings of these two say."""


def check_shares(penalty: Any, rows: int, count: int) -> None:
    """The mean over shares, and of the gradients that reach D, is that of the whole batch."""
    real, fake = batches(4, rows, IMAGES)
    g = Net((3,))

    def play(real: Tensor, fake: Tensor, random: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        net = Net(IMAGES)
        value = penalty(turn_of(net, real, fake, generator=g, random=random))
        parameters = [*net.parameters(), *g.parameters()]
        slopes = torch.autograd.grad(value, parameters, materialize_grads=True, allow_unused=True)
        return value.detach(), [slope.detach() for slope in slopes]

    whole = play(real, fake, generator(0, "penalty"))
    shares = [
        play(
            real.chunk(count)[index],
            fake.chunk(count)[index],
            ShareGenerator.of(0, "penalty", index=index, count=count, rows=rows // count),
        )
        for index in range(count)
    ]
    torch.testing.assert_close(torch.stack([value for value, _ in shares]).mean(), whole[0])
    for slope, parts in zip(whole[1], zip(*(s for _, s in shares), strict=True), strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), slope)


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("name", [*SHARED, BALANCED])
def test_a_batch_in_shares_is_the_batch_in_one(name: str, count: int) -> None:
    check_shares(made(name), 6, count)


def test_twins_that_do_not_share_are_caught() -> None:
    def by_itself(turn: Turn) -> Tensor:
        assert turn.real is not None
        noise = torch.randn(turn.real.shape, generator=turn.random).to(turn.real)
        return turn.discriminator(turn.real + noise).square().mean()

    def of_the_batch(turn: Turn) -> Tensor:
        assert turn.real is not None
        return turn.discriminator(turn.real * turn.real.std()).square().mean()

    twins: list[Any] = [by_itself, of_the_batch, FeatureMatching(), InfoMax()]
    for penalty in twins:
        with pytest.raises(AssertionError):
            check_shares(penalty, 6, 2)
