"""Weights are computed once in a turn, for the player alone, and nothing stays behind."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from gankit.norms import clip, spectral, weightnorm
from gankit.ops import Computed, computed, held, parametrizations
from gankit.slots import Turn
from gankit.train import player as player_module
from gankit.train.engine import Engine
from gankit.train.player import Player
from tests.engines import (
    SMALL,
    Constant,
    anew,
    assert_close,
    engine_of,
    gradients,
    take,
    weights,
    wide_engine_of,
)

NORMS = ("spectral", "weightnorm", "clip")

Way = Callable[..., AbstractContextManager[Computed]]


def normed(norm: str, *more: str) -> list[str]:
    """Both networks with a norm, and all that reads their weights many times over."""
    table = '{ use = "clip", bound = 0.03 }' if norm == "clip" else f'"{norm}"'
    return [
        *(f"generator.norm={table}", f"discriminator.norm={table}"),
        *("penalty.r1.weight=0.5", "penalty.wgan_gp.weight=0.5", "penalty.feature_matching={}"),
        *("penalty.orthogonal={}", "schedule.n_critic.n=2", "train.accumulate=2", *more),
    ]


# --- how often


def count_computations(engine: Engine) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for player, network in engine.networks.items():
        for name, module in network.named_modules():
            if isinstance(module, parametrize.ParametrizationList):
                for inner in module:
                    key = player, name
                    inner.register_forward_hook(lambda *given, key=key: counts.update([key]))
    return counts


def check_computed_once(norm: str) -> None:
    engine = engine_of(SMALL, *normed(norm))
    counts = count_computations(engine)
    count = sum(len(list(parametrizations(network))) for network in engine.networks.values())
    assert count >= 6
    for index, players in enumerate(("D", "D", "G", "DG")):
        counts.clear()
        take(engine, players, index=index)
        assert len(counts) == count
        assert set(counts.values()) == {1}, counts


@pytest.mark.parametrize("norm", NORMS)
def test_every_weight_is_computed_once_a_turn(norm: str) -> None:
    check_computed_once(norm)


@pytest.mark.parametrize("norm", NORMS)
def test_twin_weights_computed_at_each_forward_are_counted(
    norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player_module, "computed", anew)
    with pytest.raises(AssertionError):
        check_computed_once(norm)


# --- the same gradients


def trained(way: Way, *overrides: str) -> Iterator[dict[str, Tensor]]:
    """The gradients of several turns, and the weights that they lead to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(player_module, "computed", way)
        engine = wide_engine_of(SMALL, *overrides)
        for index, players in enumerate(("D", "G", "DG")):
            take(engine, players, index=index)
            for player in players:
                yield gradients(engine, player)
        yield weights(engine)


def check_gradients(way: Way, *overrides: str) -> None:
    for mine, theirs in zip(trained(way, *overrides), trained(anew, *overrides), strict=True):
        assert_close(mine, theirs, 1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "more", [(), ("train.accumulate=1",), ("train.accumulate=4", "train.batches=joint")]
)
def test_gradients_are_those_of_weights_computed_at_each_forward(
    norm: str, more: tuple[str, ...]
) -> None:
    """Through second derivatives (r1, wgan_gp), and gathered from several shares."""
    check_gradients(computed, *normed(norm, *more))


@contextmanager
def dropped(network: nn.Module, trained: bool = True) -> Iterator[Computed]:
    """Nothing is carried on to the parameters."""
    with computed(network, trained):
        yield Computed((), ())


@contextmanager
def straight(network: nn.Module, trained: bool = True) -> Iterator[Computed]:
    """Carried past what computed the weights, as though they were the parameters."""
    with computed(network, trained) as weights:
        raw = [each.original for each in parametrizations(network)]
        yield Computed(weights.weights, [r.expand_as(r) for r in raw] if trained else ())


@contextmanager
def first_alone(network: nn.Module, trained: bool = True) -> Iterator[Computed]:
    """Only what had gathered when the second share began is carried on."""
    with computed(network, trained) as weights:
        kept: list[Tensor | None] = [None] * len(weights.weights)
        for index, weight in enumerate(weights.weights):
            if weight.requires_grad:

                def keep(leaf: Tensor, index: int = index) -> None:
                    if kept[index] is None:
                        kept[index] = leaf.grad.clone()  # type: ignore[union-attr]
                    leaf.grad = kept[index].clone()  # type: ignore[union-attr]

                weight.register_post_accumulate_grad_hook(keep)
        yield weights


@pytest.mark.parametrize("broken", [dropped, straight, first_alone])
def test_twin_gradients_that_are_not_all_carried_through_are_caught(broken: Way) -> None:
    with pytest.raises(AssertionError):
        check_gradients(broken, *normed("spectral"))


# --- `computed` by itself


class Two(nn.Sequential):
    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__(norm(nn.Linear(3, 4)), nn.Tanh(), norm(nn.Linear(4, 1)))
        self.double()


