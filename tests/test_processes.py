"""Several processes are one: the same weights everywhere, and those that one process comes to.

Most of this is played by two processes that are kept for the whole file, see `together.py`. What is
about signals, sudden death and launchers starts its own.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gankit import recipes
from gankit.build import bind
from gankit.errors import SetupError, SpecError, Unanswered
from gankit.schedules import turns_of
from gankit.slots import Turn
from gankit.spec import load
from gankit.train import checkpoint, processes, run
from gankit.train.engine import Engine
from gankit.train.folder import RunFolder
from gankit.train.plan import networks
from gankit.train.processes import Processes, launch
from gankit.train.run import _own, refusal_of
from tests.specs import POINTS
from tests.together import (
    TWINS,
    Failed,
    Meddle,
    Played,
    Together,
    alone,
    apart,
    engine_of,
    played,
    ran,
    tensors_of,
)

ROOT = Path(__file__).parent.parent

IMAGES = """
gankit = 1
name = "small"
seed = 4
data = { use = "digits", size = 8 }
generator = { use = "dcgan", latent = 4, width = 4, norm = "spectral" }
discriminator = { use = "dcgan", width = 4, norm = "spectral" }
loss = "hinge"
optimizer = { use = "adam", lr = 1e-3 }
train = { steps = 50, batch = 16, ema = 0.9 }
"""

BATCHNORM = (
    'generator.norm=["spectral", {use="batchnorm", sync=true}]',
    'discriminator.norm=["spectral", {use="batchnorm", sync=true}]',
)


@pytest.fixture(scope="module")
def pair() -> Iterator[Together]:
    made = Together()
    yield made
    made.end()


# --- two processes are one

CASES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "augments": (
        *(
            "augment.flip={}",
            "augment.color={}",
            "augment.adaptive={speed=400, every=1, start=0.3}",
        ),
        *("penalty.r1={weight=1.0, every=2}", "schedule.n_critic={n=2}"),
    ),
    "wgan_gp": ("penalty.wgan_gp={}", "train.accumulate=2", "train.clip=0.5", "loss=wasserstein"),
    "joint": (
        *("train.batches=joint", "penalty.lecam={}", "penalty.consistency={}"),
        *("schedule.simultaneous={}", "augment.translation={}", "train.top_k=1.0"),
    ),
}


@cache
def one_process(spec: str | Path, overrides: tuple[str, ...], steps: int, wide: bool) -> Any:
    return alone(spec, overrides, steps, wide)


def difference(
    pair: Together,
    spec: str | Path,
    overrides: tuple[str, ...],
    steps: int,
    wide: bool,
    twin: str = "",
) -> str:
    """How two processes are not the one that they should be; empty if they are."""
    both: list[Played] = pair(played, spec, overrides, steps, wide, twin)
    if both[0].agreed != both[1].agreed or not all(both[0].agreed):
        return f"the checksums differ in {both[0].agreed.count(False)} steps"
    if (found := apart(both[0].states, both[1].states))[0]:
        return f"the ranks are {found[0]} apart in {found[1]}"
    found = apart(one_process(spec, overrides, steps, wide), both[0].states)
    if not found[0] <= (1e-9 if wide else 1e-5):
        return f"one process is {found[0]} apart in {found[1]}"
    return ""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("wide", "steps"), [(False, 10), (True, 50)], ids=["fp32", "fp64"])
def test_two_processes_have_the_weights_of_one(
    pair: Together, case: str, wide: bool, steps: int
) -> None:
    assert difference(pair, IMAGES, CASES[case], steps, wide) == ""


def test_joined_batch_norm_is_that_of_the_whole_batch(pair: Together) -> None:
    """Its running statistics too; through second derivatives as well."""
    assert difference(pair, IMAGES, (*BATCHNORM, "penalty.r1={}"), 30, True) == ""
    more = (*BATCHNORM, "train.batches=joint", "schedule.simultaneous={}", "penalty.r2={every=2}")
    assert difference(pair, IMAGES, more, 10, True) == ""
    conditional = (
        'generator.norm={use="conditional_batchnorm", sync=true, initializer="normal"}',
        "generator.condition=label",
    )
    assert difference(pair, IMAGES, conditional, 10, True) == ""


@pytest.mark.parametrize(
    ("twin", "overrides", "noticed"),
    [
        ("no average", (), "checksums"),
        ("own statistics", ("generator.norm=batchnorm",), "checksums"),
        ("first rows", (), "one process"),
        ("own draws", ("penalty.wgan_gp={}",), "one process"),
        ("same draws", ("penalty.wgan_gp={}",), "one process"),
        ("same draws", ("augment.flip={}",), "one process"),
        ("own logits", ("augment.adaptive={speed=100, every=1}",), "one process"),
        ("own batch norm", BATCHNORM, "one process"),
        ("own slope", BATCHNORM, "one process"),
    ],
)
def test_twins_are_noticed(
    pair: Together, twin: str, overrides: tuple[str, ...], noticed: str
) -> None:
    for steps, wide in ((3, False), (5, True)):
        assert noticed in difference(pair, IMAGES, overrides, steps, wide, twin)
    assert noticed not in difference(pair, IMAGES, overrides, 3, True), "without it they are not"


PARTS = """
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

import gankit
from gankit.slots import Image, Turn


