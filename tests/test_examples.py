"""Every file in examples/ does what it says: recipes build, scripts run."""

from __future__ import annotations

import ast
import json
import runpy
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gankit.build import build
from gankit.recipes import find, names
from gankit.registry import registry
from gankit.spec import load
from gankit.train import run
from tests.packs import noise, write_celeba
from tests.test_networks_counts import (
    conditional_sagan,
    count,
    first_gan,
    plain_lsgan,
    plain_sngan,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))

SMALL = ("train.batch=4", "train.accumulate=1", "train.steps=10", "train.log=1")
SMALLER = ("train.precision=fp32", "train.samples=10", "train.checkpoint=10")
LABELLED = "data={use='shapes', size=128}"

COUNTS = {
    "biggan_128": (70_433_988, 87_982_370),  # BigGAN-PyTorch
    "dcgan_64": (3_576_704, 2_765_568),  # pytorch/examples
    "gan_mlp": first_gan(),
    "infomax_gan_128": (32_150_787, 35_315_457),  # mimicry
    "lsgan_64": plain_lsgan(),
    "r3gan_32": (20_732_160, 20_683_776),  # the authors' code
    "sagan_celeba_128": (3_856_372, 2_801_202),  # the article's code
    "sagan_imagenet_128": conditional_sagan(),
    "sagan_resnet_celeba_128": (32_232_708, 38_439_618),  # the authors' released code
    "sngan_128": (32_150_787, 29_017_857),  # mimicry
    "sngan_32": (4_276_739, 1_053_825),  # mimicry
    "sngan_plain_32": plain_sngan(),
    "ssgan_128": (32_150_787, 29_021_957),  # mimicry
    "wgan_gp_64": (12_220_675, 10_141_441),  # mimicry
}
OURS = {"grid", "own_images_128", "quickstart_digits", "ring", "shapes_64", "stacked_digits"}


@pytest.mark.parametrize("name", names())
def test_a_recipe_builds_at_full_width_with_its_references_counts(name: str) -> None:
    gan, _ = build(load(find(name)), "meta")
    counts = (count(gan.generator), count(gan.discriminator))
    text = " ".join(line.lstrip("# ") for line in find(name).read_text().splitlines())
    if name in OURS:
        assert "of our own" in text.lower() or "shapes" in text or "digits" in text
        assert " parameters" not in text
    else:
        assert counts == COUNTS[name]
        assert "G {:,} and D {:,} parameters".format(*counts) in text
        assert "arXiv:" in text
    assert "Costs: " in text


def thinned(name: str) -> list[str]:
    """A recipe with a sixteenth of its channels, as overrides."""
    overrides = []
    tables = tomllib.loads(find(name).read_text())
    for section in ("generator", "discriminator"):
        for key, value in tables[section].items():
            if key in ("width", "width_max", "embedding"):
                overrides.append(f"{section}.{key}={max(8, value // 16)}")
            if key == "widths":
                overrides.append(f"{section}.{key}={[max(8, wide // 16) for wide in value]}")
            if key == "stages":
                overrides.append(f"{section}.{key}={_written([_thin(stage) for stage in value])}")
    return overrides


def _thin(stage: Any) -> Any:
    if isinstance(stage, str):
        return stage
    counts = ("channels", "features", "groups")
    return {k: max(v // 16, 4) if k in counts and v > 16 else v for k, v in stage.items()}


def _written(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_written(inner)}' for key, inner in value.items())} }}"
    return json.dumps(value)


def stood_in(name: str, folder: Path) -> list[str]:
    """Data of the kind that a recipe asks for, as overrides."""
    data = tomllib.loads(find(name).read_text())["data"]
    if data["use"] == "packed":
        return [LABELLED]
    if data["use"] != "folder":
        endless = "length" in registry.get("dataset", data["use"]).options
        return ["data.length=100"] if endless else []
    if "crop" in data:
        write_celeba(folder / "celeba")
        return [f"data.root={folder / 'celeba' / 'img_align_celeba'}"]
    side = data["size"]
    for index in range(6):
        Image.fromarray(noise(side, side, index)).save(folder / f"{index}.png")
    return [f"data.root={folder}"]


LONG = {
    *("biggan_128", "infomax_gan_128", "r3gan_32", "sagan_imagenet_128", "sagan_resnet_celeba_128"),
    *("sngan_128", "ssgan_128", "wgan_gp_64"),
}
"""Recipes whose ten steps take seconds at any width; others of their kind are among the rest."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in names()]
)
def test_a_recipe_trains_at_reduced_width(name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    given = [*SMALL, *SMALLER, *thinned(name), *stood_in(name, tmp_path / "data")]
    if load(find(name)).eval.every:
        given.append("eval.count=100")
    outcome = run(load(find(name), given), tmp_path / "run")
    assert outcome.finished
    assert outcome.step == 10
    assert outcome.picture is not None
    with Image.open(outcome.picture) as picture:
        low, high = picture.convert("L").getextrema()
    assert low < high, "a picture of one colour shows nothing"


def test_every_file_is_a_recipe_or_a_script_that_is_run() -> None:
    shipped = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert shipped == {f"{name}.toml" for name in names()} | {path.name for path in SCRIPTS}
    assert {path.name for path in SCRIPTS} == {"by_hand.py", "in_another_trainer.py"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_runs_and_writes_its_picture(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "out.png"
    monkeypatch.setattr(sys, "argv", [str(script), "--steps", "2", "--out", str(picture)])
    runpy.run_path(str(script), run_name="__main__")
    with Image.open(picture) as shown:
        assert min(shown.size) > 32


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_use_no_spec_and_no_registry(script: Path) -> None:
    tree = ast.parse(script.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = ("gankit.spec", "gankit.registry", "gankit.build", "gankit.train")
    assert not {m for m in modules if m and m.startswith(others)}
    assert any(m and m.startswith("gankit.") for m in modules)


@pytest.mark.slow
def test_the_wheel_carries_the_recipes_and_the_types(tmp_path: Path) -> None:
    """Built and unpacked elsewhere, it lists its recipes and builds one."""
    import os
    import subprocess

    root = EXAMPLES.parent
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, root],
        check=True,
    )
    (wheel,) = tmp_path.glob("gankit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {"gankit/py.typed", "gankit/recipes/quickstart_digits.toml"} <= inside
    assert not [name for name in inside if name.startswith("tests/")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    code = "import gankit; print(gankit.__file__); from gankit.cli import main; main()"
    for arguments in (["recipes"], ["build", "quickstart_digits"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert str(tmp_path / "site") in done.stdout
        assert "quickstart" in done.stdout


@pytest.mark.slow
def test_a_short_run_of_the_quickstart_comes_closer_to_digits(tmp_path: Path) -> None:
    """Half of its steps bring the samples' mean image near the data's, and they differ as much."""
    import torch

    from gankit.datasets import to_float
    from gankit.train import Trainer

    spec = load(find("quickstart_digits"), ["train.steps=1500"])
    gan, data = build(spec)
    real = to_float(data.images(torch.arange(len(data))))
    trainer = Trainer(gan, data, spec.train)

    def compared() -> tuple[float, float]:
        made = trainer.samples(256)
        distance = (made.mean(0) - real.mean(0)).square().mean()
        return float(distance), float(made.var(0).mean() / real.var(0).mean())

    untrained, _ = compared()
    for _ in trainer:
        pass
    trained, spread = compared()
    assert trained < untrained / 10
    # A collapsed generator may hit the mean, and has no spread.
    assert 0.5 < spread < 1.5
