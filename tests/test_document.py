"""The scanner finds what tomllib finds, where it stands; and what is refused, with which words."""

from __future__ import annotations

import codecs
import pathlib
import random
import tomllib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from gankit.errors import Place, Problem, SpecError, UsageError
from gankit.spec import positions
from gankit.spec.document import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_WORD,
    Document,
    Path,
    dotted,
    parse,
    read,
)

ODD = ["1", "-", "true", "", "a.b", "ä ☃ 𝄞", "[x]", "#", "= 1", 'q"', "l'", "\\", "\n\t"]
NAMES = st.lists(st.sampled_from(["a", "b", *ODD]), unique=True, max_size=3)
BLANKS = ["", "", " ", "\t", "  "]
COMMENTS = ["", "", "# [x]", '# a = """', "#'''{", "# ä ☃ 𝄞"]


class Layout:
    """Writes TOML of drawn keys and nesting, in a random layout; no two of its values are equal."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.random = random.Random(draw(st.integers(0, 10_000)))
        self.written = 0
        self.newline = self.pick(["\n", "\r\n"])

    def pick(self, options: list[Any]) -> Any:
        return self.random.choice(options)

    def blank(self) -> str:
        return self.pick(BLANKS)

    def end(self) -> str:
        return self.blank() + self.pick(COMMENTS) + self.newline + self.pick(["", self.newline])

    def names(self) -> list[str]:
        return self.draw(NAMES)

    def name(self, name: str) -> str:
        forms = ['"' + "".join(escaped(c) for c in name) + '"']
        if name.isascii() and name.replace("-", "a").isalnum():
            forms.append(name)
        if "'" not in name and "\n" not in name:
            forms.append(f"'{name}'")
        return self.pick(forms)

    def key(self, names: list[str]) -> str:
        key = self.name(names[0])
        for name in names[1:]:
            key += self.blank() + "." + self.blank() + self.name(name)
        return key

    def scalar(self) -> str:
        self.written += 1
        n = self.written
        return self.pick(
            [
                f"{n}",
                f"-{n}.5e1",
                f"0x{n:x}",
                f"2000-01-01 00:00:{n % 60:02}.{n:06}Z",
                f'"{n} # [\\"] ä"',
                f"'{n} \\ ,]'",
                f'"""{self.newline}{n} " \\""" = \\{self.newline}  ]""""',
                f"'''{n}{self.newline}' ''{self.newline}'''''",
            ]
        )

    def gap(self) -> str:
        return self.pick(["", " ", self.newline, self.end(), self.end() + self.blank()])

    def array(self, depth: int) -> str:
        entries = [self.value(depth - 1) for _ in range(self.draw(st.integers(0, 3)))]
        text = "["
        for index, entry in enumerate(entries):
            text += ("," if index else "") + self.gap() + entry + self.gap()
        return text + ("," if entries and self.pick([True, False]) else "") + self.gap() + "]"

    def inline(self, depth: int) -> str:
        pairs = []
        for name in self.names():
            for names in self.branches(name, depth):
                pairs.append(self.pair(names, depth - 1))
        return "{" + ",".join(self.blank() + pair + self.blank() for pair in pairs) + "}"

    def value(self, depth: int) -> str:
        kinds = [self.scalar] + [lambda: self.array(depth), lambda: self.inline(depth)] * (
            depth > 0
        )
        return self.pick(kinds)()

    def pair(self, names: list[str], depth: int) -> str:
        return self.key(names) + self.blank() + "=" + self.blank() + self.value(depth)

    def branches(self, name: str, depth: int) -> list[list[str]]:
        """A plain key, or dotted keys that share their beginning."""
        inner = self.names() if depth > 0 and self.pick([True, False]) else []
        return [[name, *rest] for n in inner for rest in self.branches(n, depth - 1)] or [[name]]

    def table(self, path: list[str], depth: int, entry: bool = False) -> str:
        """The pairs of a table under its header, before or after the tables below it."""
        own = [b for name in self.names() for b in self.branches(name, 2)]
        taken = {names[0] for names in own}
        below = [n for n in self.names() if n not in taken] if depth > 0 else []
        text = ""
        if path:
            inside = self.blank() + self.key(path) + self.blank()
            text += f"[[{inside}]]" if entry else f"[{inside}]"
            text += self.end()
        for names in own:
            text += self.blank() + self.pair(names, 2) + self.end()
        if below and path and not entry and not own and self.pick([True, False]):
            text = ""
        after = ""
        for name in below:
            if self.pick([True, False]):
                after += self.table([*path, name], depth - 1)
            else:
                for _ in range(self.pick([1, 2])):
                    after += self.table([*path, name], depth - 1, entry=True)
        return after + text if path and not entry and self.pick([True, False]) else text + after


def escaped(c: str) -> str:
    return {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "a": "\\u0061"}.get(c, c)


@st.composite
def documents(draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    return Layout(draw).table([], 2)


def paths(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every path in what tomllib returned, with its value."""
    if path:
        yield path, data
    steps: Iterable[tuple[str | int, Any]] = ()
    if isinstance(data, dict):
        steps = data.items()
    elif isinstance(data, list):
        steps = enumerate(data)
    for step, value in steps:
        yield from paths(value, (*path, step))