@gankit.norm("class_layernorm", on="activation", needs={"labels"})
class ClassLayerNorm(nn.Module):
    def __init__(self, channels: int, condition: int, /) -> None:
        super().__init__()
        self.normal = nn.GroupNorm(1, channels, affine=False)
        values = torch.linspace(0.5, 1.5, condition * channels)
        self.scale = nn.Parameter(values.view(condition, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.normal(x) * (condition @ self.scale)[:, :, None, None]


@gankit.discriminator("two_heads")
class TwoHeads(nn.Module):
    adversarial: ClassVar[dict[str, float]] = {"logits": 1.0}

    def __init__(self, image: Image, /) -> None:
        super().__init__()
        self.trunk = nn.Linear(prod(image.shape), 8)
        self.logits, self.other = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        seen = self.trunk(images.flatten(1)).tanh()
        return {"logits": self.logits(seen), "other": self.other(seen)}


@gankit.penalty("other_head")
@dataclass(frozen=True, kw_only=True)
class OtherHead:
    players: ClassVar[str] = "D"
    every: int = 3

    def __call__(self, turn: Turn, /) -> Tensor:
        return (turn.real_heads["other"] - 1).square().mean()


@gankit.penalty("by_class", needs={"labels"})
@dataclass(frozen=True, kw_only=True)
class ByClass:
    players: ClassVar[str] = "DG"
    every: int = 1

    def __call__(self, turn: Turn, /) -> Tensor:
        return ((1 + turn.labels) * turn.fake_logits.flatten(1).mean(1).square()).mean()
"""


def with_parts(folder: Path, name: str, text: str) -> Path:
    (folder / "parts.py").write_text(PARTS)
    (folder / f"{name}.toml").write_text(text.replace("seed = 4", 'plugins = ["parts.py"]'))
    return folder / f"{name}.toml"


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec whose D has a head that a lazy penalty alone looks at."""
    two = re.sub(r"discriminator = .*", 'discriminator = "two_heads"', IMAGES)
    two += '[[penalty]]\nuse = "other_head"\n'
    return with_parts(tmp_path_factory.mktemp("lazy"), "lazy", two)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional spec whose penalty depends on the label."""
    norms = 'norm = ["spectral", "class_layernorm"], condition = "label"'
    text = IMAGES.replace('norm = "spectral"', norms) + '[[penalty]]\nuse = "by_class"\n'
    return with_parts(tmp_path_factory.mktemp("labelled"), "labelled", text)


@pytest.mark.parametrize("twin", ["", "zeros"])
def test_what_has_no_gradient_is_left_alone(pair: Together, lazy: Path, twin: str) -> None:
    """Given zeros, Adam would move it on by its momentum."""
    momentum = ("optimizer.betas=[0.9, 0.9]",)
    found = difference(pair, lazy, momentum, 8, False, twin)
    assert found.startswith("one process") if twin else found == ""


def test_every_twin_is_tried() -> None:
    tests: Any = (test_twins_are_noticed, test_what_has_no_gradient_is_left_alone)
    values = [value for test in tests for mark in test.pytestmark for value in mark.args[1]]
    assert {v if isinstance(v, str) else v[0] for v in values} == set(TWINS)


def test_labels_go_with_their_rows(pair: Together, labelled: Path) -> None:
    for wide in (False, True):
        assert difference(pair, labelled, ("schedule.n_critic={n=2}",), 10, wide) == ""
    assert "one process" in difference(pair, labelled, (), 3, True, "first rows")


@pytest.mark.parametrize("wide", [False, True], ids=["fp32", "fp64"])
def test_one_in_four_shares_is_two_in_two_is_one_in_one(pair: Together, wide: bool) -> None:
    parts = ("penalty.wgan_gp={}", "penalty.lecam={}", "augment.adaptive={speed=100, every=1}")
    counts = {
        count: (*parts, f"train.accumulate={count}", "schedule.n_critic={n=2}")
        for count in (1, 2, 4)
    }
    ones = [one_process(IMAGES, overrides, 10, wide) for overrides in counts.values()]
    both: list[Played] = pair(played, IMAGES, counts[2], 10, wide)
    for states in (*ones[1:], both[0].states, both[1].states):
        assert apart(ones[0], states)[0] <= (1e-9 if wide else 1e-5)


@pytest.mark.slow
def test_three_processes_have_the_weights_of_one() -> None:
    """Where a mean is no longer exact."""
    three = Together(3)
    try:
        for overrides in (CASES["augments"], (*BATCHNORM, "penalty.r1={}")):
            states = one_process(IMAGES, (*overrides, "train.batch=18"), 10, True)
            for each in three(played, IMAGES, (*overrides, "train.batch=18"), 10, True):
                assert all(each.agreed)
                assert apart(states, each.states)[0] <= 1e-9
    finally:
        three.end()


def narrow(engine: Engine) -> set[str]:
    """What of a step is not in float64."""
    seen: dict[str, Any] = {}
    for player, network in engine.networks.items():
        for name, layer in network.named_modules():
            layer.register_forward_hook(
                lambda module, given, made, name=f"{player} {name}": seen.update({name: made})
            )

    def watch(turn: Turn) -> Tensor:
        for name in ("real", "fake", "latent", "real_logits", "fake_logits"):
            if turn.player == "D" or name[:4] != "real":
                seen[f"turn {turn.player} {name}"] = getattr(turn, name)
        return turn.fake_logits.new_zeros(())

    engine.gan.penalties["watched"] = mock.Mock(players="DG", every=1, side_effect=watch)
    seen |= {f"told {name}": value for name, value in engine.step(0).items()}
    for name, player in engine.players.items():
        for index, state in enumerate(player.optimizer.state.values()):
            seen |= {f"optimizer {name} {index} {k}": v for k, v in state.items() if k != "step"}
        for key, parameter in player.network.named_parameters():
            seen[f"gradient {name} {key}"] = parameter.grad
    seen |= {k: v for k, v in tensors_of(engine).items() if v.is_floating_point()}
    tensors = {name: value for name, value in seen.items() if isinstance(value, Tensor)}
    assert len(tensors) > 50
    return {name for name, tensor in tensors.items() if tensor.dtype != torch.float64}


WIDE = (*CASES["augments"], "penalty.wgan_gp={}", "penalty.lecam={}", "train.clip=0.5")


def test_nothing_of_a_wide_step_is_narrow() -> None:
    """What was rounded to float32 on its way would be wrong in every process alike."""
    assert narrow(engine_of(Processes(), IMAGES, WIDE, wide=True)) == set()


def test_twin_narrow_logits_are_noticed() -> None:
    engine = engine_of(Processes(), IMAGES, WIDE, wide=True)
    engine.gan.discriminator.register_forward_hook(lambda module, given, made: made.float())
    assert {"turn D fake_logits", "turn G fake_logits"} <= narrow(engine)


def masks(processes: Processes) -> list[float]:
    """What a module that draws from torch's global generator draws in two steps."""
    engine = engine_of(processes, IMAGES)
    drawn: list[float] = []
    engine.gan.generator.register_forward_hook(
        lambda module, given, made: drawn.append(float(torch.rand(())))
    )
    engine.step(0), engine.step(1)
    return drawn


def test_dropout_would_drop_other_rows_in_each_process(pair: Together) -> None:
    first, second = pair(masks)
    assert len({*first, *second}) == len(first) + len(second)
    assert first == masks(Processes())


# --- the checksum


def tensors(draw: Callable[[Any], Any], dtype: torch.dtype, count: int) -> Tensor:
    bits = draw(
        st.lists(
            st.integers(0, 255), min_size=count * dtype.itemsize, max_size=count * dtype.itemsize
        )
    )
    return torch.tensor(bits, dtype=torch.uint8).view(dtype)


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8]


@given(st.data())
def test_a_flipped_bit_and_two_swapped_values_change_the_checksum(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    count = data.draw(st.integers(2, 9))
    tensor = tensors(data.draw, dtype, count)
    summed = processes._checksum(tensor)
    assert summed == processes._checksum(tensor.clone())
    place = data.draw(st.integers(0, 8 * count * dtype.itemsize - 1))
    flipped = tensor.clone()
    flipped.view(torch.uint8)[place // 8] ^= 1 << place % 8
    assert processes._checksum(flipped) != summed
    one, other = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2))
    swapped = tensor.clone()
    swapped[[one, other]] = tensor[[other, one]]
    if not torch.equal(swapped.view(torch.uint8), tensor.view(torch.uint8)):
        assert processes._checksum(swapped) != summed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_that_are_each_others_opposite_change_the_checksum_when_swapped(
    dtype: torch.dtype,
) -> None:
    tensor = torch.zeros(5000, dtype=dtype)
    for one, other, gap in ((1.5, -1.5, 1), (1.0, 2.0, 2048), (0.0, -0.0, 4096)):
        tensor[0], tensor[gap] = one, other
        swapped = tensor.clone()
        swapped[0], swapped[gap] = other, one
        assert processes._checksum(swapped) != processes._checksum(tensor)


def test_what_is_empty_or_a_single_number_has_a_checksum() -> None:
    assert processes._checksum(torch.empty(0, 3)) == 0
    assert processes._checksum(torch.tensor(1.0)) != processes._checksum(torch.tensor(2.0))


def test_twins_of_the_checksum_are_noticed() -> None:
    """A sum of values misses small changes in large sums, and one of bits what is swapped."""
    tensor = torch.tensor([1e8, 1.0, 2.0])
    assert tensor.sum() == (tensor + torch.tensor([0.0, 0.0, 1e-6])).sum()
    bits, swapped = tensor.view(torch.int32), tensor[[1, 0, 2]].view(torch.int32)
    assert bits.sum() == swapped.sum()
    assert processes._checksum(tensor) != processes._checksum(tensor[[1, 0, 2]])


def agreement(processes: Processes, change: str) -> bool:
    tensors = [torch.arange(6.0), torch.arange(3), torch.ones(())]
    if processes.rank:
        if change == "bit":
            tensors[0].view(torch.int32)[3] ^= 1
        if change == "swap":
            tensors[0][[1, 4]] = tensors[0][[4, 1]]
        if change == "whole":
            tensors[1] += 1
    return processes.agree(tensors)


def test_processes_that_differ_in_a_bit_do_not_agree(pair: Together) -> None:
    assert pair(agreement, "") == [True, True]
    for change in ("bit", "swap", "whole"):
        assert pair(agreement, change) == [False, False]


# --- what is said between them


def exchange(processes: Processes) -> dict[str, Any]:
    rank = processes.rank
    values = [torch.full((2, 3), rank + 1.0), torch.tensor(rank, dtype=torch.float64)]
    kept = values[0].data_ptr()
    processes.average(values)
    processes.average([])
    return {
        "average": [v.tolist() for v in values],
        "in place": values[0].data_ptr() == kept,
        "gathered": processes.gathered(torch.tensor([[rank], [rank + 10]])).flatten().tolist(),
        "first": processes.from_first({"rank": rank, "tensor": torch.ones(1) * rank}),
        "largest": processes.largest([rank, -rank, 7]),
        "none": processes.largest([]),
    }


def test_what_processes_tell_each_other(pair: Together) -> None:
    for found in pair(exchange):
        assert found == {
            "average": [[[1.5] * 3] * 2, 0.5],
            "in place": True,
            "gathered": [0, 10, 1, 11],
            "first": {"rank": 0, "tensor": torch.zeros(1)},
            "largest": [1, 0, 7],
            "none": [],
        }


def test_one_process_is_told_what_it_has() -> None:
    alone = Processes()
    tensor = torch.ones(2)
    alone.average([tensor])
    assert torch.equal(tensor, torch.ones(2))
    assert alone.gathered(tensor) is tensor
    assert alone.from_first("x") == "x"
    assert alone.largest([3, 1]) == [3, 1]
    assert alone.agree([tensor])
    assert (alone.rank, alone.count) == (0, 1)


def hang(processes: Processes) -> int:
    time.sleep(30 * processes.rank)
    return processes.rank


def test_twin_a_task_that_hangs_is_noticed() -> None:
    others = Together()
    with pytest.raises(Failed, match="rank 1: no answer in 2 s"):
        others(hang, longest=2.0)
    assert others.workers == []


# --- runs

FAST = ("train.log=2", "train.checkpoint=4", "train.samples=8", "train.steps=12")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "points.toml").write_text(POINTS)
    return tmp_path / "points.toml"


