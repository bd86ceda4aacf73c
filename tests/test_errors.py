"""What people read when something is wrong: the words, the place, the caret and the exit code."""

from __future__ import annotations

import copy
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gankit.errors as errors
from gankit.build import build
from gankit.errors import (
    Diverged,
    GankitError,
    MissingExtra,
    OptionError,
    Place,
    Problem,
    SetupError,
    SpecError,
    UsageError,
    choices,
    nearest,
)
from gankit.registry import KINDS, Entry, Provider, registry
from gankit.spec import dumps, loads
from gankit.spec.check import _Checker, check
from gankit.spec.document import parse
from gankit.spec.source import Source
from tests import goldens

SMALL = """\
gankit = 1
name = "small"
[data]
use = "shapes"
size = 16
[generator]
use = "dcgan"
width = 4
[discriminator]
use = "dcgan"
width = 4
norm = ["spectral", "layernorm"]
[loss]
use = "hinge"
[[penalty]]
use = "r1"
[train]
steps = 10
"""


@pytest.fixture(autouse=True)
def _ours() -> Iterator[None]:
    with goldens.our_parts_alone():
        yield


def refusal(text: str, *overrides: str) -> SpecError:
    """What is said of a spec that cannot be built."""
    with pytest.raises(SpecError) as caught:
        build(loads(text, overrides), "meta")
    return caught.value


def first(text: str, *overrides: str) -> Problem:
    """The one problem of a spec."""
    problems = refusal(text, *overrides).problems
    assert len(problems) == 1, [problem.message for problem in problems]
    return problems[0]


def caret(problem: Problem) -> tuple[int, str]:
    """The line of a problem's place, and what its carets stand under."""
    assert problem.place is not None
    _, above, below = problem.place.render().splitlines()
    start, end = below.index("^"), below.rindex("^") + 1
    assert set(below[start:end]) == {"^"}
    return problem.place.line, above[start:end]


# --- a problem and its place


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (Place(7, 3, 2, "ab cd", "x.toml"), "  --> x.toml:7:3\n7 | ab cd\n  |   ^^"),
        (Place(12, 1, 1, "", "x.toml"), "   --> x.toml:12:1\n12 | \n   | ^"),
        (Place(1, 3, 1, "\ta\tb", "x"), "  --> x:1:3\n1 | \ta\tb\n  | \t ^"),
        (Place(1, 2, 99, "abc", "x"), "  --> x:1:2\n1 | abc\n  |  ^^"),
        (Place(3, 4, 1, "é ☃𝄞", "é x.toml"), "  --> é x.toml:3:4\n3 | é ☃𝄞\n  |    ^"),
    ],
)
def test_a_place_is_shown_with_its_line(place: Place, shown: str) -> None:
    assert place.render() == shown


@given(st.integers(0, 400), st.integers(1, 50), st.integers(0, 400))
def test_a_long_line_is_shown_around_the_place(before: int, width: int, after: int) -> None:
    source = "." * before + "x" * width + "." * after
    shown = Place(1, before + 1, width, source, "f").render().splitlines()
    assert shown[0] == f"  --> f:1:{before + 1}"
    assert len(shown[1]) <= 4 + 120
    start, end = shown[2].index("^"), shown[2].rindex("^") + 1
    assert shown[1][start:end] == "x" * (end - start)
    assert end - start == width or end == len(shown[1])


def test_a_problem_is_message_place_and_hint() -> None:
    place = Place(1, 1, 1, "a", "x")
    assert Problem("no").render() == "error: no"
    assert Problem("no", hint="try").render() == "error: no\n  try"
    assert Problem("no", place, "try").render() == "error: no\n  --> x:1:1\n1 | a\n  | ^ try"
    both = SpecError([Problem("one", place), Problem("two")])
    assert str(both) == "error: one\n  --> x:1:1\n1 | a\n  | ^\n\nerror: two"


