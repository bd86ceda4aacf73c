"""The house rules: which way imports point, what is public, how long a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gankit

ROOT = Path(gankit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

FLOORS = [
    {"errors"},
    {"registry", "", "randomness"},
    {"slots"},
    {
        *("ops", "norms", "attentions", "activations", "initializers", "losses", "penalties"),
        *("schedules", "augments", "latents", "optimizers", "loggers", "metrics"),
    },
    {"blocks"},
    {"networks"},
    {"datasets", "spec"},
    {"extractors"},
    {"fit", "paths"},
    {"build"},
    {"evaluate"},
    {"train"},
    {"study", "together", "testing", "recipes", "report", "export", "convert", "bench"},
    {"views"},
    {"cli", "__main__"},
]
"""From the cellar up: what stands on one floor may import from it and from those below.

The empty name is the package itself, which shows the registry's decorators.
"""


def name_of(file: Path, root: Path = ROOT) -> str:
    """`gankit.norms.weight`, as it is imported."""
    parts = [root.name, *file.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, modules: set[str]) -> Iterator[str]:
    """Every module of ours that a source imports, wherever in it: functions and branches too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gankit")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            if node.module and node.module.split(".")[0] == "gankit":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in modules else node.module


def floor_of(module: str) -> int:
    place = [*module.split("."), ""][1]
    floors = [index for index, names in enumerate(FLOORS) if place in names]
    assert floors, f"{module} has no floor in this test: give it one"
    return floors[0]


def arrows_back(sources: dict[str, str]) -> list[str]:
    """The imports that point up the house."""
    return [
        f"{module} -> {imported}"
        for module, source in sources.items()
        for imported in imports_of(source, set(sources))
        if floor_of(imported) > floor_of(module)
    ]


SOURCES = {name_of(file): file.read_text(encoding="utf-8") for file in FILES}


def test_imports_point_one_way_only() -> None:
    assert arrows_back(SOURCES) == []


@pytest.mark.parametrize(
    "line",
    [
        "from gankit import blocks",
        "from gankit.train.engine import Engine",
        "import gankit.networks",
        "def late():\n    import gankit.cli as cli",
        "if TYPE_CHECKING:\n    from gankit.build import GAN",
    ],
)
def test_twin_an_arrow_that_points_back_is_found(line: str) -> None:
    changed = {**SOURCES, "gankit.norms.weight": f"{SOURCES['gankit.norms.weight']}\n{line}\n"}
    assert len(arrows_back(changed)) == 1


def test_twin_a_module_that_is_new_must_be_given_a_floor() -> None:
    with pytest.raises(AssertionError, match=r"gankit\.attic has no floor"):
        arrows_back({**SOURCES, "gankit.attic": "from gankit import errors"})


def test_modules_of_one_floor_do_not_import_in_a_circle() -> None:
    assert circles(SOURCES) == []


def circles(sources: dict[str, str]) -> list[str]:
    """Modules that import themselves by way of others; imports within functions are left out."""
    graph = {}
    for module, source in sources.items():
        top = ast.unparse(ast.Module([n for n in ast.parse(source).body if _imports(n)], []))
        graph[module] = set(imports_of(top, set(sources))) & set(sources) - {module}
    found = []
    for start in graph:
        reached, ahead = set(), list(graph[start])
        while ahead:
            module = ahead.pop()
            if module not in reached:
                reached.add(module)
                ahead += graph[module]
        found += [start] * (start in reached)
    return found


def _imports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_twin_a_circle_is_found() -> None:
    changed = {**SOURCES, "gankit.ops": "from gankit.norms import spectral"}
    assert "gankit.ops" in circles(changed)


# --- what is public


INNER = {
    "gankit.datasets.shapes": {"polygon", "uniform"},
    "gankit.errors": {"clip"},
    "gankit.registry": {"Decorator"},
    "gankit.registry.options": {"documented"},
    "gankit.spec.document": {
        *("check_nesting", "check_size", "decode", "explain", "quoted", "repeated", "unclosed"),
    },
    "gankit.train.folder": {"environment", "replace"},
}
"""Helpers that nothing else in the package imports, and that have no underscore yet."""


def public(tree: ast.Module) -> set[str]:
    """The classes and functions that a module defines under a name without an underscore."""
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return {name for name in found if not name.startswith("_")}


def assigned(tree: ast.Module) -> set[str]:
    """The names that a module gives to values, and those that it imports."""
    found = {"__version__"}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def exported(tree: ast.Module) -> list[str]:
    """A module's `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def check_public(source: str, inner: set[str]) -> None:
    tree = ast.parse(source)
    names = exported(tree)
    # Ruff's order: constants, classes, then the rest.
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert public(tree) - set(names) == inner
    assert set(names) <= public(tree) | assigned(tree)


@pytest.mark.parametrize("module", SOURCES)
def test_all_is_sorted_and_complete(module: str) -> None:
    check_public(SOURCES[module], INNER.get(module, set()))


@pytest.mark.parametrize(
    "source",
    [
        "def part(): ...",
        "__all__ = []\nclass Part: ...",
        "__all__ = ['b', 'a']\ndef a(): ...\ndef b(): ...",
        "__all__ = ['a', 'B']\ndef a(): ...\nclass B: ...",
        "__all__ = ['a', 'gone']\ndef a(): ...",
    ],
)
def test_twin_a_list_that_is_unsorted_or_incomplete_fails(source: str) -> None:
    with pytest.raises(AssertionError):
        check_public(source, set())


def borrowed(sources: dict[str, str]) -> list[str]:
    """What one module takes from another that does not offer it."""
    offered = {module: set(exported(ast.parse(source))) for module, source in sources.items()}
    return [
        f"{module} takes {alias.name} from {node.module}"
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module in sources
        for alias in node.names
        if f"{node.module}.{alias.name}" not in sources and alias.name not in offered[node.module]
    ]


def test_modules_take_from_each_other_what_is_in_all() -> None:
    assert borrowed(SOURCES) == []


def test_twin_a_name_that_is_not_offered_is_found() -> None:
    changed = {
        **SOURCES,
        "gankit.cli.parts": f"{SOURCES['gankit.cli.parts']}\nfrom gankit.errors import clip",
    }
    assert borrowed(changed) == ["gankit.cli.parts takes clip from gankit.errors"]


# --- how long


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_file_is_longer_than_400_lines(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= 400
