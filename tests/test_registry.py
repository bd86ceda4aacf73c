"""The plug board: what is recorded, found and refused; what every built-in part tells of itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gankit
from gankit.errors import PartError, SetupError, SpecError
from gankit.registry import KINDS, REQUIRED, Entry, Registry, hand, handed, load_file, registry
from gankit.registry.options import documented, options_of
from gankit.slots import Activation, Attention, Block, Norm

OURS = [entry for entry in registry.find() if entry.provider.name == "gankit"]
RECORDERS = sorted(name for name in gankit.__all__ if not name.startswith("_"))


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty plug board, which the decorators record on."""
    empty = Registry()
    monkeypatch.setattr("gankit.registry.registry", empty)
    return empty


def defined(module: str, source: str, name: str = "part") -> Any:
    """What a piece of source defines, as if it stood in a module of that name."""
    space: dict[str, Any] = {"__name__": module}
    exec(source, space)
    return space[name]


# --- what is recorded


def test_every_kind_has_a_decorator_on_the_package() -> None:
    assert sorted(KINDS) == RECORDERS


@pytest.mark.parametrize("kind", RECORDERS)
def test_decorators_return_what_they_decorate(kind: str, board: Registry) -> None:
    decorator = getattr(gankit, kind)
    options = {"on": "weight"} if kind == "norm" else {}

    def function(*, eps: float = 1.0) -> None:
        """A part."""

    class Part:
        """Another part."""

        def __init__(self, *, eps: float = 1.0) -> None: ...

    assert decorator("part", needs={"labels"}, **options)(Part) is Part
    entry = board.get(kind, "part")
    assert (entry.target, entry.needs, entry.summary) == (Part, {"labels"}, "Another part.")
    assert entry.path == f"{kind}/part"
    assert entry.provider.name == __name__
    assert entry.on == options.get("on")
    if KINDS[kind].form == "object":
        with pytest.raises(PartError, match=f"a {kind} is a class, so that it can have methods"):
            decorator("function", **options)(function)
    else:
        assert decorator("function", **options)(function) is function
        entry = board.get(kind, "function")
        assert (entry.target, entry.needs, entry.summary) == (function, frozenset(), "A part.")


PART = "def part(layer, /): return 1"


def test_a_name_is_held_by_one_part(board: Registry) -> None:
    board.add("norm", "x", defined("one", PART), on="weight")
    with pytest.raises(PartError) as caught:
        board.add("norm", "x", defined("two", PART), on="weight")
    message = 'error: two parts are called norm "x": one from one, one from two'
    assert str(caught.value) == message
    assert board.get("norm", "x").provider.name == "one"
    board.add("attention", "x", defined("two", PART))  # another kind, another name


def test_a_name_of_ours_is_refused_with_both_providers() -> None:
    with pytest.raises(PartError) as caught:
        registry.add("norm", "spectral", defined("mine", PART), on="weight")
    message = (
        f'two parts are called norm "spectral": one from gankit {gankit.__version__}, one from mine'
    )
    assert message in str(caught.value)


def test_the_same_definition_run_again_replaces_the_old(board: Registry) -> None:
    board.add("norm", "x", defined("notebook", PART), on="weight")
    again = defined("notebook", PART)
    board.add("norm", "x", again, on="weight")
    assert board.get("norm", "x").target is again


def untyped(layer, /, *, eps=1.0): ...  # type: ignore[no-untyped-def]


def any_options(layer: Any, /, **options: Any) -> None: ...


def any_layers(*layers: Any) -> None: ...


def neither(layer: Any, eps: float = 1.0) -> None: ...


def two_layers(layer: Any, other: Any, /) -> None: ...


class Inherited(nn.Module):
    """Has the signature of nn.Module, which takes anything."""


RULES: list[tuple[Any, str]] = [
    (untyped, "option `eps` needs a type"),
    (any_options, "a part names each of its options: no **kwargs"),
    (any_layers, "a part names what it is handed: no *args"),
    (
        neither,
        "what is handed over stands before a `/`, options stand after a `*`: `layer` is neither",
    ),
    (Inherited, "a part names what it is handed: no *args"),
]


