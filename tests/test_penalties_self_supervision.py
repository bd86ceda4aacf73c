"""Rotations and InfoMax: the formulas by hand, their players, and what they teach."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from gankit.build import build
from gankit.errors import SpecError
from gankit.penalties import InfoMax, Rotation
from gankit.slots import Turn, heads_of
from gankit.spec import loads
from gankit.train.engine import Engine
from gankit.train.plan import plan
from tests.turns import batches, turn_of

SEEDS = st.integers(0, 2**32 - 1)
SQUARE = (2, 3, 3)


def drawn(seed: int, *shape: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


# --- rotation


class Seeing(nn.Module):
    """A D with a head of four opinions on what stands where in an image."""

    def __init__(self, head: str = "rotations") -> None:
        super().__init__()
        self.head = head
        self.weight = nn.Parameter(drawn(3, 4, 18))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        flat = images.flatten(1)
        return {"logits": flat.sum(1, keepdim=True), self.head: flat @ self.weight.T}


def surprise(logits: Tensor, label: int) -> float:
    values = logits.tolist()
    return math.log(sum(math.exp(value) for value in values)) - float(values[label])


def turned_by_hand(image: Tensor, times: int) -> Tensor:
    """Counter-clockwise by quarters: what is in the last column goes to the first row."""
    for _ in range(times):
        side = image.shape[1]
        rows = [[image[:, j, side - 1 - i] for j in range(side)] for i in range(side)]
        image = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    return image


def check_rotation(penalty: Any, seed: int, rows: int) -> None:
    net = Seeing()
    real, fake = batches(seed, rows, SQUARE)
    for player, images, strength in (("D", real, 2.0), ("G", fake, 2.0 * 0.25)):
        by_hand = 0.0
        for row in range(rows):
            seen = net(turned_by_hand(images[row], row % 4)[None])["rotations"][0]
            by_hand += surprise(seen, row % 4) / rows
        value = penalty(turn_of(net, real, fake, player=player)).item()
        assert value == pytest.approx(strength * by_hand, rel=1e-6)


@given(SEEDS, st.integers(1, 9))
def test_rotation_is_the_papers(seed: int, rows: int) -> None:
    check_rotation(Rotation(weight=2.0, generator=0.25), seed, rows)


@pytest.mark.parametrize("twin", [{"weight": 1.0}, {"generator": 1.0}])
def test_twin_other_strengths_of_rotation_fail(twin: dict[str, float]) -> None:
    with pytest.raises(AssertionError):
        check_rotation(Rotation(**({"weight": 2.0, "generator": 0.25} | twin)), 1, 5)


def test_twin_rotations_the_other_way_round_fail() -> None:
    class Other(Rotation):
        def __call__(self, turn: Turn, /) -> Tensor:
            assert turn.real is not None
            mirrored = replace(turn, real=turn.real.flip(3), fake=turn.fake.flip(3))
            return super().__call__(mirrored)

    with pytest.raises(AssertionError):
        check_rotation(Other(weight=2.0, generator=0.25), 1, 5)


@pytest.mark.parametrize(
    ("shape", "head", "message"),
    [
        ((2, 3, 6), "rotations", "rotation: only square images can be rotated, not 3x6"),
        ((18,), "rotations", "rotation: only square images can be rotated, not points"),
        (SQUARE, "classes", 'rotation: D has no head "rotations", only logits, classes; give'),
    ],
)
def test_rotation_says_what_it_lacks(shape: tuple[int, ...], head: str, message: str) -> None:
    net = Seeing(head)

    def heads(images: Tensor) -> dict[str, Tensor]:
        return net(images.flatten(1)[:, :18])

    played = turn_of(heads, *batches(1, 4, shape))
    with pytest.raises(ValueError, match=message):
        Rotation()(played)


# --- infomax


def infomax_turn(player: str, whole: Tensor, places: Tensor) -> Turn:
    played = turn_of(Seeing(), *batches(1, len(whole), SQUARE))
    heads = {"global": whole, "local": places.flatten(1)}
    other = {key: torch.full_like(value, math.nan) for key, value in heads.items()}
    real, fake = (other, heads) if player == "G" else (heads, other)
    return replace(played, player=player, real_heads=real, fake_heads=fake)


def by_sums(whole: Tensor, places: Tensor) -> float:
    """InfoNCE with plain sums over plain numbers."""
    rows, _, count = places.shape
    total = 0.0
    for a in range(rows):
        others = sum(
            math.exp(float(whole[a] @ places[b, :, j]))
            for b in range(rows)
            for j in range(count)
            if b != a
        )
        for i in range(count):
            own = math.exp(float(whole[a] @ places[a, :, i]))
            total -= math.log(own / (own + others)) / (rows * count)
    return total


def check_infomax(penalty: Any, seed: int, rows: int, count: int) -> None:
    whole, places = drawn(seed, rows, 3), drawn(seed + 1, rows, 3, count)
    expected = by_sums(whole, places)
    for player, strength in (("D", 0.5), ("G", 0.5 * 2)):
        value = penalty(infomax_turn(player, whole, places)).item()
        assert value == pytest.approx(strength * expected, rel=1e-6, abs=1e-9)


@given(SEEDS, st.integers(1, 4), st.integers(1, 4))
def test_infomax_is_the_papers(seed: int, rows: int, count: int) -> None:
    check_infomax(InfoMax(weight=0.5, generator=2.0), seed, rows, count)


def test_twins_of_infomax_fail() -> None:
    class OwnPlacesToo(InfoMax):
        """Other places of the same image count against each place."""

        def __call__(self, turn: Turn, /) -> Tensor:
            heads = turn.fake_heads if turn.player == "G" else turn.real_heads
            assert heads is not None
            local = heads["local"].unflatten(1, (heads["global"].shape[1], -1))
            scores = torch.einsum("ar,brj->abj", heads["global"], local)
            own = scores.diagonal(dim1=0, dim2=1).T
            strength = self.weight * (self.generator if turn.player == "G" else 1)
            return strength * (scores.flatten(1).logsumexp(1)[:, None] - own).mean()

    for twin in (OwnPlacesToo(weight=0.5, generator=2.0), InfoMax(weight=0.5), InfoMax()):
        with pytest.raises(AssertionError):
            check_infomax(twin, 1, 3, 2)


def test_infomax_has_derivatives_and_is_safe_at_large_scores() -> None:
    def value(whole: Tensor, places: Tensor) -> Tensor:
        return InfoMax()(infomax_turn("D", whole, places))

    heads = (drawn(1, 3, 2).requires_grad_(), drawn(2, 3, 2, 2).requires_grad_())
    assert gradcheck(value, heads)
    assert gradgradcheck(value, heads)
    for scale in (1e3, 1e150):
        large = tuple((scale * head).detach().requires_grad_() for head in heads)
        value(*large).backward()
        assert all(head.grad is not None and head.grad.isfinite().all() for head in large)
    # One image alone has nothing to be told from.
    alone = (drawn(1, 1, 2).requires_grad_(), drawn(2, 1, 2, 2).requires_grad_())
    assert value(*alone).item() == 0
    value(*alone).backward()
    assert alone[0].grad is not None
    assert not alone[0].grad.any()


def test_infomax_says_what_it_lacks() -> None:
    message = 'infomax: D has no heads "global" and "local", only logits, rotations; end its stages'
    with pytest.raises(ValueError, match=message):
        InfoMax()(turn_of(Seeing(), *batches(1, 4, SQUARE)))


# --- in training

SPEC = """
gankit = 1
loss = "hinge"
data = { use = "digits", size = 16, channels = 3 }
optimizer = { use = "adam", lr = 0.003 }
train = { steps = 40, batch = 32 }

