"""Cards and scores: what compares and what does not, and files that anybody may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from gankit.errors import DataError
from gankit.evaluate import SUBJECT, Card, Difference, Scores, compared, read, write

PROTOCOL = {
    "truncation": "none",
    "count": "1,000 generated, 1,797 real",
    "data": 'digits(size = 16, channels = 1, split = "all")',
    "held out": "355 real",
    "features": "inception",
    "features weights": "6726825d",
    "features resize": "to 299 x 299",
}
LINES = {
    **{line: f"some {line}" for line in SUBJECT},
    **PROTOCOL,
    "metric frechet": "frechet(singular = false)",
    "metric prdc": "prdc(density_k = 5)",
}


def scores(lines: dict[str, str] | None = None, **values: float) -> Scores:
    values = values or {"frechet": 2.0, "recall": 0.5}
    of = {name: "frechet" if name == "frechet" else "prdc" for name in values}
    better = {name: "lower" if name == "frechet" else "higher" for name in values}
    return Scores(values, of, better, Card(lines or LINES))


def unlike(one: Scores, other: Scores, allow: Sequence[str] = ()) -> dict[str, list[str]]:
    return {row.name: [each.line for each in row.unlike] for row in compared([one], [other], allow)}


# --- what compares


@pytest.mark.parametrize("line", [*LINES, "another"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_line_that_differs_is_refused_and_named(line: str, how: str) -> None:
    """Each line of the protocol, and no other; of a metric's options only its own scores."""
    lines = {k: v for k, v in LINES.items() if k != line}
    if how == "changed":
        lines[line] = "otherwise"
    elif line not in LINES:
        return
    for one, other in ((LINES, lines), (lines, LINES)):
        found = unlike(scores(one), scores(other))
        whose = {"metric frechet": ["frechet"], "metric prdc": ["recall"]}
        expected = [] if line in SUBJECT else whose.get(line, ["frechet", "recall"])
        assert found == {name: [line] * (name in expected) for name in ("frechet", "recall")}
        assert not any(unlike(scores(one), scores(other), [line]).values())


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)


@examples(
    one=st.dictionaries(st.sampled_from([*LINES, "x"]), st.sampled_from("ab")),
    other=st.dictionaries(st.sampled_from([*LINES, "x"]), st.sampled_from("ab")),
)
def test_cards_compare_when_their_protocols_are_equal(
    one: dict[str, str], other: dict[str, str]
) -> None:
    mine = {k: v for k, v in one.items() if k not in SUBJECT and k != "metric prdc"}
    its = {k: v for k, v in other.items() if k not in SUBJECT and k != "metric prdc"}
    expected = {k for k in mine.keys() | its.keys() if mine.get(k) != its.get(k)}
    found = list(Card(one).differences(Card(other), "frechet"))
    assert {each.line for each in found} == expected
    assert len(found) == len(expected)
    back = Card(other).differences(Card(one), "frechet")
    assert {(d.line, d.other, d.one) for d in back} == {(d.line, d.one, d.other) for d in found}


@pytest.mark.parametrize("line", [line for line in PROTOCOL if line not in SUBJECT])
def test_a_card_that_leaves_a_line_out_would_be_seen(line: str) -> None:
    """The twin of the property: one line taken for the subject's."""
    other = scores({**LINES, line: "otherwise"})
    with mock.patch("gankit.evaluate.card.SUBJECT", (*SUBJECT, line)):
        assert not any(unlike(scores(), other).values())
    assert all(unlike(scores(), other).values())


def test_a_difference_reads_as_it_is() -> None:
    assert str(Difference("count", "1", "2")) == "count: 1 against 2"
    assert str(Difference("held out", None, "2")) == "held out: nothing against 2"


def test_the_better_of_two_is_told_only_where_they_compare() -> None:
    one, other = scores(frechet=1.0, recall=0.4), scores(frechet=2.0, recall=0.6)
    assert [row.verdict for row in compared([one], [other])] == ["one", "other"]
    assert [row.verdict for row in compared([other], [one])] == ["other", "one"]
    assert [row.verdict for row in compared([one], [one])] == ["", ""]
    unlike_it = replace(other, card=Card({**LINES, "count": "2"}))
    assert [row.verdict for row in compared([one], [unlike_it])] == ["", ""]
    assert [row.verdict for row in compared([one], [unlike_it], ["count"])] == ["one", "other"]
    silent = replace(one, better={})
    assert [row.verdict for row in compared([silent], [other])] == ["", ""]


