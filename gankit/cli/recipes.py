"""`gankit recipes`, `gankit copy`: the specs that ship with the library."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gankit.cli.common import tell
from gankit.errors import SetupError, UsageError

__all__ = ["copy", "list_recipes"]


def list_recipes() -> None:
    """List the recipes that ship with the library."""
    from gankit.recipes import names, summary

    found = names()
    wide = max(map(len, found), default=0)
    for name in found:
        print(f"{name:<{wide}}  {summary(name)}")


def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The recipe's name.")],
    to: Annotated[
        Path | None,
        typer.Argument(metavar="[DEST]", help="A file or a folder; NAME.toml here by default."),
    ] = None,
) -> None:
    """Copy a recipe, comments and all, to be changed; a file that is there stays as it is."""
    from gankit.recipes import recipe

    source = recipe(name)
    target = to or Path()
    if target.is_dir():
        target /= source.name
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        message = f"{target} is there already: name another file, or remove it"
        raise UsageError(message) from None
    except FileNotFoundError:
        raise UsageError(f"there is no folder {target.parent}") from None
    except OSError as error:
        raise SetupError(f"cannot write {target}: {error.strerror}") from error
    tell(f"next: gankit build {shlex.quote(str(target))}")
    print(target)
