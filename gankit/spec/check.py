"""From tables to a Spec: every key known, every value of its type, every problem reported."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from gankit.errors import OptionError, Place, Problem, SpecError, choices
from gankit.registry import REQUIRED, Option, registry
from gankit.registry.options import options_of
from gankit.spec.document import Path, dotted
from gankit.spec.model import FORMAT, LISTS, SECTIONS, Eval, Part, Plugin, Spec, Train, describe
from gankit.spec.problems import in_order, problem_at
from gankit.spec.source import Source
from gankit.spec.values import UnfitError, leaves, read, record_of, refused, shown

__all__ = ["check", "check_eval"]

_TOP = {"gankit", "name", "seed", "plugins", "train", "eval", *SECTIONS, *LISTS}
_RECORDED = {"paths", "providers"}
"""Keys that resolved.toml has and people do not write."""

_DEFAULTS = {"latent": "normal", "optimizer": "adam"}
_LIKE = {"discriminator_optimizer": "optimizer"}
"""Tables that need not be there: without them, and in what they leave out, another counts."""

MOST = 100
"""How many problems are told at once."""


def check(source: Source, name: str, load_plugins: Callable[[Source], Sequence[Plugin]]) -> Spec:
    """The spec that a source describes.

    `load_plugins` runs the files the spec names, and is called before any part is looked up.

    Raises:
        SpecError: with every problem there is, in the order of the text.
    """
    checker = _Checker(source)
    try:
        checker.leaves()
        checker.header()
        plugins = tuple(load_plugins(source)) if checker.plugins() else ()
        parts: dict[str, Any] = {key: checker.section(key, kind) for key, kind in SECTIONS.items()}
        parts |= {key: checker.entries(key, kind) for key, kind in LISTS.items()}
        train = checker.train()
        scored = checker.evaluation()
        if checker.problems:
            checker.constructors()
    except _EnoughError:
        more = Problem(f"these are {MOST} problems, and there are more")
        raise SpecError([*in_order(checker.problems), more]) from None
    if checker.problems:
        raise SpecError(in_order(checker.problems))
    assert train is not None
    data = source.data
    return Spec(
        name=data.get("name", _named_after(name)),
        seed=data.get("seed", 0),
        plugins=plugins,
        train=train,
        eval=scored,
        source=source,
        **parts,
    )


def check_eval(source: Source) -> Eval:
    """The table [eval] of a source that need hold nothing else.

    Raises:
        SpecError: with every problem in it.
    """
    checker = _Checker(source)
    checker.leaves()
    found = checker.evaluation()
    if checker.problems:
        raise SpecError(in_order(checker.problems))
    return found


class _EnoughError(Exception):
    """More problems than anyone reads, and in a file made for it more than there is time for."""


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
        if len(self.problems) > MOST:
            del self.problems[MOST:]
            raise _EnoughError

    def leaves(self) -> None:
        """Refuse values that no option has."""
        for path, value in leaves(self.source.data):
            if why := refused(value):
                self.report(why, self.source.value(path))

    def header(self) -> None:
        """The keys that stand outside any table."""
        data = self.source.data
        for key in data:
            if key not in _TOP | _RECORDED:
                hint = choices(key, _TOP)
                self.report(f"unknown key {shown(key)}", self.source.key((key,)), hint)
        version = data.get("gankit")
        if version is None:
            hint = f"write `gankit = {FORMAT}` first"
            self.report("the key `gankit` is missing", self.source.start(), hint)
        elif type(version) is not int or version != FORMAT:
            place = self.source.value(("gankit",))
            self.report(f"this gankit reads format {FORMAT}, not {shown(version)}", place)
        kinds: dict[str, Any] = {"name": str, "seed": int}
        for key, kind in (kinds | dict.fromkeys(_RECORDED, dict[str, str])).items():
            if key in data:
                value = self.plain(Option(key, kind, REQUIRED), data[key], (key,))
                place = self.source.value((key,))
                if key == "name" and value is not None and value != _named_after(value):
                    self.report("a name is letters, digits, dots, dashes and underscores", place)
                if key == "seed" and value is not None and value < 0:
                    self.report(f"a seed is at least 0, not {value}", place)

    def plugins(self) -> bool:
        """Whether the key `plugins` has the form it must have."""
        entries = self.source.data.get("plugins", [])
        wrong: list[Path] = [("plugins",)]
        if isinstance(entries, list):
            wrong = [("plugins", i) for i, entry in enumerate(entries) if not _is_plugin(entry)]
        for path in wrong:
            form = '["file.py"]; an entry may be { file = "file.py", sha256 = "..." }'
            self.report(f"plugins is written {form}", self.source.value(path))
        return not wrong

    def section(self, section: str, kind: str) -> Part | None:
        """A table that holds one part."""
        default = _DEFAULTS.get(section)
        value = self.source.data.get(section, default)
        if section in _LIKE:
            if value is None:
                return None
            # What it does not say of its own is as in the other table.
            default = self.source.data.get(_LIKE[section], _DEFAULTS[_LIKE[section]])
        if value is None:
            hint = f"add it with `use` = one of: {', '.join(registry.names(kind))}"
            self.report(f"the table [{section}] is missing", self.source.end(), hint)
            return None
        return self.part(kind, value, (section,), default)

    def entries(self, section: str, kind: str) -> tuple[Part, ...]:
        """An array of tables, each a part; no two are called alike."""
        values = self.source.data.get(section, [])
        if not isinstance(values, list):
            hint = f"write [[{section}]], or {section} = [] for none"
            self.report(f"{section} is an array of tables", self.source.key((section,)), hint)
            return ()
        parts: dict[str, Part] = {}
        for index, value in enumerate(values):
            part = self.part(kind, value, (section, index))
            if part is None:
                continue
            if part.called in parts:
                first = self.source.value((*parts[part.called].path, "use"))
                hint = f"the first is at {first.name}:{first.line}:{first.column}" if first else ""
                hint += f'; to have both, name one: as = "other_{part.name}"'
                place = self.source.value((*part.path, "as" if part.given_name else "use"))
                self.report(f'two entries of {section} are called "{part.called}"', place, hint)
            parts[part.called] = part
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
        # What is refused gives way to what is not, because there may be more to refuse.
        usable = {"steps": 1} | {key: value for key, value in given.items() if value is not None}
        while True:
            try:
                return Train(**usable)
            except OptionError as error:
                self.report(str(error), self.source.value(("train", error.option)))
                usable[error.option] = getattr(Train, error.option, 1)

    def evaluation(self) -> Eval:
        """The table [eval], which need not be there."""
        table = self.source.data.get("eval", {})
        if not isinstance(table, dict):
            self.report("eval is a table", self.source.key(("eval",)), "write [eval]")
            return Eval()
        given = self.options(options_of(Eval), table, ("eval",), "[eval]")
        named = [part.name for part in given.get("metrics") or ()]
        for index, name in enumerate(named):
            if name in named[:index]:
                place = self.source.value(("eval", "metrics", index))
                self.report(f'metric "{name}" is there twice', place)
        try:
            return Eval(**{key: value for key, value in given.items() if value is not None})
        except OptionError as error:
            self.report(str(error), self.source.value(("eval", error.option)))
            return Eval()

    def part(self, kind: str, value: Any, path: Path, default: Any = None) -> Part | None:
        """A part: a name, or a table with `use` and options.

        A table without `use` changes the options of the part that is there by default.
        """
        known = registry.names(kind)
        table = _table(value)
        if table is None:
            form = '"name" or { use = "name", ... }'
            message = f"{self.named(path)} must be {form}, not {shown(value)}"
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
            self.report(f"unknown {kind} {shown(name)}", place, choices(str(name), known))
            return None
        entry = registry.get(kind, name)
        table = {key: inner for key, inner in table.items() if key != "use"}
        called = table.pop("as", "") if len(path) == 2 and path[0] in LISTS else ""
        if not isinstance(called, str) or called != _named_after(called) * bool(called):
            message = (
                f"a name is letters, digits, dots, dashes and underscores, not {shown(called)}"
            )
            self.report(message, self.source.value((*path, "as")))
            return None
        given = self.options(entry.options, table, path, f'{kind} "{name}"')
        if None in given.values():
            return None
        part = Part(entry, given, path, called)
        self.parts.append(part)
        return part

    def options(
        self, known: dict[str, Option], table: dict[str, Any], path: Path, of: str
    ) -> dict[str, Any]:
        """The options in a table, checked; those that are wrong or missing are None."""
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
                    hint += f", or as [[{key}]]" if key in LISTS else ""
                self.report(f"{of} has no option {shown(key)}", self.source.key(at), hint)
        for key, option in known.items():
            if option.default is REQUIRED and key not in table:
                given[key] = None
                place = self.source.key(path)
                hint = f"{key}: {option.meaning.removesuffix('.') or option.type_name}"
                self.report(f'{of} needs the option "{key}"', place, hint)
        return given

    def option(self, option: Option, value: Any, path: Path) -> Any:
        """One option's value: a part, several, or something plain."""
        if option.slot and option.many:
            if not isinstance(value, list):
                message = f"{self.named(path)} must be a {option.type_name}, not {shown(value)}"
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
        fit = True
        for index, item in enumerate(value if several else [value]):
            at = (*path, index) if several else path
            part = self.part("norm", item, at, None if several else _default(option))
            if part is None:
                fit = False
                continue
            on = part.entry.on or ""
            if on in parts:
                fit = False
                other = "activation" if on == "weight" else "weight"
                self.report(
                    f'"{part.name}" and "{parts[on].name}" both act on the {on}',
                    self.source.value(at),
                    f"keep one of them; a norm on the {other} may stand beside it",
                )
            else:
                parts[on] = part
        # A set has no order: the same norms are the same spec.
        return tuple(parts[on] for on in sorted(parts, reverse=True)) if fit else None

    def plain(self, option: Option, value: Any, path: Path) -> Any:
        """A plain value, strictly of the option's type; an int will do for a float."""
        if any(refused(leaf) for _, leaf in leaves(value)):
            return None
        record = record_of(option.annotation)
        if record and isinstance(value, dict):
            return self.record(record, value, path)
        try:
            return read(option.annotation, value)
        except UnfitError as error:
            message = f"{self.named(path)} must be {option.type_name}, not {shown(value)}"
            self.report(message, self.source.value((*path, *error.at)), error.hint)
            return None

    def record(self, record: Callable[..., Any], table: dict[str, Any], path: Path) -> Any:
        """A table of plain values that belong together, such as a half-life."""
        given = self.options(options_of(record), table, path, self.named(path))
        if None in given.values():
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
            name = part.get("as", part.get("use"))
            if isinstance(name, str):
                path = (path[0], name, *path[2:])
        return dotted(path)


def _table(value: Any) -> dict[str, Any] | None:
    """A part's table; "x" is short for { use = "x" }."""
    if isinstance(value, str):
        return {"use": value}
    return value if isinstance(value, dict) else None


def _default(option: Option) -> Any:
    """The part in a slot that is not mentioned, as a spec would write it."""
    absent = option.default is REQUIRED or option.default is None
    return None if absent else describe(option.slot, option.default, full=False)


def _is_plugin(entry: Any) -> bool:
    table = {"file": entry} if isinstance(entry, str) else entry
    known = isinstance(table, dict) and {"file"} <= set(table) <= {"file", "sha256"}
    return known and all(isinstance(value, str) for value in table.values())


def _named_after(file: str) -> str:
    """The name of a spec that gives none: its file's, with what a name may not have made dashes."""
    return re.sub(r"[^\w.-]", "-", file).lstrip(".") or "spec"
