"""Study files: the cells they make, the mistakes they may hold, and what picks cells out."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gankit.build import bind
from gankit.errors import SpecError, UsageError
from gankit.schedules import NCritic, turns_of
from gankit.spec import Override, Source, dumps, load, loads
from gankit.spec import source as source_module
from gankit.spec.document import parse
from gankit.study import Budget, Cell, Study
from gankit.study import budget as budget_module
from gankit.study import picks as picks_module
from gankit.study import plan as plan_module
from gankit.study import selections as selections_module
from gankit.study.axes import called
from gankit.study.cells import combinations
from gankit.study.selections import covers, matches, written
from gankit.train.plan import count_turns, networks
from tests import specs

HEAD = 'gankit = 1\nbase = "points.toml"\nseeds = [0, 1]\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bases to change, and nothing else, in the folder that tests run in."""
    monkeypatch.chdir(tmp_path)
    Path("points.toml").write_text(specs.POINTS, encoding="utf-8")
    Path("images.toml").write_text(specs.IMAGES, encoding="utf-8")


def study(text: str, head: str = HEAD) -> Study:
    Path("study.toml").write_text(head + text, encoding="utf-8")
    return Study.load("study.toml")


def refusal(text: str, head: str = HEAD) -> SpecError:
    with pytest.raises(SpecError) as caught:
        study(text, head)
    return caught.value


def names(made: Study) -> list[str]:
    return [cell.name for cell in made.cells]


# --- cells


def test_variants_and_axes_multiply() -> None:
    made = study(
        """
        name = "both"
        [set]
        "optimizer.lr" = 1e-3
        [grid]
        "generator.norm" = ["none", ["spectral", "batchnorm"]]
        objective = [
          { name = "hinge", loss = "hinge" },
          { name = "gp", loss = "wasserstein", "penalty.wgan_gp.weight" = 5.0 },
        ]
        [variant.deep]
        "generator.layers" = 4
        """
    )
    assert names(made) == [
        f"{variant}generator.norm={norm},objective={objective}"
        for variant in ("", "deep,")
        for norm in ("none", "spectral+batchnorm")
        for objective in ("hinge", "gp")
    ]
    assert made.axes == {
        "variant": ("base", "deep"),
        "generator.norm": ("none", "spectral+batchnorm"),
        "objective": ("hinge", "gp"),
    }
    last = made.cells[-1]
    assert last.levels == {
        "variant": "deep",
        "generator.norm": "spectral+batchnorm",
        "objective": "gp",
    }
    assert last.spec.name == "both-deep-generator.norm-spectral-batchnorm-objective-gp"
    wanted = load(
        "points.toml",
        [
            "optimizer.lr=1e-3",
            "generator.layers=4",
            "generator.norm=['spectral', 'batchnorm']",
            "loss=wasserstein",
            "penalty.wgan_gp.weight=5.0",
        ],
    )
    assert last.spec.identity() == wanted.identity()
    assert last.spec.hash == wanted.hash
    assert (made.name, made.seeds, made.threads, made.budget) == ("both", (0, 1), 1, None)
    assert made.baseline == made.cells[0]


def test_every_run_is_an_ordinary_spec() -> None:
    made = study('[grid]\nloss = ["hinge", "wasserstein"]\n')
    runs = list(made.specs())
    assert [(cell.name, seed) for cell, seed, _ in runs] == [
        *(("loss=hinge", 0), ("loss=wasserstein", 0), ("loss=hinge", 1), ("loss=wasserstein", 1))
    ]
    for _, seed, spec in runs:
        again = loads(dumps(spec.plain(full=False)))
        assert (again.hash, again.seed, again.name) == (spec.hash, seed, spec.name)
    assert len({spec.hash for _, _, spec in runs}) == 4
    other = study('[grid]\nloss = ["hinge"]\n', HEAD.replace("0, 1", "7"))
    assert made.cells[0].hash == other.cells[0].hash


