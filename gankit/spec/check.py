"""From tables to a Spec: every key known, every value of its type, every problem reported."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from gankit.errors import OptionError, Place, Problem, SpecError, choices, nearest
from gankit.registry import REQUIRED, Option, registry
from gankit.registry.options import options_of
from gankit.spec.document import Path, dotted
from gankit.spec.model import FORMAT, LISTS, SECTIONS, Part, Plugin, Spec, Train, describe
from gankit.spec.source import Source

__all__ = ["check", "in_order", "problem_at"]

_TOP = {"gankit", "name", "seed", "plugins", "train", *SECTIONS, *LISTS}
_RECORDED = {"providers"}
"""Keys that resolved.toml has and people do not write."""

_DEFAULTS = {"latent": "normal", "optimizer": "adam"}

_SHOWN = 60
"""How many characters of a value a message repeats; the source line shows more."""


def check(source: Source, name: str, load_plugins: Callable[[Source], Sequence[Plugin]]) -> Spec:
    """The spec that a source describes.

    `load_plugins` runs the files the spec names, and is called before any part is looked up.

    Raises:
        SpecError: with every problem there is, in the order of the text.
    """
    checker = _Checker(source)
    checker.leaves()
    checker.header()
    plugins = tuple(load_plugins(source)) if checker.plugins() else ()
    parts: dict[str, Any] = {name: checker.section(name, kind) for name, kind in SECTIONS.items()}
    parts |= {name: checker.entries(name, kind) for name, kind in LISTS.items()}
    train = checker.train()
    if checker.problems:
        checker.constructors()
        raise SpecError(in_order(checker.problems))
    assert train is not None
    data = source.data
    return Spec(
        name=data.get("name", name),
        seed=data.get("seed", 0),
        plugins=plugins,
        train=train,
        source=source,
        **parts,
    )


def problem_at(source: Source, part: Part, error: Exception, *around: Part) -> Problem:
    """What a part said when it was built, at the place of the option or part it speaks of.

    `around` are other parts whose options it may speak of, such as the data's size.
    """
    return Problem(str(error), source.value(_spoken_of(part, error, around)))


def _spoken_of(part: Part, error: Exception, around: Sequence[Part] = ()) -> Path:
    """The path of an option, of an entry in its list, or else of the part's name."""
    index = stage = None
    if isinstance(error, OptionError):
        names, index, stage = [error.option], error.index, error.stage
    else:
        # Other errors name an option in their words, if at all; one that was given is meant.
        names = re.findall(r"\w+", str(error))
    stages = part.options.get("stages", ())
    inner = [*(stages[stage] if stage is not None and stage < len(stages) else part).inner()]
    owners = [(owner, name) for name in names for owner in (*inner, *around)]
    given = [(owner, name) for owner, name in owners if name in owner.options]
    if isinstance(error, OptionError):
        given += [(owner, name) for owner, name in owners if name in owner.entry.options]
    if not given:
        return (*part.path, "use")
    owner, name = given[0]
    value = owner.options.get(name)
    if index is None:
        return (*owner.path, name)
    if isinstance(value, tuple) and index < len(value) and isinstance(value[index], Part):
        return _spoken_of(value[index], ValueError(str(error)))
    return (*owner.path, name, index)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems in the order of the text, those of overrides after those of the file, each once."""

    def order(problem: Problem) -> tuple[bool, Place]:
        place = problem.place or Place(0, 0)
        return place.name == "--set", place

    return sorted(dict.fromkeys(problems), key=order)


class _Checker:
    """Walks the tables and gathers what is wrong with them.

    What is refused is None from then on, which TOML has no word for.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = list(source.problems)
        self.parts: list[Part] = []

    def report(self, message: str, place: Place | None, hint: str = "") -> None:
        self.problems.append(Problem(message, place, hint))

    def leaves(self) -> None:
        """Refuse values that no option has."""
        for path, value in _leaves(self.source.data):
            refused = _refused(value)
            if refused:
                self.report(refused, self.source.value(path))

    def header(self) -> None:
        """The keys that stand outside any table."""
        data = self.source.data
        for key in data:
            if key not in _TOP | _RECORDED:
                hint = choices(key, _TOP)
                self.report(f"unknown key {_shown(key)}", self.source.key((key,)), hint)
        version = data.get("gankit")
        if version is None:
            hint = f"write `gankit = {FORMAT}` first"
            self.report("the key `gankit` is missing", self.source.start(), hint)
        elif type(version) is not int or version != FORMAT:
            place = self.source.value(("gankit",))
            self.report(f"this gankit reads format {FORMAT}, not {_shown(version)}", place)
        kinds = {"name": str, "seed": int, "providers": dict[str, str]}
        for key in kinds.keys() & data.keys():
            place = self.source.value((key,))
            value = self.plain(Option(key, kinds[key], REQUIRED), data[key], (key,))
            if key == "name" and value is not None and not _is_name(value):
                self.report("a name is letters, digits, dots, dashes and underscores", place)
            if key == "seed" and value is not None and not 0 <= value < 2**63:
                self.report("a seed is at least 0 and below 2^63", place)

    def plugins(self) -> bool:
        """Whether the key `plugins` has the form it must have."""
        entries = self.source.data.get("plugins", [])
        wrong = [] if isinstance(entries, list) else [()]
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            table = {"file": entry} if isinstance(entry, str) else entry
            known = isinstance(table, dict) and {"file"} <= set(table) <= {"file", "sha256"}
            if not known or not all(isinstance(value, str) for value in table.values()):
                wrong.append((index,))
        for at in wrong:
            form = '["file.py"]; an entry may be { file = "file.py", sha256 = "..." }'
            self.report(f"plugins is written {form}", self.source.value(("plugins", *at)))
        return not wrong

    def section(self, section: str, kind: str) -> Part | None:
        """A table that holds one part."""
        default = _DEFAULTS.get(section)
        value = self.source.data.get(section, default)
        if value is None:
            hint = f"add it with `use` = one of: {', '.join(registry.names(kind))}"
            self.report(f"the table [{section}] is missing", self.source.end(), hint)
            return None
        return self.part(kind, value, (section,), default)

    def entries(self, section: str, kind: str) -> tuple[Part, ...]:
        """An array of tables, each a part; a part may stand in it once."""
        values = self.source.data.get(section, [])
        if not isinstance(values, list):
            key, hint = self.source.key((section,)), f"write [[{section}]]"
            self.report(f"{section} is an array of tables", key, hint)
            return ()
        parts: dict[str, Part] = {}
        for index, value in enumerate(values):
            part = self.part(kind, value, (section, index))
            if part is None:
                continue
            if part.name in parts:
                first = self.source.value((*parts[part.name].path, "use"))
                hint = f"the first is at {first.name}:{first.line}:{first.column}" if first else ""
                place = self.source.value((*part.path, "use"))
                self.report(f'two entries of {section} use "{part.name}"', place, hint)
            parts[part.name] = part
        return tuple(parts.values())

    def train(self) -> Train | None:
        """The table [train]."""
        table = self.source.data.get("train")
        if table is None:
            hint = "add it with `steps`, how long to train"
            self.report("the table [train] is missing", self.source.end(), hint)
            return None
        if not isinstance(table, dict):
            self.report("train is a table", self.source.key(("train",)), "write [train]")
            return None
        given = self.options(options_of(Train), table, ("train",), "[train]")
        while given is not None:
            try:
                return Train(**given)
            except OptionError as error:
                self.report(str(error), self.source.value(("train", error.option)))
                # Try again without it: there may be more.
                given[error.option] = getattr(Train, error.option, 1)
        return None

    def part(self, kind: str, value: Any, path: Path, default: Any = None) -> Part | None:
        """A part: a name, or a table with `use` and options.

        A table without `use` changes the options of the part that is there by default.
        """
        known = registry.names(kind)
        table = _table(value)
        if table is None:
            form = '"name" or { use = "name", ... }'
            message = f"{self.named(path)} must be {form}, not {_shown(value)}"
            self.report(message, self.source.value(path), f"available: {', '.join(known)}")
            return None
        if "use" not in table and default != "none":
            table = (_table(default) or {}) | table
        name = table.get("use")
        if name is None:
            hint = f"available: {', '.join(known)}"
            self.report(f"{self.named(path)} needs the key `use`", self.source.key(path), hint)
            return None
        if name not in known:
            place = self.source.value((*path, "use"))
            self.report(f"unknown {kind} {_shown(name)}", place, choices(str(name), known))
            return None
        entry = registry.get(kind, name)
        table = {key: inner for key, inner in table.items() if key != "use"}
        given = self.options(entry.options, table, path, f'{kind} "{name}"')
        if given is None:
            return None
        part = Part(entry, given, path)
        self.parts.append(part)
        return part

    def options(
        self, known: dict[str, Option], table: dict[str, Any], path: Path, of: str
    ) -> dict[str, Any] | None:
        """The options in a table, checked; None where one of them is wrong."""
        given: dict[str, Any] = {}
        for key, value in table.items():
            at = (*path, key)
            if key in known:
                given[key] = self.option(known[key], value, at)
            else:
                given[key] = None
                hint = choices(key, known)
                if key in _TOP:
                    hint = f"`{key}` is no option: write it above the first [table]"
                    hint += f", or as [{key}]" if key in SECTIONS else ""
                self.report(f"{of} has no option {_shown(key)}", self.source.key(at), hint)
        for key, option in known.items():
            if option.default is REQUIRED and key not in table:
                given[key] = None
                place = self.source.key(path)
                hint = f"{key}: {option.meaning.removesuffix('.') or option.type_name}"
                self.report(f'{of} needs the option "{key}"', place, hint)
        return None if any(value is None for value in given.values()) else given

    def option(self, option: Option, value: Any, path: Path) -> Any:
        """One option's value: a part, several, or something plain."""
        if option.slot and option.many:
            if not isinstance(value, list):
                message = f"{self.named(path)} must be a {option.type_name}, not {_shown(value)}"
                self.report(message, self.source.value(path))
                return None
            made = [self.part(option.slot, item, (*path, i)) for i, item in enumerate(value)]
            return None if None in made else tuple(made)
        if option.slot == "norm":
            return self.norms(option, value, path)
        if option.slot:
            return self.part(option.slot, value, path, _default(option))
        return self.plain(option, value, path)

    def norms(self, option: Option, value: Any, path: Path) -> tuple[Part, ...] | None:
        """A set of norms, at most one for each place that a norm can act on."""
        several = isinstance(value, list)
        parts: dict[str, Part] = {}
        refused = False
        for index, item in enumerate(value if several else [value]):
            at = (*path, index) if several else path
            part = self.part("norm", item, at, None if several else _default(option))
            on = part and part.entry.on
            if part is None or on is None:
                refused = True
            elif on in parts:
                refused = True
                other = "activation" if on == "weight" else "weight"
                self.report(
                    f'"{part.name}" and "{parts[on].name}" both act on the {on}',
                    self.source.value(at),
                    f"keep one of them; a norm on the {other} may stand beside it",
                )
            else:
                parts[on] = part
        # A set has no order: the same norms are the same spec.
        return None if refused else tuple(parts[on] for on in sorted(parts, reverse=True))

    def plain(self, option: Option, value: Any, path: Path) -> Any:
        """A plain value, strictly of the option's type; an int will do for a float."""
        if any(_refused(leaf) for _, leaf in _leaves(value)):
            return None
        record = _record(option.annotation)
        if record and isinstance(value, dict):
            return self.record(record, value, path)
        adapter = _adapter(option.annotation)
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            at = _deepest([problem["loc"] for problem in error.errors()], value)
        hint = ""
        if isinstance(value, str):
            near = nearest(value, _literals(option.annotation))
            hint = f'did you mean "{near}"?' if near else _unquoted(adapter, value)
        message = f"{self.named(path)} must be {option.type_name}, not {_shown(value)}"
        self.report(message, self.source.value((*path, *at)), hint)
        return None

    def record(self, record: Callable[..., Any], table: dict[str, Any], path: Path) -> Any:
        """A table of plain values that belong together, such as a half-life."""
        given = self.options(options_of(record), table, path, self.named(path))
        if given is None:
            return None
        try:
            return record(**given)
        except OptionError as error:
            self.report(str(error), self.source.value((*path, error.option)))
            return None

    def constructors(self) -> None:
        """Ask the parts that are made from plain options alone what they refuse.

        Only where there are problems already: otherwise the build asks them anyway.
        """
        for part in self.parts:
            if part.entry.kind.form != "maker" and len(list(part.inner())) == 1:
                try:
                    part.entry.bind(**part.options)
                except ValueError as error:
                    self.problems.append(problem_at(self.source, part, error))

    def named(self, path: Path) -> str:
        """A path as `--set` takes it: an entry of an array of tables by its part."""
        if path[0] in LISTS and len(path) > 1:
            part = _table(self.source.data[path[0]][path[1]]) or {}
            if isinstance(part.get("use"), str):
                path = (path[0], part["use"], *path[2:])
        return dotted(path)