def content(folder: Path) -> dict[str, bytes]:
    """What must be the same whether or not a run was stopped."""
    saved = sorted((folder / "checkpoints").glob("*/*.safetensors"))
    files = [*saved, folder / "metrics.jsonl", *sorted((folder / "samples").iterdir())]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def steps_of(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.open()]


def test_the_first_process_alone_writes_and_speaks(pair: Together, spec: Path) -> None:
    folder = spec.parent / "run"
    first, second = pair(ran, spec, (*FAST, "logger.csv={}"), folder)
    for ended in (first, second):
        assert ended.outcome is not None
        assert ended.outcome.finished
        assert ended.taken == list(range(12))
    assert second.said == []
    assert steps_of(folder / "metrics.jsonl") == [2, 4, 6, 8, 10, 12]
    assert steps_of(folder / "timing.jsonl") == [2, 4, 6, 8, 10, 12]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step_12", "step_8"]
    assert sorted(p.name for p in (folder / "samples").iterdir()) == [
        "step_0000008.png",
        "step_0000012.png",
    ]
    (environment,) = json.loads((folder / "env.json").read_text())
    assert environment["processes"] == 2


def test_its_metrics_are_those_of_one_process(pair: Together, spec: Path) -> None:
    # Of gradients that cancel, Adam would make steps as large as of any other.
    plain = (*FAST, "optimizer={use='sgd', lr=0.5}")
    pair(ran, spec, plain, spec.parent / "two")
    run(load(spec, plain), spec.parent / "one")
    one, two = (
        [json.loads(line) for line in (spec.parent / name / "metrics.jsonl").open()]
        for name in ("one", "two")
    )
    for mine, theirs in zip(one, two, strict=True):
        # How much fakes differ is measured on the share of the first process.
        del mine["diversity"], theirs["diversity"]
        assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-6)


