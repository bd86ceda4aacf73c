"""How far weights move: clipping, optimizers of one's own, numbers that follow a schedule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.build import build
from gankit.fit import _scalable
from gankit.losses import Hinge
from gankit.optimizers import sgd
from gankit.schedules import TTUR
from gankit.slots import Turn
from gankit.spec import Spec, Train, dumps, loads
from gankit.train import objective as objective_module
from gankit.train.engine import Engine
from gankit.train.objective import Objective
from tests.engines import (
    CPU,
    SMALL,
    assert_close,
    engine_of,
    gradients,
    take,
    weights,
    wide_engine_of,
)

# --- clip


def clipped_by_torch(length: float, *overrides: str) -> dict[str, dict[str, Tensor]]:
    """Each player's gradients, shortened by torch's own function."""
    engine = wide_engine_of(SMALL, *overrides)
    found = {}
    for index, players in enumerate(("D", "G", "DG")):
        take(engine, players, index=index)
        for player in players:
            network = engine.networks[player]
            nn.utils.clip_grad_norm_(network.parameters(), length)
            found[f"{players} {player}"] = gradients(engine, player)
    return found


STILL = "optimizer={ use = 'sgd', lr = 0.0 }"
"""So that every turn starts from the same weights."""


def check_clip(wanted: dict[str, dict[str, Tensor]], length: float, *overrides: str) -> None:
    engine = wide_engine_of(SMALL, STILL, f"train.clip={length}", *overrides)
    plain = wide_engine_of(SMALL, STILL, *overrides)
    for index, players in enumerate(("D", "G", "DG")):
        told = take(engine, players, index=index)
        unclipped = take(plain, players, index=index)
        for player in players:
            mine = gradients(engine, player)
            total = float(torch.cat([g.flatten() for g in mine.values()]).norm())
            raw = torch.cat([g.flatten() for g in gradients(plain, player).values()]).norm().item()
            # Torch adds 1e-6 to the length that it divides by.
            assert_close(mine, wanted[f"{players} {player}"], 1.1e-6 / raw)
            assert total == pytest.approx(min(length, raw), rel=1e-9)
            assert float(told[f"gradient_{player}"]) == pytest.approx(raw, rel=1e-9)
            assert torch.equal(told[f"gradient_{player}"], unclipped[f"gradient_{player}"])


@pytest.mark.parametrize("length", [1e-3, 0.05, 0.3, 1e6])
@pytest.mark.parametrize("more", [(), ("discriminator.norm=spectral", "train.accumulate=2")])
def test_a_players_gradient_is_shortened_as_a_whole(length: float, more: tuple[str, ...]) -> None:
    check_clip(clipped_by_torch(length, STILL, *more), length, *more)


def test_twins_that_clip_otherwise_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch._foreach_mul_

    def each_by_itself(tensors: Any, factor: Any) -> None:
        for tensor in tensors:
            plain([tensor], (0.05 / tensor.norm()).clamp_max(1.0))

    def each_value(tensors: Any, factor: Any) -> None:
        for tensor in tensors:
            tensor.clamp_(-0.05, 0.05)

    def never(tensors: Any, factor: Any) -> None:
        pass

    wanted = clipped_by_torch(0.05, STILL)
    check_clip(wanted, 0.05)
    for broken in (each_by_itself, each_value, never):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "_foreach_mul_", broken)
            with pytest.raises(AssertionError):
                check_clip(wanted, 0.05)


@pytest.mark.parametrize("player", ["D", "G"])
def test_the_update_goes_by_the_shortened_gradient(player: str) -> None:
    engine = wide_engine_of(SMALL, "optimizer={ use = 'sgd', lr = 2.0 }", "train.clip=0.01")
    network = engine.networks[player]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    take(engine, player)
    moved = {name: before[name] - p.detach() for name, p in network.named_parameters()}
    length = torch.cat([move.flatten() for move in moved.values()]).norm()
    assert float(length) == pytest.approx(2.0 * 0.01)
    assert_close(moved, {name: 2.0 * g for name, g in gradients(engine, player).items()}, 1e-12)


def test_no_clip_and_one_that_is_never_reached_are_the_same_bits() -> None:
    plain, far = engine_of(SMALL), engine_of(SMALL, "train.clip=1e9")
    for engine in (plain, far):
        for step in range(3):
            engine.step(step)
    assert_close(weights(plain), weights(far), 0.0)


def test_a_gradient_of_nothing_is_not_stretched() -> None:
    class Nothing:
        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            return 0 * (real - fake).mean()

        def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
            return 0 * fake.mean()

    engine = engine_of(SMALL, "train.clip=1.0")
    engine.gan.loss = Nothing()
    before = weights(engine)
    assert float(engine.step(0)["gradient_D"]) == 0
    assert_close(weights(engine), before, 0.0)
    assert engine.fault() is None


# --- two optimizers

OWN = """
gankit = 1
name = "own"
data = { use = "digits", size = 8 }
generator = { use = "mlp", latent = 4, width = 6, layers = 2 }
discriminator = { use = "mlp", width = 6, layers = 2 }
loss = "hinge"
[optimizer]
use = "adam"
lr = 0.01
eps = 1e-3
[train]
steps = 20
batch = 8
"""


@pytest.mark.parametrize(
    ("own", "whole"),
    [
        # What is left out is as in [optimizer] ...
        (["discriminator_optimizer.betas=[0.5, 0.9]"], ["optimizer.betas=[0.5, 0.9]"]),
        (["discriminator_optimizer.lr=0.1"], ["optimizer.lr=0.1"]),
        # ... but not if another optimizer, or the same one, is named.
        (["discriminator_optimizer=rmsprop"], ["optimizer={ use = 'rmsprop' }"]),
        (["discriminator_optimizer=adam"], ["optimizer={ use = 'adam' }"]),
        (
            ["discriminator_optimizer={ use = 'sgd', momentum = 0.9 }"],
            ["optimizer={ use = 'sgd', momentum = 0.9 }"],
        ),
    ],
)
def test_each_player_moves_by_its_own_optimizer(own: list[str], whole: list[str]) -> None:
    """D as in an engine where both have D's, G as in one where both have G's."""
    two, ds, gs = (engine_of(OWN, *overrides) for overrides in (own, whole, []))
    for player, one, other in (("D", ds, gs), ("G", gs, ds)):
        for engine in (two, ds, gs):
            engine.batches_drawn = 0
            for name, network in engine.networks.items():
                network.load_state_dict(engine_of(OWN).networks[name].state_dict())
            for index in range(3):
                take(engine, player, index=index)
        mine = weights(two)
        assert_close(mine, weights(one), 0.0)
        with pytest.raises(AssertionError):
            assert_close(mine, weights(other))


def test_without_one_of_its_own_d_has_the_settings_of_gs_but_a_state_apart() -> None:
    engine = engine_of(OWN)
    d, g = (engine.players[name].optimizer for name in "DG")
    assert d is not g
    assert d.defaults == g.defaults
    assert [engine.players[name].section for name in "DG"] == ["optimizer"] * 2
    own = engine_of(OWN, "discriminator_optimizer=adam")
    assert [own.players[name].section for name in "DG"] == ["discriminator_optimizer", "optimizer"]


@pytest.mark.parametrize(
    ("override", "message", "column"),
    [
        ("discriminator_optimizer.lr=-1.0", "Invalid learning rate: -1.0", None),
        ("discriminator_optimizer.momentum=0.5", 'optimizer "adam" has no option "momentum"', 25),
        ("discriminator_optimizer.lr=x", 'discriminator_optimizer.lr must be float, not "x"', 28),
        ("discriminator_optimizer=sdg", 'unknown optimizer "sdg"', 25),
        ("discriminator_optimizer=3", "discriminator_optimizer must be", 25),
    ],
)
def test_what_is_refused_of_ds_optimizer_is_shown_there(
    override: str, message: str, column: int | None
) -> None:
    from gankit.errors import SpecError

    with pytest.raises(SpecError) as caught:
        build(loads(OWN, [override]), "meta")
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)
    assert problem.place is not None
    assert problem.place.source == override
    assert column is None or problem.place.column == column


def test_the_hash_is_of_what_ds_optimizer_amounts_to() -> None:
    def identity(*overrides: str) -> str:
        spec = loads(OWN, overrides)
        assert loads(dumps(spec.plain())).hash == spec.hash, "written out it is the same spec"
        assert loads(dumps(spec.plain(full=False))).hash == spec.hash
        return spec.hash

    short = identity("discriminator_optimizer.betas=[0.5, 0.9]")
    long = "discriminator_optimizer={ use = 'adam', lr = 0.01, eps = 1e-3, betas = [0.5, 0.9] }"
    assert identity(long) == short
    others = [
        *([], ["discriminator_optimizer=adam"], ["discriminator_optimizer=rmsprop"]),
        *(["discriminator_optimizer.lr=0.02"], ["discriminator_optimizer.lr=0.03"]),
        ["discriminator_optimizer.betas=[0.5, 0.9]", "optimizer.lr=0.02"],
    ]
    assert len({short, *(identity(*overrides) for overrides in others)}) == len(others) + 1


def test_rates_of_their_own_ttur_n_critic_and_a_decay_compose() -> None:
    engine = engine_of(
        OWN, "discriminator_optimizer.lr=0.03", "schedule.ttur.ratio=2", "schedule.n_critic.n=3",
        "schedule.linear_decay={ final = 0.0 }", "schedule.warm_up={ steps = 2, start = 0.5 }",
        "schedule.piecewise={ at = [3], values = [0.1], on = 'discriminator_optimizer.eps' }",
        "train.steps=5",
    )  # fmt: skip
    for step, factor in enumerate((0.5, 0.8 * 0.75, 0.6, 0.4, 0.2)):
        before = {name: one.turns_taken for name, one in engine.players.items()}
        engine.step(step)
        taken = {name: one.turns_taken - before[name] for name, one in engine.players.items()}
        assert taken == {"D": 3, "G": 1}
        groups = {name: one.optimizer.param_groups[0] for name, one in engine.players.items()}
        rates = {name: group["lr"] for name, group in groups.items()}
        assert rates == pytest.approx({"D": 0.03 * 2 * factor, "G": 0.01 * factor})
        eps = {name: group["eps"] for name, group in groups.items()}
        assert eps == pytest.approx({"D": 1e-3 * (0.1 if step >= 3 else 1), "G": 1e-3})


def test_a_rate_that_is_an_int_is_scaled_from_where_it_was() -> None:
    """By hand; not from what the last step had made of it."""
    spec = loads(SMALL)
    gan, data = build(spec)
    gan.optimizer = lambda parameters: sgd(parameters, lr=1)
    gan.schedules = [TTUR(ratio=2.0)]
    engine = Engine(gan, data, Train(steps=5, batch=4), CPU)
    for step in range(3):
        engine.step(step)
        rates = {n: one.optimizer.param_groups[0]["lr"] for n, one in engine.players.items()}
        assert rates == {"D": 2.0, "G": 1.0}


def check_hyper_parameters(engine: Engine) -> None:
    """They are the spec's, whatever the state had."""
    for _ in range(2):
        (d,), (g,) = (engine.players[name].optimizer.param_groups for name in "DG")
        assert (d["lr"], d["betas"], d["eps"]) == (0.5, (0.1, 0.2), 0.25)
        assert (g["lr"], g["weight_decay"], g["eps"]) == (0.0625, 0.125, 0.5)
        engine.step(1)