@pytest.mark.parametrize(
    "text",
    [
        '[variant.a]\n"generator.norm" = "batchnorm"\n"penalty.r1.weight" = 2.0\n',
        '[variant.a]\ngenerator.norm = "batchnorm"\npenalty.r1.weight = 2.0\n',
        '[variant.a.generator]\nnorm = "batchnorm"\n[variant.a.penalty.r1]\nweight = 2.0\n',
        '[variant]\na = { generator.norm = "batchnorm", "penalty.r1" = { weight = 2.0 } }\n',
        '[variant.a]\n"generator".norm = "batchnorm"\n'
        '[[variant.a.penalty]]\nuse = "r1"\nweight = 2.0\n',
        '[grid]\na = [{ name = "a", "generator.norm" = "batchnorm", penalty.r1.weight = 2.0 }]\n',
        '[[grid.a]]\nname = "a"\ngenerator.norm = "batchnorm"\npenalty.r1.weight = 2.0\n',
        '[set]\ngenerator.norm = "batchnorm"\n[grid]\npenalty.r1.weight = [2.0]\n',
        '[set]\npenalty.r1 = {}\n[grid]\nb = [{ name = "a", "generator.norm" = "batchnorm", '
        "penalty.r1.weight = 2.0 }]\n",
        '[set]\n\'generator."norm"\' = "batchnorm"\n"penalty.\\u00721.weight" = 2.0\n',
    ],
)
def test_paths_may_be_written_in_every_way_of_toml(text: str) -> None:
    wanted = load("points.toml", ["generator.norm=batchnorm", "penalty.r1.weight=2.0"])
    assert study(text).cells[-1].spec.hash == wanted.hash


def test_none_removes_and_tables_add() -> None:
    base = specs.POINTS + '[[penalty]]\nuse = "r1"\n[[penalty]]\nuse = "wgan_gp"\n'
    Path("points.toml").write_text(base, encoding="utf-8")
    made = study(
        '[grid]\n"penalty.r1" = ["none", { weight = 3.0 }]\n"augment.flip" = [{ p = 0.5 }]\n'
    )
    told = [[part.called for part in cell.spec.penalty] for cell in made.cells]
    assert told == [["wgan_gp"], ["r1", "wgan_gp"]]
    assert names(made)[1] == "penalty.r1=(weight=3.0),augment.flip=(p=0.5)"
    assert [part.called for part in made.cells[0].spec.augment] == ["flip"]


def test_one_cell_does_not_see_what_is_set_in_another() -> None:
    common = '[set]\npenalty = [{ use = "r1", weight = 1.0 }]\n'
    text = f'{common}[grid]\n"penalty.r1.weight" = [2.0, 3.0]\n'
    assert [cell.spec.penalty[0].options["weight"] for cell in study(text).cells] == [2.0, 3.0]
    document = parse("a = { b = 1 }", "x")
    override = Override(document, ("a",), {"b": 1})
    inner = Override(document, ("a", "b"), 2)
    source = Source(parse("", "x"), [override, inner])
    assert source.data == {"a": {"b": 2}}
    assert override.value == {"b": 1}


def test_a_base_is_a_path_beside_the_study_or_a_recipe(tmp_path: Path) -> None:
    Path("deep").mkdir()
    Path("deep/study.toml").write_text(HEAD.replace("points", "../points"), encoding="utf-8")
    assert Study.load("deep/study.toml").base.name == "points"
    assert study("", HEAD.replace("points.toml", "ring")).base.data.name == "ring"
    with pytest.raises(UsageError, match="cannot read"):
        Study.load("nowhere.toml")


def test_without_anything_to_vary_the_base_is_the_one_cell() -> None:
    made = study("")
    assert names(made) == ["base"]
    assert made.axes == {}
    assert made.cells[0].spec.hash == load("points.toml").hash


def test_the_base_is_a_variant_that_may_have_overrides_or_be_left_out() -> None:
    text = '[variant.a]\nloss = "wasserstein"\n[variant.base]\nloss = "hinge"\n'
    made = study(text)
    assert names(made) == ["base", "a"]
    assert made.cells[0].spec.loss.name == "hinge"
    text += '[variant.b]\nloss = "least_squares"\n[[exclude]]\nvariant = "base"\n'
    made = study(text)
    assert names(made) == ["a", "b"]
    assert made.axes == {"variant": ("a", "b")}