PARTS_WITH_STATE = ("penalty.lecam={}", "penalty.r1={every=3}", "train.ema=0.9")


@pytest.mark.parametrize(
    ("number", "late"),
    [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGUSR1, False)],
    ids=["SIGTERM", "SIGINT late", "SIGUSR1"],
)
def test_a_signal_to_any_process_stops_all_at_one_step_and_they_go_on_to_the_same_bits(
    pair: Together, spec: Path, number: signal.Signals, late: bool
) -> None:
    """A late one comes when all have decided to go on: it is for the next step."""
    folder = spec.parent / "run"
    overrides = (*FAST, *PARTS_WITH_STATE)
    stopped = pair(ran, spec, overrides, folder, Meddle(1, 6, number, late))
    step = 7 if late else 6
    for ended in stopped:
        assert ended.error == ""
        assert ended.outcome is not None
        assert (ended.outcome.step, ended.outcome.signal) == (step, number)
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    found, _ = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    assert found.step == step
    first, _ = pair(ran, spec, overrides, folder)
    assert first.said[0] == f"continues at step {step} of 12"
    pair(ran, spec, overrides, spec.parent / "whole")
    for step in (4, 6, 7):
        for name in (folder, spec.parent / "whole"):
            assert not (name / "checkpoints" / f"step_{step}").exists()
    assert content(folder) == content(spec.parent / "whole")


@pytest.mark.parametrize("hurry", [False, True], ids=["", "twin"])
def test_nobody_leaves_before_all_is_written(pair: Together, spec: Path, hurry: bool) -> None:
    """A launcher ends those that go on when one has ended."""
    stop = Meddle(0, 6, signal.SIGTERM, writing=1.0, hurry=hurry)
    _, second = pair(ran, spec, FAST, spec.parent / "run", stop)
    written = spec.parent / "run" / "checkpoints" / "step_6" / "manifest.json"
    assert (second.when < written.stat().st_mtime) == hurry


def test_another_number_of_processes_continues_and_says_what_that_means(
    pair: Together, spec: Path
) -> None:
    folder = spec.parent / "run"
    pair(ran, spec, FAST, folder, Meddle(1, 6, signal.SIGTERM))
    said: list[str] = []
    outcome = run(load(spec, FAST), folder, tell=said.append)
    assert said[:2] == [
        "not as before, so not to the same bits: processes: 2 became 1",
        "continues at step 6 of 12",
    ]
    assert outcome.finished
    first, _ = pair(ran, spec, (*FAST, "train.steps=14"), folder)
    assert first.said[0] == "not as before, so not to the same bits: processes: 1 became 2"
    assert first.outcome is not None
    assert first.outcome.step == 14
    assert [s["processes"] for s in json.loads((folder / "env.json").read_text())] == [2, 1, 2]


DENSE = """
gankit = 1
data = { use = "digits", size = 8 }
generator = { use = "mlp", width = 4, layers = 1 }
discriminator = { use = "mlp", width = 4, layers = 1 }
loss = "hinge"
penalty = [{ use = "lecam" }]
train = { steps = 12, batch = 8 }
"""


@pytest.mark.parametrize("nudge", ["generator", "penalty.lecam"])
def test_processes_that_come_apart_end_and_say_so(
    pair: Together, tmp_path: Path, nudge: str
) -> None:
    """Whether in their weights or in the state of a part, which no gradient would show."""
    spec = tmp_path / "spec.toml"
    spec.write_text(DENSE)
    wrong = Meddle(1, 5, nudge=nudge)
    ended = pair(ran, spec, (*FAST, "train.log=3"), tmp_path / "run", wrong)
    for each in ended:
        assert each.error == "GankitError: the processes have different weights at step 6"
        assert each.code == 1
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("failed", 6)
    found, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == 4, "which was before they came apart"


