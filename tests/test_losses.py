"""Every registered loss against its paper's formula, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit as sigmoid
from scipy.special import log_expit as log_sigmoid
from torch import Tensor

from gankit.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein
from gankit.registry import registry

Array = np.ndarray
Answer = tuple[float, Array, Array]
"""A value and its gradients with respect to the real and to the fake logits."""

LOSSES = [entry.name for entry in registry.find("loss") if entry.provider.name == "gankit"]
PLAYERS = ("discriminator", "generator")
EXTREMES = [0.0, 1.0, -1.0, 1e-8, 30.0, -30.0, 1e4, -1e4]


@dataclass
class Formula:
    """A loss as its paper writes it, with gradients derived by hand."""

    discriminator: Callable[..., Answer]
    generator: Callable[..., Answer]
    options: dict[str, st.SearchStrategy[float]] = field(default_factory=dict)


def hinge_d(r: Array, f: Array, margin: float = 1.0) -> Answer:
    value = np.maximum(0, margin - r).mean() + np.maximum(0, margin + f).mean()
    return value, -1.0 * (margin - r > 0) / r.size, 1.0 * (margin + f > 0) / f.size


def lower_fake(r: Array, f: Array, **_: float) -> Answer:
    return -f.mean(), 0 * r, -np.ones_like(f) / f.size


def cross_entropy_d(r: Array, f: Array) -> Answer:
    value = -log_sigmoid(r).mean() - log_sigmoid(-f).mean()  # 1 - sigmoid(f) = sigmoid(-f)
    return value, -sigmoid(-r) / r.size, sigmoid(f) / f.size


def non_saturating_g(r: Array, f: Array) -> Answer:
    return -log_sigmoid(f).mean(), 0 * r, -sigmoid(-f) / f.size


def minimax_g(r: Array, f: Array) -> Answer:
    return log_sigmoid(-f).mean(), 0 * r, -sigmoid(f) / f.size


def wasserstein_d(r: Array, f: Array) -> Answer:
    return f.mean() - r.mean(), -np.ones_like(r) / r.size, np.ones_like(f) / f.size


def least_squares_d(
    r: Array, f: Array, real_target: float = 1, fake_target: float = 0, **_: float
) -> Answer:
    value = 0.5 * ((r - real_target) ** 2).mean() + 0.5 * ((f - fake_target) ** 2).mean()
    return value, (r - real_target) / r.size, (f - fake_target) / f.size


def least_squares_g(r: Array, f: Array, generator_target: float = 1, **_: float) -> Answer:
    return 0.5 * ((f - generator_target) ** 2).mean(), 0 * r, (f - generator_target) / f.size


def relativistic_d(r: Array, f: Array) -> Answer:
    slope = sigmoid(-(r - f)) / r.size
    return -log_sigmoid(r - f).mean(), -slope, slope


def relativistic_g(r: Array, f: Array) -> Answer:
    slope = sigmoid(-(f - r)) / r.size
    return -log_sigmoid(f - r).mean(), slope, -slope


FORMULAS = {
    "hinge": Formula(hinge_d, lower_fake, {"margin": st.floats(0.1, 5)}),
    "least_squares": Formula(
        least_squares_d,
        least_squares_g,
        {
            "real_target": st.floats(0.5, 2),
            "fake_target": st.floats(-2, 0.4),
            "generator_target": st.floats(-2, 2),
        },
    ),
    "minimax": Formula(cross_entropy_d, minimax_g),
    "nonsaturating": Formula(cross_entropy_d, non_saturating_g),
    "relativistic": Formula(relativistic_d, relativistic_g),
    "wasserstein": Formula(wasserstein_d, lower_fake),
}


@st.composite
def pairs(draw: st.DrawFn, **shapes: Any) -> tuple[Array, Array]:
    """Real and fake logits of one shape, moderate, extreme and mixed."""
    shape = draw(hnp.array_shapes(**{"min_dims": 1, "max_dims": 4, "max_side": 4} | shapes))
    elements = st.one_of(st.floats(-15, 15), st.sampled_from(EXTREMES))
    logits = hnp.arrays(np.float64, shape, elements=elements)
    return draw(logits), draw(logits)


def answer(loss: Any, player: str, real: Array, fake: Array, dtype: torch.dtype) -> Answer:
    """A loss's value and gradients, by autograd."""
    r = torch.tensor(real, dtype=dtype, requires_grad=True)
    f = torch.tensor(fake, dtype=dtype, requires_grad=True)
    value = getattr(loss, player)(r, f)
    assert value.shape == ()
    slopes = torch.autograd.grad(value, (r, f), materialize_grads=True)
    return value.item(), slopes[0].numpy(), slopes[1].numpy()


