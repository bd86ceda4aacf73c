"""Every file in examples/ does what it says: recipes build, scripts run."""

from __future__ import annotations

import ast
import runpy
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from gankit.recipes import find, names
from gankit.spec import load
from gankit.train import run
from gankit.train.plan import plan

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))

SMALL = ("train.batch=4", "train.steps=2", "train.log=1", "train.precision=fp32")
SHAPES = 'data={use="shapes", size=128}'
THIN = ("generator.width=8", "discriminator.width=8")
REDUCED = {
    "quickstart_digits": (),
    "ring": ("data.length=100",),
    "sagan_celeba_128": (SHAPES, *THIN, "generator.width_max=32", "discriminator.width_max=32"),
    "sagan_resnet_celeba_128": (
        *(SHAPES, *THIN, "generator.width_max=16", "discriminator.width_max=16"),
    ),
}

COUNTS = {
    "sagan_celeba_128": (3_856_372, 2_801_202),  # the article's code
    "sagan_resnet_celeba_128": (32_232_708, 38_439_618),  # the authors' released code
}


@pytest.mark.parametrize("name", names())
def test_a_recipe_builds_at_full_width_with_its_references_counts(name: str) -> None:
    made = plan(load(find(name)))
    assert made.memory is not None
    if name in COUNTS:
        assert (made.generator.parameters, made.discriminator.parameters) == COUNTS[name]
    else:
        assert "CelebA" not in find(name).read_text()


@pytest.mark.parametrize("name", names())
def test_a_recipe_trains_at_reduced_width(name: str, tmp_path: Path) -> None:
    outcome = run(load(find(name), [*SMALL, *REDUCED[name]]), tmp_path)
    assert outcome.finished
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

    from gankit.build import build
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
