"""A checked spec: plain data that names parts, and can be written out again in full."""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal

from gankit.errors import OptionError
from gankit.registry import REQUIRED, Entry, registry
from gankit.registry.options import options_of
from gankit.spec.document import Path
from gankit.spec.source import Source

__all__ = [
    "FORMAT",
    "LISTS",
    "SECTIONS",
    "Eval",
    "Fast",
    "HalfLife",
    "Part",
    "Plugin",
    "Spec",
    "Train",
    "describe",
]

FORMAT = 1
"""The version of the spec format: the value of the key `gankit`."""

SECTIONS: dict[str, str] = {
    "data": "dataset",
    "generator": "generator",
    "discriminator": "discriminator",
    "latent": "latent",
    "loss": "loss",
    "optimizer": "optimizer",
    "discriminator_optimizer": "optimizer",
}
"""Tables that hold one part, and its kind."""

LISTS: dict[str, str] = {
    "schedule": "schedule",
    "penalty": "penalty",
    "augment": "augment",
    "logger": "logger",
}
"""Arrays of tables, each entry a part, and their kind."""

RESUMABLE = ("steps", "checkpoint", "samples", "log", "keep", "best", "rollbacks")
"""Keys of [train] that may change when a run continues, and so are no part of its identity."""


Fast = Literal["folded", "joint", "attention", "channels_last"]
"""The fast paths, by name; `gankit.paths` says which are taken."""


@dataclass(frozen=True)
class Part:
    """A part as a spec names it, with the options that were given.

    An option's value is plain, or a Part, or a tuple of Parts where the slot takes several.
    """

    entry: Entry
    options: Mapping[str, Any]
    path: Path = field(default=(), compare=False)
    """Where in the spec it stands."""
    given_name: str = ""
    """What the spec calls it, an entry of an array of tables, by the key `as`."""

    @property
    def called(self) -> str:
        """By what name it is spoken of: what the spec calls it, or else the part's."""
        return self.given_name or self.name

    @property
    def kind(self) -> str:
        """The kind of part."""
        return self.entry.kind.name

    @property
    def name(self) -> str:
        """Its name on the plug board."""
        return self.entry.name

    def inner(self) -> Iterator[Part]:
        """This part and every part in its slots, those that stand there by default too."""
        yield self
        for name, option in self.entry.options.items():
            if option.slot:
                value = self.options.get(name, option.default)
                for part in self._parts_in(option.slot, value):
                    yield from part.inner()

    def _parts_in(self, slot: str, value: Any) -> Iterator[Part]:
        """The parts that a slot's value amounts to; a default is a maker, not yet a part."""
        if isinstance(value, Part):
            yield value
        elif isinstance(value, tuple | list) or hasattr(value, "makers"):
            for item in getattr(value, "makers", value):
                yield from self._parts_in(slot, item)
        elif callable(value) and (entry := registry.entry_of(slot, value)):
            given = value.keywords if isinstance(value, partial) else {}
            yield Part(entry, given, self.path)

    def plain(self, full: bool) -> dict[str, Any]:
        """The table that names this part: with every default, or with only what differs."""
        table: dict[str, Any] = {"use": self.name}
        if self.given_name:
            table["as"] = self.given_name
        for name, option in self.entry.options.items():
            default = describe(option.slot, option.default, full)
            given = name in self.options
            value = describe(option.slot, self.options[name], full) if given else default
            # TOML has no word for None; an option that is not written has it.
            if value is not None and (full or value != default):
                table[name] = value
        return table


def describe(slot: str | None, value: Any, full: bool = True) -> Any:
    """An option's value as TOML would have it; the inverse of reading and binding it.

    Makers of parts (functions, classes, partials of them, a Norm) become the part's name, or a
    table where options were filled in: every option, or with `full` off those that differ from
    their defaults.
    """
    if isinstance(value, Part):
        return _short(value.plain(full))
    if isinstance(value, tuple | list):
        items = [describe(slot, item, full) for item in value]
        return _set_of_norms(items) if slot == "norm" else items
    if is_dataclass(value) and not isinstance(value, type) and slot is None:
        return dict(vars(value))
    if slot is None or value is None or value is REQUIRED:
        return value
    if hasattr(value, "makers"):
        return describe(slot, [maker for maker in value.makers if _acts(maker)], full)
    return _maker(slot, value, full)