def at(document: Document, place: Place) -> str:
    """What stands at a place, found by its line and column alone."""
    line = document.text.split("\n")[place.line - 1].removesuffix("\r")
    assert place.source == line
    assert place.name == document.name
    assert 1 <= place.column <= place.column + place.width - 1 <= len(line)
    return line[place.column - 1 :][: place.width]


def check(document: Document) -> None:
    """Every path of the data has its places, they alone have, and there it stands."""
    found = dict(paths(document.data))
    assert set(document.spans) == set(found)
    for path, value in found.items():
        key, shown = at(document, document.key(path)), at(document, document.value(path))
        start, end = document.spans[path][1]
        whole = document.text[start:end]
        assert whole.startswith(shown)
        if isinstance(path[-1], str):
            assert tomllib.loads(f"{key} = 1") == {path[-1]: 1}
        elif isinstance(value, dict) and shown[0] != "{":
            assert tomllib.loads(f"{key} = 1") == {path[-2]: 1}
        else:
            assert document.key(path) == document.value(path)
        if isinstance(value, dict | list) and shown[0] not in "{[":
            assert document.key(path) == document.value(path)
        else:
            assert tomllib.loads(f"x = {whole}") == {"x": value}


@settings(max_examples=200, deadline=None)
@given(documents())
@example("a = 1\r\n[b]  \r\nc = [ # no\r\n]\r\n")
@example("[a.b.c]\nx = 1\n[a]\nb.d = 2\n")
def test_every_path_has_its_place(text: str) -> None:
    check(parse(text, "x.toml"))


STATEMENTS = [
    "a = 1",
    "b = [1, {a = 2}]",
    "a.b = {a = 1, b.c = 2}",
    "a.b.c = 3",
    "a = {b = 1, b = 2}",
    "c = {a.b = 1, a.c = {}, a.b.c = 2}",
    "[a]",
    "[a.b]",
    "[a.b.c]",
    "[[a]]",
    "[[a.b]]",
    "[b]",
    "[[b]]",
    "[c.a]",
    '"\\u0061"."b c" = """\n[a]"""',
    "a = oops",
    "[a",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(STATEMENTS), max_size=6).map("\n".join))