@pytest.mark.parametrize(
    ("word", "known", "close"),
    [
        ("spectrl", ["spectral", "batchnorm"], "spectral"),
        ("SelfAttention", ["self_attention", "none"], "self_attention"),
        ("self-attention", ["self_attention"], "self_attention"),
        ("zzz", ["spectral"], None),
        ("x", [], None),
    ],
)
def test_nearest(word: str, known: list[str], close: str | None) -> None:
    assert nearest(word, known) == close


def test_choices() -> None:
    assert choices("b", ["c", "a"]) == "available: a, c"
    assert choices("ab", ["c", "abc"]) == 'did you mean "abc"? available: abc, c'
    assert choices("a", []) == "there are none"


# --- the exceptions


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^    ([│ ]*(?:[├└]── )?)(\w+) +exit (\d)", errors.__doc__ or "", re.M)
    assert len(drawn) > 8
    above: list[type[Exception]] = []
    for lead, name, code in drawn:
        depth = len(lead) // 4
        cls = getattr(errors, name)
        assert cls.exit_code == int(code)
        assert cls.__bases__[0] is (above[depth - 1] if depth else Exception)
        above[depth:] = [cls]
    there = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, GankitError)
    }
    assert there == {name for _, name, _ in drawn}


def test_what_is_wrong_with_values_is_a_value_error() -> None:
    for cls in (SpecError, OptionError, errors.DataError, errors.PartError):
        assert issubclass(cls, ValueError)
    assert not issubclass(UsageError, ValueError)


def test_texts_that_exceptions_write() -> None:
    shown = str(Diverged("D", 12, "r1", "discriminator.stages.conv_8", rollbacks=2))
    assert shown.startswith(
        "D's r1 is not finite at step 12, first in discriminator.stages.conv_8"
        " (after 2 rollbacks)\n  a smaller"
    )
    assert "(after 1 rollback)" in str(Diverged("D", 12, rollbacks=1))
    assert str(Diverged("G", 3)).startswith("G's loss is not finite at step 3\n")
    assert str(MissingExtra("the digits", "digits")).endswith("pip install 'gankit[digits]'")


# --- whole texts


@pytest.mark.parametrize("name", ["check", "values", "build", "networks", "points"])
def test_every_mistake_of_a_spec_is_told_at_once(name: str) -> None:
    file = goldens.FOLDER / f"{name}.toml"
    text = file.read_text(encoding="utf-8")
    source = Source(parse(text, f"{name}.toml"))
    with pytest.raises(SpecError) as caught:
        build(_checked(source), "meta")
    for problem in caught.value.problems:
        assert problem.place is not None
        assert problem.place.source == text.split("\n")[problem.place.line - 1]
        assert "\x1b" not in problem.render()
    goldens.compare(name, f"{caught.value}\n")


def _checked(source: Source) -> Any:
    return check(source, "spec", lambda source: [])


OVERRIDES = [
    ["generator.wdth=3"],
    ["generatr.width=3"],
    ["generator.width=wide"],
    ["generator.width='3'"],
    ["generator.width = 2.5  "],
    ["generator.width.x=3"],
    ["generator.norm=spectrl"],
    ["generator.norm=[spectral, batchnorm]"],
    ["generator.norm=[\"spectral\", {use = 'clip', bound = 0.1}]"],
    ["generator.norm.iterations=2"],
    ["discriminator.norm.spectral.iterations=0"],
    ["discriminator.norm.iterations=2"],
    ["generator.attention=self_attention", "generator.attention_at=[8, 9]"],
    ["penalty.r3.weight=1"],
    ["penalty.r1.weight=-1"],
    ["penalty.r1.weight='1'"],
    ["penalty.r1.wieght=1"],
    ["loss=hing"],
    ["penalty.r1=3"],
    ["penalty.wgan_gp=none"],
    ["penalty=none"],
    ["data.size=17"],
    ["data.size=[16, '16']"],
    ["data.size=2020-01-01"],
    ["train.steps=True"],
    ["train.ema=0.5", "train.ema.half_life=3"],
    ["loss.margin=nan"],
    ["generator..width=3"],
    ["name="],
    ["train.steps=0", "seed=-1", "unknown=x y"],
]


