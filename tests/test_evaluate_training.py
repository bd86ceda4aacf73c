"""Scores while training: they change nothing, survive a stop, and say which checkpoint to keep."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from gankit.build import GAN, build
from gankit.errors import DataError, SetupError, SpecError
from gankit.evaluate import read
from gankit.spec import Spec, loads
from gankit.train import Outcome, Trainer, checkpoint, run
from gankit.train.sampling import generated
from gankit.train.scoring import InTraining, about_run, described
from tests.specs import POINTS
from tests.together import Together, ran

RUN = importlib.import_module("gankit.train.run")

IMAGES = """
gankit = 1
name = "small"
data = { use = "digits", size = 8 }
generator = { use = "dcgan", latent = 4, width = 4, norm = ["spectral", "batchnorm"] }
discriminator = { use = "dcgan", width = 4, norm = "spectral" }
loss = "hinge"
train = { steps = 12, batch = 8, ema = 0.9 }
"""

FAST = ("train.steps=12", "train.log=2", "train.checkpoint=5", "train.samples=50")
SCORED = (
    *("eval.every=4", "eval.count=40", "eval.features={ use = 'pixels', size = 2 }"),
    "eval.metrics=['frechet', { use = 'prdc', most = 100 }]",
)


@pytest.fixture(autouse=True)
def _unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan takes longer than these runs, and has tests of its own."""
    monkeypatch.setattr(RUN, "plan", lambda spec: None)


def spec_of(*overrides: str, text: str = IMAGES) -> Spec:
    return loads(text, (*FAST, *overrides))


def trained(folder: Path, *overrides: str, text: str = IMAGES, **how: Any) -> Outcome:
    return run(spec_of(*overrides, text=text), folder, **how)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def values(folder: Path) -> dict[int, Mapping[str, float]]:
    return {
        int(file.stem.removeprefix("step_")): read(file)[-1].values
        for file in sorted((folder / "eval").glob("*.json"))
    }


def weights(folder: Path) -> dict[str, Tensor]:
    """Those of the newest checkpoint; the average's singular vectors are made when asked for."""
    found, _ = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return {
        f"{network}.{name}": tensor
        for network, tensors in found.weights.items()
        for name, tensor in tensors.items()
        if network != "ema" or "parametrizations" not in name or "original" in name
    }


# --- nothing changes


def difference(one: Path, other: Path) -> str:
    """How two runs differ beside their scores; empty if they do not."""
    without = [[each for each in lines(p) if "frechet" not in each] for p in (one, other)]
    if without[0] != without[1]:
        return "metrics"
    mine, its = weights(one), weights(other)
    assert mine.keys() == its.keys()
    return next((name for name in mine if not mine[name].equal(its[name])), "")


def test_training_with_scores_is_training_without_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "with", *SCORED)
    trained(tmp_path / "without")
    assert difference(tmp_path / "with", tmp_path / "without") == ""
    assert not (tmp_path / "without" / "eval").exists()
    plain = InTraining.scores

    def meddling(self: InTraining, gan: GAN, network: nn.Module, step: int) -> Mapping[str, float]:
        gan.generator(torch.randn(8, gan.latent_width))  # in training mode, it moves statistics
        return plain(self, gan, network, step)

    monkeypatch.setattr(InTraining, "scores", meddling)
    trained(tmp_path / "twin", *SCORED)
    assert difference(tmp_path / "twin", tmp_path / "without") != ""


def test_scores_are_in_the_metrics_and_with_their_cards_in_files(tmp_path: Path) -> None:
    said: list[str] = []
    trained(tmp_path / "run", *SCORED, tell=said.append)
    folder = tmp_path / "run"
    scored = {each["step"]: each for each in lines(folder) if "frechet" in each}
    found = values(folder)
    assert list(found) == list(scored) == [4, 8, 12]
    for step, each in found.items():
        assert scored[step] == {"step": step, **each}
    (made,) = read(folder / "eval" / "step_0000008.json")
    spec = spec_of(*SCORED)
    assert made.card.lines["step"] == "8 of 12"
    assert made.card.lines["images"] == f"{spec.name} {spec.hash[:8]}, seed 0"
    assert made.card.lines["weights"] == "averaged, decay 0.9"
    assert made.card.lines["count"] == "40 generated, 1,797 real"
    assert sum(line.startswith("looks at 1,797 images: real") for line in said) <= 1
    assert [line for line in said if line.startswith("step 8: frechet ")]


