"""What is printed is run: the code, specs, commands, outputs and links of the documents.

Fenced blocks are told apart by the words behind the fence:

    python          runs as it stands, each in a module of its own
    toml            is a whole spec: it loads, and its networks can be built
    toml fragment   is a piece of one, and good TOML
    toml broken     is refused
    console         `$ command`, then its output, in which `...` stands for what is left out
    sh              commands

A python or toml block whose first line is a comment with a file's name is put into a file of that
name, for the blocks behind it.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import typer

from gankit import cli
from gankit.build import build
from gankit.errors import SpecError
from gankit.evaluate import default_count, default_features, default_metrics
from gankit.extractors.inception_weights import PUBLISHED, WHERE
from gankit.recipes import find
from gankit.recipes import names as recipes
from gankit.registry import KINDS, registry
from gankit.registry.options import options_of
from gankit.slots import Dataset
from gankit.spec import Eval, Train, load, loads

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("[A-Z]*.md")), *sorted(ROOT.glob("docs/*.md"))]
DOCUMENTS = list(dict.fromkeys(DOCUMENTS))
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
INFOS = {"python", "toml", "toml fragment", "toml broken", "console", "sh", "text"}

CHEAP = {"build", "list", "show", "recipes"}
"""The commands whose outputs are compared; the others train, or need a run."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of the file that the block is to be put into."""
        found = re.match(r"# (\w+\.(?:py|toml))\n", self.text)
        return found and found[1]


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(document, text.count("\n", 0, m.start()) + 1, m[1].strip(), m[2])
        for m in FENCE.finditer(text)
    ]


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


def of(*infos: str) -> list[Block]:
    return [block for block in BLOCKS if block.info in infos]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents are read in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _only_ours() -> Iterator[None]:
    """Parts that a document declares are taken off the plug board again."""
    registry.find()
    known, loaded = dict(registry._entries), set(sys.modules)
    yield
    registry._entries = known
    for name in set(sys.modules) - loaded:
        if name.startswith(("gankit_plugin_", "document_")):
            del sys.modules[name]


def write_files(document: Path, folder: Path) -> None:
    for block in blocks_of(document):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")


def test_every_block_says_what_it_is() -> None:
    assert {block.info for block in BLOCKS} <= INFOS
    fences = sum(doc.read_text(encoding="utf-8").count("```") for doc in DOCUMENTS)
    assert fences == 2 * len(BLOCKS)


# --- code and specs


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_code_runs(block: Block) -> None:
    module = ModuleType(f"document_{block.line}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(block.text, str(block), "exec"), module.__dict__)


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_specs_build(block: Block, folder: Path) -> None:
    write_files(block.document, folder)
    build(loads(block.text, folder=folder), "meta")


@pytest.mark.parametrize("block", of("toml fragment"), ids=str)
def test_fragments_are_toml(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize("block", of("toml broken"), ids=str)
def test_broken_specs_are_refused(block: Block) -> None:
    with pytest.raises(SpecError):
        loads(block.text)


# --- commands

OPERATORS = {"|", ">", ">>", "<", "&&", "||", ";", "#", "2>", "&"}


def lines_of(block: Block) -> list[str]:
    """The command lines of a block."""
    text = block.text.replace("\\\n", " ")
    if block.info == "console":
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def commands_of(line: str) -> list[list[str]]:
    """The words of each command in a line, without comments and redirections."""
    words = shlex.split(line, comments=True)
    found: list[list[str]] = [[]]
    for word in words:
        if word in OPERATORS:
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]


UsageError = typer.BadParameter.__mro__[1]
"""Of the click that typer brings: what its parser raises for a command line it does not take."""


def complaint(words: list[str]) -> str:
    """What our own parser has against a command line; empty for one that it takes."""
    command, rest = typer.main.get_command(cli.app), words[1:]
    name = words[0]
    while hasattr(command, "commands"):
        name, *rest = rest
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    try:
        command.make_context(name, rest)
    except UsageError as error:
        return error.format_message()
    return ""


@cache
def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


SHOWN = [
    pytest.param(words, id=f"{block}-{' '.join(words)[:60]}")
    for block in of("console", "sh")
    for line in lines_of(block)
    for words in commands_of(line)
]


@pytest.mark.parametrize("words", SHOWN)
def test_commands_exist(words: list[str]) -> None:
    if words[0] == "make":
        assert set(words[1:]) <= targets()
    else:
        assert words[0] == "gankit"
        assert complaint(words) == ""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("gankit bild my.toml", "no command bild"),
        ("gankit build", "SPEC"),
        ("gankit build my.toml --sett seed=1", "--sett"),
        ("gankit build my.toml other.toml", "other.toml"),
        ("gankit train my.toml --steps 3", "--steps"),
        ("gankit train my.toml --threads many", "--threads"),
        ("gankit sample runs/a", "--out"),
        ("gankit list norm --options", "--options"),
        ("gankit data chek photos", "no command chek"),
        ("gankit data check folder --root photos", "--root"),
    ],
)
def test_commands_that_do_not_exist_are_noticed(line: str, told: str) -> None:
    assert told in complaint(shlex.split(line))


