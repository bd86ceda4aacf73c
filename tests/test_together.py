"""Seeds that are trained together: each is what it is by itself, and what is not is refused."""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.build import GAN, build
from gankit.errors import Diverged, SpecError, UsageError
from gankit.recipes import find
from gankit.slots import Dataset
from gankit.spec import Spec, Train, load, loads
from gankit.together import Group, draws, fit, group, layers, rows, stacked, train_together
from gankit.together.fit import check_stackable, check_trial
from gankit.together.networks import Unstackable
from gankit.together.run import _due
from gankit.train import Engine, run
from gankit.train.checkpoint import latest
from gankit.train.checkpoint import load as load_checkpoint
from gankit.train.sampling import draw
from tests.engines import CPU, assert_close, gradients, weights

SMALL = """
gankit = 1
name = "small"
data = { use = "ring", length = 500 }
generator = { use = "mlp", width = 12, layers = 2, initializer = "orthogonal" }
discriminator = { use = "mlp", width = 12, layers = 2, initializer = "orthogonal" }
loss = "nonsaturating"
optimizer = { use = "adam", lr = 1e-3, betas = [0.0, 0.9] }
train = { steps = 24, batch = 16, ema = 0.9, log = 6, checkpoint = 12, samples = 24 }
"""
"""A ring's dense networks, narrow; of weights near 0 an update by Adam would magnify rounding."""

SGD = 'optimizer={use="sgd", lr=0.005}'
"""For biases before a batchnorm, whose gradients are rounding alone: Adam would make much of it."""

STACK = 'discriminator={use="stack", initializer="orthogonal", stages=[%s]}'
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "r1": ('penalty=[{use="r1", weight=1.0}]',),
    "lazy r1": ('penalty=[{use="r1", every=3}, {use="r2", every=2}]',),
    "spectral": ("generator.norm=spectral", "discriminator.norm=spectral", "loss=hinge"),
    "batchnorm": ("generator.norm=batchnorm", "discriminator.norm=batchnorm", SGD),
    "one pass": ("discriminator.norm=batchnorm", "train.batches=joint", SGD),
    "both norms": ('generator.norm=["spectral", "batchnorm"]', "discriminator.norm=layernorm", SGD),
    "clipped": ("discriminator.norm=clip", "loss=wasserstein", "optimizer=rmsprop"),
    "groups": ('discriminator.norm={use="groupnorm", groups=3}', "optimizer=adamw"),
    "pacgan": ('discriminator={use="pacgan", pack=2}',),
    "maxout": (STACK % '{use="maxout", channels=6}, {use="dense", channels=1}',),
    "deviation": (STACK % '{use="minibatch_std"}, {use="dense", channels=1}',),
    "relativistic": ("loss=relativistic", 'penalty=[{use="r1"}, {use="r2"}]'),
    "drawn": ('penalty=[{use="wgan_gp"}, {use="dragan"}]',),
    "critic": ('schedule=[{use="n_critic", n=2}, {use="ttur"}]', "optimizer=sgd"),
    "both at once": ('schedule=["simultaneous", "cosine"]', "loss=least_squares"),
}
"""What can be trained together, between them every layer and parametrization that is stacked."""


def seeds(count: int, *overrides: str) -> list[Spec]:
    return [loads(SMALL, [*overrides, f"seed={seed}"]) for seed in range(count)]


ONE = loads(SMALL)


def engine(spec: Spec, wide: bool = False) -> Engine:
    gan, data = build(spec)
    for network in (gan.generator, gan.discriminator) if wide else ():
        network.double()
    return Engine(gan, data, spec.train, CPU)


def engines(specs: Sequence[Spec], wide: bool = False) -> list[Engine]:
    return [engine(spec, wide) for spec in specs]


def told(members: Sequence[Engine], step: int) -> list[dict[str, float]]:
    """What each would tell of a step, which does not count: a group takes it afterwards."""
    drawn = [member.batches_drawn for member in members]
    numbers = [{k: float(v) for k, v in member.step(step).items()} for member in members]
    for member, before in zip(members, drawn, strict=True):
        member.batches_drawn = before
    return numbers


def losses(numbers: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if name.startswith(("loss", "r1"))}


