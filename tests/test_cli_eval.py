"""`gankit eval` and `gankit compare`: what they print, write and refuse, and with which code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gankit.evaluate import given, read
from gankit.registry import registry
from tests import goldens
from tests.test_cli import Ran, run

SPEC = """\
gankit = 1
name = "small"
data = { use = "digits", size = 8 }
generator = { use = "dcgan", latent = 4, width = 4, norm = "batchnorm" }
discriminator = { use = "dcgan", width = 4 }
loss = "hinge"
train = { steps = 6, batch = 8, ema = 0.9 }
[eval]
features = { use = "pixels", size = 2 }
metrics = ["frechet", { use = "prdc", density_k = 3 }]
count = 70
"""
CONDITIONAL = ("generator.norm=conditional_batchnorm", "generator.condition=label")
POINTS = """\
gankit = 1
name = "points"
data = { use = "ring", length = 500 }
generator = { use = "mlp", width = 8 }
discriminator = { use = "mlp", width = 8 }
loss = "nonsaturating"
train = { steps = 4, batch = 8 }
eval = { count = 100 }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, and what was drawn from one of them; tests work in copies."""
    home = tmp_path_factory.mktemp("made")
    (home / "small.toml").write_text(SPEC)
    (home / "points.toml").write_text(POINTS)
    with pytest.MonkeyPatch.context() as patch, goldens.our_parts_alone():
        patch.chdir(home)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        conditional = [word for each in CONDITIONAL for word in ("--set", each)]
        for arguments in (
            ("train", "small.toml", "--run", "run", "--set", "eval.every=4"),
            ("train", "small.toml", "--run", "classes", *conditional),
            ("train", "points.toml", "--run", "ring"),
            ("sample", "run", "-n", "70", "--seed", "3", "--out", "drawn.npz"),
            ("sample", "run", "-n", "70", "--seed", "3", "--out", "drawn"),
            ("sample", "ring", "-n", "100", "--seed", "3", "--out", "points.npz"),
        ):
            ran = run(*arguments)
            assert ran.code == 0, ran.err
    return home


@pytest.fixture(autouse=True)
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return copy


@pytest.fixture(autouse=True)
def _ours() -> Iterator[None]:
    with goldens.our_parts_alone():
        yield


def told(*arguments: object) -> dict[str, Any]:
    """What `gankit eval ... --json` says."""
    ran = run("eval", *arguments, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def steady(text: str) -> str:
    """Without what differs from machine to machine, or from one version to the next."""
    text = re.sub(r"(versions +).*", r"\1...", text)
    text = re.sub(r"(frechet|precision|recall|density|coverage)( +)[\d.e-]+", r"\1\2#", text)
    return re.sub(r"\b[0-9a-f]{8,64}\b", "HASH", text)


# --- a run


def test_a_run_is_scored_as_its_spec_says_and_the_card_is_printed() -> None:
    ran = run("eval", "run")
    assert ran.code == 0
    assert ran.err.endswith("wrote run/eval/step_0000006.json\n")
    goldens.compare("eval", steady(ran.out))


def test_scores_after_training_are_those_of_training(home: Path) -> None:
    (during,) = read(home / "run" / "eval" / "step_0000006.json")
    after = told("run")
    assert after["scores"] == during.values
    assert after["card"] == dict(during.card.lines)
    assert len(read(home / "run" / "eval" / "step_0000006.json")) == 1  # of one card once


def test_a_checkpoint_is_scored_by_itself(home: Path) -> None:
    first = told("run/checkpoints/step_4")
    (during,) = read(home / "run" / "eval" / "step_0000004.json")
    assert first["scores"] == during.values
    assert first["card"]["step"] == "4 of 6"


@pytest.mark.parametrize("images", ["drawn.npz", "drawn"])
def test_scores_of_a_run_are_those_of_its_images(images: str) -> None:
    of_run = told("run", "--seed", "3")
    of_images = told(images, "--data", "small.toml")
    assert of_images["scores"] == pytest.approx(of_run["scores"], rel=1e-9)
    assert told("run", "--seed", "4")["scores"] != of_run["scores"]  # the twin
    subject = ("images", "step", "weights", "seed", "truncation")
    same = [{k: v for k, v in c["card"].items() if k not in subject} for c in (of_run, of_images)]
    assert same[0] == same[1]
    assert of_images["card"]["truncation"] == "not known"


def test_points_are_scored_like_images() -> None:
    of_run = told("ring", "--seed", "3", "--metrics", "modes,frechet")
    of_points = told("points.npz", "--data", "points.toml", "--metrics", "modes,frechet")
    assert of_points["scores"] == pytest.approx(of_run["scores"], rel=1e-9)
    assert of_run["card"]["features"].startswith("mixture")


def test_images_of_other_libraries_are_scored_too() -> None:
    """Channels last, under the name that they give it."""
    images = given(Path("drawn.npz")).images(torch.arange(70)).permute(0, 2, 3, 1).numpy()
    np.savez("theirs.npz", images)
    scores = told("theirs.npz", "--data", "small.toml")["scores"]
    assert scores == told("drawn.npz", "--data", "small.toml")["scores"]


@pytest.mark.parametrize("data", ["drawn.npz", "drawn"])
def test_real_images_may_be_a_folder_or_a_file(data: str) -> None:
    found = told("run", "--data", data, "--seed", "3")
    assert found["scores"]["frechet"] == pytest.approx(0, abs=1e-9)
    assert found["card"]["count"] == "70 generated, 70 real"
    assert found["card"]["data"].startswith(f"{data}, ")


def test_real_images_may_be_those_of_a_recipe() -> None:
    ran = run("eval", "drawn.npz", "--data", "quickstart_digits", "--features", "pixels")
    assert ran.code == 2
    assert (
        "these images are 1 x 8 x 8, and the real ones of quickstart_digits are 1 x 32" in ran.err
    )


def test_what_is_asked_for_goes_before_what_the_spec_says() -> None:
    found = told(
        *("run", "--metrics", '["swd", { use = "prdc", density_k = 2 }]', "--n", "50"),
        *("--features", "pixels", "--real", "100", "--weights", "generator"),
        *("--truncation", "0.5", "--standing", "2", "--seed", "9"),
    )
    card = found["card"]
    assert set(found["of"].values()) == {"swd", "prdc"}
    assert card["metric prdc"].startswith("prdc(precision_k = 3, density_k = 2, ")
    assert card["count"] == "50 generated, 100 real"
    assert card["features"] == "pixels(size = 0)"
    assert (card["weights"], card["truncation"], card["seed"]) == ("the newest", "0.5", "9")
    assert card["standing statistics"] == "of 2 batches"


def test_one_metric_with_options_needs_no_list() -> None:
    found = told("run", "--metrics", '{ use = "prdc", density_k = 2 }')
    assert "density_k = 2" in found["card"]["metric prdc"]


def test_a_conditional_generator_is_asked_for_the_classes_of_the_data() -> None:
    assert "classes" not in told("classes")["card"]
    card = told("classes", "--data", "drawn.npz")["card"]
    assert card["classes"] == "each equally often"
    ran = run("eval", "run", "--metrics", "intra_frechet")
    assert (ran.code, "needs labels" in ran.err) == (4, True)


def test_scores_go_where_they_are_asked_to_and_stay_with_others(home: Path) -> None:
    for seed in (1, 2, 1):
        told("run", "--seed", seed, "--out", "mine/scores.json")
    seeds = [each.card.lines["seed"] for each in read(home / "mine" / "scores.json")]
    assert seeds == ["2", "1"]


def test_a_makeshift_is_called_one(home: Path) -> None:
    ran = run("eval", "drawn.npz", "--data", "drawn", "--metrics", "prdc")
    assert ran.code == 0
    assert "note: features of a random network rank runs on this data" in ran.err


PLUGIN = '''
from collections.abc import Mapping
from dataclasses import dataclass
import gankit
from gankit.metrics import Moments
from gankit.slots import Seen

@gankit.metric("mine")
@dataclass(frozen=True, kw_only=True)
class Mine:
    """How far the means are apart.

    Options:
        scale: of the score
    """

    scale: float = 1.0

    @property
    def better(self) -> Mapping[str, str]:
        return {"mine": "lower"}

    def gather(self) -> Moments:
        return Moments()

    def scores(self, real, fake, /) -> dict[str, float]:
        return {"mine": self.scale * float((real.mean - fake.mean).norm())}

@gankit.features("brightness")
class Brightness:
    """The mean of an image."""

    width = 1
    card = {"brightness": "mean"}

    def __call__(self, images, /):
        return Seen(images.float().mean((1, 2, 3))[:, None])
'''


def test_metrics_and_features_of_a_plugin_work_by_name(home: Path) -> None:
    (home / "mine.py").write_text(PLUGIN)
    text = SPEC.replace("gankit = 1", 'gankit = 1\nplugins = ["mine.py"]')
    text = text.replace('["frechet", { use = "prdc", density_k = 3 }]', '["mine"]')
    (home / "other.toml").write_text(text.replace('{ use = "pixels", size = 2 }', '"brightness"'))
    best = ("--set", "eval.every=3", "--set", "train.best=mine")
    trained = run("train", "other.toml", "--run", "other", *best)
    assert trained.code == 0, trained.err
    assert re.search(r"step 6: mine [\d.]+", trained.err)
    refused = run("eval", "other")
    assert (refused.code, "--plugin FILE if you trust it" in refused.err) == (4, True)
    found = told("other", "--plugin", "mine.py")
    assert found["card"]["metric mine"].startswith("mine(scale = 1.0) of mine.py sha256:")
    assert found["card"]["features"].startswith("brightness of mine.py sha256:")
    twice = told("run", "--plugin", "mine.py", "--metrics", "{ use = 'mine', scale = 2.0 }")
    assert set(twice["scores"]) == {"mine"}
    for shown in (
        ("list", "metric"),
        ("show", "metric", "mine"),
        ("show", "features", "brightness"),
    ):
        ran = run(*shown, "--plugin", "mine.py")
        assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("kind", ["metric", "features"])
def test_what_scores_is_listed_and_shown_like_any_part(kind: str) -> None:
    listed = json.loads(run("list", kind, "--json").out)
    assert [each["name"] for each in listed] == registry.names(kind)
    for each in listed:
        ran = run("show", kind, each["name"])
        assert (ran.code, ran.err) == (0, "")
        assert all(f"  {option}: " in ran.out for option in each["options"])


# --- mistakes

MISTAKES: dict[str, tuple[str, ...]] = {
    "no run": ("eval", "nothere"),
    "a folder of neither": ("eval", "."),
    "images without data": ("eval", "drawn.npz"),
    "images that are not there": ("eval", "nowhere.npz", "--data", "small.toml"),
    "data that is not there": ("eval", "run", "--data", "nowhere.npz"),
    "a metric misspelt": ("eval", "run", "--metrics", "frechet, prcd"),
    "a metric twice": ("eval", "run", "--metrics", "prdc,prdc"),
    "a comma too many": ("eval", "run", "--metrics", "prdc,"),
    "an option misspelt": ("eval", "run", "--metrics", '[{ use = "prdc", densty_k = 2 }]'),
    "an option out of range": ("eval", "run", "--metrics", '{ use = "prdc", density_k = 0 }'),
    "features misspelt": ("eval", "run", "--features", "pixles"),
    "features cut short": ("eval", "run", "--features", "{ use = "),
    "features that do not fit": ("eval", "run", "--features", '{ use = "pixels", size = 5 }'),
    "weights that are not there": (
        *("eval", "run", "--features"),
        '{ use = "inception", weights = "nowhere.pth" }',
    ),
    "nothing held out": ("eval", "run", "--metrics", "memorisation"),
    "too few for a metric": ("eval", "run", "--n", "3"),
    "a number below 0": ("eval", "run", "--n=-1"),
    "more real ones than there are": ("eval", "run", "--real", "5000"),
    "more images than there are": ("eval", "drawn", "--data", "small.toml", "--n", "71"),
    "images of another shape": ("eval", "ring", "--data", "small.toml"),
    "other weights": ("eval", "run", "--weights", "best"),
    "images cut": ("eval", "drawn.npz", "--data", "small.toml", "--truncation", "0.5"),
    "images from a seed": ("eval", "drawn.npz", "--data", "small.toml", "--seed", "5"),
    "truncation below 0": ("eval", "run", "--truncation=-1"),
    "a file of something else": ("eval", "run", "--out", "small.toml"),
    "no scores yet": ("compare", "classes", "run"),
    "nothing to compare": ("compare", "run", "nothere"),
    "a spec compared": ("compare", "run", "small.toml"),
    "made otherwise": ("compare", "few.json", "run"),
    "no score in common": ("compare", "swd.json", "run"),
    "a line that no card has": ("compare", "few.json", "run", "--allow", "counts"),
}


def test_mistakes_are_told_in_words(home: Path) -> None:
    told("run", "--n", "60", "--out", "few.json")
    told("run", "--metrics", "swd", "--out", "swd.json")
    text = ""
    for name, arguments in MISTAKES.items():
        ran = run(*arguments)
        assert ran.code in (2, 3, 4), f"{name}: {ran}"
        assert "Traceback" not in ran.err
        said = "\n".join(line for line in ran.err.splitlines() if not line.startswith("looks at"))
        text += f"--- {name}: gankit {' '.join(arguments)}\n{ran.out}{said}\n[{ran.code}]\n\n"
    goldens.compare("mistakes_eval", steady(text))


def test_nothing_is_scored_before_a_file_of_something_else_is_found() -> None:
    ran = run("eval", "run", "--out", "small.toml")
    assert "looks at" not in ran.err


# --- compare


def test_scores_that_were_made_alike_are_compared_with_the_card(home: Path) -> None:
    told("run", "--seed", "5", "--out", "other.json")
    ran = run("compare", "run", "other.json")
    assert (ran.code, ran.err) == (0, "")
    assert "is better" in ran.out
    told_of = json.loads(run("compare", "run", "other.json", "--json").out)
    frechet = next(row for row in told_of if row["score"] == "frechet")
    assert frechet["verdict"] == ("a" if frechet["a"] < frechet["b"] else "b")
    assert frechet["unlike"] == []
    assert "metric frechet" in frechet["card"]
    for line, text in frechet["card"].items():
        assert re.search(rf"^{re.escape(line)} +{re.escape(text)}$", ran.out, re.MULTILINE)


def test_a_line_may_be_allowed_to_differ(home: Path) -> None:
    told("run", "--n", "60", "--out", "few.json")
    assert (
        "count: 60 generated, 1,797 real against 70 generated"
        in run("compare", "few.json", "run").err
    )
    assert run("compare", "few.json", "run", "--allow", "count").code == 0


def test_some_scores_compare_where_others_do_not(home: Path) -> None:
    metrics = '["frechet", { use = "prdc", density_k = 9 }]'
    told("run", "--metrics", metrics, "--out", "other.json")
    ran: Ran = run("compare", "run", "other.json")
    assert ran.code == 0
    assert re.search(r"precision .*not made in the same way: metric prdc", ran.out)
    assert re.search(r"^frechet +\S+ +\S+ *$", ran.out, re.MULTILINE)
    assert ran.out.count("density_k = 9") == 1


def test_names_with_brackets_are_printed_as_they_are(home: Path) -> None:
    (home / "[bold]runs[x]:smile:").mkdir()
    shutil.copytree(home / "run", home / "[bold]runs[x]:smile:" / "a")
    ran = run("compare", "[bold]runs[x]:smile:/a", "run")
    assert "[bold]runs[x]:smile:/a" in ran.out


def test_the_newest_step_counts_by_its_number(home: Path) -> None:
    folder = home / "run" / "eval"
    shutil.copy(folder / "step_0000004.json", folder / "step_10000000.json")
    rows = json.loads(run("compare", "run", "run/eval/step_0000004.json", "--json").out)
    assert all(row["a"] == row["b"] for row in rows)
    Image.new("L", (4, 4)).save(folder / "step_99999999.png")
    (folder / "step_of_mine.json").write_text("[]")
    assert run("compare", "run", "run").code == 0