def test_a_variant_that_comes_later_leaves_names_as_they_were() -> None:
    text = '[grid]\nloss = ["hinge", "wasserstein"]\n'
    more = study(f"{text}[variant.a]\ntrain.batch = 4\n")
    assert set(names(study(text))) < set(names(more))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *[('"hinge"', "hinge"), ("1e-4", "0.0001"), ("8", "8"), ("true", "true"), ("[]", "[]")],
        ('["spectral", "batchnorm"]', "spectral+batchnorm"),
        ('{ use = "self_attention" }', "self_attention()"),
        ('{ use = "r1", weight = 1.0, every = 2 }', "r1(weight=1.0,every=2)"),
        ('["spectral", { use = "batchnorm", eps = 1e-5 }]', "spectral+batchnorm(eps=1e-05)"),
        ("{ half_life = 10.0 }", "(half_life=10.0)"),
    ],
)
def test_values_are_named_by_themselves(value: str, name: str) -> None:
    assert called(parse(f"x = {value}", "x").data["x"]) == name


# --- the baseline, and cells that are left out

GRID = """
[grid]
loss = ["hinge", "wasserstein"]
"generator.width" = [4, 8]
generator.norm = ["none", ["spectral", "batchnorm"]]
"""


@pytest.mark.parametrize(
    ("baseline", "name"),
    [
        (None, "loss=hinge,generator.width=4,generator.norm=none"),
        (
            '{ loss = "hinge", generator.width = 8, generator.norm = ["spectral", "batchnorm"] }',
            "loss=hinge,generator.width=8,generator.norm=spectral+batchnorm",
        ),
        (
            '{ loss = "hinge", "generator.width" = "8", generator.norm = "none" }',
            "loss=hinge,generator.width=8,generator.norm=none",
        ),
        (
            '"loss=wasserstein,generator.width=8,generator.norm=none"',
            "loss=wasserstein,generator.width=8,generator.norm=none",
        ),
    ],
)
def test_the_baseline_is_a_cell(baseline: str | None, name: str) -> None:
    text = GRID if baseline is None else f"{GRID}[compare]\nbaseline = {baseline}\n"
    assert study(text).baseline.name == name


def test_excluded_cells_are_left_out() -> None:
    text = """
        [[exclude]]
        loss = "hinge"
        generator.width = 4
        [[exclude]]
        "generator.norm" = ["spectral", "batchnorm"]
        """
    assert names(study(GRID + text)) == [
        "loss=hinge,generator.width=8,generator.norm=none",
        "loss=wasserstein,generator.width=4,generator.norm=none",
        "loss=wasserstein,generator.width=8,generator.norm=none",
    ]
    assert study(GRID + text).axes["generator.norm"] == ("none",)


# --- properties

POOL: dict[str, list[Any]] = {
    "generator.width": [4, 8, 12],
    "loss": ["hinge", "wasserstein", {"use": "hinge", "margin": 2.0}],
    "optimizer.lr": [1e-3, 1e-4],
    "generator.norm": ["none", "batchnorm", ["spectral", "batchnorm"]],
    "extra": [
        {"name": "plain", "train.clip": 1.0},
        {"name": "gp", "penalty.wgan_gp.weight": 1.0, "train.batch": 4},
    ],
}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, list[Any]]:
    """A few axes, each with some of its values in some order."""
    axes = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=3, unique=True))
    return {
        axis: [POOL[axis][i] for i in draw(st.permutations(range(len(POOL[axis]))))][
            : draw(st.integers(1, len(POOL[axis])))
        ]
        for axis in axes
    }


def level(value: Any) -> str:
    """A value's name, as the tests have it."""
    if isinstance(value, dict):
        return value.get("name") or "hinge(margin=2.0)"
    return "+".join(value) if isinstance(value, list) else json.dumps(value).strip('"')


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {inline(v)}' for key, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


def text_of(grid: dict[str, list[Any]], excluded: list[dict[str, str]]) -> str:
    lines = [f'"{axis}" = {inline(values)}' for axis, values in grid.items()]
    return "\n".join(["[grid]", *lines, *[written([each]) for each in excluded], ""])