def test_commands_in_recipes_exist() -> None:
    """Those that a recipe begins with, in its comment."""
    told = {
        line
        for name in recipes()
        for line in re.findall(r"^# First: (gankit .*)$", find(name).read_text(), re.MULTILINE)
    }
    assert told
    for line in told:
        assert complaint(shlex.split(line)) == ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    mentioned = re.findall(r"`make ([a-z]+)`", document.read_text(encoding="utf-8"))
    assert set(mentioned) <= targets()


def test_the_readme_begins_with_two_commands() -> None:
    first = next(block for block in BLOCKS if block.info == "sh")
    assert first.document.name == "README.md"
    commands = [commands_of(line) for line in lines_of(first)]
    assert commands == [[["make", "demo"]], [["make", "test"]]]


# --- overrides


def overrides_in(words: list[str]) -> list[str]:
    return [after for word, after in pairwise(words) if word == "--set"]


def spec_of(words: list[str]) -> str:
    """The spec that a command overrides."""
    return words[words.index("--spec") + 1] if "--spec" in words else words[2]


OVERRIDDEN = [
    pytest.param(
        block.document, spec_of(words), overrides_in(words), id=f"{block}-{' '.join(words)}"
    )
    for block in of("sh")
    for line in lines_of(block)
    for words in commands_of(line)
    if "--set" in words
] + [
    pytest.param(ROOT / "docs/spec.md", "faces.toml", overrides_in(shlex.split(code)), id=code)
    for code in re.findall(r"`(--set [^`=]+=[^`]+)`", (ROOT / "docs/spec.md").read_text())
    if "PATH" not in code
]


@pytest.mark.parametrize(("document", "file", "overrides"), OVERRIDDEN)
def test_overrides_build(document: Path, file: str, overrides: list[str], folder: Path) -> None:
    write_files(document, folder)
    build(load(find(file), overrides), "meta")


# --- outputs


def outputs_of(block: Block) -> list[tuple[list[str], str]]:
    """Each command of a console block with the output that is shown for it."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block.text, re.MULTILINE)
    return [(shlex.split(line), shown) for line, shown in found]


def output(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints, both streams together."""
    monkeypatch.setattr(sys, "argv", words)
    said = io.StringIO()
    both = contextlib.redirect_stdout(said), contextlib.redirect_stderr(said)
    with both[0], both[1], contextlib.suppress(SystemExit):
        cli.main()
    return said.getvalue()


def agrees(shown: str, printed: str) -> bool:
    """Whether an output is as shown, but for blanks at line ends and what `...` stands for."""
    pattern = ""
    for line in shown.rstrip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += re.escape(line.rstrip()).replace(re.escape("..."), ".*") + r"[ ]*\n"
    return re.fullmatch(pattern, printed.rstrip() + "\n") is not None


COMPARED = [
    pytest.param(block, words, shown, id=f"{block}-{' '.join(words)[:60]}")
    for block in of("console")
    for words, shown in outputs_of(block)
    if words[0] == "gankit" and words[1] in CHEAP
]