def loss_of(network: nn.Module, x: Tensor) -> Tensor:
    """Twice through the network, and once more through its slope."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    return network(x).sum() + network(2 * x).square().sum() + slope.square().sum()


@pytest.mark.parametrize("norm", [spectral, weightnorm, clip])
def test_a_forward_without_gradients_first_loses_none(norm: Callable[..., nn.Module]) -> None:
    network, x = Two(norm), torch.randn(5, 3, dtype=torch.float64)
    with held(network):
        wanted = torch.autograd.grad(loss_of(network, x), list(network.parameters()))
    with computed(network) as weights:
        with torch.no_grad():
            network(x)
        for _ in range(2):
            loss_of(network, x).backward()
        weights.carry()
    for parameter, gradient in zip(network.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient, rtol=1e-12, atol=1e-12)


def test_twin_torchs_own_cache_does_lose_them() -> None:
    network, x = Two(spectral), torch.randn(5, 3, dtype=torch.float64)
    with held(network), parametrize.cached():
        with torch.no_grad():
            network(x)
        loss_of(network, x).backward()
    lost = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert lost == [f"{i}.parametrizations.weight.original" for i in (0, 2)]
    with held(network), parametrize.cached():
        loss_of(network, x).backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss_of(network, x).backward()


@pytest.mark.parametrize("norm", [spectral, weightnorm, clip])
def test_weights_without_training_have_no_gradients(norm: Callable[..., nn.Module]) -> None:
    network = Two(norm)
    with computed(network, trained=False) as weights:
        assert not any(tensor.requires_grad for tensor in (*weights.weights, *weights.origins))
        assert not network[0].weight.requires_grad


def test_a_parameter_that_is_not_trained_stays_so() -> None:
    network = Two(spectral)
    network[0].parametrizations.weight.original.requires_grad_(False)
    with computed(network) as weights:
        assert [weight.requires_grad for weight in weights.weights] == [False, True]
        loss_of(network, torch.randn(2, 3, dtype=torch.float64)).backward()
        weights.carry()
    assert network[0].parametrizations.weight.original.grad is None
    assert network[2].parametrizations.weight.original.grad is not None


def test_nothing_that_gathered_is_nothing_to_carry() -> None:
    network = Two(weightnorm)
    with computed(network) as weights:
        weights.carry()
    assert all(parameter.grad is None for parameter in network.parameters())


# --- nothing is left behind


def check_follows(network: nn.Module) -> None:
    """Each layer's weight is computed from its parameters as they are when it is asked for."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            raw = next(module.parametrizations.weight.parameters())
            with torch.no_grad(), held(network):
                raw.clamp_(-0.01, 0.01)
                before = module.weight.clone()
                raw.copy_(raw.roll(1, -1) if raw.numel() > len(raw) else 2 * raw)
                assert not torch.equal(module.weight, before)
    assert all(parameter.requires_grad for parameter in network.parameters())


class Slip(Constant):
    """Raises at a call, after it has looked at D."""

    def __init__(self, players: str, at: int) -> None:
        super().__init__(players)
        self.at = at

    def __call__(self, turn: Turn, /) -> Tensor:
        turn.heads(turn.fake)
        if len(self.turns) == self.at:
            raise ArithmeticError("a slip")
        return super().__call__(turn)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("players", ["D", "G", "DG"])
def test_after_a_turn_weights_follow_their_parameters(norm: str, players: str) -> None:
    engine = engine_of(SMALL, *normed(norm))
    take(engine, players)
    for network in engine.networks.values():
        check_follows(network)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("players", "at"), [("D", 0), ("D", 1), ("G", 1), ("DG", 1)])
def test_after_a_turn_that_broke_off_too(norm: str, players: str, at: int) -> None:
    engine, fresh = (engine_of(SMALL, *normed(norm)) for _ in range(2))
    engine.gan.penalties = {"slip": Slip(players[-1], at)}
    before = [p.detach().clone() for n in engine.networks.values() for p in n.parameters()]
    with pytest.raises(ArithmeticError):
        take(engine, players)
    after = [p for n in engine.networks.values() for p in n.parameters()]
    if norm != "clip":  # which clips the parameters themselves
        assert all(map(torch.equal, before, after))
    # Whoever comes next begins afresh: the gradients are those of an engine that never slipped.
    for one in (engine, fresh):
        one.gan.penalties = {}
        for name, network in one.networks.items():
            network.load_state_dict(fresh.networks[name].state_dict())
        one.batches_drawn = 5
    for player in "DG":
        take(engine, player, step=1)
        take(fresh, player, step=1)
        assert_close(gradients(engine, player), gradients(fresh, player), 0.0)
    for network in engine.networks.values():
        check_follows(network)