def test_a_run_that_diverges_goes_back_and_ends_in_all_processes(
    pair: Together, spec: Path
) -> None:
    steep = (*FAST, "optimizer={use='sgd', lr=1e30}", "loss=least_squares")
    first, second = pair(ran, spec, steep, spec.parent / "run")
    assert first.code == second.code == 6
    assert first.error == second.error
    assert first.taken == second.taken
    assert "after 2 rollbacks" in first.error
    assert sum("rollback" in line for line in first.said) == 2
    assert second.said == []


# --- what is refused is told once, by all processes together, and nothing is written


def refused(pair: Together, spec: Path, overrides: Sequence[str], folder: Path) -> tuple[str, int]:
    """What the first process says of a run that cannot be, and the exit code of all."""
    before = sorted(folder.rglob("*"))
    first, second = pair(ran, spec, overrides, folder, None, True)
    assert (first.outcome, second.outcome, second.error) == (None, None, "")
    assert first.code == second.code
    assert sorted(folder.rglob("*")) == before
    return first.error, first.code


def test_a_batch_that_cannot_be_divided(pair: Together, spec: Path) -> None:
    told = refused(pair, spec, ("train.batch=7",), spec.parent / "run")
    assert told == ("SetupError: a batch of 7 cannot be divided into 2 equal shares", 4)
    told = refused(pair, spec, ("train.batch=9", "train.accumulate=3"), spec.parent / "run")
    assert told == ("SetupError: a batch of 9 cannot be divided into 6 equal shares", 4)


def test_data_that_is_not_there(pair: Together, spec: Path) -> None:
    spec.write_text(DENSE.replace('"digits"', '"folder", root = "nowhere"'))
    error, code = refused(pair, spec, (), spec.parent / "run")
    assert error.startswith("DataError: nowhere: no such folder")
    assert code == 4


def test_networks_that_cannot_run(pair: Together, spec: Path) -> None:
    wrong = ("discriminator.norm=batchnorm", "penalty.wgan_gp={}")
    error, code = refused(pair, spec, wrong, spec.parent / "run")
    assert error.startswith("SpecError: ")
    assert code == 3


GROUPS = """
gankit = 1
data = { use = "digits", size = 8 }
generator = { use = "mlp", width = 4 }
loss = "hinge"
train = { steps = 4, batch = 12 }
[discriminator]
use = "stack"
stages = [
    { use = "conv", channels = 4 },
    { use = "minibatch_std", group = 4 },
    { use = "dense", channels = 1 },
]
"""


@pytest.mark.parametrize(("count", "problems"), [("1", 0), ("2", 1), ("3", 0), ("5", 0)])
def test_a_network_that_cannot_run_on_the_rows_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str, problems: int
) -> None:
    """It can run on those of the whole batch. What cannot be divided is told elsewhere."""
    monkeypatch.setenv("WORLD_SIZE", count)
    (tmp_path / "groups.toml").write_text(GROUPS)
    refusal = refusal_of(load(tmp_path / "groups.toml"))
    if problems:
        assert isinstance(refusal, SpecError)
        assert "groups of 4 do not divide a batch of 6" in str(refusal)
    else:
        assert refusal is None


def test_a_folder_in_use_and_one_of_another_spec(pair: Together, spec: Path) -> None:
    folder = spec.parent / "run"
    run(load(spec, FAST), folder)
    with RunFolder(folder).locked():
        error, code = refused(pair, spec, FAST, folder)
    assert (error, code) == (f"SetupError: another process is training in {folder}", 4)
    error, code = refused(pair, spec, (*FAST, "seed=7"), folder)
    assert error.startswith(f"CheckpointError: {folder} belongs to another spec")
    assert code == 5


# --- sudden death

JOINED = f"""{IMAGES}
[[penalty]]
use = "r1"
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("text", [POINTS, JOINED], ids=["points", "joined"])
def test_when_one_is_killed_the_others_end_and_what_was_saved_is_sound(
    pair: Together, tmp_path: Path, text: str, rank: int
) -> None:
    """Also where they wait for each other within a network."""
    spec, folder = tmp_path / "spec.toml", tmp_path / "run"
    spec.write_text(text)
    overrides = (*FAST, *(BATCHNORM if text is JOINED else ()))
    killed = Meddle(rank, 10, signal.SIGKILL, early=True)
    answers = pair.each(ran, spec, overrides, folder, killed, longest=20.0)
    left, dead = answers[1 - rank], answers[rank]
    assert str(dead) == "it has ended"
    assert left.error.startswith("Unanswered: another process has ended or does not answer: ")
    assert "\n" not in left.error
    assert left.code == 4
    assert left.taken == list(range(10))
    found, complaints = checkpoint.latest(folder / "checkpoints")
    assert complaints == []
    assert found is not None
    # That of step 8 may not have been on the disk when its writer died; before it, that of 4 was.
    assert found.step in ((4, 8) if rank == 0 else (8,))
    first, _ = pair(ran, spec, overrides, folder)
    assert first.said[0] == f"continues at step {found.step} of 12"
    assert first.outcome is not None
    assert first.outcome.finished
    assert steps_of(folder / "metrics.jsonl") == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "[/third_party/gloo/transport/tcp/pair.cc:553] Connection closed by peer"
            " [127.0.0.1]:6031. This is typically caused by a remote worker crashing. GLHF!",
            "Connection closed by peer [127.0.0.1]:6031",
        ),
        ("[/buffer.cc:81] Timed out waiting 1800000ms for recv", None),
        (
            "NCCL communicator was aborted on rank 1.\nmore",
            "NCCL communicator was aborted on rank 1.",
        ),
        ("", ""),
    ],
)
def test_what_a_backend_says_is_told_in_a_line(said: str, told: str | None) -> None:
    wanted = said.partition("] ")[2] if told is None else told
    message = f"another process has ended or does not answer: {wanted}"
    assert str(Unanswered(RuntimeError(said))) == message


def test_processes_that_do_not_find_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(SetupError, match=r"do not find each other: .*MASTER_PORT"):
        processes.joined(torch.device("cpu")).__enter__()


def test_fewer_gpus_than_processes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SetupError, match="2 processes want a GPU each, and torch sees 1 here"):
        _own(torch.device("cuda"))
    assert _own(torch.device("cpu")) == torch.device("cpu")
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [_own(torch.device("cuda"))] == chosen == [torch.device("cuda", 1)]


# --- the launcher, with something quicker than gankit to launch


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of Python: runs the first argument that would have been gankit's."""
    file = tmp_path / "stub"
    file.write_text(f"#!{sys.executable} -S\n{STUB}")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    return file


