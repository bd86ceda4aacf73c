"""Parts by name, with what a card says of them: their options, whose they are, which versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import PIL
import torch

import gankit
from gankit.fit import promised
from gankit.registry import Entry, hand, registry

__all__ = ["Named", "named", "provided", "versions"]


@dataclass(frozen=True)
class Named:
    """A part, made, and what its card says of it."""

    part: Any
    entry: Entry
    options: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Its name, every option that it has, and where it comes from if it is not gankit's."""
        written = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.options.items())
        named = f"{self.entry.name}({written})" if written else self.entry.name
        return named + provided(self.entry)


def named(kind: str, name: str, options: Mapping[str, Any], *offered: Any) -> Named:
    """A part by its name, with options filled in.

    Raises:
        SpecError: there is none of that name.
        ValueError: it refuses an option, or what it is offered.
    """
    entry = registry.get(kind, name)
    made = entry.bind(**options)
    made = hand(made, *offered) if entry.kind.form == "maker" else made
    defaults = {key: option.default for key, option in entry.options.items()}
    return Named(promised(kind, made), entry, {**defaults, **options})


def provided(entry: Entry) -> str:
    """Whose a part is, for those of other makers: what they change, nobody numbers."""
    return "" if entry.provider.name == "gankit" else f" of {entry.provider}"


def versions() -> str:
    """Of the libraries that compute scores."""
    return (
        f"gankit {gankit.__version__}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"Pillow {PIL.__version__}, Python {platform.python_version()}"
    )
