"""Writing a spec's tables as TOML that people can read and edit."""

from __future__ import annotations

from typing import Any

import tomlkit
from tomlkit.items import Array, InlineTable

__all__ = ["dumps"]

_WIDE = 80


def dumps(tables: dict[str, Any]) -> str:
    """The TOML text of plain tables: one table per section, inline tables inside them."""
    document = tomlkit.document()
    for name, value in tables.items():
        if isinstance(value, dict):
            table = tomlkit.table()
            for key, inner in value.items():
                table.add(key, _value(inner))
            document.add(name, table)
        elif name != "plugins" and value and isinstance(value, list):
            entries = tomlkit.aot()
            for entry in value:
                item = tomlkit.table()
                for key, inner in entry.items():
                    item.add(key, _value(inner))
                entries.append(item)
            document.add(name, entries)
        elif value != []:
            document.add(name, _value(value))
    return tomlkit.dumps(document)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _inline(value)
    if isinstance(value, list | tuple):
        return _array(list(value))
    return value


def _inline(table: dict[str, Any]) -> InlineTable:
    inline = tomlkit.inline_table()
    for key, value in table.items():
        inline.add(key, _value(value))
    return inline


def _array(values: list[Any]) -> Array:
    array = tomlkit.array()
    for value in values:
        array.append(_value(value))
    return array.multiline(len(array.as_string()) > _WIDE)
