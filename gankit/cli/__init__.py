"""The command line. Every command imports what it needs when it runs, so `--help` is quick."""

from __future__ import annotations

import errno
import os
import sys

import typer

from gankit.cli import (
    bench,
    build,
    compare,
    convert,
    data,
    evaluate,
    export,
    parts,
    recipes,
    report,
    sample,
    train,
)
from gankit.cli.common import tell
from gankit.errors import GankitError, SetupError

__all__ = ["app", "main"]

app = typer.Typer(
    name="gankit",
    help="Interchangeable GAN parts, composed by a declarative spec.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("build")(build.build)
app.command("train")(train.train)
app.command("bench")(bench.bench)
app.command("sample")(sample.sample)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("import")(convert.convert)
app.command("report")(report.report)
app.add_typer(data.app, name="data", help="Look at images, pack them, look after what is packed.")
app.command("list")(parts.list_parts)
app.command("show")(parts.show)
app.command("recipes")(recipes.list_recipes)
app.command("copy")(recipes.copy)


def _version(wanted: bool) -> None:
    if wanted:
        from gankit import __version__

        print(f"gankit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; errors that a user can meet are told without a traceback."""
    if sys.stderr is None:
        # Closed by `2>&-`: what is opened next would take its place, and what is told go to stdout.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except GankitError as error:
        _tell(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # Python would complain once more on closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:
            sys.exit(0)  # the reader, `head` say, has seen enough
        print(f"error: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.exit(SetupError.exit_code)
    except SystemExit as end:
        # Typer makes an exit code of 1 of a reader that has seen enough.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)


def _tell(error: GankitError) -> None:
    """An error, once: of several processes that make the same mistake the first tells of it."""
    message = str(error)
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        if not isinstance(error, SetupError):
            return
        message = f"process {rank}: {message}"
    tell(message if message.startswith("error: ") else f"error: {message}")