def test_every_mistake_of_an_override_is_told() -> None:
    texts = []
    for overrides in OVERRIDES:
        command = " ".join(f'--set "{override}"' for override in overrides)
        texts.append(f"$ {command}\n{refusal(SMALL, *overrides)}\n")
    goldens.compare("overrides", "\n".join(texts))


SYNTAX: list[str | bytes] = [
    "gankit = 1\n[generator\n",
    "gankit = 1\nloss = hinge\n",
    "gankit = 1\nflip = True\n",
    "gankit = 1\n[loss]\nuse = 'a'\nuse = 'b'\n",
    "gankit = 1\n[loss]\n[data]\n[loss]\n",
    "gankit = 1\n[[penalty]]\n[penalty]\n",
    'gankit = 1\nname = "unfinished\nseed = 1\n',
    "gankit = 1\nnorm = ['a', 'b'\nseed = 1\n",
    "gankit = 1\nname = 'caf\xe9'\n".encode("latin-1"),
    "gankit = 1\nx = " + "[" * 50,
    "gankit = 1\n" + "a." * 40 + "b = 1\n",
    b"#" * 1_000_000,
    "",
]


def test_every_mistake_of_syntax_is_told() -> None:
    texts = []
    for source in SYNTAX:
        with pytest.raises(SpecError) as caught:
            _checked(Source(parse(source, "my.toml")))
        shown = source if isinstance(source, str) else repr(source[:40])[1:] + "..."
        texts.append(f"{'-' * 80}\n{shown}\n{caught.value}\n")
    goldens.compare("syntax", "\n".join(texts))


# --- the right place


@pytest.mark.parametrize(
    ("old", "new", "message", "where"),
    [
        # a plain ValueError points at the option that it names
        ("size = 16", "size = 7", "size = 7: must be 8 or more", (5, "7")),
        ("size = 16", "size = 16\nlength = 0", "length = 0: must be 1 or more", (6, "0")),
        ('"r1"', '"r1"\nevery = 0', "every must be at least 1, not 0", (17, "0")),
        # an OptionError at the option, in whatever part and depth it is
        (
            '"layernorm"',
            '{ use = "groupnorm", groups = 3 }',
            "3 groups do not divide 8 channels",
            (12, "3"),
        ),
        ('"layernorm"', '"groupnorm"', "32 groups do not divide 8 channels", (12, '"groupnorm"')),
        (
            '"spectral"',
            '{ use = "spectral", iterations = 0 }',
            "iterations must be at least 1",
            (12, "0"),
        ),
        ("width = 4\n[d", "width = 2048\n[d", "width_max 1024 is below width 2048", (8, "2048")),
        ("width = 4\n[d", "width_max = 2\n[d", "width_max 2 is below width 64", (8, "2")),
        # an option that nobody gave: at the part
        ('"shapes"\nsize = 16', '"folder"\nroot="x"\nsize = 4', "cannot make 4x4", (6, "4")),
        # the entry of a list
        (
            "width = 4\n[d",
            "width = 4\nattention = 'self_attention'\nattention_at = [8, 16, 7]\n[d",
            "height 7; it has 4, 8, 16",
            (10, "7"),
        ),
        (
            "[train]\nsteps = 10",
            "[train]\nsteps = 10\nema = { half_life = 0 }",
            "not 0.0",
            (19, "0"),
        ),
        ("[train]\nsteps = 10", "[train]\nsteps = 10\nema = 1", "ema is a decay in", (19, "1")),
    ],
)
def test_what_a_part_refuses_is_shown_where_it_is_written(
    old: str, new: str, message: str, where: tuple[int, str]
) -> None:
    assert SMALL.count(old) == 1
    problems = refusal(SMALL.replace(old, new)).problems
    assert message in problems[0].message
    assert caret(problems[0]) == where


STACK = """\
gankit = 1
data = { use = "shapes", size = 16 }
generator = { use = "dcgan", width = 4 }
loss = "hinge"
train = { steps = 10 }
[discriminator]
use = "stack"
norm = "spectral"
stages = [
  { use = "attend", attention = { use = "self_attention", reduction = 1 } },
  STAGE,
  { use = "dense", channels = 1 },
]
"""