# A step together is a step of each


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_and_weights_of_each_seed_are_its_own(variant: str) -> None:
    specs = seeds(3, *VARIANTS[variant])
    alone, members = engines(specs, wide=True), engines(specs, wide=True)
    together = Group(members)
    together.gather()
    for step in range(3):
        for each in alone:
            each.step(step)
        together.step(step)
        for player in "DG":
            (views,) = (
                group["params"] for group in together.players[player].optimizer.param_groups
            )
            for index, each in enumerate(alone):
                expected = gradients(each, player)
                first = index * len(expected)
                own = [view.grad for view in views[first : first + len(expected)]]
                assert_close(dict(zip(expected, own, strict=True)), expected)
    together.scatter()
    for each, member in zip(alone, members, strict=True):
        assert_close(weights(each), weights(member))
        assert_close(each.ema.average.state_dict(), member.ema.average.state_dict())
        assert each.batches_drawn == member.batches_drawn


RING: dict[str, tuple[str, ...]] = {
    "r1": (),
    "spectral": ("generator.norm=spectral", "discriminator.norm=spectral"),
    "batchnorm": ("generator.norm=batchnorm",),
    "pacgan": ('discriminator={use="pacgan", pack=2}',),
    "relativistic": ("loss=relativistic",),
    "hinge": ("loss=hinge",),
}


@pytest.mark.parametrize("variant", RING)
def test_the_first_twenty_losses_of_ring_are_those_of_separate_runs(variant: str) -> None:
    specs = [load(find("ring"), [*RING[variant], f"seed={seed}"]) for seed in range(3)]
    alone, members = engines(specs), engines(specs)
    together = Group(members)
    together.gather()
    for step in range(20):
        numbers = told(members, step)
        together.step(step)
        together.scatter()
        for each, own in zip(alone, numbers, strict=True):
            separate = {name: float(value) for name, value in each.step(step).items()}
            assert losses(own) == pytest.approx(losses(separate), rel=0, abs=1e-5), step
    assert int(together.faults.record) == 0


def test_steps_by_themselves_and_together_may_take_turns() -> None:
    specs = seeds(2, 'penalty=[{use="r1", every=3}]')
    alone, members = engines(specs, wide=True), engines(specs, wide=True)
    for first in (0, 4, 8):
        assert Group(members).advance(first, first + 3) == first + 3
        for member in members:
            member.step(first + 3)
    for each, member in zip(alone, members, strict=True):
        for step in range(12):
            each.step(step)
        assert_close(weights(each), weights(member))
        assert each.players["D"].turns_taken == member.players["D"].turns_taken


# Stacks


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_rows_come_back_in_the_order_they_came_in(members: int, times: int, batch: int) -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    network = Watched()
    rows.keep_order(network, members, batch)
    owner = torch.arange(members).repeat_interleave(batch).repeat(times)
    given = torch.stack([owner, torch.arange(len(owner))], 1)
    assert torch.equal(network(given), given)
    # Inside, each member's rows are beside each other, its batches in order.
    inside = seen[0].view(members, times * batch, 2)
    assert (inside[:, :, 0] == torch.arange(members)[:, None]).all()
    assert (inside[:, :, 1].diff() > 0).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["layernorm", "batchnorm"]))
def test_what_a_stack_gives_is_what_its_members_give(count: int, half: int, norm: str) -> None:
    specs = seeds(count, f"discriminator.norm={norm}", "train.batch=2")
    networks = [build(spec)[0].discriminator.double() for spec in specs]
    stack = stacked(networks[0], count)
    each = [network.state_dict() for network in networks]
    assert list(stack.state_dict()) == list(each[0])
    stack.load_state_dict({name: torch.stack([s[name] for s in each]) for name in each[0]})
    points = torch.randn(count, 2 * half, 2, dtype=torch.float64)
    expected = [network(own) for network, own in zip(networks, points, strict=True)]
    torch.testing.assert_close(stack(points.flatten(0, 1)), torch.cat(expected))


def test_a_layer_that_is_in_two_places_stays_one() -> None:
    layer = nn.Linear(2, 2)
    stack = stacked(nn.Sequential(layer, nn.ReLU(), layer), 3)
    assert isinstance(stack, nn.Sequential)
    assert stack[0] is stack[2]
    assert sum(1 for _ in stack.parameters()) == 2


def test_a_layer_that_nobody_can_stack_is_named() -> None:
    with pytest.raises(Unstackable, match=r"^1 is a Conv2d; those of several seeds are stacked of"):
        stacked(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1)), 2)