def test_scores_have_no_part_in_what_a_run_is() -> None:
    plain, scored = spec_of(), spec_of(*SCORED)
    assert plain.hash == scored.hash
    assert plain.identity() == scored.identity()
    assert "eval" in scored.resolved()
    assert loads(IMAGES, (*FAST, "train.log=3")).hash == plain.hash


# --- stopped, and continued


def stopped_at(step: int) -> Callable[[int, Mapping[str, float], float], None]:
    def watch(at: int, numbers: Mapping[str, float], speed: float) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return watch


def content(folder: Path) -> dict[str, Any]:
    files = {file.name: json.loads(file.read_text()) for file in (folder / "eval").iterdir()}
    return {"metrics": (folder / "metrics.jsonl").read_text(), "eval": files}


@pytest.mark.parametrize("crashed", [False, True])
def test_a_run_that_was_stopped_between_scores_has_the_same(crashed: bool, tmp_path: Path) -> None:
    trained(tmp_path / "whole", *SCORED)
    ended = trained(tmp_path / "run", *SCORED, watch=stopped_at(10))
    assert (ended.step, ended.finished) == (10, False)
    if crashed:
        # As if it had ended before it could save: steps 9 and 10 are taken again.
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_10")
    assert trained(tmp_path / "run", *SCORED).finished
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert difference(tmp_path / "run", tmp_path / "whole") == ""


