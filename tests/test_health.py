"""Health: every monitor is raised by the failure it is for, and by no sound run."""

from __future__ import annotations

import copy
import importlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.build import GAN, build
from gankit.datasets import to_float
from gankit.losses import Hinge, Wasserstein
from gankit.ops import estimates
from gankit.slots import Dataset
from gankit.spec import load, loads
from gankit.train import Trainer
from gankit.train.health import LINES, Line, crossed, health
from tests.specs import IMAGES, POINTS

ROOT = Path(__file__).parent.parent
MODULE = importlib.import_module("gankit.train.health")


def made(gan: GAN, count: int = 32) -> Tensor:
    """Images as training makes them; the generator is left as it was."""
    network = copy.deepcopy(gan.generator)
    with torch.no_grad():
        return network(torch.randn(count, gan.latent_width))


def real_of(data: Dataset, count: int = 32) -> Tensor:
    return to_float(data.images(torch.arange(count)))


def read(numbers: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(number) for name, number in numbers.items()}


def small() -> tuple[GAN, Tensor, Tensor]:
    """Networks with everything that is looked at, real images and fakes."""
    gan, data = build(loads(IMAGES))
    return gan, real_of(data), made(gan)


# --- what is measured


def test_the_numbers_are_those_of_numpy() -> None:
    gan, real, fake = small()
    gammas = [p for name, p in gan.discriminator.named_parameters() if name.endswith("gamma")]
    gammas[0].data.fill_(-0.3)
    found = read(health(gan.generator, gan.discriminator, real, fake))
    for player, network in (("D", gan.discriminator), ("G", gan.generator)):
        matrices = [estimate.matrix(weight.detach()) for estimate, weight in estimates(network)]
        sigma = max(np.linalg.norm(matrix.numpy(), 2) for matrix in matrices)
        assert found[f"sigma_{player}"] == pytest.approx(sigma, rel=1e-5)
        assert found[f"stretch_{player}"] == pytest.approx(1, abs=1e-5)
    assert (found["gain_D"], found["gain_G"]) == pytest.approx((0.3, 0))
    spread = fake.numpy().std(axis=0).mean() / real.numpy().std(axis=0).mean()
    assert found["diversity"] == pytest.approx(float(spread), rel=1e-5)


def test_what_is_not_there_is_not_told() -> None:
    gan, data = build(loads(POINTS))
    real, fake = real_of(data), made(gan)
    assert set(health(gan.generator, gan.discriminator, real, fake)) == {"diversity"}
    assert health(gan.generator, gan.discriminator, None, fake) == {}
    assert health(gan.generator, gan.discriminator, real[:1], fake) == {}
    assert health(gan.generator, gan.discriminator, real, fake[:1]) == {}
    assert crossed({}) == crossed({"D_real": 99.0}) == {}


def test_data_that_do_not_differ_make_no_number_infinite() -> None:
    gan, real, fake = small()
    found = read(health(gan.generator, gan.discriminator, real[:1].expand(8, -1, -1, -1), fake))
    assert all(map(math.isfinite, found.values()))


def test_nothing_is_changed() -> None:
    gan, real, fake = small()
    networks = (gan.generator, gan.discriminator)
    before = copy.deepcopy([network.state_dict() for network in networks])
    random = torch.get_rng_state()
    told = health(*networks, real, fake.requires_grad_())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(number.requires_grad for number in told.values())
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)
        assert all(m.training for m in network.modules())
        assert all(p.grad is None for p in network.parameters())


def test_nothing_is_read_from_the_device() -> None:
    """There is nothing to read on `meta`: whoever tries fails."""
    gan, _ = build(loads(IMAGES), "meta")
    images = torch.empty(8, 1, 16, 16, device="meta")
    told = health(gan.generator, gan.discriminator, images, images)
    assert all(number.is_meta and number.ndim == 0 for number in told.values())
    with pytest.raises(RuntimeError):
        read(told)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_measured_alike(dtype: torch.dtype) -> None:
    gan, real, fake = small()
    expected = read(health(gan.generator, gan.discriminator, real, fake))
    for network in (gan.generator, gan.discriminator):
        network.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = read(health(gan.generator, gan.discriminator, real.to(dtype), fake.to(dtype)))
    assert found == pytest.approx(expected, rel=0.02)


# --- a failure for every monitor