def _set_of_norms(items: list[Any]) -> Any:
    """A set of norms in its shortest form: of nothing and "none" there is one way to write it."""
    acting = [item for item in items if item != "none"]
    return acting if len(acting) > 1 else (acting or ["none"])[0]


def _acts(maker: Any) -> bool:
    return maker is not None and getattr(maker, "__name__", "") != "unchanged"


def _maker(slot: str, maker: Callable[..., Any], full: bool) -> Any:
    entry = registry.entry_of(slot, maker)
    if entry is None:
        name = getattr(maker, "__name__", repr(maker))
        raise OptionError(slot, f"{name} is not on the plug board, so no spec can name it")
    given = maker.keywords if isinstance(maker, partial) else {}
    return _short(Part(entry, given).plain(full))


def _short(table: dict[str, Any]) -> str | dict[str, Any]:
    """`{ use = "x" }` is written "x"."""
    name: str = table["use"]
    return table if len(table) > 1 else name


@dataclass(frozen=True, kw_only=True)
class HalfLife:
    """A moving average whose weight halves every so many images.

    Options:
        half_life: images after which a weight counts half.
        ramp_up: early on, the half-life is at most this share of the images seen so far; 0 for
            none.
    """

    half_life: float
    ramp_up: float = 0.0

    def __post_init__(self) -> None:
        if not self.half_life > 0:
            raise OptionError("half_life", f"half_life must be above 0, not {self.half_life}")
        if self.ramp_up < 0:
            raise OptionError("ramp_up", f"ramp_up must be at least 0, not {self.ramp_up}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long and in which way to train.

    Options:
        steps: rounds of the schedule's turns.
        batch: images per turn.
        precision: `bf16` and `fp16` run convolutions and products in half precision; weights stay
            float32, and fp16 scales its losses.
        accumulate: work a batch off in so many equal shares, one after the other, for less
            memory; another function only where rows are compared with each other, which then are
            those of a share: by norms with batch statistics, `top_k`, feature matching.
        clip: gradients longer than this are shortened to it, each player's as a whole; 0 for
            none.
        top_k: the share of its fakes that G learns from, those D thinks the most of.
        batches: the discriminator sees real and fake `separate`, or `joint` in one pass, which
            is another function where it has batch statistics.
        fast: compute in the fastest of several exact forms: all, none, or a list of them, which
            are `folded` convolutions, `joint` passes of D, fused `attention`, and feature maps with
            `channels_last`. They differ in rounding alone.
        compile: compile the passes of both networks, which takes minutes at the start and is faster
            from then on; needs a C++ compiler, or on a GPU Triton. Differs in rounding alone.
        ema: decay per step of the averaged generator, or a half-life in images; 0 for none.
        checkpoint: save every so many steps, and at the end.
        samples: draw a grid every so many steps, and at the end.
        log: write a line of metrics every so many steps.
        keep: how many checkpoints are kept, the newest.
        best: a metric; the checkpoint where it was lowest is kept too. `-name` for highest.
        rollbacks: how often a run that left the finite numbers goes back to its last good state
            and on with other draws.
    """

    steps: int
    batch: int = 64
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    clip: float = 0.0
    top_k: float = 1.0
    batches: Literal["separate", "joint"] = "separate"
    fast: bool | tuple[Fast, ...] = True
    compile: bool = False
    ema: float | HalfLife = 0.0
    checkpoint: int = 1000
    samples: int = 1000
    log: int = 50
    keep: int = 2
    best: str = ""
    rollbacks: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "checkpoint", "samples", "log", "keep"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("clip", "rollbacks"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(name, f"{name} must be at least 0, not {getattr(self, name)}")
        if self.batch % self.accumulate:
            raise OptionError(
                "accumulate",
                f"a batch of {self.batch} is not made of {self.accumulate} equal shares",
            )
        if not 0 < self.top_k <= 1:
            raise OptionError("top_k", f"top_k is a share in (0, 1], not {self.top_k}")
        if not isinstance(self.ema, HalfLife) and not 0 <= self.ema < 1:
            raise OptionError("ema", f"ema is a decay in [0, 1), not {self.ema}")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """How what a run makes is scored: by `gankit eval`, and as often as asked for in training.

    Options:
        features: what metrics see of an image; by default those that go with the data.
        metrics: what is scored; by default what goes with the data.
        count: how many generated images are scored; 0 for as many as go with the data.
        every: score every so many steps of training, and at the end; 0 for not at all. The best
            checkpoint by the first score is kept, unless `train.best` names another.
        floor: tell beside each score that of real images against other real ones.
    """

    features: Annotated[Part | None, "features"] = None
    metrics: Annotated[tuple[Part, ...], "metric"] = ()
    count: int = 0
    every: int = 0
    floor: bool = False

    def __post_init__(self) -> None:
        for name in ("count", "every"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{name} must be at least 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class Plugin:
    """A local Python file that declares parts."""

    file: str
    """As the spec names it, relative to the spec; or as it was given beside the spec."""
    sha256: str
    path: pathlib.Path = field(default=pathlib.Path(), compare=False)
    """Where it was found."""


@dataclass(frozen=True)
class Spec:
    """Everything about one experiment, as data."""

    name: str
    seed: int
    plugins: tuple[Plugin, ...]
    data: Part
    generator: Part
    discriminator: Part
    latent: Part
    loss: Part
    optimizer: Part
    """G's, and D's where that has none of its own."""
    discriminator_optimizer: Part | None
    schedule: tuple[Part, ...]
    penalty: tuple[Part, ...]
    augment: tuple[Part, ...]
    logger: tuple[Part, ...]
    train: Train
    eval: Eval
    source: Source = field(compare=False, repr=False)

    def parts(self) -> Iterator[Part]:
        """Every part the spec names, those in slots included."""
        for section in SECTIONS:
            if part := getattr(self, section):
                yield from part.inner()
        for section in LISTS:
            for part in getattr(self, section):
                yield from part.inner()
        for part in (*filter(None, [self.eval.features]), *self.eval.metrics):
            yield from part.inner()

    def plain(self, full: bool = True) -> dict[str, Any]:
        """The spec as the tables of a TOML file: with every default, or with what differs."""
        tables: dict[str, Any] = {"gankit": FORMAT, "name": self.name, "seed": self.seed}
        if self.plugins:
            tables["plugins"] = [{"file": p.file, "sha256": p.sha256} for p in self.plugins]
        for section in SECTIONS:
            if part := getattr(self, section):
                tables[section] = part.plain(full)
        for section in LISTS:
            tables[section] = [part.plain(full) for part in getattr(self, section)]
        tables["train"] = {
            name: describe(None, value)
            for name, value in vars(self.train).items()
            if full or name == "steps" or value != getattr(Train, name)
        }
        scored = {
            name: describe(option.slot, value, full)
            for name, option in options_of(Eval).items()
            if (value := getattr(self.eval, name)) is not None and (full or value != option.default)
        }
        return tables | ({"eval": scored} if scored else {})

    def resolved(self) -> dict[str, Any]:
        """The spec with every default, and who provides each part."""
        providers = {part.entry.path: str(part.entry.provider) for part in self.parts()}
        return self.plain() | {"providers": dict(sorted(providers.items()))}

    def identity(self, full: bool = True) -> dict[str, Any]:
        """The tables of what makes the run what it is: not its name, length, or logging."""
        tables = self.plain(full)
        for key in ("name", "logger", "eval"):
            tables.pop(key, None)
        train = {key: value for key, value in tables["train"].items() if key not in RESUMABLE}
        return tables | {"train": train}

    @property
    def hash(self) -> str:
        """SHA-256 of the spec's identity, without what is at its default."""
        text = json.dumps(self.identity(full=False), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