CHANGED = (
    *("optimizer={ use = 'adam', lr = 0.0625, weight_decay = 0.125, eps = 0.5 }",),
    *("discriminator_optimizer={ use = 'adam', lr = 0.5, betas = [0.1, 0.2], eps = 0.25 }",),
)


def test_hyper_parameters_are_those_of_the_spec_after_a_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = engine_of(OWN, "discriminator_optimizer.lr=0.3")
    old.step(0)
    state = old.state()
    changed = engine_of(OWN, *CHANGED)
    changed.load_state(state)
    assert [changed.players[name].turns_taken for name in "DG"] == [1, 1]
    kept = changed.players["D"].optimizer.state_dict()["state"]
    assert all(
        torch.equal(kept[i]["exp_avg"], value["exp_avg"])
        for i, value in old.players["D"].optimizer.state_dict()["state"].items()
    )
    check_hyper_parameters(changed)
    # The twin: what torch does by itself.
    twin = engine_of(OWN, *CHANGED)
    for name, player in twin.players.items():
        player.optimizer.load_state_dict(state["players"][name]["optimizer"])
    with pytest.raises(AssertionError):
        check_hyper_parameters(twin)


# --- schedules of numbers

NUMBERS = """
gankit = 1
name = "numbers"
data = { use = "shapes", size = 8 }
penalty = [
  { use = "r1", weight = 0.5 }, { use = "r2" }, { use = "wgan_gp" },
  { use = "dragan", std = 0.5 }, { use = "lecam", weight = 4.0 },
  { use = "consistency", fake = 0.5, augments = ["translation"] },
  { use = "orthogonal", weight = 0.5 }, { use = "feature_matching" },
]
augment = ["flip", "color", { use = "translation", ratio = 0.5 }, "cutout"]
[generator]
use = "mlp"
width = 6
layers = 2
initializer = "orthogonal"
[discriminator]
use = "mlp"
width = 6
layers = 2
norm = "spectral"
initializer = "orthogonal"
[train]
steps = 20
batch = 8
ema = 0.9
[optimizer]
use = "adamw"
lr = 0.01
eps = 0.01
weight_decay = 0.5
[discriminator_optimizer]
use = "sgd"
lr = 0.1
momentum = 0.8
[loss]
use = "least_squares"
fake_target = -0.5
[latent]
use = "truncated"
"""
OTHERS = {
    "loss.margin": "loss={ use = 'hinge', margin = 0.2 }",
    "latent.low": "latent={ use = 'uniform' }",
    "latent.high": "latent={ use = 'uniform' }",
    "discriminator_optimizer.alpha": "discriminator_optimizer={ use = 'rmsprop', lr = 0.01 }",
}
"""Numbers of parts of which a spec has room for one."""
PATHS = [*sorted(set(_scalable(loads(NUMBERS)))), *OTHERS]
FACTOR = 0.5


