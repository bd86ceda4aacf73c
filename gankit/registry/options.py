"""A part's options, read from its signature: the keyword-only parameters and their types."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from gankit.errors import PartError
from gankit.registry.kinds import KINDS

__all__ = ["REQUIRED", "Option", "check_signature", "options_of", "summary"]


class _Required:
    """The default of an option that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a part."""

    name: str
    annotation: Any
    default: Any
    meaning: str = ""
    slot: str | None = None
    """The kind of part that goes here, when the value is a part and not a plain value."""
    many: bool = False
    """A list of parts rather than one."""

    @property
    def type_name(self) -> str:
        """The type in the words of a spec: a tuple is a list there, a dataclass a table."""
        if self.slot:
            return f"list of {self.slot}" if self.many else self.slot
        return _readable(self.annotation)


def _readable(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(f'"{a}"' if isinstance(a, str) else str(a) for a in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_readable(a) for a in inner)
    if origin is dict:
        return f"{{ {' = '.join(map(_readable, inner))}, ... }}"
    if origin in (tuple, list):
        several = ["..."] if origin is list else []
        items = [*("..." if a is Ellipsis else _readable(a) for a in inner), *several]
        return f"[{', '.join(items)}]"
    if is_dataclass(annotation):
        # Postponed annotations are strings already.
        keys = (
            f"{f.name} = {f.type if isinstance(f.type, str) else _readable(f.type)}"
            for f in fields(annotation)
        )
        return f"{{ {', '.join(keys)} }}"
    if annotation is type(None):
        return "none"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def check_signature(name: str, target: Callable[..., Any], hands: tuple[str, ...]) -> None:
    """Refuse a part whose signature does not tell hand-overs and options apart.

    Raises:
        PartError: naming the rule that is broken.
    """
    try:
        signature = inspect.signature(target)
    except ValueError as error:
        raise PartError(f'part "{name}" has no signature that can be read') from error
    positional = 0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            rule = "a part names each of its options: no **kwargs"
        elif parameter.kind is parameter.VAR_POSITIONAL:
            rule = "a part names what it is handed: no *args"
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            rule = (
                "what is handed over stands before a `/`, options stand after a `*`: "
                f"`{parameter.name}` is neither"
            )
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            positional += 1
            continue
        elif parameter.annotation is parameter.empty:
            rule = f"option `{parameter.name}` needs a type"
        else:
            continue
        raise PartError(f'part "{name}": {rule}')
    if positional > len(hands):
        raise PartError(
            f'part "{name}" takes {positional} positional-only arguments; this kind is handed '
            + (", ".join(hands) if hands else "nothing")
        )


def options_of(target: Callable[..., Any]) -> dict[str, Option]:
    """The options of a part by name, in the order of its signature."""
    meanings = documented(inspect.getdoc(target) or "")
    options = {}
    for parameter in inspect.signature(target, eval_str=True).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        slot, many = _slot(parameter.annotation)
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        options[parameter.name] = Option(
            parameter.name,
            parameter.annotation,
            default,
            meanings.get(parameter.name, ""),
            slot,
            many,
        )
    return options


def _slot(annotation: Any) -> tuple[str | None, bool]:
    """The kind a slot type stands for, and whether a list of them is wanted.

    The slot types of `gankit.slots` name their kind in `part_kind`; nothing is imported to ask.
    What holds parts that are not made yet, as a spec does, is annotated with the kind beside it.
    """
    if typing.get_origin(annotation) is typing.Annotated:
        held, *notes = typing.get_args(annotation)
        of = next((note for note in notes if isinstance(note, str) and note in KINDS), None)
        return of, of is not None and typing.get_origin(held) is tuple
    if typing.get_origin(annotation) is tuple:
        inner, *rest = typing.get_args(annotation)
        if rest == [Ellipsis]:
            return getattr(inner, "part_kind", None), hasattr(inner, "part_kind")
    kind = getattr(annotation, "part_kind", None)
    return (kind if isinstance(kind, str) else None), False


def documented(doc: str) -> Mapping[str, str]:
    """What a docstring's `Options:` section says of each option."""
    section = re.search(r"^Options:\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    if not section:
        return {}
    found: dict[str, str] = {}
    name = None
    for line in inspect.cleandoc(section.group(1)).splitlines():
        start = re.match(r"(\w+): (.*)", line)
        if start:
            name = start.group(1)
            found[name] = start.group(2)
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def summary(target: Callable[..., Any]) -> str:
    """The first paragraph of a docstring on one line."""
    doc = inspect.getdoc(target) or ""
    return " ".join(doc.split("\n\n")[0].split())