def _table(value: Any) -> dict[str, Any] | None:
    """A part's table; "x" is short for { use = "x" }."""
    if isinstance(value, str):
        return {"use": value}
    return value if isinstance(value, dict) else None


def _default(option: Option) -> Any:
    """The part in a slot that is not mentioned, as a spec would write it."""
    absent = option.default is REQUIRED
    return None if absent else describe(option.slot, option.default, full=False)


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that holds no others, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def _refused(value: Any) -> str:
    """Why no option can have a value, whatever its type; empty where one could."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that a spec can use"
    if isinstance(value, datetime.date | datetime.time):
        return "a spec holds no dates or times"
    return ""


def _shown(value: Any) -> str:
    """A value in a message: on one line, and not too much of it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    # JSON lets through what a terminal might obey.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _deepest(locations: Sequence[tuple[int | str, ...]], value: Any) -> Path:
    """The innermost of the places that pydantic complains of, which it mixes with type names."""
    deepest: Path = ()
    for location in locations:
        path: Path = ()
        inner = value
        for step in location:
            if step in (range(len(inner)) if isinstance(inner, list) else ()):
                path, inner = (*path, step), inner[step]
        deepest = max(deepest, path, key=len)
    return deepest


def _unquoted(adapter: TypeAdapter[Any], value: str) -> str:
    """What to write for a value that is right but for its quotes."""
    try:
        adapter.validate_json(value.lower(), strict=True)
    except ValidationError:
        return ""
    return f"write {value.lower()}, without quotes"


def _record(annotation: Any) -> Callable[..., Any] | None:
    """The dataclass that an option may be written as a table of, if there is one."""
    return next((a for a in (annotation, *get_args(annotation)) if is_dataclass(a)), None)


def _literals(annotation: Any) -> list[str]:
    """The strings that an option may be, where only certain ones will do."""
    if get_origin(annotation) is Literal:
        return [a for a in get_args(annotation) if isinstance(a, str)]
    return [word for a in get_args(annotation) for word in _literals(a)]


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _is_name(name: str) -> bool:
    return bool(name) and name[0] != "." and all(c.isalnum() or c in "._-" for c in name)