@pytest.mark.parametrize(("target", "rule"), RULES)
def test_a_signature_that_breaks_a_rule_is_refused_with_the_rule(
    board: Registry, target: Any, rule: str
) -> None:
    with pytest.raises(PartError) as caught:
        board.add("norm", "x", target, on="weight")
    assert str(caught.value) == f'error: part "x": {rule}'
    assert "x" not in board.names("norm")


@pytest.mark.parametrize(
    ("kind", "on", "handed_over"),
    [
        ("norm", "weight", "layer"),
        ("activation", None, "nothing"),
        ("augment", None, None),
        ("attention", None, None),
    ],
)
def test_a_part_may_take_no_more_than_its_kind_is_handed(
    board: Registry, kind: str, on: str | None, handed_over: str | None
) -> None:
    if handed_over is None:
        board.add(kind, "x", two_layers, on=on)
        return
    with pytest.raises(PartError) as caught:
        board.add(kind, "x", two_layers, on=on)
    message = f'part "x" takes 2 positional-only arguments; this kind is handed {handed_over}'
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"label"}, 'declares an unknown need "label"; did you mean "labels"? available: '),
        ("labels", ': needs is a set of words: {"labels"}'),
    ],
)
def test_a_need_that_means_nothing_is_refused(board: Registry, needs: Any, message: str) -> None:
    with pytest.raises(PartError) as caught:
        gankit.norm("x", on="weight", needs=needs)(defined("mine", PART))
    assert message in str(caught.value)


def test_what_has_no_signature_is_refused(board: Registry) -> None:
    with pytest.raises(PartError, match='part "x" has no signature that can be read'):
        board.add("norm", "x", dict, on="weight")


# --- what is found


@pytest.mark.parametrize(
    ("asked", "nearest"), [("spectrl", "spectral"), ("Batch-Norm", "batchnorm"), ("xyzzy", None)]
)
def test_an_unknown_name_lists_the_nearest_and_all(asked: str, nearest: str | None) -> None:
    with pytest.raises(SpecError) as caught:
        registry.get("norm", asked)
    (problem,) = caught.value.problems
    assert problem.message == f'unknown norm "{asked}"'
    lead = f'did you mean "{nearest}"? ' if nearest else ""
    assert problem.hint == f"{lead}available: {', '.join(registry.names('norm'))}"


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("norm/spectral", ["norm/spectral"]),
        ("spectral", ["norm/spectral"]),
        ("*/*norm", None),
        ("norm", None),
        ("n*m/b*", ["norm/batchnorm"]),
        ("self_*", ["norm/self_modulated_batchnorm", "attention/self_attention"]),
        ("dcgan", ["generator/dcgan", "discriminator/dcgan"]),
        ("nothing/like/this", []),
        ("", []),
    ],
)
def test_patterns(pattern: str, paths: list[str] | None) -> None:
    found = [entry for entry in registry.find(pattern) if entry.provider.name == "gankit"]
    if paths is None:
        assert found
        assert all(e.kind.name == "norm" for e in found)
        assert pattern == "norm" or all(e.name.endswith("norm") for e in found)
    else:
        assert [entry.path for entry in found] == paths


def test_all_is_every_kind_in_order() -> None:
    kinds = list(dict.fromkeys(entry.kind.name for entry in registry.find()))
    assert kinds == list(KINDS)
    for kind in KINDS:
        found = [entry.name for entry in registry.find(kind)]
        assert found == registry.names(kind) == sorted(found)


def test_an_entry_is_found_by_its_part() -> None:
    spectral = registry.get("norm", "spectral")
    assert registry.entry_of("norm", spectral.target) is spectral
    assert registry.entry_of("norm", partial(spectral.target, iterations=2)) is spectral
    hinge = registry.get("loss", "hinge")
    assert registry.entry_of("loss", hinge.bind(margin=2.0)) is hinge
    assert registry.entry_of("norm", print) is None


def test_binding_makes_what_is_made_early_and_a_maker_of_what_is_made_late() -> None:
    assert registry.get("loss", "hinge").bind(margin=2.0).margin == 2.0
    maker = registry.get("norm", "batchnorm").bind(scale=False)
    assert maker(4).weight is None
    target = registry.get("norm", "batchnorm").target
    assert registry.get("norm", "batchnorm").bind() is target