@pytest.mark.parametrize(("block", "words", "shown"), COMPARED)
def test_outputs_are_as_shown(
    block: Block, words: list[str], shown: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(block.document, folder)
    printed = output(words, monkeypatch)
    # Where they differ, the two texts say more than a bool.
    assert agrees(shown, printed), f"shown:\n{shown}\nprinted:\n{printed}"


def test_outputs_that_differ_are_noticed() -> None:
    assert agrees("a\n...\nd 1... 3\n", "a   \nb\nc\nd 12 3\n")
    assert agrees("...\nb\n", "b\n")
    for printed in ("a\nb\n", "a\nd 1 3\ne\n", "x\na\nd 1 3\n", "a\nd 2 3\n"):
        assert not agrees("a\n...\nd 1... 3\n", printed)


# --- what the documents say there is


def ours(kind: str) -> list[str]:
    return [entry.name for entry in registry.find(kind) if entry.provider.name == "gankit"]


def test_the_readme_lists_the_parts() -> None:
    rows = re.findall(r"^\| (\w+) \| (`.*`) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = {kind: names.strip("`").split("` `") for kind, names in rows if kind in KINDS}
    assert listed == {kind: ours(kind) for kind in KINDS}


def test_the_readme_names_the_recipes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in recipes() if f"`{name}`" not in text] == []


def test_every_command_and_exit_code_is_described() -> None:
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    for name in typer.main.get_command(cli.app).commands:
        assert f"\n## gankit {name}\n" in text
    codes = re.compile(r"^\| (\d+) \| ", re.MULTILINE)
    assert codes.findall(text) == codes.findall((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("table", "record"), [("train", Train), ("eval", Eval)])
def test_every_key_of_a_table_is_described(table: str, record: type) -> None:
    text = (ROOT / "docs/spec.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## [{table}]\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(options_of(record))


def test_every_metric_and_all_features_are_described() -> None:
    text = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    which = text.partition("\n## Which metric\n")[2]
    metrics, _, features = which.partition("\n## Which features\n")
    named = re.findall(r"^\| [^|]* \| `(\w+)` \|", metrics, re.MULTILINE)
    assert sorted(named) == ours("metric")
    rows = features.partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)) == ours("features")


def test_scores_are_by_what_goes_with_the_data() -> None:
    text = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `(\w+)` \| (`.*`) \| ([\d,]+) \|$", text, re.M)
    told = {
        name: (features, metrics.strip("`").split("` `"), int(count.replace(",", "")))
        for names, features, metrics, count in rows
        for name in names.strip("`").split("`, `")
    }
    data = {name: bind_data(name) for name in told}
    assert told == {
        name: (default_features(one)[0], list(default_metrics(one)), default_count(one))
        for name, one in data.items()
    }
    assert set(told) == {name for name in ours("dataset") if name not in ("folder", "packed")}


def bind_data(name: str) -> Dataset:
    made: Dataset = registry.get("dataset", name).bind()
    return made


def test_the_published_weights_are_those_that_are_asked_for() -> None:
    text = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    assert re.findall(r"[0-9a-f]{64}", text.partition("## FIDs to compare")[2]) == [PUBLISHED]
    assert WHERE in text


def test_the_quickstart_has_the_hash_that_is_shown() -> None:
    shown = {
        found
        for document in DOCUMENTS
        for found in re.findall(
            r"quickstart-digits[- ]([0-9a-f]{8})", document.read_text(encoding="utf-8")
        )
    }
    assert shown == {load(find("quickstart_digits")).hash[:8]}


def test_every_kind_has_an_example() -> None:
    text = (ROOT / "docs/parts.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^@gankit\.(\w+)\(", text, re.MULTILINE)) == set(KINDS)


# --- links


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document: Path) -> list[str]:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    assert dead_links(document) == []


def test_dead_links_are_noticed(folder: Path) -> None:
    document = folder / "a.md"
    document.write_text("# A, b\n[1](a.md#a-b) [2](b.md) [3](#c) [4](https://example.org/x)\n")
    assert dead_links(document) == ["b.md", "#c"]
