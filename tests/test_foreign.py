"""Parts from outside, written against the contracts alone, through spec, build and step.

Each file of `foreign/` is a plugin of one part (one has two that belong together), each with a
spec beside it. Nothing in gankit knows of them, which is what is tested here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gankit
from gankit.build import build
from gankit.errors import SpecError
from gankit.norms import LayerNorm
from gankit.penalties import R1
from gankit.registry import registry
from gankit.slots import Turn, conditional
from gankit.spec import dumps, load, loads
from gankit.train.engine import Engine

FOREIGN = Path(__file__).parent / "foreign"
NAMES = sorted(path.stem for path in FOREIGN.glob("*.toml"))
STEPS = 10


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Trial:
    """A spec, what was built of it, and what its steps measured."""

    def __init__(self, name: str, *overrides: str) -> None:
        self.spec = load(FOREIGN / f"{name}.toml", overrides)
        self.gan, self.data = build(self.spec)
        self.engine = Engine(self.gan, self.data, self.spec.train, torch.device("cpu"))
        self.before = self.tensors()
        self.losses: list[dict[str, float]] = []
        self.turns: list[tuple[int, int]] = []

    def run(self, steps: int) -> Trial:
        """Take further steps."""
        for step in range(len(self.losses), len(self.losses) + steps):
            measured = self.engine.step(step)
            self.losses.append({key: float(value) for key, value in measured.items()})
            self.turns.append(tuple(self.engine.players[name].turns_taken for name in "DG"))
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Copies of every parameter and buffer of both networks and of the parts with state."""
        modules = {"D": self.gan.discriminator, "G": self.gan.generator, **self.gan.stateful()}
        return {
            f"{owner} {key}": value.detach().clone()
            for owner, module in modules.items()
            for key, value in module.state_dict().items()
        }

    def batch(self, count: int = 64) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, labels that differ from row to row, and images of those classes."""
        random = torch.Generator().manual_seed(0)
        latent = torch.randn(count, self.gan.latent_width, generator=random)
        images = self.data.images(torch.arange(count)).float()
        labels = self.data.labels(torch.arange(count))
        labels = torch.zeros(count).long() if labels is None else labels
        return latent, labels, images / 127.5 - 1 if images.ndim == 4 else images

    def images(self, latent: Tensor, labels: Tensor) -> Tensor:
        """What G makes, in evaluation mode."""
        generator = self.gan.generator.eval()
        with torch.no_grad():
            made: Tensor = conditional(generator, "labels")(latent, labels)
        generator.train()
        return made

    def turn(self, player: str = "D") -> Turn:
        """The record of a further turn, caught by a penalty that adds nothing."""
        caught: list[Turn] = []

        class Catch:
            players = player
            every = 1

            def __call__(self, turn: Turn, /) -> Tensor:
                caught.append(turn)
                return torch.zeros(())

        penalties: Any = self.gan.penalties
        penalties["catch"] = Catch()
        self.run(1)
        del penalties["catch"]
        return caught[-1]


@cache
def trained(name: str) -> Trial:
    """The spec as it stands, after its ten steps; shared, so look and do not touch."""
    return Trial(name).run(STEPS)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# --- what holds for all of them


@pytest.mark.parametrize("name", NAMES)
def test_trains(name: str) -> None:
    trial = trained(name)
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in trial.losses)
    for player, network in trial.engine.networks.items():
        for key, parameter in network.named_parameters():
            # A hinge whose margins are all exceeded pulls at no bias of the last layer.
            if not key.endswith("bias"):
                assert not torch.equal(parameter, trial.before[f"{player} {key}"]), (player, key)


@pytest.mark.parametrize("name", NAMES)
def test_same_spec_and_seed_give_the_same_bits(name: str) -> None:
    torch.manual_seed(len(name))
    torch.rand(len(name))
    again = Trial(name)
    assert same(again.before, trained(name).before)
    again.run(STEPS)
    assert again.losses == trained(name).losses
    assert same(again.tensors(), trained(name).tensors())


def test_another_seed_gives_others() -> None:
    assert Trial("class_r1", "seed=4").run(1).losses != trained("class_r1").losses[:1]


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_stays_where_it_is(name: str) -> None:
    before = torch.get_rng_state()
    Trial(name).run(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_continued_is_as_if_never_stopped(name: str) -> None:
    first, second = Trial(name).run(STEPS // 2), Trial(name)
    for player, network in first.engine.networks.items():
        second.engine.networks[player].load_state_dict(network.state_dict())
    second.engine.load_state(first.engine.state())
    second.losses = list(first.losses)
    second.run(STEPS - STEPS // 2)
    assert second.losses == trained(name).losses
    assert same(second.tensors(), trained(name).tensors())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_out_is_the_same_spec(name: str) -> None:
    spec = trained(name).spec
    assert loads(dumps(spec.resolved()), folder=FOREIGN).hash == spec.hash


@pytest.mark.parametrize("name", NAMES)
def test_builds_without_memory(name: str) -> None:
    gan, _ = build(trained(name).spec, "meta")
    shapes = {key: value.shape for key, value in gan.generator.state_dict().items()}
    live = {key: value.shape for key, value in trained(name).gan.generator.state_dict().items()}
    assert shapes == live
    assert all(parameter.is_meta for parameter in gan.discriminator.parameters())


def foreign_names() -> set[str]:
    """Every part that the plugins put on the plug board, and what it is called in its file."""
    for name in NAMES:
        trained(name)
    files = {path.name for path in FOREIGN.glob("*.py")}
    entries = [entry for entry in registry.find() if entry.provider.name in files]
    return {word for entry in entries for word in (entry.name, entry.target.__name__)}


def mentions(folder: Path) -> set[str]:
    text = "\n".join(path.read_text() for path in sorted(folder.rglob("*.py")))
    return {name for name in foreign_names() if re.search(rf"\b{name}\b", text)}


def test_nothing_in_gankit_knows_of_them() -> None:
    assert len(foreign_names()) >= 2 * len(NAMES)
    assert mentions(FOREIGN) == foreign_names()
    assert mentions(Path(gankit.__file__).parent) == set()


# --- what each of them does


def check_class_batchnorm(trial: Trial) -> None:
    """Starts as plain batch norm; then the class alone changes the image."""
    tables = {k: v for k, v in trial.before.items() if k.endswith((".scale", ".shift"))}
    assert tables
    for key, table in tables.items():
        assert table.shape[0] == 10
        assert (table == float(key.endswith("scale"))).all(), "filled by the network's initializer"
    latent, _, _ = trial.batch(10)
    made = trial.images(latent[:1].expand(10, -1), torch.arange(10))
    assert (made[1:] - made[:1]).abs().amax((1, 2, 3)).min() > 1e-4
    again = trial.images(latent[:1].expand(10, -1), torch.full((10,), 3))
    torch.testing.assert_close(again, again[:1].expand_as(again))


def check_self_modulated(trial: Trial) -> None:
    """The condition is the latent: another one there changes what the same z becomes."""
    latent, _, _ = trial.batch(6)
    generator = trial.gan.generator.eval()
    with torch.no_grad():
        own = generator.run(latent[:, :, None, None], latent)
        other = generator.run(latent[:, :, None, None], latent.flip(0))
        blind = [generator.run(latent[:, :, None, None], 0 * latent + c) for c in (0.0, 1.0)]
    generator.train()
    torch.testing.assert_close(own.flatten(1), trial.images(latent, latent))
    assert not torch.allclose(own, other, atol=1e-6)
    assert not torch.allclose(*blind, atol=1e-6)


def check_relativistic_average(trial: Trial) -> None:
    """G's turn has real logits; only differences count."""
    assert trial.engine.batches_drawn == 2 * STEPS
    turn = trial.turn("G")
    assert turn.real_heads is not None
    real, fake, loss = turn.real_logits.detach(), turn.fake_logits.detach(), trial.gan.loss
    by_hand = -(F.logsigmoid(fake - real.mean()).mean() + F.logsigmoid(fake.mean() - real).mean())
    torch.testing.assert_close(loss.generator(real, fake), by_hand)
    torch.testing.assert_close(loss.generator(real + 7, fake + 7), by_hand)
    torch.testing.assert_close(loss.discriminator(fake, real), by_hand)