def check(loss: Any, name: str, player: str, real: Array, fake: Array, **options: float) -> None:
    """The loss is what the paper's formula says, in value and in gradients."""
    expected = getattr(FORMULAS[name], player)(real, fake, **options)
    for got, want in zip(answer(loss, player, real, fake, torch.float64), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8)


def check_safe(loss: Any, player: str, real: Array, fake: Array) -> None:
    """Value and gradients are finite in float32, and close to those in float64."""
    # Rounded first: a logit that crosses hinge's margin in rounding has another gradient.
    real, fake = (logits.astype(np.float32).astype(np.float64) for logits in (real, fake))
    narrow = answer(loss, player, real, fake, torch.float32)
    wide = answer(loss, player, real, fake, torch.float64)
    # A value may be the small difference of two large means, each rounded at its own size.
    size = max(1.0, np.abs(real).max(), np.abs(fake).max())
    for got, want, scale in zip(narrow, wide, (size, 1.0, 1.0), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_is_the_papers_formula(name: str, player: str, data: st.DataObject) -> None:
    options = {key: data.draw(values) for key, values in FORMULAS[name].options.items()}
    loss = registry.get("loss", name).bind(**options)
    check(loss, name, player, *data.draw(pairs()), **options)


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=30, deadline=None)
@given(logits=pairs())
def test_is_finite_in_float32(name: str, player: str, logits: tuple[Array, Array]) -> None:
    check_safe(registry.get("loss", name).bind(), player, *logits)


@pytest.mark.parametrize("name", LOSSES)
def test_every_option_is_tried(name: str) -> None:
    assert set(registry.get("loss", name).options) == set(FORMULAS[name].options)


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=20, deadline=None)
@given(logits=pairs(min_dims=2))
def test_the_shape_of_logits_does_not_matter(
    name: str, player: str, logits: tuple[Array, Array]
) -> None:
    loss = registry.get("loss", name).bind()
    real, fake = logits
    shaped = answer(loss, player, real, fake, torch.float64)
    flat = answer(loss, player, real.ravel(), fake.ravel(), torch.float64)
    for one, other in zip(shaped, flat, strict=True):
        np.testing.assert_allclose(np.ravel(one), np.ravel(other), rtol=1e-9, atol=1e-9)


def check_signs(loss: Any, real: Array, fake: Array) -> None:
    """D wants real logits up and fake ones down; G wants fake ones up."""
    _, on_real, on_fake = answer(loss, "discriminator", real, fake, torch.float64)
    assert (on_real < 0).all()
    assert (on_fake > 0).all()
    _, _, on_fake = answer(loss, "generator", real, fake, torch.float64)
    assert (on_fake < 0).all()


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=20, deadline=None)
@given(
    # Between the targets of least squares and within hinge's margin, where all losses agree.
    logits=st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)), min_size=1)
)
def test_each_player_pulls_its_way(name: str, logits: list[tuple[float, float]]) -> None:
    check_signs(registry.get("loss", name).bind(), *np.array(logits).T)


@pytest.mark.parametrize("name", LOSSES)
def test_real_logits_reach_the_generator_only_where_declared(name: str) -> None:
    entry = registry.get("loss", name)
    fake = torch.zeros(3, 1)
    if "real_in_generator" in entry.needs:
        with pytest.raises(ValueError, match="real logits"):
            entry.bind().generator(None, fake)
    else:
        assert entry.bind().generator(None, fake).isfinite()