[generator]
use = "dcgan"
latent = 8
width = 8
"""
TAUGHT = {
    "rotation": 'discriminator = { use = "dcgan", width = 8, head = "rotation" }',
    "infomax": """discriminator = { use = "stack", stages = [
        { use = "residual_stem", channels = 8 }, { use = "residual_down", channels = 16 },
        { use = "infomax", features = 8 } ] }""",
}


def spec_of(name: str, *overrides: str) -> Any:
    return loads(f"{TAUGHT[name]}\npenalty = ['{name}']\n{SPEC}", overrides)


@pytest.mark.parametrize("name", TAUGHT)
def test_d_learns_it_from_the_penalty_alone(name: str) -> None:
    measured: dict[bool, list[float]] = {}
    for taught in (True, False):
        spec = spec_of(name, *(["train.steps=60"] if taught else [f"penalty.{name}=none"]))
        gan, data = build(spec)
        engine = Engine(gan, data, spec.train, torch.device("cpu"))

        def task(gan: Any = gan, data: Any = data) -> float:
            images = data.images(torch.arange(64)).float() / 127.5 - 1
            with torch.no_grad():
                played = turn_of(lambda x: heads_of(gan.discriminator(x)), images, images)
                return float((Rotation() if name == "rotation" else InfoMax(weight=1.0))(played))

        before = task()
        metrics = [engine.step(step) for step in range(60 if taught else 30)]
        measured[taught] = [before, task()]
        assert ({f"{name}_D", f"{name}_G"} <= metrics[0].keys()) == taught
    assert measured[True][0] == measured[False][0]
    assert measured[True][1] < 0.85 * measured[True][0]
    assert measured[True][1] < 0.85 * measured[False][1]


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("rotation", "discriminator.head=dense", 'D has no head "rotations", only logits; give'),
        ("rotation", "data.size=[16, 32]", "only square images can be rotated, not 16x32"),
        ("infomax", "discriminator=dcgan", 'D has no heads "global" and "local", only logits;'),
    ],
)
def test_a_spec_that_cannot_is_refused_at_the_penalty(
    name: str, override: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        plan(spec_of(name, override))
    assert message in str(caught.value)
    assert f"penalty = ['{name}']" in str(caught.value)
