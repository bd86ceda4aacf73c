"""Specs: TOML in, checked plain data out, with the place of every problem."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from gankit.errors import Problem, SetupError, SpecError
from gankit.registry import load_file
from gankit.spec.check import check, problem_at
from gankit.spec.document import Document, parse, read
from gankit.spec.model import FORMAT, HalfLife, Part, Plugin, Spec, Train, describe
from gankit.spec.source import Source
from gankit.spec.write import dumps

__all__ = [
    "FORMAT",
    "Document",
    "HalfLife",
    "Part",
    "Plugin",
    "Source",
    "Spec",
    "Train",
    "describe",
    "dumps",
    "load",
    "loads",
    "problem_at",
]


def load(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    plugins: Sequence[Path] = (),
    trusted: bool = True,
) -> Spec:
    """The spec in a file.

    Local plugin files that the spec names are run, unless it is not trusted (the record of a run
    that came from elsewhere): then each must be given in `plugins`, with the recorded content.

    Raises:
        UsageError: there is no such file.
        SpecError: with every problem in it.
        SetupError: a plugin file is missing, fails, or is not the one that was recorded.
    """
    path = Path(path)
    return _checked(read(path), path.parent, path.stem, overrides, plugins, trusted)


def loads(text: str, overrides: Sequence[str] = (), *, folder: Path = Path()) -> Spec:
    """The spec in a text; plugin files are looked for in `folder`."""
    return _checked(parse(text, "<spec>"), folder, "spec", overrides, (), True)


def _checked(
    document: Document,
    folder: Path,
    name: str,
    overrides: Sequence[str],
    plugins: Sequence[Path],
    trusted: bool,
) -> Spec:
    def load_plugins(source: Source) -> list[Plugin]:
        loaded = []
        for index, entry in enumerate(source.data.get("plugins", [])):
            table = {"file": entry} if isinstance(entry, str) else entry
            place = source.value(("plugins", index))
            if "file" not in table or set(table) - {"file", "sha256"}:
                form = '"file.py" or { file = "file.py", sha256 = "..." }'
                raise SpecError(Problem(f"a plugin is written {form}", place))
            found = _plugin(table["file"], table.get("sha256"), folder, plugins, trusted)
            loaded.append(found)
        return loaded

    for file in plugins:
        load_file(file)
    return check(Source(document, overrides), name, load_plugins)


def _plugin(
    file: str, recorded: str | None, folder: Path, given: Sequence[Path], trusted: bool
) -> Plugin:
    for path in given if not trusted else (folder / file,):
        if trusted or _sha256(path) == recorded:
            sha256 = load_file(path).version.removeprefix("sha256:")
            if recorded not in (None, sha256):
                raise SetupError(
                    f"plugin file {path} is not the one that was recorded\n"
                    f"  recorded {recorded}\n  found    {sha256}"
                )
            return Plugin(file, sha256)
    raise SetupError(
        f"this was made with the local plugin file {file}, which is code\n"
        f"  give it with --plugin FILE if you trust it; SHA-256 {recorded}"
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SetupError(f"plugin file {path} cannot be read: {error.strerror}") from error