def test_of_several_scores_the_newest_that_compare_are_taken() -> None:
    few = {**LINES, "count": "10"}
    ones = [scores(frechet=1.0), scores(frechet=2.0), scores(few, frechet=3.0)]
    (row,) = compared(ones, [scores(frechet=5.0)])
    assert (row.one, row.other, list(row.unlike)) == (2.0, 5.0, [])
    (row,) = compared(ones[2:], [scores(frechet=5.0)])
    assert (row.one, [each.line for each in row.unlike]) == (3.0, ["count"])


def test_what_a_score_was_made_with_is_told_beside_it() -> None:
    (row,) = compared([scores(frechet=1.0)], [scores({**LINES, "seed": "9"}, frechet=1.0)])
    assert row.protocol == {**PROTOCOL, "metric frechet": LINES["metric frechet"]}


def test_scores_of_other_names_are_no_rows() -> None:
    assert list(compared([scores(frechet=1.0)], [scores(recall=1.0)])) == []


# --- on the disk

TABLE = st.dictionaries(TEXT, TEXT, max_size=4)
NUMBERS = st.floats(-1e299, 1e299)
MADE = st.builds(
    lambda values, card, notes: Scores(
        values,
        dict.fromkeys(values, "m"),
        dict.fromkeys(list(values)[::2], "lower"),
        Card(card),
        tuple(notes),
    ),
    st.dictionaries(TEXT, NUMBERS, min_size=1, max_size=4),
    TABLE,
    st.lists(TEXT, max_size=2),
)


@examples(made=st.lists(MADE, min_size=1, max_size=4))
def test_what_is_written_is_read_and_of_one_card_the_last_stays(
    tmp_path_factory: pytest.TempPathFactory, made: list[Scores]
) -> None:
    file = tmp_path_factory.mktemp("scores") / "eval" / "step_1.json"
    for each in made:
        write(file, each)
    expected = [
        each
        for index, each in enumerate(made)
        if each.card not in [later.card for later in made[index + 1 :]]
    ]
    assert read(file) == expected
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_of_something_else_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "notes.json"
    file.write_text("[]")
    with pytest.raises(DataError, match="holds no scores"):
        write(file, scores())
    assert file.read_text() == "[]"


def broken(**changed: Any) -> str:
    return json.dumps([{**scores().json(), **changed}])


HOSTILE = {
    "nothing": "",
    "cut short": broken()[:-40],
    "no list": json.dumps(scores().json()),
    "a number": "3",
    "a list of numbers": "[3]",
    "an empty list": "[]",
    "no scores": json.dumps([{"of": {}}]),
    "scores in words": broken(scores={"frechet": "2.0"}),
    "scores that are flags": broken(scores={"frechet": True}),
    "no number": broken(scores={"frechet": math.nan}),
    "infinite": broken(scores={"frechet": math.inf}),
    "beyond all floats": broken(scores={"frechet": 10**400}),
    "a score of nobody": broken(of={}),
    "a metric that is a number": broken(of={"frechet": 1, "recall": 1}),
    "better in another word": broken(better={"frechet": "greener"}),
    "better that is a list": broken(better={"frechet": []}),
    "a card of numbers": broken(card={"count": 3}),
    "a card that is a list": broken(card=[["a", "b", "c"]]),
    "notes that are numbers": broken(notes=[1]),
    "a floor of words": broken(floor={"frechet": "1.7"}),
    "a floor that is a number": broken(floor=3),
    "a floor beyond all floats": broken(floor={"frechet": 10**400}),
    "nested without end": "[" * 100_000,
    "digits without end": "[" + "9" * 10_000 + "]",
    "not text": "\ud800",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_files_that_hold_no_scores_are_refused_in_words(case: str, tmp_path: Path) -> None:
    file = tmp_path / "step_1.json"
    file.write_bytes(HOSTILE[case].encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"step_1\.json holds no scores"):
        read(file)


def test_a_folder_is_no_file_of_scores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        read(tmp_path / "nowhere.json")


@settings(max_examples=60)
@examples(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_gives_scores_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int
) -> None:
    content = bytearray(broken().encode())
    content[int(place * len(content))] = byte
    file = tmp_path_factory.mktemp("scores") / "step_1.json"
    file.write_bytes(content)
    try:
        found = read(file)
    except DataError:
        return
    assert all(math.isfinite(value) for each in found for value in each.values.values())
    assert unlike(found[0], found[0]) == {name: [] for name in found[0].values}
