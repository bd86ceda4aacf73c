"""`gankit compare`: two sets of scores side by side, where they were made in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gankit.cli.common import tell
from gankit.cli.tables import number, show
from gankit.errors import UsageError, choices

if TYPE_CHECKING:
    from gankit.evaluate import Compared, Scores

__all__ = ["compare"]


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run, or scores that eval wrote.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="A line of the card that may differ: truncation."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine output.")] = False,
) -> None:
    """Two sets of scores side by side; refused where they were not made in the same way."""
    from gankit.evaluate import compared

    ones, others = _found(one), _found(other)
    known = {line for scores in (*ones, *others) for line in scores.card.lines}
    for line in allow or ():
        if line not in known:
            raise UsageError(f'--allow: no card has a line "{line}"; {choices(line, known)}')
    rows = list(compared(ones, others, allow or ()))
    if not rows:
        names = [
            ", ".join(dict.fromkeys(n for s in found for n in s.values)) for found in (ones, others)
        ]
        raise UsageError(
            f"they have no score in common\n  {one}: {names[0]}\n  {other}: {names[1]}"
        )
    if all(row.unlike for row in rows):
        lines = dict.fromkeys(str(each) for row in rows for each in row.unlike)
        raise UsageError(
            "these scores were not made in the same way\n  " + "\n  ".join(lines) + "\n"
            "  score both in the same way, or let a line differ: --allow LINE"
        )
    if as_json:
        print(json.dumps([_row(row) for row in rows]))
        return
    _print(one, other, rows)
    for note in dict.fromkeys(note for scores in (*ones, *others) for note in scores.notes):
        tell(f"note: {note}")


def _row(row: Compared) -> dict[str, Any]:
    told = {"score": row.name, "a": row.one, "b": row.other, "better": row.better}
    verdict = {"one": "a", "other": "b"}.get(row.verdict, "")
    unlike = [str(each) for each in row.unlike]
    return told | {"verdict": verdict, "unlike": unlike, "card": dict(row.protocol)}


def _found(path: Path) -> list[Scores]:
    """The scores of a run, the newest step last, or in a file."""
    from gankit.evaluate import files_of, read

    if path.is_file():
        return read(path)
    if not path.exists():
        raise UsageError(f"there is no {path}")
    files = files_of(path)
    if not files:
        raise UsageError(f"{path} has no scores yet: gankit eval {path}")
    _, newest = files[-1]
    return read(newest)


def _print(one: Path, other: Path, rows: list[Compared]) -> None:
    """A row for each score, and under them the lines that both cards have."""
    from rich.table import Table

    from gankit.evaluate import Card

    table = Table("score", str(one), str(other), "", box=None, pad_edge=False)
    for row in rows:
        said = {"one": "the first is better", "other": "the second is better"}.get(row.verdict, "")
        if row.unlike:
            said = "not made in the same way: " + ", ".join(each.line for each in row.unlike)
        table.add_row(row.name, number(row.one), number(row.other), said)
    for column in table.columns[1:3]:
        column.justify = "right"
    show(table)
    shared: dict[str, list[str]] = {}
    for row in rows:
        for line, text in row.protocol.items() if not row.unlike else ():
            if text not in shared.setdefault(line, []):
                shared[line].append(text)
    print(f"\n{Card({line: ' and '.join(texts) for line, texts in shared.items()})}")
    unlike = dict.fromkeys(str(each) for row in rows for each in row.unlike)
    if unlike:
        print("\nnot made in the same way\n  " + "\n  ".join(unlike))
