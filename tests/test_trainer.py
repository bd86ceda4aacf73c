"""The run folder: what continues, what is refused, and what a fault leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gankit.errors import CheckpointError, Diverged, SetupError
from gankit.spec import Spec, load
from gankit.train import Outcome, Trainer, checkpoint, run
from gankit.train.checkpoint import Checkpoint
from gankit.train.folder import RunFolder, differences
from tests.specs import IMAGES, POINTS

FAST = ("train.log=2", "train.checkpoint=4", "train.samples=8", "train.steps=12")


def spec_of(folder: Path, text: str = POINTS, *overrides: str) -> Spec:
    file = folder / "spec.toml"
    file.write_text(text)
    return load(file, (*FAST, *overrides))


def content(folder: Path, step: int) -> dict[str, bytes]:
    """What must be the same whether or not a run was stopped."""
    saved = sorted((folder / "checkpoints" / f"step_{step}").glob("*.safetensors"))
    files = [*saved, folder / "metrics.jsonl", *sorted((folder / "samples").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (POINTS, ()),
        (POINTS, ("penalty.r1={weight=1.0, every=3}", "schedule.n_critic={n=2}")),
        (POINTS, ("loss=relativistic", "schedule.linear_decay={}", "optimizer=rmsprop")),
        (IMAGES, ("train.ema={half_life=100, ramp_up=0.5}", "augment.flip={}")),
    ],
)
def test_stopping_and_continuing_equals_never_having_stopped(
    tmp_path: Path, text: str, overrides: tuple[str, ...]
) -> None:
    spec = spec_of(tmp_path, text, *overrides)
    run(spec, tmp_path / "whole")

    class Stopped(Exception):
        """Ends a run at a place that is no checkpoint."""

    def stop(step: int, numbers: object, speed: float) -> None:
        if step == 6:
            raise Stopped

    with pytest.raises(Stopped):
        run(spec, tmp_path / "cut", watch=stop)
    said: list[str] = []
    run(spec, tmp_path / "cut", tell=said.append)
    assert said[0] == "continues at step 4 of 12"
    assert content(tmp_path / "cut", 12) == content(tmp_path / "whole", 12)


def test_a_longer_run_of_the_same_spec_continues(tmp_path: Path) -> None:
    run(spec_of(tmp_path), tmp_path / "run")
    outcome = run(spec_of(tmp_path, POINTS, "train.steps=16"), tmp_path / "run")
    assert outcome == Outcome(True, 16, tmp_path / "run" / "samples" / "step_0000016.png")
    run(spec_of(tmp_path, POINTS, "train.steps=16"), tmp_path / "whole")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()


def test_another_spec_in_the_folder_is_refused_with_the_difference_in_words(tmp_path: Path) -> None:
    run(spec_of(tmp_path), tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        run(spec_of(tmp_path, POINTS, "generator.width=9", "seed=1"), tmp_path / "run")
    assert "generator.width: 8 became 9" in str(caught.value)
    assert "seed: 0 became 1" in str(caught.value)
    run(spec_of(tmp_path), tmp_path / "run")  # and nothing was harmed


def test_the_length_is_fixed_where_a_decay_depends_on_it(tmp_path: Path) -> None:
    decay = "schedule.linear_decay={}"
    run(spec_of(tmp_path, POINTS, decay), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"linear_decay.*depends"):
        run(spec_of(tmp_path, POINTS, decay, "train.steps=13"), tmp_path / "run")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with RunFolder(tmp_path / "run").locked(), pytest.raises(SetupError, match="another process"):
        run(spec, tmp_path / "run")
    run(spec, tmp_path / "run")


def test_a_loss_that_is_not_finite_ends_the_run_and_names_player_and_step(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, POINTS, "optimizer={use='sgd', lr=1e30}", "loss=least_squares")
    with pytest.raises(Diverged) as caught:
        run(spec, tmp_path / "run")
    assert caught.value.player in ("D", "G")
    assert caught.value.step <= 2
    assert caught.value.rollbacks == 2
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "diverged"


# --- checkpoints and faults


def saved(step: int) -> Checkpoint:
    return Checkpoint(step, {"generator": {"w": torch.arange(4.0) + step}}, {"step": step})


def test_a_checkpoint_comes_back_as_it_was_and_old_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, saved(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_10", "step_2"]
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, dict(found.state), complaints) == (10, {"step": 10}, [])
    assert torch.equal(found.weights["generator"]["w"], torch.arange(4.0) + 10)


def truncate(folder: Path) -> None:
    file = folder / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "generator.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def unmanifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def lose(folder: Path) -> None:
    (folder / "state.pt").unlink()


@pytest.mark.parametrize("damage", [truncate, flip, unmanifest, lose])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, saved(step))
    damage(tmp_path / "step_2")
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "step_2" in complaints[0]
    assert (tmp_path / "step_2.unsound").is_dir()
    damage(tmp_path / "step_1")
    with pytest.raises(CheckpointError, match="no checkpoint is sound"):
        checkpoint.latest(tmp_path)


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


def test_a_pickle_in_place_of_the_state_is_not_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    folder = checkpoint.save(tmp_path / "c", saved(1))
    torch.save({"x": Malicious(canary)}, folder / "state.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = checkpoint._sha256(folder / "state.pt")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        checkpoint.load(folder)
    assert not canary.exists()
    torch.load(folder / "state.pt", weights_only=False)
    assert canary.exists(), "the canary sings when it is let out, so the check can fail"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, saved(1))

    def full(*args: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SetupError, match=r"No space left.*\n.*bytes"):
        checkpoint.save(tmp_path, saved(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]
    found, _ = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    from gankit.build import build

    one, other = (spec_of(tmp_path, POINTS, f"generator.width={w}") for w in (8, 9))
    gan, data = build(one)
    made = Trainer(gan, data, one.train).checkpoint()
    gan, data = build(other)
    with pytest.raises(CheckpointError, match="does not fit"):
        Trainer(gan, data, other.train).restore(made)


def test_a_checkpoint_is_a_copy_that_later_steps_leave_alone(tmp_path: Path) -> None:
    from gankit.build import build

    spec = spec_of(tmp_path, IMAGES)
    trainer = Trainer(*build(spec), spec.train)
    steps = iter(trainer)
    next(steps)
    kept = trainer.checkpoint()
    before = {k: v.clone() for k, v in kept.weights["generator"].items()}
    next(steps)
    assert all(torch.equal(before[k], v) for k, v in kept.weights["generator"].items())
    live = trainer.engine.gan.generator.state_dict()
    assert not all(torch.equal(before[k], v) for k, v in live.items()), "the step did move it"
    trainer.restore(kept)
    assert trainer.step == 1
    assert all(torch.equal(before[k], v) for k, v in live.items())


def test_samples_of_a_run_are_those_it_drew_itself(tmp_path: Path) -> None:
    """At a checkpoint between two grids too, where the average's estimates are not settled."""
    from gankit.build import build
    from gankit.ops import settle
    from gankit.train.sampling import draw

    spec = spec_of(tmp_path, IMAGES, "train.steps=8")
    trainer = Trainer(*build(spec), spec.train)
    for _ in trainer:
        pass
    saved = trainer.checkpoint()
    drawn = trainer.samples(4, seed=5)
    gan, _ = build(spec)
    gan.generator.load_state_dict(dict(saved.weights["ema"]))
    settle(gan.generator)
    assert torch.equal(draw(gan, gan.generator, 4, seed=5), drawn)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The log is further apart than the checkpoints, and the losses are those before the update."""
    spec = spec_of(
        tmp_path, POINTS, "optimizer={use='sgd', lr=1e30}", "loss=least_squares",
        "train.log=12", "train.checkpoint=1",
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(Diverged):
            run(spec, tmp_path / "run")
        found, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
        weights = {} if found is None else found.weights["generator"]
        assert all(w.isfinite().all() for w in weights.values())


def test_unsound_checkpoints_alone_never_mean_starting_over(tmp_path: Path) -> None:
    run(spec_of(tmp_path), tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        flip(folder)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no checkpoint is sound"):
            run(spec_of(tmp_path), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_state_that_the_manifest_does_not_list_is_not_read(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, saved(1))
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    for names in ({}, manifest["sha256"] | {"../x.safetensors": "0"}):
        file.write_text(json.dumps({"step": 1, "sha256": names}))
        with pytest.raises(CheckpointError, match="does not list"):
            checkpoint.load(folder)


def test_a_signal_between_steps_is_saved_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while a grid is being drawn, when the step at hand was about to go unsaved."""

    def interrupted(self: Trainer, *args: object) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return torch.zeros(4, 2)

    monkeypatch.setattr(Trainer, "samples", interrupted)
    spec = spec_of(tmp_path, POINTS, "train.samples=3", "train.checkpoint=100")
    outcome = run(spec, tmp_path / "run")
    assert (outcome.finished, outcome.step, outcome.signal) == (False, 3, signal.SIGTERM)
    found, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == 3
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").open()]
    assert steps == [2], "metrics do not depend on where a run was stopped"


