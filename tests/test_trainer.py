"""The trainer in a program of one's own, the run folder, and what a checkpoint is.

That a run continues to the bit is in test_resume.py, what goes wrong in test_faults.py.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Picture

from gankit.build import build
from gankit.errors import CheckpointError, Diverged, SetupError
from gankit.ops import settle
from gankit.spec import loads
from gankit.train import Record, Stopped, Trainer, checkpoint, run
from gankit.train import trainer as trainer_module
from gankit.train.folder import differences as in_words
from gankit.train.pictures import picture
from gankit.train.sampling import draw
from tests.specs import IMAGES, POINTS
from tests.test_faults import saved
from tests.test_resume import (
    FAST,
    RUN,
    at_step,
    content,
    differences,
    silent,
    spec_of,
    unplanned,
)


@pytest.fixture(autouse=True)
def _unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUN, "plan", unplanned)


# --- the trainer by hand


STEPS = 12


def trainer_of(text: str = POINTS, *overrides: str, **how: Any) -> Trainer:
    spec = loads(text, (*FAST, *overrides))
    return Trainer(*build(spec), spec.train, **{"tell": silent, **how})


def end_of(trainer: Trainer) -> object:
    made = trainer.checkpoint()
    return {"step": made.step, "weights": dict(made.weights), "state": dict(made.state)}


def test_a_trainer_is_iterated_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[Record] = []
    watched: list[int] = []
    trainer = trainer_of(
        callbacks=[called.append], watch=lambda step, numbers, speed: watched.append(step)
    )
    records = list(trainer)
    assert [record.step for record in records] == list(range(1, STEPS + 1))
    assert called == records
    assert watched == [2, 4, 6, 8, 10, 12]
    assert {"loss_D", "loss_G", "D_real", "D_fake"} <= records[0].numbers().keys()
    assert list(trainer) == [], "there is no step left"
    assert list(tmp_path.iterdir()) == [], "without a folder nothing is written"


def test_with_a_folder_it_writes_what_the_command_writes(tmp_path: Path) -> None:
    for _ in trainer_of(folder=tmp_path / "mine"):
        pass
    spec = spec_of(tmp_path)
    run(spec, tmp_path / "run")
    mine = content(tmp_path / "mine", STEPS)
    assert differences(mine, {**content(tmp_path / "run", STEPS), "spec": ""}) == []
    names = ["checkpoints", "metrics.jsonl", "samples", "timing.jsonl"]
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == names


def test_a_loop_that_is_left_can_be_entered_again() -> None:
    whole, parts = trainer_of(), trainer_of()
    for _ in whole:
        pass
    for stop in (3, 4, 9):
        for record in parts:
            if record.step == stop:
                break
        assert parts.step == stop
    for _ in parts:
        pass
    assert differences(end_of(parts), end_of(whole)) == []


def press(times: int = 1) -> None:
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("where", ["step", "callback", "watch"])
def test_ctrl_c_lets_the_step_finish_and_the_trainer_goes_on(where: str, tmp_path: Path) -> None:
    """Wherever it is pressed while the trainer is at work."""
    whole = trainer_of()
    for _ in whole:
        pass

    def pressed(record: Record) -> None:
        if where == "callback" and record.step == 6:
            press()

    def watch(step: int, numbers: object, speed: float) -> None:
        if where == "watch" and step == 6:
            press()

    trainer = trainer_of(folder=tmp_path, callbacks=[pressed], watch=watch)
    before = signal.getsignal(signal.SIGINT)
    steps: list[int] = []
    with at_step(6, press if where == "step" else silent), pytest.raises(Stopped) as caught:
        steps += [record.step for record in iter(trainer)]
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.signal == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    assert trainer.step == 6
    found, complaints = checkpoint.latest(tmp_path / "checkpoints")
    assert (found and found.step, complaints) == (6, [])
    rest = [record.step for record in trainer]
    assert rest == [7, 8, 9, 10, 11, 12]
    assert differences(end_of(trainer), end_of(whole)) == []


def test_ctrl_c_in_ones_own_loop_is_ones_own() -> None:
    trainer = trainer_of()

    def mine() -> None:
        for record in trainer:
            if record.step == 6:
                press()

    with pytest.raises(KeyboardInterrupt) as caught:
        mine()
    assert not isinstance(caught.value, Stopped)
    assert [record.step for record in trainer] == [7, 8, 9, 10, 11, 12]


def test_a_second_ctrl_c_interrupts_the_step_which_is_then_taken_again(tmp_path: Path) -> None:
    """In the middle of it, when D has moved and G has not."""
    whole = trainer_of(folder=tmp_path / "whole")
    for _ in whole:
        pass
    told: list[str] = []
    trainer = trainer_of(folder=tmp_path / "run", tell=told.append)
    turn = trainer.engine.turn

    def pressed(players: str, step: int, *given: Any) -> Any:
        if step == 5 and players == "G":
            press(2)
        return turn(players, step, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.engine, "turn", pressed)
        with pytest.raises(KeyboardInterrupt) as caught:
            list(trainer)
    assert not isinstance(caught.value, Stopped)
    assert [record.step for record in trainer] == list(range(5, STEPS + 1))
    assert "a step was not finished; goes on from step 4" in told
    ends = [content(tmp_path / name, STEPS) for name in ("run", "whole")]
    assert differences(*ends) == []


def test_a_folder_that_is_further_on_is_no_place_to_begin(tmp_path: Path) -> None:
    """Its checkpoints would push out the new ones, and be pushed out by them."""
    for _ in trainer_of(folder=tmp_path):
        pass
    before = content(tmp_path, STEPS)
    with pytest.raises(SetupError, match=r"step_12, and this trainer is at step 0\n  restore"):
        next(iter(trainer_of(folder=tmp_path)))
    assert differences(content(tmp_path, STEPS), before) == []
    found, _ = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    longer = trainer_of(POINTS, "train.steps=14", folder=tmp_path)
    longer.restore(found)
    assert [record.step for record in longer] == [13, 14]


def test_a_signal_that_comes_too_late_for_a_step_ends_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after it was decided that step 6 is not saved, so it must not end with step 6."""

    class Clock:
        """After a log it is looked at once more, when all has been decided."""

        pressed = False

        def perf_counter(self) -> float:
            if trainer.step == 6 and sys._getframe(1).f_code.co_name == "_advance":
                press()
                type(self).pressed = True
            return time.perf_counter()

    trainer = trainer_of(folder=tmp_path)
    monkeypatch.setattr(trainer_module, "time", Clock())
    with pytest.raises(Stopped):
        list(trainer)
    assert Clock.pressed
    found, _ = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == trainer.step == 7