@st.composite
def studies(draw: st.DrawFn) -> tuple[dict[str, list[Any]], list[dict[str, str]]]:
    grid = draw(grids())
    excluded = []
    for _ in range(draw(st.integers(0, 2))):
        chosen = draw(st.lists(st.sampled_from(sorted(grid)), min_size=1, unique=True))
        excluded.append({axis: level(draw(st.sampled_from(grid[axis]))) for axis in chosen})
    return grid, excluded


def expected(grid: dict[str, list[Any]], excluded: list[dict[str, str]]) -> list[dict[str, str]]:
    """The levels of the cells that a study should have."""
    every = [
        dict(zip(grid, map(level, values), strict=True))
        for values in itertools.product(*grid.values())
    ]
    return [one for one in every if not any(each.items() <= one.items() for each in excluded)]


def assert_cells(grid: dict[str, list[Any]], excluded: list[dict[str, str]]) -> None:
    wanted = expected(grid, excluded)
    if not wanted:
        assert "no cells are left" in str(refusal(text_of(grid, excluded)))
        return
    made = study(text_of(grid, excluded))
    assert [cell.levels for cell in made.cells] == wanted
    assert names(made) == [",".join(f"{a}={b}" for a, b in one.items()) for one in wanted]
    assert len({cell.hash for cell in made.cells}) == len(wanted)


@given(studies())
def test_cells_are_the_product_without_what_is_excluded(
    drawn: tuple[dict[str, list[Any]], list[dict[str, str]]],
) -> None:
    assert_cells(*drawn)


def assert_stable(grid: dict[str, list[Any]], axis: str) -> None:
    """Taking away an axis's last value, or turning it about, leaves the other cells as they are."""
    every = {cell.name: cell.hash for cell in study(text_of(grid, [])).cells}
    fewer = study(text_of(grid | {axis: grid[axis][:-1] or grid[axis]}, []))
    turned = study(text_of(grid | {axis: grid[axis][::-1]}, []))
    assert {cell.name: cell.hash for cell in fewer.cells}.items() <= every.items()
    assert {cell.name: cell.hash for cell in turned.cells} == every


@given(grids(), st.data())
def test_values_that_are_added_change_no_other_cell(
    grid: dict[str, list[Any]], data: st.DataObject
) -> None:
    assert_stable(grid, data.draw(st.sampled_from(sorted(grid))))


def set_of(grid: dict[str, list[Any]], levels: dict[str, str]) -> list[str]:
    """What one would give `--set` for a cell."""
    found = []
    for axis, name in levels.items():
        value = next(value for value in grid[axis] if level(value) == name)
        if isinstance(value, dict) and "name" in value:
            found += [f"{key}={inline(v)}" for key, v in value.items() if key != "name"]
        else:
            found.append(f"{axis}={inline(value)}")
    return found


@given(grids())
def test_overrides_are_those_of_the_command_line(grid: dict[str, list[Any]]) -> None:
    for cell in study(text_of(grid, [])).cells:
        wanted = load("points.toml", set_of(grid, dict(cell.levels)))
        assert cell.spec.identity() == wanted.identity()


LEVELS = st.sets(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("01")),
    min_size=1,
)


def assert_covered(cells: list[dict[str, str]], some: list[dict[str, str]]) -> None:
    picked = [c for c in cells if any(matches(cover, c) for cover in covers(some, cells))]
    assert picked == some
    lines = parse(written(covers(some, cells)), "x").data.get("exclude", [])
    assert lines == covers(some, cells)


@given(LEVELS, st.data())
def test_what_is_offered_for_excluding_picks_these_cells_alone(
    levels: set[tuple[str, ...]], data: st.DataObject
) -> None:
    cells = [dict(zip(("p", "q.r", "s t"), one, strict=True)) for one in sorted(levels)]
    some = [cell for cell in cells if data.draw(st.booleans())]
    assert_covered(cells, some)


