"""The tables of mode collapse are those of the runs on record, and every row can be run again."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gankit.build import build
from gankit.together.fit import check_stackable

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("mode_collapse")
    sys.modules.pop("mode_collapse", None)


def check_page(script: Any) -> None:
    """Every table on the page is made of the rows there are."""
    text = script.PAGE.read_text(encoding="utf-8")
    for data in script.DATA:
        between = text.partition(f"<!-- {data} -->\n")[2].partition(f"<!-- end of {data} -->")[0]
        assert between.splitlines() == [*script.table(data)], data


def test_the_page_shows_the_rows_on_record(script: Any) -> None:
    check_page(script)


def test_twin_a_row_that_the_page_does_not_have_is_found(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = script.rows()
    file = tmp_path / "rows.csv"
    file.write_text(script.ROWS.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(script, "ROWS", file)
    check_page(script)
    script.add(
        {**first, "seed": 10, "hash": script.identity(script.spec_of("ring", "recommended", 10))}
    )
    with pytest.raises(AssertionError):
        check_page(script)


def test_rows_are_of_the_recipes_as_they_are(script: Any) -> None:
    """A row of a recipe that has changed since says nothing of the one that ships."""
    with script.ROWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        spec = script.spec_of(row["data"], row["variant"], int(row["seed"]))
        assert row["hash"] == script.identity(spec), row


def test_every_variant_is_a_spec_of_its_own(script: Any) -> None:
    for data in script.DATA:
        found = {}
        for variant in script.VARIANTS:
            spec = script.spec_of(data, variant, 0)
            build(spec, "meta")
            if data != "stacked_digits":
                check_stackable(spec)
            found[script.identity(spec)] = variant
        assert len(found) == len(script.VARIANTS), data


def test_seeds_are_read(script: Any) -> None:
    assert script.seeds_of("0-3") == [0, 1, 2, 3]
    assert script.seeds_of("4,7") == [4, 7]