def test_where_signals_cannot_be_handled_the_trainer_trains_all_the_same() -> None:
    """Python lets the main thread alone handle them."""
    whole, aside = trainer_of(), trainer_of()
    for _ in whole:
        pass
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: list(aside))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert differences(end_of(aside), end_of(whole)) == []


class ByTurns:
    """D moves in one step, G in the next."""

    def turns(self, step: int, total: int) -> tuple[str, ...]:
        return ("D",) if step % 2 == 0 else ("G",)


def test_a_step_without_real_images_is_the_same_in_a_run_that_continues() -> None:
    """What is measured there does not depend on what an earlier step has shown."""

    def made(metrics: list[object]) -> Trainer:
        spec = loads(POINTS, (*FAST, "train.log=1"))
        gan, data = build(spec)
        gan.schedules = [ByTurns()]

        def watch(step: int, numbers: Mapping[str, float], speed: float) -> None:
            metrics.append({"step": step, **numbers})

        return Trainer(gan, data, spec.train, tell=silent, watch=watch)

    one: list[object] = []
    other: list[object] = []
    for _ in made(one):
        pass
    first = made(other)
    for record in first:
        if record.step == 3:
            break
    second = made(other)
    second.restore(first.checkpoint())
    for _ in second:
        pass
    assert differences(one, other) == []
    assert ["diversity" in str(line) for line in one[:4]] == [True, False, True, False]


class Broken:
    """A logger that loses its connection."""

    def __init__(self) -> None:
        self.calls = 0

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self.calls += 1
        if step == 4:
            raise ConnectionError("no answer")

    def picture(self, step: int, picture: object) -> None:
        self.calls += 1

    def close(self) -> None: ...


class Kept(Broken):
    """One that does not."""

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        self.calls += 1


def test_a_logger_that_fails_is_left_out_and_told() -> None:
    broken, kept = Broken(), Kept()
    told: list[str] = []
    for _ in trainer_of(loggers=[broken, kept], tell=told.append):
        pass
    assert "Broken is left out from here on: no answer" in told
    # Six logs, and two grids of samples.
    assert (broken.calls, kept.calls) == (2, 8)