def check_class_r1(trial: Trial) -> None:
    """Factors weigh the rows of their class; without any it is R1."""
    key = "class_r1_D"
    assert [key in row for row in trial.losses] == [True, False] * (STEPS // 2)
    assert all(row[key] > 0 for row in trial.losses[::2])
    make, turn = type(trial.gan.penalties["class_r1"]), trial.turn()
    assert turn.labels is not None
    plain = R1(weight=2.0)(turn)
    torch.testing.assert_close(make(weight=2.0)(turn), plain)
    shares = [make(weight=2.0, factors=tuple(torch.eye(10)[c].tolist()))(turn) for c in range(10)]
    torch.testing.assert_close(torch.stack(shares).sum(), plain)
    seen = set(turn.labels.tolist())
    assert [bool(share > 0) for share in shares] == [c in seen for c in range(10)]
    without = Trial("class_r1", "penalty.class_r1=none").run(1)
    assert not same(without.tensors(), Trial("class_r1").run(1).tensors())


def check_lecam(trial: Trial) -> None:
    """The averages move and are saved; the penalty pulls once it starts."""
    saved = trial.engine.state()["parts"]["penalty.lecam_ema"]
    assert saved.keys() == {"real", "fake"}
    assert all(value != 0 for value in saved.values())
    values = [row["lecam_ema_D"] for row in trial.losses]
    assert values[:2] == [0.0, 0.0]
    assert values[-1] > 0
    penalty: Any = Trial("lecam").run(1).gan.penalties["lecam_ema"]
    turn = trial.turn()
    real, fake = turn.real_logits, turn.fake_logits
    torch.testing.assert_close(penalty.real, torch.tensor(trained("lecam").losses[0]["D_real"]))
    value = penalty(turn)
    anchors = penalty.real, penalty.fake
    by_hand = F.relu(real - anchors[1]).square().mean() + F.relu(anchors[0] - fake).square().mean()
    torch.testing.assert_close(value, by_hand)
    without = Trial("lecam", "penalty.lecam_ema.weight=0.0").run(STEPS)
    assert without.losses[-1]["loss_D"] != trial.losses[-1]["loss_D"]


def check_auxiliary_classifier(trial: Trial) -> None:
    """The adversarial loss leaves the class head alone; the penalty teaches it."""
    assert trial.gan.adversarial == {"logits": 1.0}
    assert {"recognised_class_D", "recognised_class_G"} <= trial.losses[0].keys()
    faster = ("optimizer.lr=0.005", "train.batch=32", "discriminator.norm=none")
    taught = Trial("auxiliary_classifier", *faster)
    untaught = Trial("auxiliary_classifier", *faster, "penalty.recognised_class=none")

    def entropy(trial: Trial) -> float:
        _, labels, images = trial.batch()
        with torch.no_grad():
            return float(F.cross_entropy(trial.gan.discriminator(images)["classes"], labels))

    start = entropy(taught)
    assert start == entropy(untaught)
    assert entropy(taught.run(40)) < 0.7 * min(start, math.log(10))
    untaught.run(2)
    assert torch.equal(untaught.before["D classes.bias"], untaught.tensors()["D classes.bias"])


def check_hierarchical(trial: Trial) -> None:
    """Every slice of z matters, and the last one only from its own stage on."""
    latent, labels, _ = trial.batch(4)
    generator = trial.gan.generator
    width: int = generator.slice
    assert latent.shape[1] == 3 * width
    outputs: list[Tensor] = []
    handles = [
        stage.register_forward_hook(lambda module, args, out: outputs.append(out))
        for stage in generator.stages
    ]
    plain = trial.images(latent, labels)
    for index in range(3):
        changed = latent.clone()
        changed[:, index * width : (index + 1) * width] += 1
        assert not torch.allclose(trial.images(changed, labels), plain, atol=1e-5)
    assert not torch.allclose(trial.images(latent, (labels + 1) % 10), plain, atol=1e-5)
    for handle in handles:
        handle.remove()
    # Two stages to a pass: plain, then the first, second and third slice changed.
    first, second = outputs[0:8:2], outputs[1:8:2]
    assert not torch.allclose(first[2], first[0])
    torch.testing.assert_close(first[3], first[0])
    assert not torch.allclose(second[3], second[0])
    with pytest.raises(SpecError, match="no norm here takes a condition"):
        Trial("hierarchical", 'generator.norm="batchnorm"')


def check_unet_discriminator(trial: Trial) -> None:
    """The loss is that of both heads, and a pixel's logit is about its place."""
    turn = trial.turn()
    assert {name: tuple(head.shape) for name, head in turn.fake_heads.items()} == {
        "global": (8, 1),
        "pixels": (8, 1, 16, 16),
    }
    assert turn.fake_logits.shape == (8, 1 + 16 * 16)
    assert turn.real_heads is not None
    assert turn.real is not None
    loss = trial.gan.loss
    shares = [loss.discriminator(turn.real_heads[n], turn.fake_heads[n]) for n in turn.real_heads]
    caught = float(trial.losses[-1]["loss_D"])
    assert caught == pytest.approx(float(sum(shares).detach()))
    images = turn.real.clone().requires_grad_()
    pixels = turn.heads(images)["pixels"]
    (gradient,) = torch.autograd.grad(pixels[0, 0, 2, 2], images)
    assert gradient[1:].abs().max() == 0
    assert gradient[0, :, 1:4, 1:4].abs().max() > 0


def check_pacgan(trial: Trial) -> None:
    """A logit for every four points, about all four."""
    turn = trial.turn()
    assert turn.real is not None
    assert len(turn.real) == 8
    assert turn.fake_logits.shape == (2, 1)
    discriminator = trial.gan.discriminator
    swapped = turn.real[[0, 1, 2, 7, 4, 5, 6, 3]] * 10
    assert not torch.allclose(discriminator(swapped), discriminator(turn.real * 10))
    with pytest.raises(SpecError, match="separate"):
        Trial("pacgan", 'train.batches="joint"')


def check_dual_norm_attention(trial: Trial) -> None:
    """Both norms act in it, each player's own, and the label reaches it."""
    for player in "DG":
        network = trial.engine.networks[player]
        (found,) = [m for m in network.modules() if type(m).__name__ == "NormedAttention"]
        assert found.gain != 0
        layers = (found.query, found.key, found.value, found.output)
        assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)
        assert any(isinstance(m, LayerNorm) for m in found.norm.modules()) == (player == "D")
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found.eval().gain.fill_(1.0)
        by_class = [found(x, F.one_hot(torch.tensor([c, c]), 10).float()) for c in (0, 1)]
    assert not torch.allclose(*by_class, atol=1e-4)