def test_tomllib_is_the_judge(text: str) -> None:
    """Statements that may repeat or contradict each other: refused if tomllib refuses them."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        with pytest.raises(SpecError) as refused:
            parse(text, "x.toml")
        (problem,) = refused.value.problems
        assert problem.place is not None
        if str(error).startswith(("Cannot", "Duplicate")):
            assert int(problem.hint.split()[-1]) <= problem.place.line
            assert "twice" in problem.message or "cannot be added" in problem.message
    else:
        check(parse(text, "x.toml"))


@settings(max_examples=200, deadline=None)
@given(documents(), st.data())
def test_damaged_text_is_read_or_refused_in_words(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    extra = data.draw(st.text(alphabet="\"'[]{}=.,#\\\n\r\0 a1\ud800é", max_size=3))
    damaged = text[:at] + extra + text[at + data.draw(st.integers(0, 3)) :]
    problems: list[Problem] = []
    try:
        check(parse(damaged, "x.toml"))
    except SpecError as error:
        problems = error.problems
    assert all(p.place and p.render() for p in problems)


class WithoutDots(positions.Scanner):
    """Takes the last name of a dotted key for all of it."""

    def key(self) -> list[positions.Part]:
        return super().key()[-1:]


class WithoutEntries(positions.Scanner):
    """Takes every [[x]] for the first."""

    def header(self) -> Path:
        self.entries.clear()
        return super().header()


class WithoutEscapes(positions.Scanner):
    """Takes quoted names as they are written."""

    def key(self) -> list[positions.Part]:
        return [(self.text[start:end], (start, end)) for _, (start, end) in super().key()]


class OneOff(positions.Scanner):
    """Places values one character late."""

    def value(self, path: Path) -> positions.Span:
        start, end = super().value(path)
        return start + 1, end


class WithoutComments(positions.Scanner):
    """Takes brackets in comments for brackets."""

    def closed(self, bracket: str) -> bool:
        while self.text[self.at] in " \t\r\n,#":
            self.at += 1
        return super().closed(bracket)


@pytest.mark.parametrize(
    "scanner", [WithoutDots, WithoutEntries, WithoutEscapes, OneOff, WithoutComments]
)
def test_the_property_catches_a_broken_scanner(
    scanner: type[positions.Scanner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gankit.spec.document.Scanner", scanner)

    def fails(text: str) -> bool:
        tomllib.loads(text)
        try:
            check(parse(text, "x.toml"))
        except Exception:
            return True
        return False

    quick = settings(phases=[Phase.generate], database=None, deadline=None, max_examples=200)
    find(documents(), fails, settings=quick)


def test_the_scanner_itself_is_not_caught() -> None:
    """Else the twins above would show nothing."""
    quick = settings(phases=[Phase.generate], database=None, deadline=None, max_examples=20)
    with pytest.raises(NoSuchExample):
        find(documents(), lambda text: check(parse(text, "x.toml")) is not None, settings=quick)


LAYOUT = """\
name = "sagan" # comment
  seed\t=\t0x2A
train . "ema" . 'half life' = 10_000
betas = [0.0, 0.9]
[generator]   # a table
norm = ["spectral",   # why
  "batchnorm",
]
attention = { use = "self", at = [32, {x.y = 1}] }
[ a . "b c" ]
'ä' = '☃'
text = \"""one ] }
two\"""
raw = '''it''''
when = 1979-05-27 07:32:00
[[schedule]]
[[schedule]]
n = 1
[schedule.sub]
"""