def test_metrics_that_are_written_twice_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: what was logged after the checkpoint is not forgotten."""
    trained(tmp_path / "whole", *SCORED)
    trained(tmp_path / "run", *SCORED, watch=stopped_at(10))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_10")
    monkeypatch.setattr(RUN.RunFolder, "forget_after", lambda self, step: None)
    trained(tmp_path / "run", *SCORED)
    assert content(tmp_path / "run") != content(tmp_path / "whole")


def test_how_a_run_is_scored_may_change_when_it_continues(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder, *SCORED, watch=stopped_at(6))
    others = ("eval.every=5", "eval.metrics=['swd']", "eval.count=30", SCORED[2])
    assert trained(folder, *others).finished
    assert [set(each) for each in values(folder).values()] == [
        {"frechet", "precision", "recall", "density", "coverage"},
        {"swd"},
        {"swd"},
    ]
    assert list(values(folder)) == [4, 10, 12]


# --- the best


class Told:
    """Scores that somebody has made up."""

    every = 1
    best = "x"

    def __init__(self, told: Sequence[float | None], best: str = "x") -> None:
        self.told = told
        self.best = best

    def scores(self, gan: GAN, network: nn.Module, step: int) -> Mapping[str, float]:
        value = self.told[step - 1]
        if value is None:
            raise DataError("too few images")
        return {"x": value}


def kept(folder: Path, told: Sequence[float | None], best: str = "x", own: str = "") -> set[str]:
    """The checkpoints that are left of a run with such scores."""
    how = (f"train.steps={len(told)}", "train.keep=1", "train.log=1", f"train.best='{own}'")
    spec = spec_of(*how, text=POINTS)
    gan, data = build(spec)
    said: list[str] = []
    trainer = Trainer(
        gan, data, spec.train, folder=folder, scoring=Told(told, best), tell=said.append
    )
    for _ in trainer:
        pass
    refused = [f"step {step}" for step, value in enumerate(told, 1) if value is None]
    assert [line for line in said if "is not scored: too few images" in line] == [
        f"{step} is not scored: too few images" for step in refused
    ]
    return {path.name for path in (folder / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("told", "best", "expected"),
    [
        ([3.0, 1.0, 2.0, 4.0], "x", {"step_2", "step_4"}),
        ([3.0, 1.0, 2.0, 4.0], "-x", {"step_4"}),
        ([3.0, 9.0, 2.0, 4.0], "-x", {"step_2", "step_4"}),
        ([None, 1.0, None, 4.0], "x", {"step_2", "step_4"}),
        ([None, None, None, None], "x", {"step_4"}),
    ],
)
def test_the_best_by_score_is_kept_beside_the_newest(
    told: Sequence[float | None], best: str, expected: set[str], tmp_path: Path
) -> None:
    """And a score that cannot be made ends no training."""
    assert kept(tmp_path / "run", told, best) == expected


def test_what_the_spec_calls_best_goes_first(tmp_path: Path) -> None:
    left = kept(tmp_path / "own", [3.0, 1.0, 2.0, 4.0], own="-loss_G")
    losses = {each["step"]: each["loss_G"] for each in lines(tmp_path / "own") if "loss_G" in each}
    assert left == {"step_4", f"step_{max(losses, key=lambda step: losses[step])}"}
    manifest = tmp_path / "own" / "checkpoints" / "step_4" / "manifest.json"
    assert {"x", "loss_G"} <= json.loads(manifest.read_text())["numbers"].keys()


def test_the_best_of_a_run_is_that_of_its_first_score(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder, *SCORED, "train.keep=1", "train.checkpoint=50")
    found = values(folder)
    best = min(found, key=lambda step: found[step]["frechet"])
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "step_12",
        f"step_{best}",
    }


@pytest.mark.parametrize("metrics", ["['frechet', 'prdc']", "[]"])
def test_the_best_may_be_any_score_there_is(metrics: str, tmp_path: Path) -> None:
    overrides = (*SCORED, f"eval.metrics={metrics}")
    trained(tmp_path / "run", *overrides, "train.best='-recall'")
    with pytest.raises(SpecError, match='nothing called "recal" is measured'):
        build(spec_of(*overrides, "train.best=recal"))
    with pytest.raises(SpecError, match='nothing called "recall" is measured'):
        build(spec_of(*overrides, "train.best=recall", "eval.every=0"))


# --- what cannot be scored


def test_features_without_their_weights_are_refused_before_training(tmp_path: Path) -> None:
    said: list[str] = []
    missing = 'eval.features={ use = "inception", weights = "nowhere.pth" }'
    with pytest.raises(SetupError, match=r"nowhere\.pth: no such file"):
        trained(tmp_path / "run", *SCORED, missing, tell=said.append)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_an_option_that_a_metric_refuses_is_shown_where_it_is_written(tmp_path: Path) -> None:
    text = (
        IMAGES
        + '[eval]\nevery = 4\nfeatures = "pixels"\nmetrics = [{ use = "prdc", density_k = 0 }]\n'
    )
    with pytest.raises(SpecError, match="density_k must be at least 1") as told:
        trained(tmp_path / "run", text=text)
    (problem,) = told.value.problems
    assert problem.place is not None
    assert problem.place.source.startswith("metrics = ")


def test_too_few_images_are_told_each_time_and_training_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    assert trained(tmp_path / "run", *SCORED, "eval.count=3", tell=said.append).finished
    told = [line for line in said if "is not scored" in line]
    assert [line.split(" is")[0] for line in told] == ["step 4", "step 8", "step 12"]
    assert "frechet: needs at least 5 images and got 3 fake" in told[0]
    assert not (tmp_path / "run" / "eval").exists()


# --- labels


class Labelled:
    """A data set of which every image has the label 3."""

    image: ClassVar[Any] = None

    def __len__(self) -> int:
        return 10

    def labels(self, indices: Tensor) -> Tensor:
        return torch.full((len(indices),), 3)


CONDITIONAL = ("generator.norm=conditional_batchnorm", "generator.condition=label")


def test_labels_are_as_frequent_as_in_the_data_and_told() -> None:
    gan, data = build(spec_of(*CONDITIONAL))
    seen = list(generated(gan, gan.generator, data, 900, 0))
    labels = torch.cat([each for _, each in seen if each is not None])
    assert len(labels) == 900
    assert labels.bincount(minlength=10).min() > 50
    Labelled.image = data.image
    few = generated(gan, gan.generator, Labelled(), 70, 0)  # type: ignore[arg-type]
    assert {int(label) for _, each in few if each is not None for label in each} == {3}


def test_a_generator_that_looks_at_no_labels_tells_none() -> None:
    """Told, they would pass for classes of what it made."""
    gan, data = build(spec_of())
    assert gan.image.classes == 10
    assert all(labels is None for _, labels in generated(gan, gan.generator, data, 70, 0))


def test_data_of_other_classes_has_no_say_in_the_labels(tmp_path: Path) -> None:
    gan, _ = build(spec_of(*CONDITIONAL))
    other = build(loads(POINTS))[1]
    seen = list(generated(gan, gan.generator, other, 70, 0))
    assert [len(images) for images, _ in seen] == [64, 6]
    assert all(labels is None for _, labels in seen)


# --- the lines of a run


def test_the_lines_of_a_run_say_whose_weights_how_cut_and_from_which_seed() -> None:
    spec = spec_of()
    plain = about_run(spec, 4, "ema", 0)
    assert plain["truncation"] == "none"
    assert about_run(spec, 4, "ema", 0, 0.5)["truncation"] == "0.5"
    assert about_run(spec, 4, "generator", 0)["weights"] == "the newest"
    assert about_run(spec_of("train.ema=0.0"), 4, "ema", 0)["weights"] == "the newest"
    half = spec_of("train.ema={ half_life = 1000 }")
    assert about_run(half, 4, "ema", 0)["weights"] == "averaged, half-life 1,000 images"
    assert about_run(spec, 4, "ema", 7)["seed"] == "7"
    assert about_run(spec, 4, "ema", 0, None, 3)["standing statistics"] == "of 3 batches"


def test_data_is_described_with_every_option_but_the_mirror() -> None:
    assert described(spec_of().data) == 'digits(size = 8, channels = 1, split = "all")'
    folder = loads(IMAGES, ("data={ use = 'folder', root = 'here', size = 16, crop = 8 }",)).data
    told = described(folder)
    for key in ("root", "size", "crop"):
        assert f"{key} = " in told
    assert "flip" not in told


# --- several processes


@pytest.fixture(scope="module")
def pair() -> Iterator[Together]:
    made = Together()
    yield made
    made.end()


def test_of_several_processes_the_first_alone_scores(pair: Together, tmp_path: Path) -> None:
    file = tmp_path / "images.toml"
    file.write_text(IMAGES)
    first, second = pair(ran, file, (*FAST, *SCORED), tmp_path / "two")
    assert (first.error, second.error) == ("", "")
    assert len([line for line in first.said if ": frechet " in line]) == 3
    assert second.said == []
    trained(tmp_path / "one", *SCORED)
    one, two = values(tmp_path / "one"), values(tmp_path / "two")
    assert list(one) == list(two) == [4, 8, 12]
    for step in one:
        assert two[step]["frechet"] == pytest.approx(one[step]["frechet"], rel=1e-3)
    scored = [each["step"] for each in lines(tmp_path / "two") if "frechet" in each]
    assert scored == [4, 8, 12]


def test_processes_that_left_the_finite_numbers_leave_together(
    pair: Together, tmp_path: Path
) -> None:
    """Found when a score is due, which is no concern of the second process."""
    file = tmp_path / "images.toml"
    file.write_text(IMAGES)
    wild = ("optimizer={ use = 'sgd', lr = 1e30 }", "train.log=50", "eval.every=3")
    first, second = pair(ran, file, (*FAST, *SCORED, *wild), tmp_path / "two")
    assert first.error.startswith("Diverged")
    assert second.error == first.error
    assert (first.code, second.code) == (6, 6)