def check_adaptive_augment(trial: Trial) -> None:
    """p follows the sign of the real logits; images change with that probability alone."""
    assert trial.tensors()["augment.adaptive_flip p"] > 0
    assert trial.engine.state()["parts"]["augment.adaptive_flip"].keys() == {"p"}
    watched = Trial("adaptive_augment")
    part: Any = watched.gan.augments["adaptive_flip"]
    observe, expected = part.observe, 0.0

    def follow(turn: Turn) -> None:
        nonlocal expected
        observe(turn)
        above = float(turn.real_logits.sign().mean().sign())
        expected = min(max(expected + 8 / 160 * above, 0), 1)
        assert float(part.p) == pytest.approx(expected)

    part.observe = follow
    watched.run(STEPS)
    assert expected == pytest.approx(float(trial.tensors()["augment.adaptive_flip p"]))
    part.p.zero_()
    part.observe = observe
    ones = torch.ones(16, 1)
    for logits, p in ((ones, 0.1), (ones, 0.2), (-ones, 0.1), (-ones, 0.0), (-ones, 0.0)):
        part.observe(Turn.of(nn.Identity(), real=logits, fake=logits))
        assert float(part.p) == pytest.approx(p)
    images = torch.zeros(1000, 1, 2, 2, requires_grad=True)

    def changed(p: float) -> Tensor:
        part.p.fill_(p)
        made: Tensor = part(images, torch.Generator().manual_seed(1))
        return made

    assert torch.equal(changed(0.0), images)
    assert (changed(0.25) != 0).flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(changed(1.0), changed(1.0))
    assert torch.autograd.grad(changed(1.0).sum(), images)[0].eq(1).all()