STUB = """
import os, signal, sys, time
rank = os.environ["RANK"]
heard = []
def hear(*numbers):
    for number in numbers:
        signal.signal(number, lambda n, frame: heard.append(n))
    tell("ready", rank)
    wait(lambda: os.path.exists("ready0") and os.path.exists("ready1"))
def tell(name, what):
    with open(f"{name}{rank}", "a") as file:
        file.write(f"{what}\\n")
def wait(done=lambda: False, seconds=60):
    last = time.monotonic() + seconds
    while time.monotonic() < last and not done():
        time.sleep(0.01)
def listen():
    wait(lambda: heard)
    wait(seconds=0.5)
exec(sys.argv[3])
"""


def test_what_a_launched_process_is_told(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    keys = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    names = [*keys, "OMP_NUM_THREADS"]
    told = f"import json; tell('told', json.dumps([os.environ[n] for n in {names}]))"
    groups = "tell('group', os.getpgid(0) == os.getpid())"
    assert launch(2, [f"{told}; {groups}; tell('words', sys.argv[1:3])"]) == 0
    cores = str(max(1, (os.cpu_count() or 1) // 2))
    ports = set()
    for rank in "01":
        *values, port, threads = json.loads((tmp_path / f"told{rank}").read_text())
        assert values == [rank, rank, "2", "2", "127.0.0.1"]
        assert threads == cores
        ports.add(port)
        assert (tmp_path / f"group{rank}").read_text() == "True\n"
        assert (tmp_path / f"words{rank}").read_text() == "['-m', 'gankit']\n"
    assert len(ports) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launch(1, ["tell('threads', os.environ['OMP_NUM_THREADS'])"]) == 0
    assert (tmp_path / "threads0").read_text() == "7\n"


LATER = "(wait(lambda: os.path.exists('gone1')), wait(seconds=0.5))"


@pytest.mark.parametrize(
    ("code", "wanted", "said"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(5 * int(rank))", 5, ""),
        ("sys.exit(3)", 3, ""),
        (f"rank == '0' and {LATER}; tell('gone', 1); sys.exit(4 + 2 * int(rank))", 6, ""),
        (
            "rank == '1' and os.kill(os.getpid(), 9); sys.exit(0)",
            4,
            "error: process 1 of 2 was ended by SIGKILL\n",
        ),
    ],
)
def test_the_exit_code_is_that_of_the_first_to_fail(
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: str,
    wanted: int,
    said: str,
) -> None:
    monkeypatch.chdir(stub.parent)
    assert launch(2, [code]) == wanted
    assert capfd.readouterr() == ("", said)


def test_who_does_not_end_is_ended(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "GRACE", 0.3)
    stubborn = "tell('pid', os.getpid()); hear(signal.SIGTERM); rank == '1' and sys.exit(3); wait()"
    begun = time.monotonic()
    assert launch(2, [stubborn]) == 3
    assert time.monotonic() - begun < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid0").read_text()), 0)


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_the_launcher_is_handed_on_once(
    stub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    number: signal.Signals,
) -> None:
    monkeypatch.chdir(tmp_path)
    # Whoever runs the tests under nohup has SIGHUP ignored.
    found = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, found))
    before = [signal.getsignal(each) for each in SIGNALS]
    code = f"hear({int(number)}); rank == '0' and os.kill(os.getppid(), {int(number)}); listen()"
    assert launch(2, [f"{code}; tell('heard', heard); sys.exit(75)"]) == 75
    for rank in "01":
        assert (tmp_path / f"heard{rank}").read_text() == f"[{int(number)}]\n"
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_under_nohup_a_terminal_may_be_closed(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ignored = "tell('ignored', signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
        assert launch(2, [f"os.kill(os.getppid(), signal.SIGHUP); {ignored}"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "ignored0").read_text() == "True\n"


def in_a_terminal(alone: Processes, name: str, stub: str, code: str, twin: bool) -> int:
    """Launch from a process whose terminal this is, as a shell would have it."""
    os.setsid()
    os.open(name, os.O_RDWR)  # whoever leads a session gets the first terminal it opens
    os.chdir(Path(stub).parent)
    plain, send = subprocess.Popen, subprocess.Popen.send_signal

    def ungrouped(*given: Any, process_group: int, **how: Any) -> Any:
        return plain(*given, **how)

    def later(self: Any, number: int) -> None:
        time.sleep(0.1)  # so that two signals are not taken for one
        send(self, number)

    with mock.patch.object(sys, "executable", stub), mock.patch.object(plain, "send_signal", later):
        if not twin:
            return launch(2, [code])
        with mock.patch.object(subprocess, "Popen", ungrouped):
            return launch(2, [code])


@pytest.mark.parametrize("twin", [False, True], ids=["groups", "no groups"])
def test_ctrl_c_in_a_terminal_comes_once_to_each(stub: Path, tmp_path: Path, twin: bool) -> None:
    """Twice would mean to leave at once, unsaved. The twin is in the terminal's own group."""
    ours, theirs = pty.openpty()

    def press() -> None:
        last = time.monotonic() + 30
        while time.monotonic() < last and not all((tmp_path / f"ready{r}").exists() for r in "01"):
            time.sleep(0.02)
        os.write(ours, b"\x03")

    shell = Together(1)
    keys = threading.Thread(target=press)
    keys.start()
    try:
        code = "hear(signal.SIGINT); listen(); tell('heard', len(heard)); sys.exit(9)"
        assert shell(in_a_terminal, os.ttyname(theirs), str(stub), code, twin) == [9]
    finally:
        keys.join()
        shell.end()
        os.close(ours)
        os.close(theirs)
    for rank in "01":
        assert (tmp_path / f"heard{rank}").read_text() == f"{1 + twin}\n"


# --- what it costs, as docs/several_processes.md has it

DOCUMENT = (ROOT / "docs/several_processes.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| (.*) \|$", re.MULTILINE)


@cache
def costs(recipe: str) -> tuple[str, str, list[str], float]:
    """Parameters of G and D, the row of megabytes, and seconds for 8 GPUs at 1.25 GB/s."""
    spec = load(recipes.find(recipe))
    counts = [network.parameters for network in networks(spec)]
    assert turns_of([bind(part) for part in spec.schedule], 0, spec.train.steps) == ("D", "G")
    gradients = 4 * sum(counts)
    sent = {gpus: 2 * (gpus - 1) / gpus * gradients for gpus in (2, 8, 64)}
    row = [f"{size / 1e6:.1f} MB" for size in (gradients, *sent.values())]
    return f"{counts[0]:,}", f"{counts[1]:,}", row, sent[8] / 1.25e9


def check_table(document: str) -> None:
    rows = ROW.findall(document)
    assert [row[0] for row in rows] == ["sagan_celeba_128", "sagan_resnet_celeba_128"]
    seconds = []
    for recipe, generator, discriminator, sizes in rows:
        *counts, row, time_taken = costs(recipe)
        assert [generator, discriminator] == counts
        assert sizes.split(" | ") == row
        seconds.append(time_taken)
    words = " ".join(document.split())
    assert f"take {seconds[0]:.3f} s a step for the first and {seconds[1]:.3f} s for the" in words


def test_the_table_of_costs_is_what_the_recipes_have() -> None:
    check_table(DOCUMENT)


@pytest.mark.parametrize("number", ["2,801,202", "46.6 MB", "556.5 MB", "0.396 s"])
def test_twin_a_table_with_another_number_is_noticed(number: str) -> None:
    assert number in DOCUMENT
    with pytest.raises(AssertionError):
        check_table(DOCUMENT.replace(number, number.replace("6", "7").replace("1", "3")))


def traffic(processes: Processes, overrides: Sequence[str]) -> tuple[list[list[int]], int, int]:
    """The bytes of floats that are sent in each of two steps, and what the networks hold."""
    sizes: list[int] = []
    send = torch.distributed.all_reduce

    def counted(tensor: Tensor, *given: Any, **how: Any) -> Any:
        if tensor.is_floating_point():
            sizes.append(tensor.nbytes)
        return send(tensor, *given, **how)

    engine = engine_of(processes, IMAGES, overrides)
    steps = []
    with mock.patch.object(torch.distributed, "all_reduce", counted):
        for step in range(2):
            engine.step(step)
            steps.append(list(sizes))
            sizes.clear()
    counts = [sum(p.numel() for p in engine.networks[player].parameters()) for player in "DG"]
    return steps, counts[0], counts[1]


def test_what_is_sent_is_a_gradient_for_each_update(pair: Together) -> None:
    """And what is told: three numbers of D, one of G."""
    for steps, d, g in pair(traffic, ()):
        assert steps == [[4 * (d + 3), 4 * (g + 1)]] * 2
    for steps, d, g in pair(traffic, ("schedule.n_critic={n=2}", "generator.norm=batchnorm")):
        statistics = 4 * 2 * 4
        assert steps == [[4 * (d + 3)] * 2 + [4 * (g + 1), statistics]] * 2


# --- real ones


def gankit(*words: object) -> list[str]:
    return [sys.executable, "-m", "gankit", *map(str, words)]


def surroundings() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Command:
    """A command in processes of its own, and what it says."""

    def __init__(self, words: Sequence[str], said: Path) -> None:
        self.said = said
        self.seen: list[psutil.Process] = []
        with said.open("w") as stream:
            self.process = subprocess.Popen(
                words, stdout=stream, stderr=stream, env=surroundings(), start_new_session=True
            )

    def started(self, folder: Path) -> dict[int, psutil.Process]:
        """The processes by rank, once there are metrics."""
        metrics = folder / "metrics.jsonl"
        last = time.monotonic() + 120
        while not (metrics.exists() and metrics.stat().st_size):
            assert time.monotonic() < last, self.said.read_text()
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.05)
        self.seen = psutil.Process(self.process.pid).children(recursive=True)
        ranks = {int(each.environ()["RANK"]): each for each in self.seen}
        assert sorted(ranks) == [0, 1]
        return ranks

    def ended(self, code: int, traceback: bool = False) -> str:
        """What it has said, when it and all of its processes have ended."""
        try:
            found = self.process.wait(120)
        finally:
            self.process.kill()
        _, left = psutil.wait_procs(self.seen, 5)
        assert left == []
        said = self.said.read_text()
        assert found == code, said
        # torch itself may log one where the processes part; of interest are those through here.
        if traceback:
            assert "Traceback" in said
        else:
            assert not ("Traceback" in said and "/gankit/train/" in said)
        return said

    def end(self) -> None:
        """Leave nothing behind, however it went."""
        self.process.kill()
        for each in self.seen:
            with suppress(psutil.NoSuchProcess):
                each.kill()


class Small:
    """`gankit train` of a small spec, in the folder `run`."""

    def __init__(self, folder: Path) -> None:
        self.spec = folder / "points.toml"
        self.spec.write_text(POINTS)
        self.run = folder / "run"
        self.begun: list[Command] = []

    def __call__(self, *launcher: str, steps: int = 1_000_000) -> Command:
        overrides = (f"train.steps={steps}", "train.log=50", "train.checkpoint=200")
        words = [word for override in overrides for word in ("--set", override)]
        words = ["train", str(self.spec), "--run", str(self.run), *words]
        two = gankit(*words, *TWO)
        said = self.run.with_name(f"said {len(self.begun)}")
        self.begun.append(Command([*launcher, *words] if launcher else two, said))
        return self.begun[-1]

    def newest(self) -> int:
        """The step of the newest checkpoint; none is damaged."""
        found, complaints = checkpoint.latest(self.run / "checkpoints")
        assert complaints == []
        assert found is not None
        return found.step


TWO = ("--processes", "2")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    made = Small(tmp_path)
    yield made
    for each in made.begun:
        each.end()


def test_a_launched_run_is_stopped_by_a_signal(small: Small) -> None:
    command = small()
    ranks = command.started(small.run)
    assert len({os.getpgid(each.pid) for each in (*ranks.values(), command.process)}) == 3
    command.process.send_signal(signal.SIGTERM)
    said = command.ended(75).splitlines()
    step = small.newest()
    status = json.loads((small.run / "status.json").read_text())
    assert (status["state"], status["step"]) == ("stopped", step)
    assert said[0] == f"points in {small.run} on cpu with 2 processes"
    assert said[-2:] == [f"stopped at step {step:,}, saved", "the same command continues"]
    logged = [line.split("/")[0] for line in said if re.match(r"step [\d,]+/", line)]
    assert logged == [f"step {s:,}" for s in steps_of(small.run / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_a_launched_run_and_the_same_command_continues(
    small: Small, rank: int
) -> None:
    command = small()
    ranks = command.started(small.run)
    last = time.monotonic() + 120
    while not list((small.run / "checkpoints").glob("step_*")) and time.monotonic() < last:
        time.sleep(0.05)
    ranks[rank].kill()
    assert f"error: process {rank} of 2 was ended by SIGKILL\n" in command.ended(4)
    step = small.newest()
    said = small(steps=step + 100).ended(0)
    assert f"continues at step {step:,} of {step + 100:,}\n" in said
    assert "not as before" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_a_launched_run(
    small: Small, number: signal.Signals, code: int, rank: int
) -> None:
    command = small()
    command.started(small.run)[rank].send_signal(number)
    said = command.ended(code)
    assert f"stopped at step {small.newest():,}, saved\n" in said


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_stops_a_launched_run(small: Small) -> None:
    ours, theirs = pty.openpty()
    words = gankit("train", small.spec, "--run", small.run, *TWO, "--set", "train.steps=1000000")
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL, os.ttyname(theirs), *words],
        env={**surroundings(), "TERM": "xterm"},
        start_new_session=True,
    )
    said = bytearray()

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while chunk := os.read(ours, 4096):
                said.extend(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        last = time.monotonic() + 120
        while not (small.run / "metrics.jsonl").exists() and time.monotonic() < last:
            time.sleep(0.05)
        os.write(ours, b"\x03")
        code = shell.wait(60)
    finally:
        shell.kill()
        os.close(theirs)
        reader.join(10)
        os.close(ours)
    assert code == 130, bytes(said)
    assert f"stopped at step {small.newest():,}, saved" in said.decode()


SHELL = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for stream in range(3):
    os.dup2(terminal, stream)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.slow
def test_what_is_wrong_is_told_as_by_one_process(spec: Path) -> None:
    folder = spec.parent / "run"
    run(load(spec, FAST), folder)
    data = spec.parent / "data.toml"
    data.write_text(DENSE.replace('"digits"', '"folder", root = "nowhere"'))
    fast = [word for override in FAST for word in ("--set", override)]
    with RunFolder(folder).locked():
        check_told(4, spec, "--run", folder, *fast)
    check_told(5, spec, "--run", folder, *fast, "--set", "seed=7")
    check_told(4, data, "--run", spec.parent / "other")
    check_told(3, spec, "--set", "seeed=7")
    check_told(2, spec.parent / "none.toml")
    check_told(2, spec, "--device", "nonsense")
    assert not (spec.parent / "other").exists()


def check_told(code: int, *words: object) -> None:
    """The words and the exit code are those of one process."""
    one, two = (
        subprocess.run(
            gankit("train", *words, *more),
            env=surroundings(),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        for more in ((), TWO)
    )
    assert two.stderr.replace(" with 2 processes", "") == one.stderr
    assert (one.returncode, two.returncode) == (code, code)


TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
GANKIT = ("-m", "--", "gankit")


def nodes(count: int) -> list[tuple[str, ...]]:
    """What is given to torchrun on each of two machines, or on one."""
    if count == 1:
        return [("--standalone", "--nproc-per-node", "2")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1")
    return [(*shared, "--master-port", port, "--node-rank", str(node)) for node in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_torchrun_comes_to_the_same_bits(small: Small, count: int) -> None:
    """On one machine, and on two that happen to be one."""
    started = [small(*TORCHRUN, *node, *GANKIT, steps=200) for node in nodes(count)]
    for command in started:
        command.ended(0)
    kept = small.run.rename(small.run.with_name("torchrun"))
    small(steps=200).ended(0)
    assert content(kept) == content(small.run)
    assert steps_of(kept / "metrics.jsonl") == [50, 100, 150, 200]


@pytest.mark.slow
def test_a_signal_to_torchrun_stops_a_run(small: Small) -> None:
    command = small(*TORCHRUN, *nodes(1)[0], *GANKIT)
    command.started(small.run)
    command.process.send_signal(signal.SIGTERM)
    # The traceback is torchrun's, and so is the code.
    said = command.ended(1, traceback=True)
    assert f"stopped at step {small.newest():,}, saved\n" in said
