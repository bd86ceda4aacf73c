"""The plug board: a part's name, kind, options and provider; how to add one and find one.

A decorator records the part and returns it unchanged, so that it stays an ordinary object:

    @gankit.loss("quadratic")
    @dataclass(frozen=True, kw_only=True)
    class Quadratic: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeVar

from gankit.registry.discovery import load_file
from gankit.registry.entries import Entry, Provider, Registry, registry
from gankit.registry.kinds import KINDS, NEEDS, Kind, hand, handed
from gankit.registry.options import REQUIRED, Option

__all__ = [
    "KINDS",
    "NEEDS",
    "REQUIRED",
    "Entry",
    "Kind",
    "Option",
    "Provider",
    "Registry",
    "activation",
    "attention",
    "augment",
    "block",
    "dataset",
    "discriminator",
    "features",
    "generator",
    "hand",
    "handed",
    "initializer",
    "latent",
    "load_file",
    "logger",
    "loss",
    "metric",
    "norm",
    "optimizer",
    "penalty",
    "registry",
    "schedule",
]

T = TypeVar("T", bound=Callable[..., Any])


class Decorator(Protocol):
    """Takes a part and returns it unchanged."""

    def __call__(self, target: T, /) -> T: ...


def norm(
    name: str, /, *, on: Literal["weight", "activation"], needs: Iterable[str] = ()
) -> Decorator:
    """Record a norm; `on` says whether it acts on a layer's weight or between layers."""
    return lambda target: registry.add("norm", name, target, needs, on)


def _recorder(kind: str) -> Callable[..., Decorator]:
    def record(name: str, /, *, needs: Iterable[str] = ()) -> Decorator:
        return lambda target: registry.add(kind, name, target, needs)

    record.__name__ = record.__qualname__ = kind
    record.__doc__ = f"Record a {kind} under a name; `needs` declares what it cannot work without."
    return record


activation = _recorder("activation")
attention = _recorder("attention")
augment = _recorder("augment")
block = _recorder("block")
dataset = _recorder("dataset")
discriminator = _recorder("discriminator")
features = _recorder("features")
generator = _recorder("generator")
initializer = _recorder("initializer")
latent = _recorder("latent")
logger = _recorder("logger")
loss = _recorder("loss")
metric = _recorder("metric")
optimizer = _recorder("optimizer")
penalty = _recorder("penalty")
schedule = _recorder("schedule")