# What does not fit is refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.clip=1.0", "unless train.clip is 0.0 throughout"),
        ("train.accumulate=2", "unless train.accumulate is 1 throughout"),
        ("train.top_k=0.5", "unless train.top_k is 1.0 throughout"),
        ("train.precision=bf16", "unless train.precision is 'fp32' throughout"),
        ('schedule=[{use="linear_decay", on="train.top_k"}]', "unless train.top_k is"),
        ("discriminator.norm=weightnorm", r"the weight of stages\.\S+ is a _WeightNorm"),
        ('penalty=["lecam"]', 'penalty "lecam" cannot be trained together: keeps a state'),
        ('data={use="digits", size=8}\ngenerator={use="dcgan"}', "is a ConvTranspose2d"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_stackable(seeds(1, *override.splitlines())[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('penalty=["feature_matching"]', 'penalty "feature_matching" cannot be .* each alone'),
        ('penalty=["orthogonal"]', "orthogonal"),
        (STACK % '{use="dropout"}, {use="dense", channels=1}', 'discriminator "stack" .* D_real'),
    ],
)
def test_what_looks_beyond_its_rows_is_found_by_trying(override: str, message: str) -> None:
    specs = seeds(2, override)
    check_stackable(specs[0])
    with pytest.raises(SpecError, match=message):
        check_trial(specs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_fits_is_not_refused(variant: str) -> None:
    specs = seeds(2, *VARIANTS[variant])
    check_stackable(specs[0])
    check_trial(specs)


def test_seeds_are_of_one_spec_and_different() -> None:
    one, other = seeds(2)
    with pytest.raises(UsageError, match="0, 0 are not all different"):
        fit.check_seeds([one, one])
    with pytest.raises(UsageError, match=r"train\.batch: 16 became 8"):
        fit.check_seeds([one, loads(SMALL, ["train.batch=8", "seed=1"])])
    with pytest.raises(UsageError, match="no seed"):
        fit.check_seeds([])
    fit.check_seeds([one, other])


# Deliberately broken groups, each of which the trial refuses


def one_u(monkeypatch: pytest.MonkeyPatch) -> None:
    """All members have the singular vectors of the first."""
    right = layers.Spectral.move

    def move(self: layers.Spectral, weight: Tensor) -> None:
        right(self, weight)
        self.u.copy_(self.u[:1].expand_as(self.u))

    monkeypatch.setattr(layers.Spectral, "move", move)


def one_batch_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch statistics are those of all members' rows."""

    def forward(self: layers.BatchNorm, x: Tensor) -> Tensor:
        normal = F.batch_norm(x, None, None, training=True, eps=self.eps)
        assert self.weight is not None
        assert self.bias is not None
        each = normal.unflatten(0, (self.members, -1))
        scaled = each * self.weight[:, None, :, None, None] + self.bias[:, None, :, None, None]
        return scaled.flatten(0, 1)

    monkeypatch.setattr(layers.BatchNorm, "forward", forward)


def no_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of the mean over all seeds, not of their sum."""
    monkeypatch.setattr(group.Summed, "__call__", lambda self, loss: loss)


def batches_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two batches in one pass, the first half goes to the first member."""
    monkeypatch.setattr(rows, "_exchanged", lambda given, outer, inner: given)


def rows_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of the first member, one of the second, and so on."""

    def together(each: Sequence[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in each if tensor is not None]
        return torch.stack(there, 1).flatten(0, 1) if there else None

    monkeypatch.setattr(group, "_together", together)


def draws_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What parts draw is what the first member draws."""
    right = draws.GroupDraws.of

    def of(self: draws.GroupDraws, *given: Any) -> torch.Generator:
        return right(draws.GroupDraws(self.words, self.each[:1] * len(self.each)), *given)

    monkeypatch.setattr(draws.GroupDraws, "of", of)


def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members get back no state of the optimizer."""
    monkeypatch.setattr(group, "scatter_states", lambda optimizer, members: None)


BROKEN: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (no_memory, "plain"),
    (one_u, "spectral"),
    (one_batch_of_all, "batchnorm"),
    (no_factor, "plain"),
    (batches_in_a_row, "r1"),
    (batches_in_a_row, "one pass"),
    (rows_by_turns, "plain"),
    (rows_by_turns, "pacgan"),
    (draws_of_the_first, "drawn"),
]


@pytest.mark.parametrize(("broken", "variant"), BROKEN)
def test_twin_a_broken_group_is_refused(
    broken: Callable[[pytest.MonkeyPatch], None], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises(SpecError, match="cannot be trained together"):
        check_trial(seeds(2, *VARIANTS[variant]))


# Runs


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"seed_{seed}" for seed in range(3)]


def newest(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The networks of a folder's newest checkpoint."""
    saved, _ = latest(folder / "checkpoints")
    assert saved is not None
    return {name: dict(tensors) for name, tensors in saved.weights.items()}


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def steps_in(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]


def assert_same_runs(one: Sequence[Path], other: Sequence[Path]) -> None:
    """To the last bit."""
    for left, right in zip(one, other, strict=True):
        mine, its = newest(left), newest(right)
        assert mine.keys() == its.keys()
        for name in mine:
            assert all(torch.equal(t, its[name][key]) for key, t in mine[name].items()), name
        assert (left / "metrics.jsonl").read_text() == (right / "metrics.jsonl").read_text()


def test_each_seed_has_a_run_of_its_own(folders: list[Path], tmp_path: Path) -> None:
    specs = seeds(3, "discriminator.norm=spectral", "generator.norm=batchnorm", SGD)
    watched: list[int] = []
    outcomes = train_together(specs, folders, watch=lambda step, *more: watched.append(step))
    assert watched == [6, 12, 18, 24]
    for spec, folder, outcome in zip(specs, folders, outcomes, strict=True):
        assert outcome.finished
        assert outcome.picture == folder / "samples" / "step_0000024.png"
        assert state(folder) == {"state": "finished", "step": 24, "steps": 24, "packed": 3}
        assert json.loads((folder / "env.json").read_text())[0]["packed"] == 3
        assert steps_in(folder) == [6, 12, 18, 24]
        alone = tmp_path / f"alone_{spec.seed}"
        run(spec, alone)
        for name, tensors in newest(alone).items():
            assert_close(tensors, newest(folder)[name], within=1e-4)


def test_a_checkpoint_of_a_seed_samples_what_its_own_network_does(folders: list[Path]) -> None:
    specs = seeds(3, "generator.norm=batchnorm")
    train_together(specs, folders)
    for index, (spec, folder) in enumerate(zip(specs, folders, strict=True)):
        saved = load_checkpoint(folder / "checkpoints" / "step_24")
        gan, _ = build(spec)
        gan.generator.load_state_dict(dict(saved.weights["ema"]))
        stack = stacked(gan.generator, 3).eval()
        points = draw(gan, gan.generator, 8, seed=0)
        others = [newest(other)["ema"] for other in folders]
        columns = {name: torch.stack([o[name] for o in others]) for name in others[0]}
        stack.load_state_dict(columns)
        z = gan.latent(8, 2, torch.Generator().manual_seed(0))
        with torch.no_grad():
            own = gan.generator.eval()(z)
            assert torch.allclose(stack(z.repeat(3, 1)).chunk(3)[index], own, atol=1e-6)
        assert points.shape == (8, 2)


def test_any_of_them_goes_on_as_an_ordinary_run(folders: list[Path]) -> None:
    specs = seeds(2)
    train_together(specs, folders[:2])
    told: list[str] = []
    longer = loads(SMALL, ["seed=1", "train.steps=30"])
    assert run(longer, folders[1], tell=told.append).finished
    assert any("packed: 2 is gone" in message for message in told)
    assert steps_in(folders[1]) == [6, 12, 18, 24, 30]


def test_a_group_that_was_killed_goes_on_to_the_same_bits(
    folders: list[Path], tmp_path: Path
) -> None:
    train_together(seeds(3), folders)
    others = [tmp_path / f"killed_{seed}" for seed in range(3)]
    train_together(seeds(3, "train.steps=12"), others)
    told: list[str] = []
    train_together(seeds(3), others, tell=told.append)
    assert "seed 2: continues at step 12 of 24" in told
    assert_same_runs(folders, others)


def test_seeds_that_are_behind_catch_up(folders: list[Path]) -> None:
    train_together(seeds(3, "train.steps=12"), folders)
    run(loads(SMALL, ["seed=1", "train.steps=18"]), folders[1])
    assert all(outcome.finished for outcome in train_together(seeds(3), folders))
    assert [steps_in(folder) for folder in folders] == [[6, 12, 18, 24]] * 3


def test_a_signal_stops_all_of_them_after_the_same_step(folders: list[Path]) -> None:
    def interrupt(step: int, *more: object) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    outcomes = train_together(seeds(3), folders, watch=interrupt)
    assert {outcome.signal for outcome in outcomes} == {signal.SIGTERM}
    assert {outcome.step for outcome in outcomes} <= {6, 7}
    assert {state(folder)["state"] for folder in folders} == {"stopped"}
    assert all(outcome.finished for outcome in train_together(seeds(3), folders))
    assert [steps_in(folder) for folder in folders] == [[6, 12, 18, 24]] * 3


def poisoned(
    monkeypatch: pytest.MonkeyPatch, seed: int, poison: Callable[[GAN, Dataset], object]
) -> None:
    """One seed's networks or data are changed once its trainer is made."""
    right = importlib.import_module("gankit.together.run").trainer_of

    def trainer_of(spec: Spec, *given: Any, **more: Any) -> Any:
        trainer = right(spec, *given, **more)
        if spec.seed == seed:
            poison(trainer.engine.gan, trainer.engine.data)
        return trainer

    monkeypatch.setattr("gankit.together.run.trainer_of", trainer_of)


def test_a_seed_that_diverges_leaves_the_others_alone(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(gan: GAN, data: Dataset) -> None:
        with torch.no_grad():
            next(gan.discriminator.parameters())[0, 0] = float("nan")

    poisoned(monkeypatch, 1, poison)
    with pytest.raises(Diverged):
        train_together(seeds(3), folders)
    assert [state(folder)["state"] for folder in folders] == ["finished", "diverged", "finished"]
    assert "not finite" in state(folders[1])["reason"]
    for seed in (0, 2):
        alone = tmp_path / f"alone_{seed}"
        run(seeds(3)[seed], alone)
        for name, tensors in newest(alone).items():
            assert_close(tensors, newest(folders[seed])[name], within=1e-3)


def test_a_seed_that_goes_back_catches_up_with_the_others(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = Group.advance, list[int]()

    def advance(self: Group, first: int, *more: Any) -> int:
        calls.append(len(self.members))
        if first == 13:
            with torch.no_grad():
                next(self.members[1].gan.discriminator.parameters())[0, 0] = float("nan")
        return right(self, first, *more)

    monkeypatch.setattr(Group, "advance", advance)
    told: list[str] = []
    outcomes = train_together(seeds(3, "train.rollbacks=1"), folders, tell=told.append)
    assert all(outcome.finished for outcome in outcomes)
    assert any("seed 1: D's" in words and "back to step 12, rollback 1" in words for words in told)
    assert [steps_in(folder) for folder in folders] == [[6, 12, 18, 24]] * 3
    rollbacks = [latest(folder / "checkpoints")[0] for folder in folders]
    assert [saved.state["rollbacks"] for saved in rollbacks if saved] == [0, 1, 0]
    assert set(calls) == {3}


def test_a_group_with_a_fault_leaves_its_members_where_they_were() -> None:
    members = engines(seeds(2))
    with torch.no_grad():
        next(members[1].gan.generator.parameters())[0, 0] = float("inf")
    before = [weights(member) for member in members]
    assert Group(members).advance(0, 3) == 0
    for member, was in zip(members, before, strict=True):
        assert member.batches_drawn == 0
        assert all(torch.equal(now, was[name]) for name, now in weights(member).items())


def test_a_refused_spec_leaves_no_folder(folders: list[Path]) -> None:
    with pytest.raises(SpecError, match="cannot be trained together"):
        train_together(seeds(3, 'penalty=["lecam"]'), folders)
    assert not any(folder.exists() for folder in folders)


def test_what_ends_the_run_is_written_down_for_every_seed(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Group, *given: Any) -> int:
        raise ZeroDivisionError("at that")

    monkeypatch.setattr(Group, "advance", broken)
    with pytest.raises(ZeroDivisionError):
        train_together(seeds(3), folders)
    assert {state(folder)["reason"] for folder in folders} == {"at that"}


@given(st.integers(0, 60), *[st.integers(1, 30)] * 4)
def test_nothing_that_is_due_falls_into_a_stretch(
    step: int, log: int, samples: int, checkpoint: int, scored: int
) -> None:
    train = Train(steps=61, batch=2, log=log, samples=samples, checkpoint=checkpoint)
    spec = replace(ONE, train=train, eval=replace(ONE.eval, every=scored))
    due = _due(spec, step)
    assert step < due <= 61
    for between in range(step + 1, due):
        assert all(between % every for every in (log, samples, checkpoint, scored))


def test_seeds_are_scored_while_they_train(folders: list[Path]) -> None:
    train_together(seeds(2, "eval.every=9", "eval.count=2500"), folders[:2])
    for folder in folders[:2]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
        scored = {line["step"] for line in lines if any("modes" in name for name in line)}
        assert scored == {9, 18, 24}


# The benchmark


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    return importlib.import_module("stacked")


def test_the_benchmark_says_what_it_promises(bench: ModuleType, capsys: Any) -> None:
    bench.main(["--seeds", "2", "--steps", "2", "--rounds", "2", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["seeds"], result["steps"], result["batch"]) == (2, 2, 128)
    assert result["minutes"] == pytest.approx(result["gankit_s"] * 50_000 * 10 / 4 / 60, rel=1e-3)
