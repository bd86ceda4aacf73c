"""What a study file may have wrong: every message to the letter, at its place, and all at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gankit.errors import SpecError
from gankit.spec import Spec
from gankit.study import Study
from gankit.study import mistakes as mistakes_module
from gankit.study import plan as plan_module
from tests import goldens, specs

HEAD = 'gankit = 1\nbase = "points.toml"\nseeds = [0, 1]\n'
GRID = '[grid]\nloss = ["hinge", "wasserstein"]\n"generator.width" = [4, 8]\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("points.toml").write_text(specs.POINTS, encoding="utf-8")
    Path("images.toml").write_text(specs.IMAGES, encoding="utf-8")
    Path("broken.toml").write_text(specs.POINTS.replace("ring", "rnig"), encoding="utf-8")


def study(text: str) -> Study:
    Path("study.toml").write_text(text, encoding="utf-8")
    return Study.load("study.toml")


def refusal(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        study(text)
    return caught.value


TWICE = f"""{HEAD}[grid]
a = [{{ name = "x" }}, {{ name = "y", loss = "hinge" }}]
b = [{{ name = "x" }}, {{ name = "y", loss = "wasserstein" }}]
c = [{{ name = "x" }}, {{ name = "y", generator.width = 4 }}]
"""

FORM = [
    "",
    'gankit = 2\nname = "a b"\nbase = 3\nseeds = 5\nthreads = 0\ncount = 0\nbudget = 3\n',
    'gankit = 1\nbase = "sagan_celeba_12"\nseeds = [0, 0, -1, 1.0, "2"]\nmetrics = "frechet"\n',
    'gankit = 1\nbase = "nowhere.toml"\nseeds = []\nmetrics = [3, {}]\nfeatures = []\n',
    'gankit = 1\nbase = "broken.toml"\nseeds = [0]\nsed = [1]\n[generator]\nnorm = "none"\n',
    f"{HEAD}set = 3\ngrid = 3\nvariant = 3\nexclude = 3\ncompare = 3\n",
    f"{HEAD}budget = {{ images = 3, steps = 3 }}\n[variant]\na = 3\n[exclude]\nloss = 1\n",
    f"{HEAD}budget = {{ images = 0 }}\n[compare]\nbaselin = 3\nbaseline = 3\n",
    f"{HEAD}seeds = [1]\n",
    f"{HEAD}threads = 2020-01-01\ncount = nan\nname = ''\nbudget = {{ images = 1.0 }}\n",
    f'{HEAD}[variant.a]\ndata = "grid"\n[grid]\nvariant = [1]\nloss = "hinge"\ndata.use = []\n',
    f'{HEAD}[grid]\n"loss" = ["hinge", "hinge"]\n"data.length" = [100]\ndata.length = [200]\n',
]

PATHS = [
    f'{HEAD}[set]\n"generator.widht" = 3\ngenerator.norm = "spectrl"\ngenrator.width = 3\n',
    f'{HEAD}[grid]\n"generator.widht" = [3, 4]\nobjective = ["hinge", "wasserstein"]\n',
    f'{HEAD}{GRID}[variant.a]\n"penalty.r3.weight" = 1.0\nloss.margn = 3\n',
    f'{HEAD}[set]\n"a b" = 3\n"a = 1\\nb" = 3\n"" = 3\n"c.d = 0 #" = 1\n"x." = 1\n',
    f'{HEAD}[set]\nseed = 3\nname = "x"\nplugins = []\n[variant.a]\nseed = 1\n',
    f"{HEAD}budget = {{ steps = 5 }}\n[set]\ntrain.steps = 7\n[variant.a]\n'train.steps' = 7\n",
    f'{HEAD}[grid]\n"train.clip" = [nan, 1.0, "2", -1.0]\n',
    f"{HEAD}[grid]\na = [{{ name = 'a b', loss = 'hinge' }}, {{ name = 3 }}, {{ name = 'c' }}]\n",
    f'{HEAD}[variant."a b"]\nloss = "hinge"\n[variant.c.penalty]\nr1 = "none"\n',
    f'{HEAD}[grid]\nname = ["a"]\n"data.use" = ["{"x" * 70}", ""]\n',
]

CELLS = [
    f"{HEAD}{GRID}[[exclude]]\n[[exclude]]\nlos = 1\n[[exclude]]\nloss = 'hing'\n",
    f"{HEAD}[[exclude]]\n",
    f"{HEAD}[[exclude]]\nloss = 'hinge'\n[compare]\nbaseline = {{ loss = 'hinge' }}\n",
    f"{HEAD}{GRID}[[exclude]]\nloss = 'hinge'\n[[exclude]]\nloss = 'wasserstein'\n",
    f"{HEAD}{GRID}[compare]\nbaseline = {{ loss = 'hinge' }}\n",
    f"{HEAD}{GRID}[compare]\nbaseline = {{ loss = 'hinges', generator.width = 4 }}\n",
    f"{HEAD}{GRID}[compare]\nbaseline = 'loss=hinge,generator.width=16'\n",
    f"{HEAD}{GRID}[[exclude]]\nloss = 'hinge'\n[compare.baseline]\nloss = 'hinge'\n",
    f"""{HEAD}[grid]