@pytest.mark.parametrize("best", ["", "loss_G", "-D_real"])
@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_checkpoints_are_kept_and_the_best(best: str, keep: int, tmp_path: Path) -> None:
    trainer = trainer_of(
        POINTS, "train.checkpoint=1", f"train.keep={keep}", f"train.best='{best}'",
        "optimizer={use='sgd', lr=2.0}", folder=tmp_path,
    )  # fmt: skip
    seen = [record.numbers() for record in trainer]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    wanted = {f"step_{step}" for step in range(STEPS - keep + 1, STEPS + 1)}
    if best:
        sign = -1 if best.startswith("-") else 1
        values = [sign * numbers[best.removeprefix("-")] for numbers in seen]
        first = values.index(min(values)) + 1
        assert first <= STEPS - 3, "the best of this run is not among the newest anyway"
        wanted.add(f"step_{first}")
    assert names == wanted


@pytest.mark.parametrize(("best", "wanted"), [("x", 2), ("-x", 3), ("y", 5), ("", 5)])
def test_the_best_is_that_by_its_own_numbers(best: str, wanted: int, tmp_path: Path) -> None:
    """Of what has no such number there is no best, and of equal ones the newest is."""
    for step, x in enumerate((1.0, 0.5, 3.0, float("nan"), 1.0), 1):
        checkpoint.save(tmp_path, replace(saved(step), numbers={"x": x}), keep=1, best=best)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step_5", f"step_{wanted}"}


@pytest.mark.parametrize("text", [POINTS, IMAGES])
def test_a_checkpoint_alone_is_enough_to_make_its_generator_again(
    text: str, tmp_path: Path
) -> None:
    run(
        spec_of(tmp_path, text, "train.steps=4", "train.ema=0.5", "optimizer.lr=0.05"),
        tmp_path / "run",
    )
    alone = (tmp_path / "run" / "checkpoints" / "step_4").rename(tmp_path / "elsewhere")
    found = checkpoint.load(alone)
    gan, data = build(loads(found.spec))
    gan.generator.load_state_dict(dict(found.weights["ema"]))
    settle(gan.generator)
    grid = picture(draw(gan, gan.generator, 64, 0), data)
    drawn = Picture.open(tmp_path / "run" / "samples" / "step_0000004.png")
    assert drawn.tobytes() == grid.tobytes()
    gan.generator.load_state_dict(dict(found.weights["generator"]))
    settle(gan.generator)
    assert drawn.tobytes() != picture(draw(gan, gan.generator, 64, 0), data).tobytes()


# --- the run folder


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


def test_a_loss_that_is_not_finite_ends_the_run_and_names_player_and_step(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, POINTS, "optimizer={use='sgd', lr=1e30}", "loss=least_squares")
    with pytest.raises(Diverged) as caught:
        run(spec, tmp_path / "run")
    assert caught.value.player in ("D", "G")
    assert caught.value.step <= 2
    assert caught.value.rollbacks == 2
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "diverged"


# --- checkpoints


def test_a_checkpoint_comes_back_as_it_was_and_old_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, saved(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_10", "step_2"]
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, dict(found.state), complaints) == (10, {"step": 10}, [])
    assert torch.equal(found.weights["generator"]["w"], torch.arange(4.0) + 10)


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


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    one, other = (spec_of(tmp_path, POINTS, f"generator.width={w}") for w in (8, 9))
    gan, data = build(one)
    made = Trainer(gan, data, one.train).checkpoint()
    gan, data = build(other)
    with pytest.raises(CheckpointError, match="does not fit"):
        Trainer(gan, data, other.train).restore(made)


def test_a_checkpoint_is_a_copy_that_later_steps_leave_alone(tmp_path: Path) -> None:
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

    def interrupted(*args: object) -> Picture.Image:
        os.kill(os.getpid(), signal.SIGTERM)
        return Picture.new("L", (8, 8))

    monkeypatch.setattr("gankit.train.trainer.sample_grid", interrupted)
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


def test_differences_are_told_in_words() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    new = {"a": 1, "b": {"c": [1, 3], "e": True}}
    assert in_words(old, new) == [
        "b.c: [1, 2] became [1, 3]",
        'b.d: "x" is gone',
        "b.e: true is new",
    ]
    assert in_words(old, old) == []