def value_at(spec: Spec, path: str) -> float:
    """What a spec says of a number, or the default."""
    table: Any = spec.plain()
    for key in path.split("."):
        entries = {entry["use"]: entry for entry in table} if isinstance(table, list) else table
        table = entries[key]
    return float(table)


def after_two_steps(engine: Engine, first: Engine | None = None) -> dict[str, Tensor]:
    """The state two steps lead to; a step of `first` and one of the engine, if there are two."""
    if first is None:
        first = engine
    first.step(0)
    if first is not engine:
        for name, network in engine.networks.items():
            network.load_state_dict(first.networks[name].state_dict())
        engine.ema.average.load_state_dict(first.ema.average.state_dict())
        engine.load_state(first.state())
    engine.step(1)
    state = weights(engine)
    return state | {f"average.{k}": v for k, v in engine.ema.average.state_dict().items()}


def check_schedule(path: str) -> None:
    base = [OTHERS[path]] if path in OTHERS else []
    value = value_at(loads(NUMBERS, base), path)
    jump = f"schedule.piecewise={{ at = [1], values = [{FACTOR}], on = '{path}' }}"
    scheduled = after_two_steps(wide_engine_of(NUMBERS, *base, jump))
    plain = wide_engine_of(NUMBERS, *base)
    other = wide_engine_of(NUMBERS, *base, f"{path}={value * FACTOR}")
    assert_close(scheduled, after_two_steps(other, plain))
    with pytest.raises(AssertionError):  # and it is not as though nothing had been scheduled
        assert_close(scheduled, after_two_steps(wide_engine_of(NUMBERS, *base)))