@pytest.mark.parametrize(
    ("stage", "message", "where"),
    [
        ('{ use = "conv", channels = 0 }', "stage 2: channels must be at least 1", "0"),
        ('{ use = "conv", channels = 8, kernel = 99, padding = "none" }', "stage 2: nothing", ""),
        (
            '{ use = "attend", attention = { use = "self_attention", reduction = 4 } }',
            "reduction 4 of 3 channels leaves none",
            "4",
        ),
    ],
)
def test_what_a_stage_refuses_is_shown_at_that_stage(stage: str, message: str, where: str) -> None:
    problem = first(STACK.replace("STAGE", stage))
    assert problem.message.startswith(message)
    line, marked = caret(problem)
    assert (line, marked) == (11, where or '"conv"')


def test_one_size_that_two_networks_refuse_is_one_problem() -> None:
    problem = first(SMALL, "data.size=17")
    assert problem.place is not None
    assert problem.place.name == "--set"
    assert caret(problem) == (1, "17")


def test_problems_stand_in_the_order_of_the_text_with_overrides_last() -> None:
    text = SMALL.replace("steps = 10", "steps = -1").replace('"hinge"', '"hing"')
    problems = refusal("nonsense = 1\n" + text, "seed=-1", "data.size=x").problems
    places = [(p.place.name, p.place.line) for p in problems if p.place]
    assert places == [("<spec>", 1), ("<spec>", 15), ("<spec>", 19), ("--set", 1), ("--set", 1)]


class Conditional(torch.nn.Module):
    """Scales by what it is told."""

    def __init__(self, channels: int, condition: int, /) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("overrides", "marked"),
    [
        ([], "[generator]"),
        (["generator.condition=none"], "none"),
        (["generator.condition=label"], ""),
    ],
)
def test_a_norm_without_its_condition_is_shown_where_there_should_be_one(
    overrides: list[str], marked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = registry.get("norm", "batchnorm").kind
    entry = Entry(kind, "mine", Conditional, Provider("test"), on="activation")
    monkeypatch.setitem(registry._entries, ("norm", "mine"), entry)
    overrides = ["generator.norm=mine", *overrides]
    if not marked:
        build(loads(SMALL, overrides), "meta")
        return
    problem = first(SMALL, *overrides)
    assert problem.message == "Conditional needs a condition, and this network makes none"
    assert caret(problem)[1] == marked.strip("[]")


HOSTILE = {
    "numbers that are none": "x = [" + "nan," * 60_000 + "]",
    "norms on one place": "[generator]\nuse = 'dcgan'\nnorm = [" + "'batchnorm'," * 15_000 + "]",
    "unknown keys": "".join(f"k{i} = 1\n" for i in range(15_000)),
    "entries of one part": "[[penalty]]\nuse = 'r1'\n" * 10_000,
    "a long word": f"[loss]\nuse = '{'x' * 250_000}'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_made_to_keep_us_busy_does_not(name: str) -> None:
    started = time.process_time()
    error = refusal("gankit = 1\n" + HOSTILE[name])
    assert len(str(error)) < 50_000
    assert time.process_time() - started < 5  # minutes, before there was an end to problems
    assert len(error.problems) <= 101


def test_no_more_problems_than_anyone_reads() -> None:
    many = SMALL.replace("[data]", "\n".join(f"k{i} = 1" for i in range(101)) + "\n[data]")
    problems = refusal(many).problems
    assert len(problems) == 101
    assert problems[-1].message == "these are 100 problems, and there are more"
    exactly = SMALL.replace("[data]", "\n".join(f"k{i} = 1" for i in range(100)) + "\n[data]")
    problems = refusal(exactly).problems
    assert len(problems) == 100
    assert "there are more" not in str(problems)


def test_a_message_repeats_no_more_than_it_must() -> None:
    problem = first(SMALL.replace('"hinge"', '"' + "x" * 10_000 + '"'))
    assert problem.message == 'unknown loss "' + "x" * 56 + "..."
    assert max(map(len, problem.render().splitlines())) < 250


def test_what_a_terminal_would_obey_is_shown_and_not_sent() -> None:
    text = SMALL.replace('"hinge"', r'"\u001b[2J\u009b\u202e"')
    problem = first(text)
    assert problem.message == r'unknown loss "\u001b[2J\x9b\u202e"'


# --- nothing else ever comes out


VALUES = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([0.5, -1.0, True, "", "x", "none", "spectral", "mlp", [], [8], {}, {"use": 1}]),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from([[1, "a"], {"use": "r1"}, ["spectral", "batchnorm"], {"eps": 2}, 2**70]),
)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(tree, dict | list):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(inner, (*path, key))


@settings(max_examples=400)
@given(st.data())
def test_whatever_is_written_is_built_or_refused_in_words(data: st.DataObject) -> None:
    tree = tomllib.loads(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(leaves(tree))))
        owner = tree
        for step in path[:-1]:
            owner = owner[step]
        action = data.draw(st.sampled_from(["put", "put", "add", "drop"]))
        if action == "drop":
            del owner[path[-1]]
        elif action == "add" and isinstance(owner, dict):
            owner[data.draw(st.sampled_from(["eps", "norm", "width", "a.b", "é", "use"]))] = (
                copy.deepcopy(data.draw(VALUES))
            )
        else:
            owner[path[-1]] = copy.deepcopy(data.draw(VALUES))
    text = dumps_any(tree)
    try:
        build(loads(text), "meta")
    except SpecError as error:
        for problem in error.problems:
            assert problem.place is not None, problem
            assert problem.place.source == text.split("\n")[problem.place.line - 1]