def test_covers_are_short() -> None:
    cells = [{"p": p, "q": q} for p in "ab" for q in "xyz"]
    assert covers([cell for cell in cells if cell["p"] == "a"], cells) == [{"p": "a"}]
    some = [cell for cell in cells if cell["p"] == "a" or cell["q"] == "x"]
    assert covers(some, cells) == [{"p": "a"}, {"q": "x"}]
    assert covers([cells[0]], cells) == [{"p": "a", "q": "x"}]


# --- budgets


def shown(cell: Cell, steps: int) -> int:
    """Real images shown to D, counted turn by turn."""
    schedules = [bind(part) for part in cell.spec.schedule]
    turns = itertools.chain.from_iterable(turns_of(schedules, step, steps) for step in range(steps))
    return cell.spec.train.batch * sum("D" in turn for turn in turns)


def assert_equal_budget(images: int) -> None:
    made = study(
        f"""
        budget = {{ images = {images} }}
        [grid]
        "train.batch" = [8, 12]
        schedule = [[], ["n_critic"], ["simultaneous"], {{ name = "2", schedule.n_critic.n = 2 }}]
        """
    )
    assert len(made.cells) == 8
    for cell in made.cells:
        steps = cell.spec.train.steps
        assert shown(cell, steps) >= images
        assert steps == 1 or shown(cell, steps - 1) < images


@given(st.integers(1, 400))
def test_every_cell_is_shown_the_images_of_the_budget(images: int) -> None:
    assert_equal_budget(images)


def test_turns_that_change_in_a_run_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turns(self: NCritic, step: int, total: int) -> tuple[str, ...]:
        return ("D",) * (self.n if step < 5 else 1) + ("G",)

    monkeypatch.setattr(NCritic, "turns", turns)
    assert_equal_budget(333)


def test_a_budget_of_steps_is_taken_as_it_is() -> None:
    made = study('budget = { steps = 7 }\n[grid]\n"train.batch" = [4, 8]\n')
    assert made.budget == Budget("steps", 7)
    assert [cell.spec.train.steps for cell in made.cells] == [7, 7]


def test_steps_may_be_an_axis_where_there_is_no_budget() -> None:
    made = study('[grid]\n"train.steps" = [4, 8]\n')
    assert made.cells[0].hash != made.cells[1].hash
    assert made.cells[0].spec.hash == made.cells[1].spec.hash


# --- in words


def test_how_cells_differ_from_the_baseline() -> None:
    head = HEAD.replace("points", "images")
    made = study(
        """
        [set]
        "schedule.ttur.ratio" = 2.0
        [variant.a]
        "schedule.ttur.ratio" = 4.0
        "generator.attention" = "none"
        "generator.norm" = "spectral"
        "discriminator.attention.reduction" = 4
        [variant.b]
        "schedule.ttur" = "none"
        "penalty.r1.weight" = 5.0
        "discriminator_optimizer" = { use = "adam", lr = 1e-3 }
        generator = "mlp"
        "train.ema" = { half_life = 10 }
        """,
        head,
    )
    base, a, b = made.cells
    assert made.differences(base) == []
    assert made.differences(a) == [
        'generator.norm: ["spectral", "batchnorm"] became "spectral"',
        'generator.attention: {"use": "self_attention", "reduction": 4} became "none"',
        "discriminator.attention.reduction: 8 became 4",
        "schedule.ttur.ratio: 2.0 became 4.0",
    ]
    assert made.differences(b) == [
        'generator: {"use": "dcgan", "latent": 8, "width": 4, "norm": ["spectral", "batchnorm"], '
        '"attention": {"use": "self_attention", "reduction": 4}, "attention_at": [8]} became "mlp"',
        'discriminator_optimizer: {"use": "adam", "lr": 0.001, "betas": [0.0, 0.9], "eps": 1e-08, '
        '"weight_decay": 0.0} is new',
        'schedule.ttur: {"use": "ttur", "ratio": 2.0} is gone',
        'penalty.r1: {"use": "r1", "weight": 5.0, "every": 1} is new',
        'train.ema: 0.9 became {"half_life": 10.0, "ramp_up": 0.0}',
    ]


# --- the studies that ship