loss = ["hinge", "nonsaturating"]
a = [{{ name = "x", "generator.width" = 3 }}, {{ name = "y", generator.width = 3 }}]
""",
    f"{HEAD}[grid]\ndata.std = [0.01]\nloss = ['hinge', 'nonsaturating', {{ use = 'hinge' }}]\n",
    f"{HEAD}[variant.same]\nloss = 'nonsaturating'\n[variant.other]\nloss = 'hinge'\n",
    TWICE,
    f"{HEAD}[grid]\ntrain.best = ['a', 'a,loss=b']\nloss = ['b,loss=c', 'c']\n",
    f"{HEAD}[grid]\n" + "".join(f"{key} = {list(range(20))}\n" for key in "abc"),
    f"{HEAD}budget = {{ images = 100 }}\n[grid]\nschedule.turns.order = [['D', 'G'], ['G']]\n"
    "data.length = [100, 200]\n",
    f"{HEAD}budget = {{ images = 100 }}\n[variant.a]\nschedule.n_critic.n = 0\n",
    f"{HEAD}[grid]\ngenerator = ['mlp', 'dcgan']\na = [{{ name = 'x', generator.layers = 2 }}]\n",
    f"""{HEAD}[grid]
generator = ["mlp", "dcgan"]
long = [{{ name = "x" }}, {{ name = "y", generator.layers = 2 }}]
""",
]

UNBUILT = [
    """gankit = 1