def dumps_any(tree: dict[str, Any]) -> str:
    """TOML of any tables, one key a line."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in tree.items())


def _key(key: str) -> str:
    return f'"{key}"'


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return dumps({"x": value}).partition("=")[2].strip()


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("name", "generator", "generator.norm", "generator.norm.spectral.eps"),
                    *("penalty", "penalty.r1", "penalty.r1.weight", "penalty.wgan_gp", "data.size"),
                    *(
                        "discriminator.norm.0",
                        "discriminator.norm.spectral",
                        "discriminator.norm.x",
                    ),
                    *(
                        "train.ema.half_life",
                        "optimizer.lr",
                        "schedule.ttur",
                        "a.b.c",
                        "data.size.1",
                    ),
                    *("discriminator.norm.layernorm", "plugins", "plugins.0", "providers.x", ""),
                ]
            ),
            st.sampled_from(
                [
                    *("1", "none", "0.5", "[]", "{}", "x y", "'q'", "[1, 2]", "{ use = 'r1' }"),
                    *('["spectral"]', "nan", "", "[", "true", "\n", "#", '"', "1 # c"),
                ]
            ),
        ).map("=".join),
        min_size=1,
        max_size=3,
    )
)
@example(["penalty.r1=none", "penalty.r1.weight=3"])
@example(["discriminator.norm.spectral=none", "discriminator.norm.0=none"])
def test_whatever_is_set_is_built_or_refused_in_words(overrides: list[str]) -> None:
    try:
        build(loads(SMALL, overrides), "meta")
    except SpecError as error:
        for problem in error.problems:
            assert problem.place is not None, problem
            sources = overrides if problem.place.name == "--set" else SMALL.split("\n")
            assert any(problem.place.source in source for source in sources)
    except (UsageError, SetupError):
        pass


def test_the_properties_see_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would show nothing: a slip in the check gets through to them."""

    def slip(*arguments: Any) -> Any:
        raise KeyError("slip")

    monkeypatch.setattr(_Checker, "norms", slip)
    properties: list[Callable[[], None]] = [
        test_whatever_is_written_is_built_or_refused_in_words,
        test_whatever_is_set_is_built_or_refused_in_words,
    ]
    for holds in properties:
        with pytest.raises((KeyError, ExceptionGroup)):
            holds()