PLACES: dict[Path, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    ("name",): ((1, 1, 4), (1, 8, 7)),
    ("seed",): ((2, 3, 4), (2, 10, 4)),
    ("train",): ((3, 1, 5), (3, 1, 5)),
    ("train", "ema"): ((3, 9, 5), (3, 9, 5)),
    ("train", "ema", "half life"): ((3, 17, 11), (3, 31, 6)),
    ("betas",): ((4, 1, 5), (4, 9, 10)),
    ("betas", 1): ((4, 15, 3), (4, 15, 3)),
    ("generator",): ((5, 2, 9), (5, 2, 9)),
    ("generator", "norm"): ((6, 1, 4), (6, 8, 20)),
    ("generator", "norm", 0): ((6, 9, 10), (6, 9, 10)),
    ("generator", "norm", 1): ((7, 3, 11), (7, 3, 11)),
    ("generator", "attention"): ((9, 1, 9), (9, 13, 38)),
    ("generator", "attention", "use"): ((9, 15, 3), (9, 21, 6)),
    ("generator", "attention", "at", 1): ((9, 39, 9), (9, 39, 9)),
    ("generator", "attention", "at", 1, "x"): ((9, 40, 1), (9, 40, 1)),
    ("generator", "attention", "at", 1, "x", "y"): ((9, 42, 1), (9, 46, 1)),
    ("a",): ((10, 3, 1), (10, 3, 1)),
    ("a", "b c"): ((10, 7, 5), (10, 7, 5)),
    ("a", "b c", "ä"): ((11, 1, 3), (11, 7, 3)),
    ("a", "b c", "text"): ((12, 1, 4), (12, 8, 10)),
    ("a", "b c", "raw"): ((14, 1, 3), (14, 7, 9)),
    ("a", "b c", "when"): ((15, 1, 4), (15, 8, 19)),
    ("schedule",): ((16, 3, 8), (16, 3, 8)),
    ("schedule", 0): ((16, 3, 8), (16, 3, 8)),
    ("schedule", 1): ((17, 3, 8), (17, 3, 8)),
    ("schedule", 1, "n"): ((18, 1, 1), (18, 5, 1)),
    ("schedule", 1, "sub"): ((19, 11, 3), (19, 11, 3)),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("path", PLACES, ids=dotted)
def test_places(path: Path, newline: str) -> None:
    document = parse(LAYOUT.replace("\n", newline), "my.toml")
    found = [(p.line, p.column, p.width) for p in (document.key(path), document.value(path))]
    assert found == list(PLACES[path])


def test_a_header_is_the_place_of_its_table_even_after_a_mention_of_it() -> None:
    document = parse("[a.b]\n[a]\n", "my.toml")
    assert document.key(("a",)).line == 2


def test_a_path_that_is_not_there_has_no_place() -> None:
    with pytest.raises(KeyError):
        parse("a = 1", "my.toml").value(("b",))


def test_dotted_is_how_people_write_a_path() -> None:
    assert dotted(("penalty", 0, "a key", "ä", "x-1")) == 'penalty[0]."a key"."ä".x-1'


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    for source in (codecs.BOM_UTF8 + b"a = 1", "\ufeffa = 1"):
        document = parse(source, "my.toml")
        assert document.text == "a = 1"
        assert document.key(("a",)).column == 1


def refusal(source: bytes | str) -> str:
    with pytest.raises(SpecError) as refused:
        parse(source, "my.toml")
    assert len(refused.value.problems) == 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        ("a = 1\nb = \n", "invalid value", 2, 5),
        ("a = [1, 2", "unclosed array", 1, 10),
        ("a = 1\nb\n", "expected '=' after a key in a key/value pair", 2, 2),
        ("a = 1\r\nb = 2 c\r\n", "expected newline or end of document after a statement", 2, 7),
        ('a = "\0"', "illegal character '\\x00'", 1, 6),
        ("a = 1 # \x1b[31m", "found invalid character '\\x1b'", 1, 9),
        ('"ä" = "☃\\q"', "unescaped '\\' in a string", 1, 11),
        ("a = 2021-02-30", "invalid date or datetime", 1, 5),
        (b'a = 1\r\n\xc3\xa4 = "x\xff"', "byte 0xff is not UTF-8", 2, 7),
        ("a = 1".encode("utf-16"), "byte 0xff is not UTF-8", 1, 1),
        ("a = '\ud800'", "byte 0xed is not UTF-8", 1, 6),
        ("a = " + "[" * 33, "brackets are nested more than 32 deep", 1, 37),
        ("a = " + "{a = " * 33, "brackets are nested more than 32 deep", 1, 165),
        (".".join("a" * 33) + " = 1", "a dotted key has more than 32 names", 1, 64),
        ("[" + " . ".join(["'a'"] * 33) + "]", "a dotted key has more than 32 names", 1, 192),
        ("a = " + "9" * 501, "a number or bare key has more than 500 characters", 1, 5),
        ("a = " + ".".join("x" * 20000), "a dotted key has more than 32 names", 1, 68),
        ("a = " + "[" * 100_000, "brackets are nested more than 32 deep", 1, 37),
    ],
)
def test_refusals(source: bytes | str, message: str, line: int, column: int) -> None:
    shown = refusal(source)
    assert shown.startswith(f"error: {message}\n")
    assert f"--> my.toml:{line}:{column}\n" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("source", "message", "line", "column", "hint"),
    [
        ("a = 1\n\na = 2", "a is defined twice", 3, 1, "first on line 1"),
        ("'a b'.c = 1\r\n'a b'.c = 2", '"a b".c is defined twice', 2, 7, "first on line 1"),
        ("[a]\nb = 1\n[a]", "a is defined twice", 3, 2, "first on line 1"),
        ("[a]\n[[a]]", "a is defined twice", 2, 3, "first on line 1"),
        ("[[a]]\n[a]", "a is defined twice", 2, 2, "first on line 1"),
        ("a = [1]\n[[a]]", "a is defined twice", 2, 3, "first on line 1"),
        ("[[a]]\n[[a]]\nb = 1\nb = 2", "a[1].b is defined twice", 4, 1, "first on line 3"),
        ("x = {a = 1, a = 2}", "x.a is defined twice", 1, 13, "first on line 1"),
        ("x = 1\nx = [1,\n{a = 2}]", "x is defined twice", 2, 1, "first on line 1"),
        ("a = 1\na.b.c = 2", "a.b.c cannot be added to a", 2, 5, "which is defined on line 1"),
        ("a = {b = 1}\n[a.c]", "a.c cannot be added to a", 2, 4, "which is defined on line 1"),
    ],
)
def test_what_is_defined_twice(
    source: str, message: str, line: int, column: int, hint: str
) -> None:
    shown = refusal(source)
    assert shown.startswith(f"error: {message}\n")
    assert f"--> my.toml:{line}:{column}\n" in shown
    assert shown.endswith(f"^ {hint}")