def check_warm_up_schedule(trial: Trial) -> None:
    """D alone for four steps, in which G stands still; then two to one."""
    assert trial.turns == [(1, 0), (2, 0), (3, 0), (4, 0)] + [(4 + 2 * k, k) for k in range(1, 7)]
    assert ["loss_G" in row for row in trial.losses] == [False] * 4 + [True] * 6
    warmed = Trial("warm_up_schedule").run(4)
    moved = {k[0] for k, v in warmed.tensors().items() if not torch.equal(v, warmed.before[k])}
    assert moved == {"D"}


CHECKS: dict[str, Callable[[Trial], None]] = {
    name.removeprefix("check_"): check
    for name, check in dict(globals()).items()
    if name.startswith("check_")
}


def test_each_has_a_check_of_its_own() -> None:
    assert sorted(CHECKS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_acts(name: str) -> None:
    CHECKS[name](Trial(name).run(STEPS))


def test_a_foreign_norm_is_handed_the_weight_norm() -> None:
    for norms, normalised in (
        ('["spectral", "class_batchnorm_spectral"]', True),
        ('"class_batchnorm_spectral"', False),
    ):
        trial = Trial("class_batchnorm", f"generator.norm={norms}").run(2)
        tables: list[Any] = [
            module
            for name, module in trial.gan.generator.named_modules()
            if isinstance(module, nn.Linear) and name.endswith((".scale", ".shift"))
        ]
        assert tables
        for table in tables:
            assert parametrize.is_parametrized(table, "weight") == normalised
            if normalised:
                largest = torch.linalg.matrix_norm(table.weight.detach(), 2)
                assert float(largest) == pytest.approx(1, abs=0.1)