Numbers = dict[str, float]


def gradient(network: nn.Module, loss: Tensor) -> float:
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return float(torch.stack([g.norm() for g in gradients if g is not None]).norm())


def d_has_won() -> Numbers:
    real, fake = torch.full((8,), 20.0), torch.full((8,), -20.0)
    loss = Hinge().discriminator(real, fake)
    return {"D_real": float(real.mean()), "D_fake": float(fake.mean()), "loss_D": float(loss)}


def d_has_nothing_to_learn() -> Numbers:
    gan, real, fake = small()
    logits = gan.discriminator(real) + 20, gan.discriminator(fake) - 20
    loss = Hinge().discriminator(*logits)
    return {"gradient_D": gradient(gan.discriminator, loss)}


def d_is_too_steep() -> Numbers:
    gan, data = build(loads(POINTS))
    for parameter in gan.discriminator.parameters():
        parameter.data.mul_(1000)
    logits = gan.discriminator(real_of(data)), gan.discriminator(made(gan))
    return {"gradient_D": gradient(gan.discriminator, Wasserstein().discriminator(*logits))}


def weights_have_grown() -> Numbers:
    gan, real, fake = small()
    for _, weight in estimates(gan.generator):
        weight.data.mul_(1000)
    return read(health(gan.generator, gan.discriminator, real, fake))


def estimates_are_wrong() -> Numbers:
    gan, real, fake = small()
    for estimate, _ in estimates(gan.discriminator):
        for vector in estimate.buffers():
            vector.copy_(F.normalize(torch.randn_like(vector), dim=0))
    return read(health(gan.generator, gan.discriminator, real, fake))


def attention_drowns() -> Numbers:
    gan, real, fake = small()
    for name, parameter in gan.generator.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(-50)
    return read(health(gan.generator, gan.discriminator, real, fake))


def g_makes_one_image() -> Numbers:
    gan, real, fake = small()
    one = real[:1] + 0.01 * torch.randn_like(fake)
    return read(health(gan.generator, gan.discriminator, real, one))


FAILURES: dict[tuple[str, str], Callable[[], Numbers]] = {
    ("gap", "above 10"): d_has_won,
    ("gradient_D", "below 1e-06"): d_has_nothing_to_learn,
    ("gradient_D", "above 10000"): d_is_too_steep,
    ("sigma_G", "above 100"): weights_have_grown,
    ("stretch_D", "above 2"): estimates_are_wrong,
    ("gain_G", "above 10"): attention_drowns,
    ("diversity", "below 0.1"): g_makes_one_image,
}


def stem(name: str) -> str:
    return re.sub(r"_[DG]$", "", name)


def assert_raised(number: str, limit: str) -> None:
    """The failure crosses this line and no other."""
    warnings = crossed(FAILURES[number, limit]())
    assert list(warnings) == [number]
    assert re.match(rf"{number} is \S+, {limit}: \w", warnings[number])


@pytest.mark.parametrize(("number", "limit"), FAILURES)
def test_a_failure_is_told(number: str, limit: str) -> None:
    assert_raised(number, limit)


def test_every_line_has_its_failure() -> None:
    assert [(stem(number), limit) for number, limit in FAILURES] == [
        (line.monitor, line.limit) for line in LINES
    ]


def test_of_small_networks_nothing_is_told() -> None:
    gan, real, fake = small()
    logits = gan.discriminator(real), gan.discriminator(fake)
    loss = Hinge().discriminator(*logits)
    numbers = read(health(gan.generator, gan.discriminator, real, fake)) | {
        "D_real": float(logits[0].detach().mean()),
        "D_fake": float(logits[1].detach().mean()),
        "loss_D": float(loss.detach()),
        "gradient_D": gradient(gan.discriminator, loss),
    }
    assert {stem(name) for name in numbers} | {"gap"} > {line.monitor for line in LINES}
    assert crossed(numbers) == {}


# --- monitors that are broken