@pytest.mark.parametrize(
    ("value", "hint"),
    [("resnet", 'did you mean "resnet"?'), ("True", "write true"), ("FALSE", "write false")],
)
def test_a_bare_word_is_offered_as_what_it_may_mean(value: str, hint: str) -> None:
    assert refusal(f"use = {value} # x\n").endswith("^" * len(value) + " " + hint)


def test_the_last_that_is_small_enough() -> None:
    nested = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    check(parse(f"a = {nested}\n" + ".".join("b" * MAX_DEPTH) + " = 1\n", "x.toml"))
    check(parse("a = " + "9" * MAX_WORD, "x.toml"))
    check(parse("# [".ljust(MAX_BYTES, "["), "x.toml"))
    check(parse("a = '" + "." * 100 + "[" * 100 + "'" + "\n# " + "." * 100, "x.toml"))


def test_tables_that_are_deep_in_sum_are_refused() -> None:
    key = ".".join("a" * MAX_DEPTH)
    shown = refusal(f"{key} = {{ {key} = {{ {key} = 1 }} }}")
    assert shown.startswith("error: tables and lists are nested more than 64 deep\n")


def test_a_text_that_is_too_large_is_refused_with_its_size() -> None:
    shown = refusal(b"#" * 1_000_000)
    assert shown == "error: my.toml has 1,000,000 bytes; a spec may have 262,144"


def test_read(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "my.toml"
    file.write_bytes(b"a = 1\r\n")
    document = read(file)
    assert (document.name, document.text, document.data) == (str(file), "a = 1\r\n", {"a": 1})
    file.write_bytes(b"#" * 1_000_000)
    with pytest.raises(SpecError, match="1,000,000 bytes"):
        read(file)


@pytest.mark.parametrize("name", ["missing.toml", ".", "nul\0"])
def test_what_cannot_be_read_is_a_usage_error(name: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read ") as refused:
        read(tmp_path / name)
    assert refused.value.exit_code == 2
