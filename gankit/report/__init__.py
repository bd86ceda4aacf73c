"""A run as one page of HTML: numbers, warnings, samples, curves, spec and environment."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from gankit.errors import SetupError
from gankit.report.facts import FORMATS, facts
from gankit.report.records import Run

__all__ = ["report", "write"]


def write(run: Path, out: Path | None = None) -> Path:
    """Write a run's report, by default into its folder; gives the file.

    Raises:
        UsageError: there is no run.
        SetupError: the folder cannot be read, or the file not be written.
    """
    out = out or run / "report.html"
    if out.is_dir():
        raise SetupError(f"cannot write {out}: it is a folder")
    text = report(run)
    unfinished = out.with_name(f".{out.name}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        # Whoever loads the page meanwhile sees the old one or the new one.
        unfinished.replace(out)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise SetupError(f"cannot write {out}: {error.strerror or error}") from error
    return out


def report(run: Path) -> str:
    """The page of a run folder, from its files alone; nothing in them is executed.

    The same files give the same page. It loads nothing: a browser is told to refuse whatever is
    not in the page itself.

    Raises:
        UsageError: there is no run.
        SetupError: the folder cannot be read.
    """
    from jinja2 import Environment, StrictUndefined

    folder = files("gankit.report")
    html, css, js = (
        folder.joinpath(f"page.{suffix}").read_text(encoding="utf-8")
        for suffix in ("html", "css", "js")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FORMATS
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    page = environment.from_string(html)
    return page.render(css=css, js=js, js_digest=digest, **facts(Run(run)))