@pytest.mark.parametrize("path", PATHS)
def test_a_number_that_is_scheduled_is_that_number_at_that_step(path: str) -> None:
    check_schedule(path)


def test_all_sorts_of_numbers_are_among_them() -> None:
    assert {
        *("penalty.r1.weight", "penalty.lecam.weight", "penalty.dragan.std", "augment.flip.p"),
        *("train.ema", "train.top_k", "loss.margin", "loss.real_target", "latent.std"),
        *("optimizer.weight_decay", "optimizer.eps", "discriminator_optimizer.momentum"),
        *("latent.threshold", "augment.color.brightness", "penalty.consistency.fake"),
    } <= set(PATHS)
    assert not {path for path in PATHS if path.endswith((".lr", "decay")) and "adam" in path}
    assert "penalty.lecam.decay" not in PATHS, "it is not read anew at each step"


@pytest.mark.parametrize("path", ["penalty.r1.weight", "loss.real_target", "optimizer.eps"])
def test_twin_factors_that_nobody_heeds_are_caught(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gankit.train.player import Player

    monkeypatch.setattr(objective_module, "scaled", lambda gan, factors: gan)
    monkeypatch.setattr(Objective, "scale", lambda self, factors: None)
    plain = Player.set_rate
    monkeypatch.setattr(Player, "set_rate", lambda self, rate, factors: plain(self, rate, {}))
    with pytest.raises(AssertionError):
        check_schedule(path)


def test_factors_of_two_schedules_and_a_penalty_that_is_lazy_multiply() -> None:
    def engine(*schedules: str) -> Engine:
        return wide_engine_of(SMALL, "penalty.r1={ weight = 3.0, every = 2 }", *schedules)

    on = "on = 'penalty.r1.weight'"
    several = engine(
        f"schedule.piecewise={{ at = [0], values = [0.5], {on} }}",
        f"schedule.linear_decay={{ {on} }}",
    )
    told = [several.step(step).get("r1_D") for step in range(3)]
    alone = [engine().step(0)["r1_D"], None]
    assert told[1] is None
    assert told[0] is not None
    assert float(told[0]) == pytest.approx(0.5 * float(alone[0]), rel=1e-9)  # type: ignore[arg-type]


def test_a_scale_is_of_the_spec_and_not_of_the_last_step() -> None:
    halves = "schedule.exponential={ rate = 0.5, every = 1, on = 'latent.std' }"
    engine = wide_engine_of(SMALL, halves)
    lengths = []
    for step in range(4):
        engine.step(step)
        draws = engine.draws(9, 0)
        lengths.append(float(engine.batch("D", draws).latent.norm()))
    assert lengths == pytest.approx([lengths[0] * 0.5**step for step in range(4)])


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("penalty.r2.weight", 'did you mean "penalty.r1.weight"? available: '),
        ("loss.margn", 'did you mean "loss.margin"? available: '),
        ("penalty.r1.every", 'did you mean "penalty.r1.weight"? '),
        ("optimizer.lr", "available: "),
        ("discriminator_optimizer.momentum", ""),
        ("generator.width", "available: "),
        ("train.batch", ""),
        ("x", "available: latent.std, loss.margin, optimizer.momentum, penalty.r1.weight"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_choices(path: str, hint: str) -> None:
    from gankit.errors import SpecError

    override = f"schedule.linear_decay={{ on = '{path}' }}"
    with pytest.raises(SpecError) as caught:
        build(loads(SMALL, ["penalty.r1={}", override]), "meta")
    (problem,) = caught.value.problems
    assert problem.message == f'schedule "linear_decay" cannot scale "{path}"'
    assert hint in problem.hint
    assert problem.hint.endswith(
        "available: latent.std, loss.margin, optimizer.momentum, penalty.r1.weight, "
        "train.ema, train.top_k"
    )
    assert problem.place is not None
    start = problem.place.column - 1
    assert problem.place.source[start:][: problem.place.width] == f"'{path}'"


# --- the best fakes


def by_hand(engine: Engine, top: int, best: bool = True) -> dict[str, Tensor]:
    """G's gradients of the loss over its best fakes, without the engine."""
    draws = engine.draws(0, 0)
    batch = engine.batch("G", draws)
    network, judge = engine.networks["G"], engine.networks["D"]
    logits = judge(network(batch.latent))
    order = sorted(range(len(logits)), key=lambda i: logits[i].mean().item(), reverse=best)
    loss = Hinge().generator(None, logits[order[:top]])
    found = torch.autograd.grad(loss, list(network.parameters()))
    return dict(zip(dict(network.named_parameters()), found, strict=True))


@pytest.mark.parametrize(("top_k", "rows"), [(0.5, 4), (0.125, 1), (0.01, 1), (0.6, 5), (1.0, 8)])
@pytest.mark.parametrize("head", ["dense", "conv"])
def test_g_learns_from_its_best_fakes_alone(top_k: float, rows: int, head: str) -> None:
    """Of several logits of an image, by their mean."""
    judge = f"discriminator={{ use = 'dcgan', width = 4, head = '{head}' }}"
    engine = wide_engine_of(SMALL, f"train.top_k={top_k}", "data.size=16", judge)
    wanted = by_hand(engine, rows)
    worst = by_hand(engine, rows, best=False)
    take(engine, "G")
    assert_close(gradients(engine, "G"), wanted, 1e-12)
    if rows < 8:
        with pytest.raises(AssertionError):
            assert_close(gradients(engine, "G"), worst, 1e-12)


def test_d_learns_from_all_of_them() -> None:
    few, all_ = (wide_engine_of(SMALL, f"train.top_k={k}", "penalty.r2={}") for k in (0.25, 1.0))
    for engine in (few, all_):
        take(engine, "D")
    assert_close(gradients(few, "D"), gradients(all_, "D"), 0.0)


class Counts(Hinge):
    """A hinge loss that counts the rows it is shown."""

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        self.__dict__.setdefault("rows", []).append(len(fake))
        return super().generator(real, fake)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        assert len(real) == len(fake) == 8
        return super().discriminator(real, fake)


@settings(max_examples=10)
@given(st.floats(0.3, 1.0), st.floats(0.0, 1.0), st.integers(1, 4), st.floats(0.1, 1.0))
def test_how_many_follows_a_schedule(rate: float, final: float, every: int, top_k: float) -> None:
    engine = engine_of(
        SMALL, f"train.top_k={top_k}",
        f"schedule.exponential={{ rate = {rate}, final = {final}, every = {every}, "
        "on = 'train.top_k' }",
    )  # fmt: skip
    engine.gan.loss = Counts()
    for step in range(6):
        engine.step(step)
    shares = [top_k * max(final, rate ** (step / every)) for step in range(6)]
    wanted = [max(1, math.ceil(8 * share - 1e-9)) for share in shares]
    assert engine.gan.loss.__dict__["rows"] == wanted


def test_a_share_that_is_a_whole_number_of_rows_is_that_many() -> None:
    """In floating point 0.07 x 100 is a little more than 7."""
    engine = engine_of(SMALL, "train.top_k=0.07", "train.batch=100")
    engine.gan.loss = Counts()
    take(engine, "G")
    assert engine.gan.loss.__dict__["rows"] == [7]


def test_a_penalty_of_g_sees_every_fake() -> None:
    engine = engine_of(SMALL, "train.top_k=0.25")
    seen: list[int] = []

    class Looks:
        players, every = "G", 1

        def __call__(self, turn: Turn, /) -> Tensor:
            seen.append(len(turn.fake_logits))
            return turn.fake_logits.mean()

    engine.gan.penalties = {"looks": Looks()}
    take(engine, "G")
    assert seen == [8]