base = "images.toml"
seeds = [0]
[grid]
"discriminator.norm" = ["spectral", "batchnorm"]
objective = [
  { name = "hinge", loss = "hinge" },
  { name = "wgan-gp", loss = "wasserstein", penalty.wgan_gp.weight = 10.0 },
]
[variant.everywhere]
generator.attention_at = [4, 8, 32]
""",
    f"{HEAD.replace('points', 'images')}[grid]\ngenerator.attention_at = [[7], [9]]\n",
    'gankit = 1\nbase = "images.toml"\nseeds = [0]\n[variant.a]\n"data.size" = 12\n',
]


@pytest.mark.parametrize(
    ("name", "studies"), [("study_form", FORM), ("study_paths", PATHS), ("study_cells", CELLS)]
)
def test_every_mistake_of_a_study_is_told(name: str, studies: list[str]) -> None:
    with goldens.our_parts_alone():
        told = [f"{'-' * 80}\n{text}\n{refusal(text)}\n" for text in studies]
    goldens.compare(name, "\n".join(told))


def unbuilt(text: str) -> SpecError:
    made = study(text)
    with pytest.raises(SpecError) as caught:
        made.check()
    return caught.value


def test_cells_that_cannot_be_built_are_told_with_what_leaves_them_out() -> None:
    with goldens.our_parts_alone():
        told = [f"{'-' * 80}\n{text}\n{unbuilt(text)}\n" for text in UNBUILT]
    goldens.compare("study_unbuilt", "\n".join(told))


def pasted(error: SpecError) -> str:
    return str(error).partition("add to study.toml:\n\n")[2]


@pytest.mark.parametrize("text", [UNBUILT[0], UNBUILT[2]])
def test_what_is_offered_can_be_pasted(text: str) -> None:
    before = study(text)
    error = unbuilt(text)
    told = int(str(error.problems[-1].message).split()[0])
    after = study(f"{text}{pasted(error)}\n")
    after.check()
    assert len(after.cells) == len(before.cells) - told


def test_what_is_there_twice_can_be_pasted_too() -> None:
    assert len(study(f"{TWICE}{pasted(refusal(TWICE))}\n").cells) == 6


@pytest.mark.parametrize("text", [*FORM, *PATHS, *CELLS])
def test_places_are_those_of_a_text(text: str) -> None:
    for problem in refusal(text).problems:
        if problem.place:
            lines = Path(problem.place.name).read_text(encoding="utf-8").split("\n")
            assert problem.place.source == lines[problem.place.line - 1]


def test_loading_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(spec: Spec) -> Any:
        raise AssertionError("a network is built")

    monkeypatch.setattr(plan_module, "networks", refused)
    made = study(HEAD + GRID)
    with pytest.raises(AssertionError, match="a network is built"):
        made.check()


def test_a_study_of_all_sorts_is_built() -> None:
    study(HEAD.replace("points", "images") + '[grid]\n"generator.width" = [4, 8]\n').check()


def test_the_files_of_plugins_are_announced_and_run_once() -> None:
    Path("parts.py").write_text(
        'import gankit\n\n@gankit.latent("studied")\n'
        "def studied(count, width, random, /):\n    raise AssertionError\n",
        encoding="utf-8",
    )
    base = specs.POINTS.replace("[data]", 'plugins = ["parts.py"]\n[data]', 1)
    Path("points.toml").write_text(base, encoding="utf-8")
    Path("study.toml").write_text(
        f'{HEAD}[grid]\nlatent = ["studied", "normal"]\n', encoding="utf-8"
    )
    announced: list[Path] = []
    made = Study.load("study.toml", announce=announced.append)
    assert announced == [Path("parts.py")]
    assert [cell.spec.latent.name for cell in made.cells] == ["studied", "normal"]
    assert all(cell.spec.plugins == made.base.plugins for cell in made.cells)


# --- deliberately broken


def golden_fails(name: str, studies: list[str]) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UPDATE_GOLDEN", raising=False)
        try:
            test_every_mistake_of_a_study_is_told(name, studies)
        except (AssertionError, pytest.fail.Exception):
            return True
        return False


def test_twin_specs_that_are_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "same", lambda cells, axes, study: [])
    assert golden_fails("study_cells", CELLS)


def test_twin_one_level_is_compared_with_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes_module, "_change_nothing", lambda *given: True)
    assert fails_to_load(HEAD + GRID)


def fails_to_load(text: str) -> bool:
    try:
        study(text)
    except SpecError:
        return True
    return False


def test_twin_problems_of_one_cell_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(found: Any, *others: Any, **options: Any) -> Any:
        return unfit(dict(list(found.items())[:1]), *others, **options)

    unfit = mistakes_module.unfit
    monkeypatch.setattr(plan_module, "unfit", first)
    assert golden_fails("study_cells", CELLS)


def test_twin_a_paste_that_leaves_out_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    covers = mistakes_module.covers
    monkeypatch.setattr(mistakes_module, "covers", lambda some, cells: covers(some, cells)[:1])
    with pytest.raises((AssertionError, SpecError)):
        test_what_is_offered_can_be_pasted(UNBUILT[0])


def test_no_more_is_told_than_anyone_reads() -> None:
    problems = refusal(HEAD + "".join(f"key{i} = 1\n" for i in range(150))).problems
    assert len(problems) == 101
    assert str(problems[-1].render()) == "error: these are 100 problems, and there are more"


def test_no_message_is_without_a_golden() -> None:
    """Every text of the package's problems is in one of the goldens."""
    kept = [goldens.FOLDER / f"study_{name}.txt" for name in ("form", "paths", "cells", "unbuilt")]
    said = "".join(file.read_text(encoding="utf-8") for file in kept)
    for file in Path(plan_module.__file__).parent.glob("*.py"):
        source = file.read_text(encoding="utf-8")
        for quote, text in re.findall(r"""(?:Problem|report)\(\s*f?(["'])([^"'{]{6,})""", source):
            assert text in said or text == "these are ", (file.name, quote, text)
