"""Specs: TOML in, checked plain data out, with the place of every problem."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gankit.errors import SetupError
from gankit.registry import load_file
from gankit.spec.check import check, check_eval
from gankit.spec.document import Document, parse, read
from gankit.spec.model import (
    FORMAT,
    LISTS,
    Eval,
    Fast,
    HalfLife,
    Part,
    Plugin,
    Spec,
    Train,
    describe,
)
from gankit.spec.problems import in_order, problem_at
from gankit.spec.source import Override, Source
from gankit.spec.write import dumps

__all__ = [
    "FORMAT",
    "LISTS",
    "Document",
    "Eval",
    "Fast",
    "HalfLife",
    "Override",
    "Part",
    "Plugin",
    "Source",
    "Spec",
    "Train",
    "describe",
    "dumps",
    "in_order",
    "load",
    "load_eval",
    "loads",
    "problem_at",
]


def load(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    plugins: Sequence[Path] = (),
    trusted: bool = True,
    announce: Callable[[Path], None] = lambda path: None,
) -> Spec:
    """The spec in a file.

    Local plugin files that the spec names are run, unless it is not trusted (the record of a run
    that came from elsewhere): then each must be given in `plugins`, with the recorded content.
    `announce` is called with each file before it runs.

    Raises:
        UsageError: there is no such file.
        SpecError: with every problem in it.
        SetupError: a plugin file is missing, fails, or is not the one that was recorded.
    """
    path = Path(path)
    loader = _Loader(path.parent, tuple(plugins), trusted, announce)
    return check(Source(read(path), overrides), path.stem, loader)


def load_eval(overrides: Sequence[str]) -> Eval:
    """A table [eval] that is made of overrides alone: `eval.features=digits`.

    Raises:
        SpecError: with every problem in it.
    """
    return check_eval(Source(parse("", "<eval>"), overrides))


def loads(text: str, overrides: Sequence[str] = (), *, folder: Path = Path()) -> Spec:
    """The spec in a text; plugin files are looked for in `folder`."""
    loader = _Loader(folder, (), True, lambda path: None)
    return check(Source(parse(text, "<spec>"), overrides), "spec", loader)


@dataclass(frozen=True)
class _Loader:
    """Runs the local files that a spec names, and those given beside it."""

    folder: Path
    given: tuple[Path, ...]
    trusted: bool
    announce: Callable[[Path], None]

    def __call__(self, source: Source) -> list[Plugin]:
        loaded = []
        for entry in source.data.get("plugins", []):
            table = {"file": entry} if isinstance(entry, str) else entry
            loaded.append(self._named(table["file"], table.get("sha256")))
        known = {plugin.sha256 for plugin in loaded}
        beside = [Plugin(path.name, self._run(path), path) for path in self.given]
        # A file given beside a spec is part of what the spec means, and recorded with it.
        loaded += [p for p in beside if self.trusted and p.sha256 not in known]
        return loaded

    def _named(self, file: str, recorded: str | None) -> Plugin:
        if self.trusted:
            path = self.folder / file
        else:
            found = [path for path in self.given if _sha256(path) == recorded]
            if not found:
                raise SetupError(
                    f"this was made with the local plugin file {file}, which is code\n"
                    f"  give it with --plugin FILE if you trust it; its SHA-256 was {recorded}"
                )
            path = found[0]
        if recorded not in (None, _sha256(path)):
            raise SetupError(
                f"plugin file {path} is not the one that was recorded\n"
                f"  recorded {recorded}\n  found    {_sha256(path)}"
            )
        return Plugin(file, self._run(path), path)

    def _run(self, path: Path) -> str:
        _sha256(path)  # what cannot be read is not announced
        self.announce(path)
        return load_file(path).version.removeprefix("sha256:")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SetupError(f"plugin file {path} cannot be read: {error.strerror}") from error