def test_twin_a_turn_that_leaves_its_weights_there_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def stuck(network: nn.Module, trained: bool = True) -> Iterator[Computed]:
        inner = computed(network, trained)
        weights = inner.__enter__()
        kept = [dict(each.__dict__) for each in parametrizations(network)]
        yield weights
        inner.__exit__(None, None, None)
        for each, was in zip(parametrizations(network), kept, strict=True):
            each.__dict__["forward"] = was["forward"]

    monkeypatch.setattr(player_module, "computed", stuck)
    engine = engine_of(SMALL, *normed("spectral"))
    take(engine, "D")
    with pytest.raises(AssertionError):
        check_follows(engine.networks["D"])


class Copies(Constant):
    """Takes a copy of the networks and of their state while the turn is on."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("DG")
        self.engine = engine
        self.states: list[dict[str, Tensor]] = []
        self.networks: list[nn.Module] = []

    def __call__(self, turn: Turn, /) -> Tensor:
        self.states.append(weights(self.engine))
        self.networks += map(copy.deepcopy, self.engine.networks.values())
        return super().__call__(turn)


@pytest.mark.parametrize("norm", NORMS)
def test_states_and_copies_in_mid_turn_are_whole(norm: str) -> None:
    engine = engine_of(SMALL, *normed(norm, "train.accumulate=1"))
    engine.gan.penalties = {"copies": (copies := Copies(engine))}
    before = weights(engine)
    for players in "DG":
        take(engine, players)
    first, second = copies.states
    assert list(first) == list(second) == list(before)
    # Of D's turn the parameters, but not the estimates, are those from before it.
    own = [name for name in before if "original" in name or "bias" in name]
    if norm != "clip":  # which clips the parameters themselves
        assert all(torch.equal(first[name], before[name]) for name in own)
    x = torch.randn(2, 1, 8, 8)
    for network in copies.networks[:2]:
        network.requires_grad_(True)
        check_follows(network)
    judge = copies.networks[1 - list(engine.networks).index("G")]
    assert isinstance(judge(x), Tensor)


# --- no more than is needed


def spied(engine: Engine) -> dict[str, Computed]:
    """The computed weights of the newest turn, by player."""
    seen: dict[str, Computed] = {}

    @contextmanager
    def spying(name: str, inner: Way) -> Iterator[Computed]:
        with inner() as weights:
            seen[name] = weights
            yield weights

    for name, one in engine.players.items():
        for way in ("playing", "watching"):
            setattr(one, way, partial(spying, name, getattr(one, way)))
    return seen


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("player", "opponent"), ["DG", "GD"])
def test_a_turn_computes_no_gradient_of_the_opponents(
    norm: str, player: str, opponent: str
) -> None:
    engine = engine_of(SMALL, *normed(norm))
    seen = spied(engine)
    take(engine, player)
    for tensor in (*engine.networks[opponent].parameters(), *seen[opponent].weights):
        assert tensor.grad is None
    assert not any(weight.requires_grad for weight in seen[opponent].weights)
    assert all(weight.grad is not None for weight in seen[player].weights)
    assert all(p.grad is not None for p in engine.networks[player].parameters())


LATENT, HIDDEN, PIXELS = 4, 6, 64
MAKES = LATENT * HIDDEN + HIDDEN * HIDDEN + HIDDEN * PIXELS
JUDGES = PIXELS * HIDDEN + HIDDEN * HIDDEN + HIDDEN
"""Multiplications for one image, forward; backward there are as many for what comes in, and as many
again for the weights."""


def multiplications(engine: Engine, players: str) -> int:
    with FlopCounterMode(display=False) as counter:
        take(engine, players)
    return counter.get_total_flops() // 2


def check_multiplications() -> None:
    engine = engine_of(SMALL, "generator.norm=weightnorm", "discriminator.norm=weightnorm")
    rows = engine.train.batch
    # Real and fake through D; no gradient of images.
    wanted = rows * (MAKES + 2 * (3 * JUDGES - PIXELS * HIDDEN))
    assert multiplications(engine, "D") == wanted
    # D's gradient is that of its images alone; none of latents.
    wanted = rows * (3 * MAKES - LATENT * HIDDEN + 2 * JUDGES)
    assert multiplications(engine, "G") == wanted
    # Both at once make fakes once; D judges them for each player.
    wanted += rows * 2 * (3 * JUDGES - PIXELS * HIDDEN)
    assert multiplications(engine, "DG") == wanted


def test_a_turn_multiplies_no_more_than_it_must() -> None:
    check_multiplications()


def test_twin_an_opponent_that_is_not_frozen_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Player, "frozen", lambda self, weights: nullcontext())
    with pytest.raises(AssertionError):
        check_multiplications()


def test_both_at_once_are_each_alone_from_the_same_place() -> None:
    both = wide_engine_of(SMALL, "discriminator.norm=weightnorm", "train.accumulate=2")
    take(both, "DG")
    for player in "DG":
        alone = wide_engine_of(SMALL, "discriminator.norm=weightnorm", "train.accumulate=2")
        take(alone, player)
        assert_close(gradients(both, player), gradients(alone, player), 1e-12)
