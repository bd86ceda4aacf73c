"""The plug board: which parts exist, under which names, and who provides them."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import gankit.errors as errors
from gankit.registry.kinds import KINDS, NEEDS, Kind
from gankit.registry.options import Option, check_signature, options_of, summary

__all__ = ["Entry", "Provider", "Registry", "registry"]

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Provider:
    """Where a part comes from."""

    name: str
    """`gankit`, a file's name, or a module."""
    version: str = ""
    """A version, or for a file the SHA-256 of what is in it."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True)
class Entry:
    """A part and what is recorded about it."""

    kind: Kind
    name: str
    target: Callable[..., Any]
    provider: Provider
    needs: frozenset[str] = field(default_factory=frozenset)
    on: str | None = None
    """For a norm: `weight` or `activation`."""

    @cached_property
    def options(self) -> dict[str, Option]:
        """The keys a spec may give, from the part's signature."""
        return options_of(self.target)

    @property
    def summary(self) -> str:
        """What the part is, in a sentence."""
        return summary(self.target)

    @property
    def path(self) -> str:
        """`kind/name`, as `gankit list` matches it."""
        return f"{self.kind.name}/{self.name}"

    def bind(self, **options: Any) -> Any:
        """The part with its options filled in: a maker, a function or an object, by its kind."""
        if isinstance(self.target, type) and self.kind.form != "maker":
            return self.target(**options)
        return partial(self.target, **options) if options else self.target


class Registry:
    """Named parts of each kind. Built-in ones are imported when their kind is first asked for."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self._loaded: set[str] = set()
        self._provider: Provider | None = None

    def add(
        self, kind: str, name: str, target: T, needs: Iterable[str] = (), on: str | None = None
    ) -> T:
        """Record a part and return it unchanged.

        Raises:
            PartError: when its signature breaks the rules or another part holds the name.
        """
        of = KINDS[kind]
        hands = ("layer",) if on == "weight" else of.hands
        check_signature(name, target, hands)
        if of.form == "object" and not isinstance(target, type):
            raise errors.PartError(
                f'part "{name}": a {kind} is a class, so that it can have methods'
            )
        needs = _known(name, needs)
        if not target.__module__.startswith("gankit."):
            # A name that a built-in part has is taken, whether or not that was asked for yet.
            self._load(kind)
        provider = self._provider_of(target)
        held = self._entries.get((kind, name))
        if held is not None and not _same(held.target, target):
            raise errors.PartError(
                f'two parts are called {kind} "{name}": one from {held.provider}, '
                f"one from {provider}"
            )
        self._entries[kind, name] = Entry(of, name, target, provider, needs, on)
        return target

    @contextmanager
    def provided_by(self, provider: Provider) -> Iterator[None]:
        """While inside, every part that is declared is recorded as coming from `provider`."""
        outer, self._provider = self._provider, provider
        try:
            yield
        finally:
            self._provider = outer

    def _provider_of(self, target: Callable[..., Any]) -> Provider:
        # A plugin file that imports `gankit.norms` first does not become the provider of those.
        if target.__module__.startswith("gankit."):
            return Provider("gankit", _version())
        return self._provider or Provider(target.__module__)

    def _load(self, kind: str) -> None:
        if kind in self._loaded:
            return
        self._loaded.add(kind)
        try:
            importlib.import_module(f"gankit.{KINDS[kind].plural}")
        except BaseException:
            self._loaded.discard(kind)
            raise

    def forget(self, provider: Provider) -> None:
        """Take away every part of a provider: a file that failed, or that has changed since."""
        self._entries = {k: e for k, e in self._entries.items() if e.provider != provider}

    def names(self, kind: str) -> list[str]:
        """The sorted names of a kind's parts."""
        self._load(kind)
        return sorted(name for k, name in self._entries if k == kind)

    def get(self, kind: str, name: str) -> Entry:
        """Look a part up.

        Raises:
            SpecError: with the nearest and the available names.
        """
        self._load(kind)
        try:
            return self._entries[kind, name]
        except KeyError:
            hint = errors.choices(name, self.names(kind))
            problem = errors.Problem(f'unknown {kind} "{name}"', hint=hint)
            raise errors.SpecError(problem) from None

    def find(self, pattern: str = "*") -> list[Entry]:
        """The entries whose `kind/name` matches a shell pattern, or all of a kind by its name."""
        if pattern in KINDS:
            pattern = f"{pattern}/*"
        elif "/" not in pattern:
            pattern = f"*/{pattern}"
        for kind in KINDS:
            if fnmatch.fnmatchcase(kind, pattern.split("/")[0]):
                self._load(kind)
        found = [
            entry for entry in self._entries.values() if fnmatch.fnmatchcase(entry.path, pattern)
        ]
        order = list(KINDS)
        return sorted(found, key=lambda entry: (order.index(entry.kind.name), entry.name))

    def entry_of(self, kind: str, target: object) -> Entry | None:
        """The entry under which an object (or the function a partial wraps) is recorded."""
        self._load(kind)
        target = target.func if isinstance(target, partial) else target
        for (k, _), entry in self._entries.items():
            if k == kind and (entry.target is target or type(target) is entry.target):
                return entry
        return None


def _known(name: str, needs: Iterable[str]) -> frozenset[str]:
    """The needs, each a word that means something; a misspelt one would be silently ignored."""
    if isinstance(needs, str):
        raise errors.PartError(f'part "{name}": needs is a set of words: {{"{needs}"}}')
    for word in needs:
        if word not in NEEDS:
            hint = errors.choices(word, NEEDS)
            raise errors.PartError(f'part "{name}" declares an unknown need "{word}"; {hint}')
    return frozenset(needs)


def _same(one: object, other: object) -> bool:
    """Whether two objects are one definition, run twice: a re-run notebook cell, a reload."""
    key = [(getattr(o, "__module__", None), getattr(o, "__qualname__", None)) for o in (one, other)]
    return key[0] == key[1]


def _version() -> str:
    from gankit import __version__

    return __version__


registry = Registry()
"""The plug board that decorators and specs share."""