# --- what every built-in part tells of itself


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry.path)
def test_says_what_it_is_and_what_each_option_means(entry: Entry) -> None:
    check_documented(entry)


def check_documented(entry: Entry) -> None:
    assert entry.summary
    assert entry.summary.endswith(".")
    assert len(entry.summary) <= 100
    for option in entry.options.values():
        assert option.meaning, option.name
        assert option.type_name
    assert set(documented(inspect.getdoc(entry.target) or "")) == set(entry.options)


def mute(layer: Any, /) -> None: ...


def vague(layer: Any, /, *, eps: float = 1.0) -> None:
    """Leaves an option unexplained."""


def stale(layer: Any, /, *, eps: float = 1.0) -> None:
    """Explains an option that is gone.

    Options:
        eps: how much.
        gone: once there was another.
    """


@pytest.mark.parametrize("target", [mute, vague, stale])
def test_twin_a_part_that_says_too_little_or_too_much_fails(board: Registry, target: Any) -> None:
    board.add("norm", "x", target, on="weight")
    with pytest.raises(AssertionError):
        check_documented(board.get("norm", "x"))


def many(
    shape: Any,
    /,
    *,
    plain: int,
    word: Literal["a", "b"] = "a",
    either: int | tuple[int, ...] | None = None,
    norm: Norm = Norm(),
    attention: Attention = print,  # type: ignore[assignment]
    stages: tuple[Block, ...] = (),
    activations: tuple[Activation, Activation] = (),  # type: ignore[assignment]
) -> None:
    """Has options of every form.

    Paper (2020), section 1: no option is meant here.

    Options:
        plain: a number of things; those of
            which there are many: all of them.
        word: one of two.
        norm: what normalises.

    Shape: (B, C) -> the same.
    """


def held(
    *,
    features: Annotated[object, "features"] = None,
    metrics: Annotated[tuple[object, ...], "metric"] = (),
    several: Annotated[tuple[object, ...], 3, "metric"] = (),
    words: Annotated[int, "in pixels"] = 1,
) -> None:
    """Holds parts that are not made yet."""


def test_options_that_hold_parts_name_their_kind_beside_the_type() -> None:
    assert [(option.slot, option.many) for option in options_of(held).values()] == [
        ("features", False),
        ("metric", True),
        ("metric", True),
        (None, False),
    ]


def test_options_are_read_from_signature_and_docstring() -> None:
    options = options_of(many)
    assert list(options) == [
        *("plain", "word", "either", "norm", "attention", "stages", "activations"),
    ]
    assert options["plain"].default is REQUIRED
    assert repr(REQUIRED) == "required"
    assert (
        options["plain"].meaning
        == "a number of things; those of which there are many: all of them."
    )
    assert options["norm"].meaning == "what normalises."
    assert options["either"].meaning == ""
    assert [(option.slot, option.many) for option in options.values()] == [
        *[(None, False)] * 3,
        ("norm", False),
        ("attention", False),
        ("block", True),
        (None, False),
    ]
    assert options["word"].type_name == '"a" | "b"'
    assert options["either"].type_name == "int | [int, ...] | none"
    assert options["stages"].type_name == "list of block"
    assert options["norm"].type_name == "norm"


NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
WORDS = st.lists(st.from_regex(r"[a-z]{1,6}[,.;]?", fullmatch=True), min_size=1, max_size=5)


@given(st.dictionaries(NAMES, st.lists(WORDS, min_size=1, max_size=3), min_size=1, max_size=4))
def test_meanings_are_read_however_they_are_wrapped(meanings: dict[str, list[list[str]]]) -> None:
    text = "Does it.\n\nOptions:\n"
    for name, lines in meanings.items():
        text += f"    {name}: " + "\n        ".join(" ".join(line) for line in lines) + "\n"
    expected = {
        name: " ".join(word for line in lines for word in line) for name, lines in meanings.items()
    }
    assert documented(text + "\nShape: any.") == expected


# --- handing over


