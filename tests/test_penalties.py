"""Penalties against closed forms, their second derivatives, and what they draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from gankit.penalties import R1, WGANGP
from gankit.registry import registry
from gankit.slots import Image, Penalty, Turn, heads_of

PENALTIES = [entry.name for entry in registry.find("penalty") if entry.provider.name == "gankit"]
SHAPES = [(2,), (2, 3, 3), (1, 2, 4)]
SEEDS = st.integers(0, 2**32 - 1)

R1_TYPED: Penalty = R1()
WGANGP_TYPED: Penalty = WGANGP()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turn_of(
    discriminator: Callable[[Tensor], Any], real: Tensor, fake: Tensor, seed: int = 0
) -> Turn:
    """A turn of D on given images."""

    def heads(images: Tensor) -> dict[str, Tensor]:
        return heads_of(discriminator(images))

    with torch.no_grad():
        real_heads, fake_heads = heads(real), heads(fake)
    return Turn(
        step=0,
        total=1,
        player="D",
        real=real,
        fake=fake,
        labels=None,
        latent=torch.zeros(len(fake), 1),
        real_heads=real_heads,
        fake_heads=fake_heads,
        image=Image(3, (), bounded=False),
        generator=nn.Identity(),
        generate=nn.Identity(),
        heads=heads,
        features=nn.Identity(),
        adversarial=dict.fromkeys(real_heads, 1.0),
        random=seeded(seed),
    )


def batches(seed: int, rows: int = 5, shape: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, rows, *shape, generator=seeded(seed), dtype=torch.float64)
    return drawn[0], drawn[1]


class Quadratic(nn.Module):
    """x' A x / 2 + b' x, whose gradient is A x + b for a symmetric A."""

    def __init__(self, seed: int, width: int) -> None:
        super().__init__()
        a = torch.randn(width, width, generator=seeded(seed), dtype=torch.float64)
        self.a = nn.Parameter(a + a.T)
        self.b = nn.Parameter(torch.randn(width, generator=seeded(seed + 1), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return ((x @ self.a) * x).sum(1) / 2 + x @ self.b

    def slope(self, x: np.ndarray) -> np.ndarray:
        a, b = self.a.detach().numpy(), self.b.detach().numpy()
        return x.reshape(len(x), -1) @ a + b


class Net(nn.Module):
    """A smooth little D for any shape."""

    def __init__(self, shape: tuple[int, ...], logits: int = 1) -> None:
        super().__init__()
        width = int(np.prod(shape))
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(width, 4), nn.Softplus(), nn.Linear(4, logits, bias=False)
        )
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=seeded(index)) / 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def check_r1(penalty: Any, seed: int, shape: tuple[int, ...], weight: float) -> None:
    """weight / 2 x mean |A x + b|^2 over real images."""
    real, fake = batches(seed, shape=shape)
    discriminator = Quadratic(seed, int(np.prod(shape)))
    norms = np.linalg.norm(discriminator.slope(real.numpy()), axis=1)
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


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from(SHAPES), weight=st.floats(0, 100))
def test_r1_of_a_quadratic(seed: int, shape: tuple[int, ...], weight: float) -> None:
    check_r1(R1(weight=weight), seed, shape, weight)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from(SHAPES), weight=st.floats(0, 100), one_sided=st.booleans())
def test_wgan_gp_of_a_quadratic(
    seed: int, shape: tuple[int, ...], weight: float, one_sided: bool
) -> None:
    penalty = WGANGP(weight=weight, one_sided=one_sided)
    check_wgan_gp(penalty, seed, shape, weight, one_sided)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.01, 10))
def test_a_linear_discriminator_has_one_slope(seed: int, scale: float) -> None:
    w = scale * torch.randn(12, generator=seeded(seed), dtype=torch.float64)
    real, fake = batches(seed, shape=(3, 2, 2))
    turn = turn_of(lambda x: x.flatten(1) @ w, real, fake)
    norm = w.norm().item()
    assert R1()(turn).item() == pytest.approx(5 * norm**2)
    assert WGANGP()(turn).item() == pytest.approx(10 * (norm - 1) ** 2)
    assert WGANGP(one_sided=True)(turn).item() == pytest.approx(10 * max(norm - 1, 0) ** 2)


def test_wgan_gp_looks_on_the_line_a_point_for_every_row() -> None:
    seen = []

    def discriminator(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.square().flatten(1).sum(1)

    real, fake = batches(0, rows=64, shape=(2, 3, 3))
    WGANGP()(turn_of(discriminator, real, fake))
    shares = ((seen[-1] - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert len(shares[:, 0].unique()) == 64
    assert 0.35 < shares.mean() < 0.65


def check_second_order(penalty: Any, shape: tuple[int, ...]) -> None:
    """The gradient that reaches D's parameters is the one of finite differences."""
    net = Net(shape)
    real, fake = batches(3, rows=3, shape=shape)
    names = [name for name, _ in net.named_parameters()]

    def of_parameters(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return penalty(turn_of(lambda x: functional_call(net, named, x), real, fake, seed=5))

    assert torch.autograd.gradcheck(of_parameters, tuple(net.parameters()), atol=1e-6, rtol=1e-4)
    net.zero_grad()
    penalty(turn_of(net, real, fake)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PENALTIES)
def test_second_derivatives_reach_the_discriminator(name: str, shape: tuple[int, ...]) -> None:
    check_second_order(registry.get("penalty", name).bind(), shape)


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


@pytest.mark.parametrize("name", PENALTIES)
def test_is_finite_where_the_discriminator_is_flat(name: str) -> None:
    check_flat(registry.get("penalty", name).bind())


def test_values_where_the_discriminator_is_flat() -> None:
    zero = torch.zeros(4, 3)
    turn = turn_of(lambda x: flat(x, torch.ones(3)), zero, zero)
    assert R1()(turn).item() == 0
    assert WGANGP()(turn).item() == 10
    assert WGANGP(one_sided=True)(turn).item() == 0


@pytest.mark.parametrize("name", PENALTIES)
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


@pytest.mark.parametrize("name", PENALTIES)
def test_leaves_the_turn_and_the_global_generator_alone(name: str) -> None:
    real, fake = batches(2)
    fake.requires_grad_()
    net, penalty = Net((3,)), registry.get("penalty", name).bind()
    before, state = real.clone(), torch.get_rng_state()
    values = [penalty(turn_of(net, real, fake, seed)) for seed in (1, 1)]
    values[0].backward()
    assert values[0].item() == values[1].item()
    assert torch.equal(real, before)
    assert not real.requires_grad
    assert fake.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", PENALTIES)
def test_scales_with_its_weight(name: str) -> None:
    part = registry.get("penalty", name)
    real, fake = batches(4)
    net = Net((3,))
    values = [part.bind(weight=w)(turn_of(net, real, fake)).item() for w in (0.0, 1.0, 3.0)]
    assert values[0] == 0
    assert values[2] == pytest.approx(3 * values[1])


@pytest.mark.parametrize("name", PENALTIES)
def test_says_for_whom_and_how_often(name: str) -> None:
    part = registry.get("penalty", name)
    assert part.bind().players in {"D", "G", "DG"}
    assert part.bind().every == 1
    assert part.bind(every=16).every == 16
    assert "players" not in part.options
    assert "second_order" in part.needs


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight must be at least 0"),
        ({"weight": float("nan")}, "weight must be at least 0"),
        ({"every": 0}, "every must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        registry.get("penalty", name).bind(**options)


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
        assert turn.real is not None
        rows = len(turn.real) if at == "between" else 1
        epsilon = torch.rand(rows, generator=turn.random).view(-1, *[1] * (turn.real.ndim - 1))
        images = {
            "real": turn.real,
            "fake": turn.fake,
            "between": epsilon * turn.real + (1 - epsilon) * turn.fake,
            "one epsilon": epsilon * turn.real + (1 - epsilon) * turn.fake,
        }[at]
        images = images.detach().requires_grad_()
        logits = turn.discriminator(images).sum()
        (gradient,) = torch.autograd.grad(logits, images, create_graph=create_graph)
        return value(norm(gradient.flatten(1)))

    return penalty


def halved(norms: Tensor) -> Tensor:
    return 5 * norms.square().mean()


def root(gradient: Tensor) -> Tensor:
    return gradient.square().sum(1).sqrt()


def test_the_twin_machinery_is_sound() -> None:
    check_r1(twin(value=halved), 0, (3, 4, 4), 10.0)
    check_wgan_gp(twin(at="between"), 0, (3, 4, 4), 10.0)
    check_second_order(twin(at="between"), (2,))
    check_flat(twin(at="between"))


@pytest.mark.parametrize(
    "broken",
    [
        twin(at="fake", value=halved),
        twin(value=lambda n: 10 * n.square().mean()),
        twin(value=lambda n: 5 * n.mean().square()),
        twin(value=lambda n: 5 * n.mean()),
        twin(norm=lambda g: g.abs().sum(1), value=halved),
    ],
    ids=["at fakes", "without the half", "mean before square", "not squared", "another norm"],
)
def test_broken_r1_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_r1(broken, 0, (3, 4, 4), 10.0)


@pytest.mark.parametrize(
    "broken",
    [
        twin(at="real"),
        twin(at="one epsilon"),
        twin(at="between", value=lambda n: 5 * (n - 1).square().mean()),
        twin(at="between", value=lambda n: 10 * n.square().mean()),
        twin(at="between", value=lambda n: 10 * (n - 1).mean().square()),
    ],
    ids=["at reals", "one epsilon", "with a half", "centred at 0", "mean before square"],
)
def test_broken_wgan_gp_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_wgan_gp(broken, 0, (3, 4, 4), 10.0)


def test_a_penalty_without_a_graph_is_caught() -> None:
    # Without create_graph the value is right and nothing is learnt from it.
    broken = twin(value=halved, create_graph=False)
    check_r1(broken, 0, (2,), 10.0)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        check_second_order(broken, (2,))


def test_a_root_of_squares_is_caught() -> None:
    broken = twin(at="between", norm=root)
    check_wgan_gp(broken, 0, (2,), 10.0)
    with pytest.raises(AssertionError):
        check_flat(broken)