def test_another_thread_count_is_told(tmp_path: Path) -> None:
    run(spec_of(tmp_path), tmp_path / "run")
    file = tmp_path / "run" / "env.json"
    (start,) = json.loads(file.read_text())
    file.write_text(json.dumps([start | {"threads": 99}]))
    said: list[str] = []
    run(spec_of(tmp_path, POINTS, "train.steps=13"), tmp_path / "run", tell=said.append)
    assert any("threads: 99 became 1" in line for line in said)
    assert len(json.loads(file.read_text())) == 2


# --- signals: these need a process of their own


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_the_same_command_continues(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "p.toml").write_text(POINTS)
    folder = tmp_path / "a run"
    command = [
        *(sys.executable, "-m", "gankit", "train", str(tmp_path / "p.toml"), "--run", str(folder)),
        *("--set", "train.steps=100000", "--set", "train.log=10", "--threads", "1"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "stopped"
    found, _ = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    assert found.step == status["step"]
    again = run(load(folder / "spec.toml", [f"train.steps={found.step + 1}"]), folder)
    assert again.step == found.step + 1


def test_differences_are_told_in_words() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    new = {"a": 1, "b": {"c": [1, 3], "e": True}}
    assert differences(old, new) == [
        "b.c: [1, 2] became [1, 3]",
        'b.d: "x" is gone',
        "b.e: true is new",
    ]
    assert differences(old, old) == []