SHIPPED = sorted((Path(__file__).parent.parent / "examples/studies").glob("*.toml"))
SHAPES = {
    "attention_where": {"attention": 5},
    "n_critic_vs_ttur": {"turns": 3, "rates": 3},
    "norm_x_loss": {"norm": 4, "loss": 3},
    "sagan_parts": {"parts": 4, "turns": 2},
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_has_its_cells(path: Path) -> None:
    made = Study.load(path)
    assert {axis: len(levels) for axis, levels in made.axes.items()} == SHAPES[made.name]
    assert len(made.cells) == math.prod(SHAPES[made.name].values()) - len(
        made.document.data.get("exclude", [])
    )
    for cell in made.cells:
        assert (cell == made.baseline) == (not made.differences(cell))
        assert shown(cell, cell.spec.train.steps) == made.document.data["budget"]["images"]


def test_the_block_beside_attention_has_as_many_parameters() -> None:
    made = Study.load(next(path for path in SHIPPED if path.stem == "attention_where"))
    counts = {
        cell.name.partition("=")[2]: networks(cell.spec)[0].parameters
        for cell in made.cells
        if "8" in cell.name
    }
    assert counts["at_8"] == counts["block_at_8"]


# --- what the properties catch


def fails(holds: Callable[[], None]) -> bool:
    try:
        holds()
    except (AssertionError, SpecError):
        return True
    return False


TWO = {"loss": ["hinge", "wasserstein"], "generator.width": [4, 8]}


def by_position(axes: Any) -> Any:
    """Cells that are named after where their values stand."""
    for index, draft in enumerate(list(combinations(axes))):
        yield replace(draft, name=f"cell{index}")


def the_first_alone(axes: Any) -> Any:
    return itertools.islice(combinations(axes), 2)


@pytest.mark.parametrize("broken", [by_position, the_first_alone])
def test_twin_other_combinations(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    monkeypatch.setattr(plan_module, "combinations", broken)
    assert fails(lambda: assert_cells(TWO, []))


def test_twin_names_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "combinations", by_position)
    assert fails(lambda: assert_stable(TWO, "loss"))


def test_twin_a_hash_with_the_place_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count()
    monkeypatch.setattr(Cell, "hash", property(lambda self: str(next(count))))
    assert fails(lambda: assert_stable(TWO, "loss"))


def test_twin_excludes_that_need_one_level_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        picks_module, "matches", lambda wanted, levels: bool(wanted.items() & levels.items())
    )
    assert fails(lambda: assert_cells(TWO, [{"loss": "hinge", "generator.width": "4"}]))


def test_twin_the_first_override_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(document: Any, overrides: Any = ()) -> Source:
        return Source(document, overrides[::-1])

    monkeypatch.setattr(plan_module, "Source", backwards)
    assert fails(test_the_last_of_several_overrides_counts)


def test_the_last_of_several_overrides_counts() -> None:
    """What is set for all, then the variant, then the grid."""
    made = study(
        """
        [set]
        generator.width = 3
        train.batch = 3
        [variant.a]
        generator.width = 4
        train.batch = 4
        [grid]
        "generator.width" = [5]
        """
    )
    told = [(cell.spec.generator.options["width"], cell.spec.train.batch) for cell in made.cells]
    assert told == [(5, 3), (5, 4)]


def test_twin_a_cover_that_is_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections_module, "_parts", lambda cells, size: iter([{"p": "a"}]))
    cells = [{"p": "a", "q": "x"}, {"p": "a", "q": "y"}]
    assert fails(lambda: assert_covered(cells, cells[:1]))


def test_twin_values_that_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "copy", SimpleNamespace(deepcopy=lambda value: value))
    assert fails(test_one_cell_does_not_see_what_is_set_in_another)


def test_twin_a_budget_that_is_rounded_down(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Budget._steps
    monkeypatch.setattr(Budget, "_steps", lambda self, spec: max(1, steps(self, spec) - 1))
    assert fails(lambda: assert_equal_budget(100))


def test_twin_a_budget_that_counts_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        budget_module,
        "_images",
        lambda spec, steps: spec.train.batch * sum(count_turns(spec).values()),
    )
    assert fails(lambda: assert_equal_budget(100))