class Takes:
    def __init__(self, channels: int, norm: Any = None, /, *, reduction: int = 8) -> None:
        self.got = (channels, norm)

    def method(self, x: Any) -> Any:
        return x


HANDED: list[tuple[Callable[..., Any], int | None]] = [
    (lambda: (), 0),
    (lambda *, option=1: (), 0),
    (lambda a, /, *, option=1: (a,), 1),
    (lambda a, b=2: (a,), 1),
    (lambda a, b, c, d: (a, b, c, d), 4),
    (lambda *all_of_them: all_of_them, None),
    (lambda a, *rest: (a, *rest), None),
    (partial(lambda a, /, *, option=1: (a,), option=2), 1),
    (partial(lambda a, b: (a,), b=2), 1),
    (partial(lambda a, b: (b,), 1), 1),
    (Takes, 2),
    (partial(Takes, reduction=4), 2),
    (Takes(1).method, 1),
]


@pytest.mark.parametrize(("target", "expected"), HANDED)
def test_as_much_is_handed_over_as_is_declared(
    target: Callable[..., Any], expected: int | None
) -> None:
    assert handed(target) == expected
    offered = (10, 11, 12, 13)
    got = hand(target, *offered)
    if isinstance(got, Takes):
        got = got.got
    elif not isinstance(got, tuple):
        got = (got,)
    count = len(offered) if expected is None else expected
    assert tuple(got)[:count] == offered[:count]


def test_every_built_in_part_can_be_handed_what_its_kind_gives() -> None:
    for entry in OURS:
        hands = ("layer",) if entry.on == "weight" else entry.kind.hands
        count = handed(entry.target)
        assert count is not None, entry.path
        assert count <= len(hands), entry.path


# --- parts in files

PLUGIN = '''
import gankit
import gankit.norms

@gankit.norm("{name}", on="weight")
def part(layer, /, *, factor: float = 2.0):
    """Does little.

    Options:
        factor: of what.
    """
    return layer
'''


def test_a_file_is_the_provider_of_its_parts_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="of_a_file"))
    provider = load_file(file)
    assert (provider.name, provider.version[:7]) == ("mine.py", "sha256:")
    entry = registry.get("norm", "of_a_file")
    assert entry.provider == provider
    assert entry.options["factor"].meaning == "of what."
    assert registry.get("norm", "spectral").provider.name == "gankit"
    assert load_file(file) == provider
    assert registry.get("norm", "of_a_file") is entry  # it was not run again


def test_files_that_are_missing_or_fail_say_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"missing\.py cannot be read: No such file"):
        load_file(tmp_path / "missing.py")
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(SetupError, match=r"broken\.py fails: ZeroDivisionError: division"):
            load_file(broken)
    taken = tmp_path / "taken.py"
    taken.write_text(PLUGIN.format(name="spectral"))
    with pytest.raises(PartError, match=r"one from gankit .*, one from taken\.py sha256:"):
        load_file(taken)


def test_a_file_that_was_edited_replaces_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    file.write_text(PLUGIN.format(name="of_an_edited_file") + "1 / 0\n")
    with pytest.raises(SetupError, match="ZeroDivisionError"):
        load_file(file)
    assert "of_an_edited_file" not in registry.names("norm")  # nothing of it is left
    file.write_text(PLUGIN.format(name="of_an_edited_file"))
    load_file(file)
    first = registry.get("norm", "of_an_edited_file")
    file.write_text(PLUGIN.format(name="of_an_edited_file").replace("2.0", "3.0"))
    load_file(file)
    second = registry.get("norm", "of_an_edited_file")
    assert [e.options["factor"].default for e in (first, second)] == [2.0, 3.0]


# --- importing is light


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(gankit.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ran.stdout.split())


def check_light(statement: str) -> None:
    heavy = {"torch", "numpy", "pydantic", "rich", "PIL"}
    assert not heavy & modules_after(statement)


def test_importing_the_package_imports_nothing_heavy() -> None:
    check_light("import gankit; assert gankit.norm")


def test_twin_importing_parts_imports_torch() -> None:
    with pytest.raises(AssertionError):
        check_light("import gankit.activations")