def test_values_by_hand() -> None:
    zero, one = torch.zeros(2, 1), torch.ones(2, 1)
    assert Hinge().discriminator(2 * one, -one / 2).item() == 0.5
    assert Hinge().generator(None, 3 * one).item() == -3
    assert NonSaturating().discriminator(zero, zero).item() == pytest.approx(2 * np.log(2))
    assert NonSaturating().generator(None, zero).item() == pytest.approx(np.log(2))
    assert Minimax().generator(None, zero).item() == pytest.approx(-np.log(2))
    assert Wasserstein().discriminator(2 * one, 5 * one).item() == 3
    assert LeastSquares().discriminator(zero, 3 * one).item() == 5
    assert LeastSquares(generator_target=0).generator(None, 2 * one).item() == 2
    assert Relativistic().discriminator(one, one).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_hinge_refuses_a_margin(wrong: float) -> None:
    with pytest.raises(ValueError, match="margin must be above 0"):
        Hinge(margin=wrong)


def test_least_squares_refuses_equal_targets() -> None:
    with pytest.raises(ValueError, match="nothing to tell apart"):
        LeastSquares(real_target=1, fake_target=1)


@pytest.mark.parametrize("player", PLAYERS)
def test_relativistic_refuses_to_broadcast(player: str) -> None:
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(4,\)|\(4,\) and \(4, 1\)"):
        getattr(Relativistic(), player)(torch.zeros(4, 1), torch.zeros(4))


# --- broken twins, each of which one of the checks above must catch


class Broken:
    """Starts from a sound loss; a twin overrides one player."""

    def __init__(self, sound: Any) -> None:
        self.sound = sound

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.sound.discriminator(real, fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.sound.generator(real, fake)


class Unclamped(Broken):
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (1 - real).mean() + (1 + fake).mean()


class ClampedGenerator(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - fake).mean()


class Saturating(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -F.softplus(fake).mean()


class NotSaturating(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class Swapped(Broken):
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.sound.discriminator(fake, real)


class WrongSign(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.sound.generator(real, fake)


class Doubled(Broken):
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 2 * self.sound.discriminator(real, fake)


class EveryPair(Broken):
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake.view(-1, 1) - real.view(1, -1)).mean()


class AgainstTheMean(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(real.mean() - fake).mean()


class Summed(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.sound.generator(real, fake) * len(fake)


class Constant(Broken):
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.sound.generator(real.detach(), fake)


class Logarithms(Broken):
    """The formula as printed: log 0 far out."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()


TWINS = {
    "hinge": [Unclamped, ClampedGenerator, Swapped, WrongSign, Summed],
    "least_squares": [Doubled, Swapped, WrongSign, Summed],
    "minimax": [NotSaturating, Swapped, WrongSign],
    "nonsaturating": [Saturating, Swapped, WrongSign, Summed],
    "relativistic": [EveryPair, AgainstTheMean, Swapped, Constant],
    "wasserstein": [ClampedGenerator, Swapped, WrongSign],
}


@pytest.mark.parametrize("name", LOSSES)
def test_broken_twins_are_caught(name: str) -> None:
    real = np.array([[0.3], [-1.7], [2.2], [0.1]])
    fake = np.array([[-0.4], [1.9], [-2.6], [0.7]])
    sound = registry.get("loss", name).bind()
    for player in PLAYERS:
        check(sound, name, player, real, fake)
    for twin in TWINS[name]:
        with pytest.raises(AssertionError):  # noqa: PT012
            for player in PLAYERS:
                check(twin(sound), name, player, real, fake)


def test_a_difference_of_large_means_is_as_exact_as_float32_is() -> None:
    # Found by hypothesis: -1/3 comes out as -0.3335, rounded where 10,001/3 is.
    check_safe(Wasserstein(), "discriminator", np.array([1, 1e4, 0]), np.array([1e4, 0, 0]))


def test_an_unsafe_twin_is_caught() -> None:
    far = np.array([1e4, -1e4, 0.0])
    check_safe(NonSaturating(), "discriminator", far, far)
    with pytest.raises(AssertionError):
        check_safe(Logarithms(NonSaturating()), "discriminator", far, far)


@pytest.mark.parametrize("twin", [Swapped, WrongSign])
def test_a_player_pulling_the_other_way_is_caught(twin: type[Broken]) -> None:
    logits = np.array([0.2, 0.5, 0.8])
    for name in LOSSES:
        with pytest.raises(AssertionError):
            check_signs(twin(registry.get("loss", name).bind()), logits, logits)
