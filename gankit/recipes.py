"""The recipes that ship with the library: specs to train as they are, or to copy and change."""

from __future__ import annotations

from pathlib import Path

from gankit.errors import UsageError, choices

__all__ = ["find", "names", "summary"]


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
    first = find(name).read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def find(spec: str) -> Path:
    """The file of a spec that is given as a path, or as the name of a recipe.

    Raises:
        UsageError: it is neither; names the nearest recipe.
    """
    path = Path(spec)
    if path.suffix or path.exists() or len(path.parts) > 1:
        return path
    recipe = _folder() / f"{spec.replace('-', '_')}.toml"
    if recipe.is_file():
        return recipe
    raise UsageError(f'there is no file and no recipe called "{spec}"; {choices(spec, names())}')