def normalised(network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """The singular values after the division: always 1."""
    return ((sigma / divisor, divisor / divisor) for sigma, divisor in SIGMAS(network))


def signed(network: nn.Module) -> Iterator[Tensor]:
    return (p.amax() for name, p in network.named_parameters() if name.endswith("gamma"))


def over_pixels(images: Tensor) -> Tensor:
    return images.flatten(1).std(dim=1).mean()


SIGMAS = MODULE._sigmas
BLUNT = tuple(replace(line, above=line.above * 1e9, below=min(line.below, 0)) for line in LINES)
TWINS: dict[tuple[str, str], dict[str, Any]] = {
    ("gap", "above 10"): {"_gap": lambda numbers: {"gap": numbers["D_real"] + numbers["D_fake"]}},
    ("gradient_D", "below 1e-06"): {"LINES": BLUNT},
    ("gradient_D", "above 10000"): {"LINES": BLUNT},
    ("sigma_G", "above 100"): {"_sigmas": normalised},
    ("stretch_D", "above 2"): {"MOVES": 0},
    ("gain_G", "above 10"): {"_gains": signed},
    ("diversity", "below 0.1"): {"_spread": over_pixels},
}


@pytest.mark.parametrize(("number", "limit"), FAILURES)
def test_twin_a_monitor_that_sees_nothing_is_noticed(
    number: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, broken in TWINS[number, limit].items():
        monkeypatch.setattr(MODULE, name, broken)
    with pytest.raises(AssertionError):
        assert_raised(number, limit)


# --- the lines


@given(st.sampled_from(LINES), st.floats(allow_nan=False), st.sampled_from(["", "_D", "_G"]))
def test_a_line_is_crossed_beyond_it(line: Line, number: float, player: str) -> None:
    warnings = crossed({line.monitor + player: number})
    beyond = [
        each
        for each in LINES
        if each.monitor == line.monitor and (number > each.above or number < each.below)
    ]
    assert list(warnings) == [line.monitor + player] * len(beyond)
    for each in beyond:
        assert f", {each.limit}: {each.means}" in warnings[line.monitor + player]


def test_what_is_no_number_has_crossed() -> None:
    assert crossed({"sigma_D": math.nan}) == {}


def test_the_words() -> None:
    assert crossed({"sigma_G": 1234.5678, "loss_G": 1e9, "stretch_D": 2.0}) == {
        "sigma_G": "sigma_G is 1.23e+03, above 100: weights under a spectral norm have grown so "
        "long that updates hardly turn them; a smaller learning rate, or weight_decay in the "
        "optimizer"
    }


def test_a_distance_may_be_large() -> None:
    """Wasserstein's logits have the scale of the data, and its loss is minus the gap."""
    real, fake = torch.full((8,), 30.0), torch.full((8,), -30.0)
    loss = Wasserstein().discriminator(real, fake)
    numbers = {"D_real": 30.0, "D_fake": -30.0, "loss_D": float(loss)}
    assert crossed(numbers) == {}
    assert list(crossed(numbers | {"loss_D": 0.0})) == ["gap"]


@pytest.mark.parametrize(("recipe", "steps"), [("quickstart_digits", 25), ("ring", 500)])
def test_a_recipe_crosses_no_line(recipe: str, steps: int) -> None:
    spec = load(ROOT / f"examples/{recipe}.toml")
    gan, data = build(spec)
    looked_at = 0
    for record in Trainer(gan, data, spec.train):
        if record.step % spec.train.log == 0:
            measured = health(gan.generator, gan.discriminator, real_of(data), made(gan))
            assert crossed(record.numbers() | read(measured)) == {}
            looked_at += 1
        if record.step == steps:
            break
    assert looked_at


# --- the document


def rows(table: str) -> list[list[str]]:
    """The cells of a table of docs/health.md, found by its header."""
    _, _, behind = (ROOT / "docs/health.md").read_text(encoding="utf-8").partition(table)
    body = re.match(r"\|\n\|[-|]+\|\n((?:\|.*\|\n)*)", behind)
    assert body, f"no table {table}"
    return [[cell.strip() for cell in line.split(" | ")] for line in body[1].splitlines()]


def unmarked(cell: str) -> str:
    return cell.strip("| ").replace("`", "")


def test_the_document_has_every_line() -> None:
    found = [[unmarked(cell) for cell in row] for row in rows("| number | line | what it means ")]
    assert found == [[line.monitor, line.limit, line.means] for line in LINES]


def test_the_document_has_every_number() -> None:
    gan, real, fake = small()
    known = {stem(name) for name in health(gan.generator, gan.discriminator, real, fake)}
    found = {unmarked(row[0]) for row in rows("| number | is ")}
    assert found == known | {line.monitor for line in LINES}
