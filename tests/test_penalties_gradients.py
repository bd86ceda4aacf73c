"""Penalties on D's slope against closed forms, their second derivatives, and what they draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.attentions import SelfAttention2d
from gankit.norms import spectral
from gankit.ops import held
from gankit.penalties import DRAGAN, R1, R2, WGANGP
from gankit.registry import registry
from gankit.slots import Norm, Turn
from tests.turns import Net, Quadratic, batches, check_derivatives, seeded, turn_of

NAMES = ["dragan", "r1", "r2", "wgan_gp"]
SHAPES = [(2,), (2, 3, 3), (1, 2, 4)]
SEEDS = st.integers(0, 2**32 - 1)


def check_flatness(
    penalty: Any, seed: int, shape: tuple[int, ...], weight: float, at: str = "real"
) -> None:
    """weight / 2 x mean |A x + b|^2 over real or fake images."""
    real, fake = batches(seed, shape=shape)
    discriminator = Quadratic(seed, int(np.prod(shape)))
    images = {"real": real, "fake": fake}[at]
    norms = np.linalg.norm(discriminator.slope(images.numpy()), axis=1)
    got = penalty(turn_of(discriminator, real, fake, seed)).item()
    assert got == pytest.approx(weight / 2 * (norms**2).mean(), rel=1e-9)


def check_wgan_gp(
    penalty: Any, seed: int, shape: tuple[int, ...], weight: float, one_sided: bool = False
) -> None:
    """weight x mean (|A x + b| - 1)^2 at epsilon x real + (1 - epsilon) x fake."""
    real, fake = batches(seed, shape=shape)
    discriminator = Quadratic(seed, int(np.prod(shape)))
    epsilon = torch.rand(5, generator=seeded(seed)).double().numpy()
    epsilon = epsilon.reshape(5, *[1] * len(shape))
    between = epsilon * real.numpy() + (1 - epsilon) * fake.numpy()
    excess = np.linalg.norm(discriminator.slope(between), axis=1) - 1
    if one_sided:
        excess = np.maximum(excess, 0)
    got = penalty(turn_of(discriminator, real, fake, seed)).item()
    assert got == pytest.approx(weight * (excess**2).mean(), rel=1e-9)


def check_dragan(
    penalty: Any, seed: int, shape: tuple[int, ...], weight: float, std: float
) -> None:
    """weight x mean (|A x + b| - 1)^2 at real images with std x N(0, 1) on every value."""
    real, fake = batches(seed, shape=shape)
    discriminator = Quadratic(seed, int(np.prod(shape)))
    noise = torch.randn(5, *shape, generator=seeded(seed)).double().numpy()
    excess = np.linalg.norm(discriminator.slope(real.numpy() + std * noise), axis=1) - 1
    got = penalty(turn_of(discriminator, real, fake, seed)).item()
    assert got == pytest.approx(weight * (excess**2).mean(), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from(SHAPES), weight=st.floats(0, 100))
def test_r1_and_r2_of_a_quadratic(seed: int, shape: tuple[int, ...], weight: float) -> None:
    check_flatness(R1(weight=weight), seed, shape, weight)
    check_flatness(R2(weight=weight), seed, shape, weight, at="fake")


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from(SHAPES), weight=st.floats(0, 100), one_sided=st.booleans())
def test_wgan_gp_of_a_quadratic(
    seed: int, shape: tuple[int, ...], weight: float, one_sided: bool
) -> None:
    penalty = WGANGP(weight=weight, one_sided=one_sided)
    check_wgan_gp(penalty, seed, shape, weight, one_sided)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from(SHAPES), weight=st.floats(0, 100), std=st.floats(0, 3))
def test_dragan_of_a_quadratic(
    seed: int, shape: tuple[int, ...], weight: float, std: float
) -> None:
    check_dragan(DRAGAN(weight=weight, std=std), seed, shape, weight, std)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.01, 10))
def test_a_linear_discriminator_has_one_slope(seed: int, scale: float) -> None:
    w = scale * torch.randn(12, generator=seeded(seed), dtype=torch.float64)
    real, fake = batches(seed, shape=(3, 2, 2))
    turn = turn_of(lambda x: x.flatten(1) @ w, real, fake)
    norm = w.norm().item()
    for flat in (R1(), R2()):
        assert flat(turn).item() == pytest.approx(5 * norm**2)
    for steep in (WGANGP(), DRAGAN(), DRAGAN(std=2.0)):
        assert steep(turn).item() == pytest.approx(10 * (norm - 1) ** 2)
    assert WGANGP(one_sided=True)(turn).item() == pytest.approx(10 * max(norm - 1, 0) ** 2)


def looked_at(penalty: Any, real: Tensor, fake: Tensor) -> Tensor:
    """Where a penalty looks at D's slope."""
    seen = []

    def discriminator(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.square().flatten(1).sum(1)

    penalty(turn_of(discriminator, real, fake))
    return seen[-1]


def test_wgan_gp_looks_on_the_line_a_point_for_every_row() -> None:
    real, fake = batches(0, rows=64, shape=(2, 3, 3))
    shares = ((looked_at(WGANGP(), real, fake) - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert len(shares[:, 0].unique()) == 64
    assert 0.35 < shares.mean() < 0.65


def test_wgan_gp_draws_the_bits_it_always_drew() -> None:
    real, fake = torch.ones(8, 2), torch.zeros(8, 2)
    expected = torch.rand(8, generator=seeded(0), dtype=torch.float32)
    assert torch.equal(looked_at(WGANGP(), real, fake), expected[:, None].expand(8, 2))


def test_dragan_looks_around_real_images_in_every_direction() -> None:
    real, fake = batches(0, rows=64, shape=(2, 3, 3))
    noise = looked_at(DRAGAN(std=0.5), real, fake) - real
    assert len(noise.unique()) == noise.numel()
    assert abs(noise.mean()) < 0.05
    assert 0.45 < noise.std() < 0.55
    torch.testing.assert_close(looked_at(DRAGAN(std=0.0), real, fake), real)


# --- second derivatives


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_reach_the_discriminator(name: str, shape: tuple[int, ...]) -> None:
    check_derivatives(registry.get("penalty", name).bind(), Net(shape), shape)


def attentive() -> nn.Module:
    """A D with spectral norm, also inside its attention, as SAGAN's."""
    # Without biases on which no slope depends.
    attend = SelfAttention2d(4, Norm(spectral), reduction=2, value_reduction=2, bias=False)
    net = nn.Sequential(
        spectral(nn.Conv2d(2, 4, 3, padding=1)),
        nn.Softplus(),
        attend,
        nn.Flatten(),
        spectral(nn.Linear(4 * 3 * 4, 2, bias=False)),
    )
    with torch.no_grad():
        attend.gamma.fill_(0.7)
    return net.double()


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_go_through_spectral_norm_and_attention(name: str) -> None:
    net = attentive()
    with held(net):
        check_derivatives(registry.get("penalty", name).bind(), net, (2, 3, 4), fast=True)


def flat(x: Tensor, w: Tensor) -> Tensor:
    """A D that is quadratic in w'x: its gradient is 0 at 0, and wherever w is 0."""
    return (x.flatten(1) @ w).square()


def check_flat(penalty: Any) -> None:
    """Where D's gradient is 0, what reaches its parameters is finite."""
    zero = torch.zeros(4, 3, dtype=torch.float64)
    for w in (torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)):
        w = w.requires_grad_()
        value = penalty(turn_of(lambda x, w=w: flat(x, w), zero, zero))
        (slope,) = torch.autograd.grad(value, w)
        assert value.isfinite()
        assert slope.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_is_finite_where_the_discriminator_is_flat(name: str) -> None:
    check_flat(registry.get("penalty", name).bind())


def test_values_where_the_discriminator_is_flat() -> None:
    check_flat(DRAGAN(std=0.0))
    zero = torch.zeros(4, 3)
    turn = turn_of(lambda x: flat(x, torch.ones(3)), zero, zero)
    assert R1()(turn).item() == R2()(turn).item() == 0
    assert WGANGP()(turn).item() == DRAGAN(std=0.0)(turn).item() == 10
    assert WGANGP(one_sided=True)(turn).item() == 0


# --- what D is in a turn


@pytest.mark.parametrize("name", NAMES)
def test_any_shape_of_logits_counts_as_their_sum(name: str) -> None:
    shape = (2, 4, 4)
    real, fake = batches(1, shape=shape)
    net = Net(shape, logits=6)
    penalty = registry.get("penalty", name).bind()
    summed = penalty(turn_of(lambda x: net(x).sum(1), real, fake))
    for discriminator in (
        net,
        lambda x: net(x).view(-1, 1, 2, 3),
        lambda x: {"a": net(x)[:, :2], "b": net(x)[:, 2:].view(-1, 2, 2)},
    ):
        torch.testing.assert_close(penalty(turn_of(discriminator, real, fake)), summed)


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_augments_of_the_turn_are_within(name: str) -> None:
    """The slope is that of the augment and D together, at the image as the augment is given it."""
    real, fake = batches(1, rows=4)
    labels = torch.tensor([0, 1, 1, 0])
    directions = torch.tensor([[1.0, 0, 0], [0, 3.0, 4.0]], dtype=torch.float64)

    def heads(images: Tensor) -> dict[str, Tensor]:
        return {"logits": (2 * images.flip(1) * directions[labels]).sum(1)}

    def logits(images: Tensor) -> Tensor:
        return heads(images)["logits"]

    turn = replace(turn_of(logits, real, fake), labels=labels, heads=heads)
    norms = 2 * torch.tensor([1.0, 5.0, 5.0, 1.0], dtype=torch.float64)
    expected = {"r1": 5 * norms.square().mean(), "r2": 5 * norms.square().mean()}
    value = registry.get("penalty", name).bind()(turn)
    torch.testing.assert_close(value, expected.get(name, 10 * (norms - 1).square().mean()))


def test_wgan_gp_refuses_batches_that_do_not_pair() -> None:
    turn = turn_of(lambda x: x.sum(1), torch.zeros(4, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="joined in pairs"):
        WGANGP()(turn)


# --- broken twins, each of which one of the checks above must catch


def twin(
    *,
    at: str = "real",
    norm: Callable[[Tensor], Tensor] = lambda g: torch.linalg.vector_norm(g, dim=1),
    value: Callable[[Tensor], Tensor] = lambda n: 10 * (n - 1).square().mean(),
    create_graph: bool = True,
) -> Callable[[Turn], Tensor]:
    """A penalty like ours, but for what is overridden."""

    def penalty(turn: Turn) -> Tensor:
        real, fake = turn.real, turn.fake
        assert real is not None
        rows = 1 if at.startswith("one") else len(real)
        epsilon = torch.rand(rows, generator=turn.random).view(-1, *[1] * (real.ndim - 1))
        fresh = seeded(turn.random.initial_seed())
        noise = torch.randn(rows, *real.shape[1:], generator=fresh)
        places = {
            "real": real,
            "fake": fake,
            "between": epsilon * real + (1 - epsilon) * fake,
            "around": real + 0.5 * noise,
            "around fake": fake + 0.5 * noise,
            "farther": real + noise,
            "brighter": real + 0.5 * torch.rand(real.shape, generator=fresh),
        }
        images = places[at.removeprefix("one ")].detach().requires_grad_()
        logits = turn.discriminator(images).sum()
        (gradient,) = torch.autograd.grad(logits, images, create_graph=create_graph)
        return value(norm(gradient.flatten(1)))

    return penalty


def halved(norms: Tensor) -> Tensor:
    return 5 * norms.square().mean()


def root(gradient: Tensor) -> Tensor:
    return gradient.square().sum(1).sqrt()


def test_the_twin_machinery_is_sound() -> None:
    check_flatness(twin(value=halved), 0, (3, 4, 4), 10.0)
    check_flatness(twin(value=halved, at="fake"), 0, (3, 4, 4), 10.0, at="fake")
    check_wgan_gp(twin(at="between"), 0, (3, 4, 4), 10.0)
    check_dragan(twin(at="around"), 0, (3, 4, 4), 10.0, 0.5)
    check_derivatives(twin(at="between"), Net((2,)), (2,))
    check_flat(twin(at="between"))


@pytest.mark.parametrize(
    "broken",
    [
        twin(value=lambda n: 10 * n.square().mean()),
        twin(value=lambda n: 5 * n.mean().square()),
        twin(value=lambda n: 5 * n.mean()),
        twin(norm=lambda g: g.abs().sum(1), value=halved),
    ],
    ids=["without the half", "mean before square", "not squared", "another norm"],
)
def test_broken_r1_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_flatness(broken, 0, (3, 4, 4), 10.0)


def test_r1_and_r2_in_each_others_place_are_caught() -> None:
    with pytest.raises(AssertionError):
        check_flatness(R2(), 0, (3, 4, 4), 10.0)
    with pytest.raises(AssertionError):
        check_flatness(R1(), 0, (3, 4, 4), 10.0, at="fake")


@pytest.mark.parametrize(
    "broken",
    [
        twin(at="real"),
        twin(at="one between"),
        twin(at="between", value=lambda n: 5 * (n - 1).square().mean()),
        twin(at="between", value=lambda n: 10 * n.square().mean()),
        twin(at="between", value=lambda n: 10 * (n - 1).mean().square()),
    ],
    ids=["at reals", "one epsilon", "with a half", "centred at 0", "mean before square"],
)
def test_broken_wgan_gp_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_wgan_gp(broken, 0, (3, 4, 4), 10.0)


@pytest.mark.parametrize(
    "broken",
    [
        twin(at="real"),
        twin(at="one around"),
        twin(at="around fake"),
        twin(at="farther"),
        twin(at="brighter"),
        twin(at="around", value=lambda n: 10 * n.square().mean()),
    ],
    ids=["no noise", "one noise", "at fakes", "std ignored", "uniform", "centred at 0"],
)
def test_broken_dragan_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_dragan(broken, 0, (3, 4, 4), 10.0, 0.5)


def test_a_penalty_without_a_graph_is_caught() -> None:
    # Without create_graph the value is right and nothing is learnt from it.
    broken = twin(value=halved, create_graph=False)
    check_flatness(broken, 0, (2,), 10.0)
    for net, shape, fast in ((Net((2,)), (2,), False), (attentive(), (2, 3, 4), True)):
        with held(net), pytest.raises((AssertionError, RuntimeError, ValueError)):
            check_derivatives(broken, net, shape, fast)


def test_a_root_of_squares_is_caught() -> None:
    broken = twin(at="between", norm=root)
    check_wgan_gp(broken, 0, (2,), 10.0)
    with pytest.raises(AssertionError):
        check_flat(broken)
