"""The recipes that ship with the library: specs to train as they are, or to copy and change."""

from __future__ import annotations

from pathlib import Path

from gankit.errors import UsageError, choices

__all__ = ["find", "names", "recipe", "summary"]


def _folder() -> Path:
    """In a wheel the recipes are beside this file, in a source tree they are in examples/."""
    here = Path(__file__).parent
    shipped = here / "recipes"
    return shipped if shipped.is_dir() else here.parent / "examples"


def names() -> list[str]:
    """The recipes' names, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def summary(name: str) -> str:
    """The first comment of a recipe."""
    first = recipe(name).read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def find(spec: str) -> Path:
    """The file of a spec that is given as a path, or as the name of a recipe.

    Raises:
        UsageError: it is neither; names the nearest recipe.
    """
    path = Path(spec)
    if path.suffix or path.exists() or len(path.parts) > 1:
        return path
    return _of_name(spec, "there is no file and no recipe")


def recipe(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UsageError: there is none of that name; names the nearest.
    """
    return _of_name(name, "there is no recipe")


def _of_name(name: str, otherwise: str) -> Path:
    file = _folder() / f"{name.replace('-', '_')}.toml"
    if Path(name).name == name and file.is_file():
        return file
    raise UsageError(f'{otherwise} called "{name}"; {choices(name, names())}')
