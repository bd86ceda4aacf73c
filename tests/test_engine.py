"""The step: whose weights move, by which gradients, at which rates, from which draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.build import GAN
from gankit.datasets import Digits, to_float
from gankit.losses import Hinge, NonSaturating
from gankit.networks import StackGenerator, mlp_generator
from gankit.norms import SpectralNorm, spectral
from gankit.ops import estimates
from gankit.optimizers import sgd
from gankit.penalties import R1
from gankit.schedules import TTUR, LinearDecay, NCritic, Simultaneous
from gankit.slots import Image, Norm
from gankit.spec import HalfLife, Train, loads
from gankit.train.ema import Ema
from gankit.train.engine import Engine
from gankit.train.epochs import Epochs
from tests.engines import CPU, SMALL, Constant, engine_of, take
from tests.specs import IMAGES, POINTS


def losses(engine: Engine, steps: int) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in engine.step(i).items()} for i in range(steps)]


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before: dict[str, Tensor], network: nn.Module) -> bool:
    return any(not torch.equal(before[n], p) for n, p in network.named_parameters())


# --- what a step is


def test_the_same_spec_and_seed_give_the_same_weights_and_the_same_twenty_losses() -> None:
    one, other = engine_of(IMAGES), engine_of(IMAGES)
    torch.manual_seed(1234)  # the global generator has no part in it
    assert losses(one, 20) == losses(other, 20)
    for network, twin in zip(one.networks.values(), other.networks.values(), strict=True):
        for a, b in zip(network.state_dict().values(), twin.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    assert losses(engine_of(IMAGES, "seed=1"), 1) != losses(engine_of(IMAGES), 1)


def test_a_step_neither_reads_nor_moves_the_global_generator() -> None:
    before = torch.get_rng_state()
    losses(engine_of(IMAGES), 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("turns", "d", "g"), [("D", True, False), ("G", False, True)])
def test_only_the_player_moves(turns: str, d: bool, g: bool) -> None:
    engine = engine_of(IMAGES)
    before = {player: weights(network) for player, network in engine.networks.items()}
    draw = engine.draws(0, 0)
    engine.turn(turns, 0, 0, engine.batch(turns, draw), draw)
    assert moved(before["D"], engine.networks["D"]) == d
    assert moved(before["G"], engine.networks["G"]) == g


def test_no_gradient_is_computed_for_the_opponent() -> None:
    engine = engine_of(IMAGES)
    for player, opponent in (("D", "G"), ("G", "D")):
        for network in engine.networks.values():
            network.zero_grad(set_to_none=True)
        draw = engine.draws(0, 0)
        engine.turn(player, 0, 0, engine.batch(player, draw), draw)
        assert all(p.grad is None for p in engine.networks[opponent].parameters())
        assert all(p.grad is not None for p in engine.networks[player].parameters())
        assert all(p.requires_grad for n in engine.networks.values() for p in n.parameters())


class Watched(Hinge):
    """A hinge loss that keeps what it was shown."""

    seen: list[tuple[Tensor | None, Tensor]]

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        self.__dict__.setdefault("seen", []).append((real, fake))
        return super().discriminator(real, fake)


def test_a_turn_of_d_builds_no_graph_through_g() -> None:
    engine = engine_of(IMAGES)
    made: list[Tensor] = []
    engine.gan.generator.register_forward_hook(lambda m, a, out: made.append(out))
    draw = engine.draws(0, 0)
    for players, wanted in (("D", False), ("G", True)):
        engine.turn(players, 0, 0, engine.batch(players, draw), draw)
        assert made.pop().requires_grad == wanted


def test_a_turn_is_the_update_written_by_hand() -> None:
    """An independent loop over copies of the networks gives the same weights, bit for bit."""
    engine = engine_of(IMAGES, "penalty.r1={weight=2.0}", 'optimizer={use="sgd", lr=0.1}')
    nets = {player: copy.deepcopy(network) for player, network in engine.networks.items()}
    data, loss = Digits(size=16), Hinge()
    for step in range(3):
        order = Epochs(engine.data, 8, 0).batch(step)
        engine.step(step)
        for turn, player in enumerate("DG"):
            net = nets[player]
            for estimate, weight in estimates(net):
                estimate.move(weight)
            for network in nets.values():
                for estimate, _ in estimates(network):
                    estimate.held = True
            z = engine.gan.latent(8, 8, engine.draws(step, turn)("latent"))
            fake = nets["G"](z)
            if player == "D":
                real = to_float(data.images(order))
                value = loss.discriminator(nets["D"](real), nets["D"](fake.detach()))
                inputs = real.clone().requires_grad_()
                (slope,) = torch.autograd.grad(nets["D"](inputs).sum(), inputs, create_graph=True)
                value = value + slope.flatten(1).square().sum(1).mean()
            else:
                value = loss.generator(None, nets["D"](fake))
            gradients = torch.autograd.grad(value, list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
            for network in nets.values():
                for estimate, _ in estimates(network):
                    estimate.held = False
    for player, network in engine.networks.items():
        for name, parameter in network.named_parameters():
            twin = nets[player].get_parameter(name)
            torch.testing.assert_close(parameter, twin, rtol=1e-5, atol=1e-6)


def test_simultaneous_turns_start_from_where_the_other_stood() -> None:
    """On the bilinear game f(x, y) = x y, simultaneous play moves out along a spiral."""

    class Point(nn.Module):
        latent = 1

        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))

    class Maker(Point):
        def forward(self, z: Tensor) -> Tensor:
            return self.value.expand(len(z), 1)

    class Judge(Point):
        def forward(self, x: Tensor) -> Tensor:
            return self.value * x

    class Bilinear:
        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            return -fake.mean()

        def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
            return fake.mean()

    def play(schedules: Sequence[object]) -> tuple[float, float]:
        gan = GAN(
            image=Image(1, (), bounded=False),
            generator=Maker(1.0),
            discriminator=Judge(2.0),
            loss=Bilinear(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            schedules=schedules,
        )
        data = loads(POINTS).data
        from gankit.build import bind

        Engine(gan, bind(data), Train(steps=1, batch=2), CPU).step(0)
        return float(gan.generator.value.detach()), float(gan.discriminator.value.detach())

    # x <- x - 0.1 y, y <- y + 0.1 x: at once from (1, 2), or D first.
    assert play([Simultaneous()]) == pytest.approx((1 - 0.2, 2 + 0.1))
    assert play([]) == pytest.approx((1 - 0.21, 2 + 0.1))


# --- parts at their work


def test_spectral_estimates_move_once_per_turn_of_their_player(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of(IMAGES, "schedule.n_critic={n=3}")
    moves = {"D": 0, "G": 0}
    firsts = {player: next(estimates(net))[0] for player, net in engine.networks.items()}
    plain = SpectralNorm.move_all.__func__  # type: ignore[attr-defined]

    def counted(cls: type[SpectralNorm], pairs: Any) -> None:
        moved = [estimate for estimate, _ in pairs]
        for player, first in firsts.items():
            moves[player] += moved.count(first)
        plain(cls, pairs)

    monkeypatch.setattr(SpectralNorm, "move_all", classmethod(counted))
    engine.step(0)
    assert moves == {"D": 3, "G": 1}


def test_learning_rates_are_the_optimizers_times_the_schedules() -> None:
    engine = engine_of(
        POINTS, "optimizer.lr=0.5", "schedule.ttur={ratio=3.0}", "train.steps=4",
        "schedule.linear_decay={final=0.0}",
    )  # fmt: skip
    for step, factor in enumerate((1.0, 0.75, 0.5, 0.25)):
        engine.step(step)
        rates = {
            name: player.optimizer.param_groups[0]["lr"] for name, player in engine.players.items()
        }
        assert rates == pytest.approx({"G": 0.5 * factor, "D": 1.5 * factor})


@pytest.mark.parametrize("players", ["D", "G", "DG"])
@pytest.mark.parametrize("every", [1, 3])
def test_a_lazy_penalty_keeps_its_expected_strength(players: str, every: int) -> None:
    engine = engine_of(POINTS, "schedule.n_critic={n=2}")
    penalty = Constant(players, every)
    engine.gan.penalties = {"constant": penalty}
    total = {"D": 0.0, "G": 0.0}
    for step in range(6):
        for turn, player in enumerate(("D", "D", "G")):
            draw = engine.draws(step, turn)
            measured = engine.turn(player, step, turn, engine.batch(player, draw), draw)
            total[player] += float(measured.get(f"constant_{player}", 0.0))
    assert total == {"D": 12.0 * ("D" in players), "G": 6.0 * ("G" in players)}
    assert {turn.player for turn in penalty.turns} == set(players)


def test_a_decay_scales_a_penaltys_weight() -> None:
    engine = engine_of(
        POINTS,
        "train.steps=4",
        "penalty.r1={}",
        'schedule.linear_decay={on="penalty.r1.weight"}',
    )
    engine.gan.penalties = {"r1": Constant("D", 1)}
    seen = [m["r1_D"] for m in losses(engine, 4)]
    assert seen == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_joint_batches_are_separate_ones_where_images_do_not_meet() -> None:
    separate, joint = (
        losses(engine_of(IMAGES, f"train.batches={b}"), 3) for b in ("separate", "joint")
    )
    for one, other in zip(separate, joint, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    mixed = [
        losses(engine_of(IMAGES, 'discriminator.norm="batchnorm"', f"train.batches={b}"), 1)[0]
        for b in ("separate", "joint")
    ]
    assert mixed[0]["loss_D"] != pytest.approx(mixed[1]["loss_D"], rel=1e-3)


def test_real_images_reach_the_generators_turn_only_where_they_are_needed() -> None:
    for text, there in (('"nonsaturating"', False), ('"relativistic"', True)):
        engine = engine_of(POINTS, f"loss={text}")
        assert (engine.batch("G", engine.draws(0, 1)).real is not None) == there
        assert engine.batch("D", engine.draws(0, 0)).real is not None


def test_and_so_they_do_where_both_players_move_at_once() -> None:
    for text, there in (('"nonsaturating"', False), ('"relativistic"', True)):
        engine = engine_of(POINTS, f"loss={text}")
        engine.gan.penalties = {"constant": (penalty := Constant("DG", 1))}
        take(engine, "DG")
        shown = {turn.player: turn.real is not None for turn in penalty.turns}
        assert shown == {"D": True, "G": there}
        assert [turn.real_heads is not None for turn in penalty.turns] == [True, there]


def test_heads_are_weighted_and_the_others_left_to_penalties() -> None:
    class Heads(nn.Module):
        adversarial = {"a": 2.0, "b": 0.5}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = self.weight * x[:, :1]
            return {"a": logits, "b": 3 * logits, "other": logits + 100}

    engine = engine_of(POINTS)
    watched = Watched()
    gan = GAN(
        image=engine.gan.image, generator=engine.gan.generator, discriminator=Heads(), loss=watched
    )
    engine = Engine(gan, engine.data, Train(steps=1, batch=4), CPU)
    draw = engine.draws(0, 0)
    measured = engine.turn("D", 0, 0, engine.batch("D", draw), draw)
    (real_a, fake_a), (real_b, fake_b) = watched.__dict__["seen"]
    hinge = Hinge()
    wanted = 2 * hinge.discriminator(real_a, fake_a) + 0.5 * hinge.discriminator(real_b, fake_b)
    assert float(measured["loss_D"]) == pytest.approx(wanted.item())
    assert torch.equal(real_b, 3 * real_a)


def test_augments_are_applied_to_real_and_fake_in_both_turns_and_before_penalties() -> None:
    engine = engine_of(IMAGES, "penalty.r1={}")
    shown: list[tuple[bool, int]] = []

    def double(images: Tensor, random: torch.Generator) -> Tensor:
        shown.append((images.requires_grad, len(images)))
        return 2 * images

    plain = losses(engine_of(IMAGES, "penalty.r1={}"), 1)[0]
    engine.gan.augments = {"double": double}
    changed = losses(engine, 1)[0]
    # real, fake, R1's real (a leaf before the augment); then fake in G's turn
    assert [needs for needs, _ in shown] == [False, False, True, True]
    assert changed["r1_D"] != plain["r1_D"]


def test_labels_go_with_the_images_and_round_the_data() -> None:
    engine = engine_of(IMAGES)
    batch = engine.batch("D", engine.draws(0, 0))
    assert batch.labels is not None
    order = engine.epochs.batch(0)
    assert torch.equal(batch.labels, engine.data.labels(order))  # type: ignore[arg-type]
    assert engine.batch("G", engine.draws(0, 1)).labels is not None


def test_bfloat16_is_close_to_float32_and_losses_stay_wide() -> None:
    plain, low = (engine_of(IMAGES, f"train.precision={p}") for p in ("fp32", "bf16"))
    for one, other in zip(losses(plain, 5), losses(low, 5), strict=True):
        assert one["loss_D"] == pytest.approx(other["loss_D"], rel=0.1, abs=0.05)
    assert low.step(5)["loss_D"].dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in low.gan.generator.parameters())


# --- the average


def test_the_average_is_the_recursion_of_its_paper() -> None:
    source = mlp_generator(Image(2, (), bounded=False), width=4, layers=1)
    ema = Ema(source, 0.9, batch=4)
    expected = weights(source)
    for step in range(5):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(step)
        for name, parameter in source.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * parameter.detach()
    for name, parameter in ema.average.named_parameters():
        torch.testing.assert_close(parameter, expected[name])


def test_no_average_is_the_newest_weights() -> None:
    engine = engine_of(IMAGES, "train.ema=0.0")
    losses(engine, 2)
    for name, parameter in engine.gan.generator.named_parameters():
        assert torch.equal(parameter, engine.ema.average.get_parameter(name))


def remembers(ema: Ema, steps: int) -> float:
    """What is left, after so many steps, of what the average was before them."""
    with torch.no_grad():
        ema.average.weight.fill_(1.0)
        ema.source.weight.fill_(0.0)
    for step in range(steps):
        ema.update(step)
    return ema.average.weight.item()


@given(st.integers(1, 64), st.integers(1, 40), st.integers(0, 40), st.floats(0.01, 5.0))
def test_a_half_life_in_images_halves_and_ramps_up(
    batch: int, batches: int, steps: int, ramp_up: float
) -> None:
    """By closed forms: 1 / 2 to the images over the half-life, of both stretches."""
    half_life = float(batch * batches)
    plain = Ema(nn.Linear(1, 1).double(), HalfLife(half_life=half_life), batch)
    assert remembers(plain, steps) == pytest.approx(0.5 ** (steps / batches), rel=1e-9)
    assert remembers(plain, batches) == pytest.approx(0.5, rel=1e-9)
    ramped = HalfLife(half_life=half_life, ramp_up=ramp_up)
    # So long as ramp_up x images seen is below the half-life, step k leaves 1 / 2 ** (1 / (r k)).
    rising = min(steps, math.ceil(batches / ramp_up) - 1)
    halvings = math.fsum(1 / (ramp_up * (k + 1)) for k in range(rising))
    halvings += (steps - rising) / batches
    left = remembers(Ema(nn.Linear(1, 1).double(), ramped, batch), steps)
    assert left == pytest.approx(0.5**halvings, rel=1e-9)


def test_a_scheduled_decay_is_the_decay_of_that_step() -> None:
    """From 0.8 down to half of it, while the weights of G follow the same path as without."""
    line = "schedule.linear_decay={ final = 0.5, on = 'train.ema' }"
    scheduled = engine_of(SMALL, "train.ema=0.8", "train.steps=5", line)
    expected = weights(scheduled.gan.generator)
    for step, decay in enumerate((0.8, 0.72, 0.64, 0.56, 0.48)):
        scheduled.step(step)
        for name, parameter in scheduled.gan.generator.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    for name, parameter in scheduled.ema.average.named_parameters():
        torch.testing.assert_close(parameter, expected[name])


def test_a_decay_is_never_scaled_beyond_keeping_everything() -> None:
    twice = "schedule.piecewise={ at = [0], values = [2.0], on = 'train.ema' }"
    engine = engine_of(SMALL, "train.ema=0.8", twice)
    before = weights(engine.ema.average)
    engine.step(0)
    assert not moved(before, engine.ema.average)


def test_the_averages_layers_have_spectral_norm_one() -> None:
    image = Image(1, (16, 16))
    source = StackGenerator(image, stages=_stages(), latent=8, norm=Norm(spectral))
    ema = Ema(source, 0.9, batch=1)
    for step in range(30):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
        for estimate, weight in estimates(source):
            estimate.move(weight)
        ema.update(step)
    stale = [_exact_norm(m) for m in _normalised(ema.average)]
    exact = [_exact_norm(m) for m in _normalised(ema.network())]
    assert all(abs(norm - 1) < 0.01 for norm in exact)
    assert any(abs(norm - 1) > 0.01 for norm in stale), "without settling the check would fail"


def test_and_so_they_have_after_training() -> None:
    engine = engine_of(IMAGES, "train.ema=0.9", "optimizer.lr=0.03")
    for step in range(8):
        engine.step(step)
    stale = [_exact_norm(layer) for layer in _normalised(engine.ema.average)]
    exact = [_exact_norm(layer) for layer in _normalised(engine.ema.network())]
    assert len(exact) >= 6
    assert all(abs(norm - 1) < 0.01 for norm in exact)
    assert any(abs(norm - 1) > 0.01 for norm in stale), "without settling the check would fail"


def _stages() -> tuple[object, ...]:
    from functools import partial

    from gankit import blocks

    return (  # type: ignore[return-value]
        partial(blocks.dense, channels=8, size=(4, 4)),
        partial(blocks.transposed, channels=8),
        partial(blocks.transposed, channels=1),
    )


def _normalised(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if hasattr(m, "parametrizations")]


def _exact_norm(layer: nn.Module) -> float:
    from gankit.ops import as_matrix

    layer.eval()
    matrix = as_matrix(layer)(layer.weight.detach())  # type: ignore[operator, arg-type]
    return float(torch.linalg.matrix_norm(matrix, ord=2))


# --- the data's order


def test_every_image_comes_once_per_epoch_in_an_order_of_its_own() -> None:
    data = Digits(size=8)
    epochs = Epochs(data, 100, seed=3)
    whole = torch.cat([epochs.batch(k) for k in range(3 * 18)])
    for epoch in range(3):
        part = whole[epoch * 1797 : (epoch + 1) * 1797]
        assert torch.equal(part.sort().values, torch.arange(1797))
    assert not torch.equal(whole[:1797], whole[1797 : 2 * 1797])
    assert torch.equal(Epochs(data, 100, seed=3).batch(17), whole[1700:1800])


def test_fewer_images_than_a_batch_are_refused() -> None:
    from gankit.errors import DataError

    with pytest.raises(DataError, match=r"1797 images.*batch of 1798"):
        Epochs(Digits(size=8), 1798, seed=0).batch(0)


def test_a_gan_made_by_hand_trains_without_a_spec() -> None:
    data = Digits(size=16)
    from gankit.networks import dcgan_discriminator, dcgan_generator
    from gankit.train import Trainer

    gan = GAN(
        image=data.image,
        generator=dcgan_generator(data.image, latent=8, width=4),
        discriminator=dcgan_discriminator(data.image, width=4, norm=Norm(spectral)),
        loss=NonSaturating(),
        penalties={"r1": R1(weight=1.0, every=2)},
        schedules=[TTUR(ratio=2.0), NCritic(n=2), LinearDecay()],
        optimizer=sgd,
    )
    steps = [record.step for record in Trainer(gan, data, Train(steps=3, batch=4))]
    assert steps == [1, 2, 3]
