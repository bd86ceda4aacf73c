"""In words, what is changed from one spec to another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gankit.spec import LISTS, Part, Spec, describe
from gankit.spec.model import SECTIONS

__all__ = ["differences"]


def differences(old: Spec, new: Spec) -> list[str]:
    """What trains otherwise, a line each, by the paths that overrides take.

    Names and seeds are left out, and so are loggers: they change no result.
    """
    lines: list[str] = []
    for section in SECTIONS:
        lines += _parts(getattr(old, section), getattr(new, section), section)
    for section in LISTS:
        if section != "logger":
            lines += _entries(getattr(old, section), getattr(new, section), section)
    for key, value in vars(old.train).items():
        lines += _plain(value, getattr(new.train, key), f"train.{key}")
    return lines


def _entries(old: tuple[Part, ...], new: tuple[Part, ...], path: str) -> Iterator[str]:
    """Entries of an array of tables, which are told apart by what they are called."""
    before = {part.called: part for part in old}
    after = {part.called: part for part in new}
    for name in [*before, *(name for name in after if name not in before)]:
        yield from _parts(before.get(name), after.get(name), f"{path}.{name}")
    # Augments act one after the other.
    if set(before) == set(after) and list(before) != list(after):
        yield f"{path}: the order {_shown(list(before))} became {_shown(list(after))}"


def _parts(old: Part | None, new: Part | None, path: str) -> Iterator[str]:
    if old is None or new is None:
        # With every option: other cells may have the same part with other values.
        if new is not None:
            yield f"{path}: {_shown(describe(None, new))} is new"
        elif old is not None:
            yield f"{path}: {_shown(describe(None, old))} is gone"
    elif old.name != new.name:
        yield from _plain(describe(None, old, full=False), describe(None, new, full=False), path)
    else:
        for name, option in old.entry.options.items():
            one = old.options.get(name, option.default)
            other = new.options.get(name, option.default)
            inner = f"{path}.{name}"
            if isinstance(one, Part) and isinstance(other, Part):
                yield from _parts(one, other, inner)
            else:
                before = describe(option.slot, one, full=False)
                after = describe(option.slot, other, full=False)
                yield from _plain(before, after, inner)


def _plain(old: Any, new: Any, path: str) -> Iterator[str]:
    old, new = describe(None, old), describe(None, new)
    if old != new:
        yield f"{path}: {_shown(old)} became {_shown(new)}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
