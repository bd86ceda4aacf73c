"""Plain values of a spec: whether one is of an option's type, and how a message shows it."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from gankit.errors import nearest
from gankit.spec.document import Path

__all__ = ["UnfitError", "leaves", "read", "record_of", "refused", "shown"]

SHOWN = 60
"""How many characters of a value a message repeats; the source line shows more."""


class UnfitError(ValueError):
    """A value is not of the type that is wanted."""

    def __init__(self, at: Path, hint: str) -> None:
        self.at = at
        """Where in the value the trouble is, as far as that can be told."""
        self.hint = hint
        super().__init__(hint)


def read(annotation: Any, value: Any) -> Any:
    """A plain value, strictly of a type; an int will do for a float.

    Raises:
        UnfitError: it is not; says where, and what may be meant.
    """
    adapter = _adapter(annotation)
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        at = _deepest([problem["loc"] for problem in error.errors()], value)
    hint = ""
    if isinstance(value, str):
        near = nearest(value, _literals(annotation))
        hint = f'did you mean "{near}"?' if near else _unquoted(adapter, value)
    raise UnfitError(at, hint)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that holds no others, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


def refused(value: Any) -> str:
    """Why no option can have a value, whatever its type; empty where one could."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that a spec can use"
    if isinstance(value, datetime.date | datetime.time):
        return "a spec holds no dates or times"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a whole number in a spec has at most 64 bits"
    return ""


def shown(value: Any) -> str:
    """A value in a message: on one line, and not too much of it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    # JSON lets through what a terminal might obey.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


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


def record_of(annotation: Any) -> Callable[..., Any] | None:
    """The dataclass that an option may be written as a table of, if there is one."""
    found = (a for a in (annotation, *get_args(annotation)) if is_dataclass(a))
    return next((a for a in found if isinstance(a, type)), None)


def _literals(annotation: Any) -> list[str]:
    """The strings that an option may be, where only certain ones will do."""
    if get_origin(annotation) is Literal:
        return [a for a in get_args(annotation) if isinstance(a, str)]
    return [word for a in get_args(annotation) for word in _literals(a)]


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)
