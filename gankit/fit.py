"""Whether parts fit: what each kind promises, and what parts need of the rest of a spec."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from typing import TypeVar

from torch import nn

from gankit.errors import Problem, choices
from gankit.registry import registry
from gankit.slots import Image
from gankit.spec import LISTS, Part, Spec

__all__ = ["METRICS", "STRENGTH", "promised", "unmet"]

T = TypeVar("T")

METHODS = {
    "dataset": ("image", "images", "labels", "__len__"),
    "loss": ("discriminator", "generator"),
    "penalty": ("players", "every", "__call__"),
    "features": ("width", "card", "__call__"),
    "metric": ("better", "gather", "scores"),
    "logger": ("numbers", "picture", "close"),
}
SCHEDULES = ("turns", "rates", "factors")


def promised(kind: str, made: T) -> T:
    """The object, if it can do what its kind promises; the engine asks no further.

    Raises:
        ValueError: it lacks a method, or says something that means nothing.
    """
    missing = [name for name in METHODS.get(kind, ()) if not hasattr(made, name)]
    if missing:
        raise ValueError(f"a {kind} has {', '.join(METHODS[kind])}; lacks {', '.join(missing)}")
    if kind == "schedule" and not any(callable(getattr(made, name, None)) for name in SCHEDULES):
        raise ValueError(f"a schedule has one or more of the methods {', '.join(SCHEDULES)}")
    if kind == "penalty":
        players, every = getattr(made, "players", None), getattr(made, "every", None)
        if players not in ("D", "G", "DG"):
            raise ValueError(f"a penalty's players are D, G or DG, not {players!r}")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"a penalty's `every` is a number of turns, not {every!r}")
    if kind not in ("generator", "discriminator") and isinstance(made, nn.Module):
        trained = [name for name, p in made.named_parameters() if p.requires_grad]
        if trained:
            raise ValueError(
                f"no optimizer trains the parameters of a {kind}, such as {trained[0]}"
            )
    if kind in ("generator", "discriminator"):
        assert isinstance(made, nn.Module)
        _, *others = inspect.signature(made.forward).parameters.values()
        if others and others[0].name != "labels":
            name = others[0].name
            raise ValueError(f"the second thing a {kind} is called with is `labels`, not `{name}`")
    if kind == "generator" and not isinstance(getattr(made, "latent", None), int):
        raise ValueError("a generator states the width of z as the int `latent`")
    heads = getattr(made, "adversarial", None)
    if kind == "discriminator" and (isinstance(heads, nn.Module) or heads == {}):
        raise ValueError("a discriminator's `adversarial` gives the names of heads their weights")
    return made


def unmet(spec: Spec, image: Image) -> Iterator[Problem]:
    """What parts need and this spec does not give them."""
    yield from _of_the_data(spec, image)
    yield from _of_the_discriminator(spec)
    yield from _of_schedules(spec)
    yield from _of_the_best(spec)


def _problem(spec: Spec, part: Part, message: str, hint: str = "") -> Problem:
    named = f'{part.kind} "{part.name}"'
    return Problem(f"{named} {message}", spec.source.value((*part.path, "use")), hint)


def _of_the_data(spec: Spec, image: Image) -> Iterator[Problem]:
    for part in spec.parts():
        if "labels" in part.entry.needs and not image.classes:
            yield _problem(spec, part, "needs labels; the data has none")
        if "positions" in part.entry.needs and not image.size:
            yield _problem(spec, part, "needs positions; points in space have one")


def _of_the_discriminator(spec: Spec) -> Iterator[Problem]:
    mixing = [
        inner.name
        for inner in spec.discriminator.inner()
        if inner.entry.needs & {"batch_statistics", "separate_batches"}
    ]
    for part in spec.parts():
        if "independent_rows" in part.entry.needs and mixing:
            yield _problem(
                spec,
                part,
                f'treats each image by itself; the discriminator\'s "{mixing[0]}" mixes them',
                "layernorm or no norm in [discriminator] leaves images apart",
            )
        if "separate_batches" in part.entry.needs and spec.train.batches == "joint":
            yield _problem(spec, part, 'needs [train] batches = "separate"')


def _of_schedules(spec: Spec) -> Iterator[Problem]:
    scaled = set(_scalable(spec))
    for part in spec.schedule:
        on = part.options.get("on", "")
        if "on" in part.entry.options and on and on not in scaled:
            message = f'schedule "{part.called}" cannot scale "{on}"'
            place = spec.source.value((*part.path, "on"))
            yield Problem(message, place, choices(on, scaled))
    takers = [part for part in spec.schedule if hasattr(part.entry.target, "turns")]
    for part in takers[1:]:
        message = f'and "{takers[0].called}" both say who moves'
        yield _problem(spec, part, message, "keep one of them")


def _scalable(spec: Spec) -> Iterator[str]:
    """The numbers that a schedule may scale, by path; learning rates are scaled without one."""
    yield from ("train.ema", "train.top_k")
    for part in (*spec.penalty, *spec.augment, spec.loss, spec.latent):
        several = part.kind in LISTS
        path = f"{part.kind}.{part.called}" if several else part.kind
        target = part.entry.target
        exchanged = is_dataclass(target) or inspect.isfunction(target)
        for name, option in part.entry.options.items():
            if option.annotation is float and (exchanged or (part.kind, name) == STRENGTH):
                yield f"{path}.{name}"
    for section in ("optimizer", "discriminator_optimizer"):
        if optimizer := getattr(spec, section):
            for name, option in optimizer.entry.options.items():
                if option.annotation is float and name != "lr":
                    yield f"{section}.{name}"


STRENGTH = ("penalty", "weight")
"""The engine scales it whatever the penalty is made of."""


def _of_the_best(spec: Spec) -> Iterator[Problem]:
    best = spec.train.best.removeprefix("-")
    known = {f"{what}_{player}" for what in MEASURED for player in "DG"}
    known |= {"D_real", "D_fake", "diversity"}
    known |= {f"{part.called}_{player}" for part in spec.penalty for player in "DG"}
    if spec.eval.every:
        known |= set(_scores(spec))
    if best and best not in known:
        place = spec.source.value(("train", "best"))
        yield Problem(f'nothing called "{best}" is measured', place, choices(best, known))


def _scores(spec: Spec) -> Iterator[str]:
    """The scores of which one can say which is better, of the metrics that a run is scored by."""
    for part in spec.eval.metrics:
        with suppress(ValueError):  # which is told of where it is made
            yield from part.entry.bind(**part.options).better
    if not spec.eval.metrics:
        for name in getattr(spec.data.entry.target, "metrics", METRICS):
            yield from registry.get("metric", name).bind().better


METRICS = ("frechet", "prdc")
"""What is scored where neither the spec nor the data says."""

MEASURED = ("loss", "gradient", "sigma", "stretch", "gain")
"""What a run logs of each player."""
