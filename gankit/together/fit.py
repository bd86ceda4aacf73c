"""Whether seeds can be trained together: what is known not to fit, and a trial of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gankit.build import GAN, build
from gankit.errors import Problem, SpecError, UsageError
from gankit.schedules import factors_of
from gankit.spec import Part, Spec, in_order, problem_at
from gankit.together.group import Group
from gankit.together.networks import Unstackable, stacked
from gankit.train.engine import Engine
from gankit.train.folder import differences

__all__ = ["check_seeds", "check_stackable", "check_trial"]

NEUTRAL = {"precision": "fp32", "accumulate": 1, "clip": 0.0, "top_k": 1.0}
"""Values of `[train]` at which no seed's step depends on another's rows or weights."""

STEPS = 2
"""How many steps the trial takes: in the second, what the first has left behind shows."""

TOLERANCE = 1e-9
"""How far apart numbers may be in float64, relative to the larger; sums are in another order."""


def check_seeds(specs: Sequence[Spec]) -> None:
    """Refuse specs that are not the same one with different seeds.

    Raises:
        UsageError: saying in what two of them differ.
    """
    if not specs:
        raise UsageError("there is no seed to train")
    first, *others = specs
    for spec in others:
        changed = differences(_without_seed(first), _without_seed(spec))
        if changed:
            lines = "\n  ".join(changed)
            raise UsageError(f"seeds trained together differ in nothing else\n  {lines}")
    seeds = [spec.seed for spec in specs]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"the seeds {', '.join(map(str, seeds))} are not all different")


def _without_seed(spec: Spec) -> dict[str, object]:
    return {key: value for key, value in spec.plain().items() if key != "seed"}


def check_stackable(spec: Spec) -> None:
    """Refuse what is known not to work seed by seed once seeds share a batch.

    Raises:
        SpecError: with every part and number that is in the way.
    """
    if problems := list(_problems(spec, build(spec, "meta")[0])):
        raise SpecError(in_order(problems))


def _problems(spec: Spec, gan: GAN) -> Iterator[Problem]:
    scaled = factors_of(gan.schedules, 0, spec.train.steps)
    for name, value in NEUTRAL.items():
        if getattr(spec.train, name) != value or f"train.{name}" in scaled:
            message = (
                f"seeds cannot be trained together unless train.{name} is {value!r} throughout"
            )
            yield Problem(message, spec.source.value(("train", name)))
    for part in (spec.loss, spec.latent, *spec.penalty, *spec.augment):
        path = part.kind if part.kind in ("loss", "latent") else f"{part.kind}.{part.called}"
        if path in gan.stateful():
            error = ValueError("keeps a state, which seeds trained together would share")
            yield problem_at(spec.source, part, _of(part, error))
    for part, network in ((spec.generator, gan.generator), (spec.discriminator, gan.discriminator)):
        try:
            stacked(network, 1)
        except Unstackable as error:
            yield problem_at(spec.source, part, _of(part, error))


def _of(part: Part, error: Exception) -> ValueError:
    return ValueError(f'{part.kind} "{part.name}" cannot be trained together: {error}')


def check_trial(specs: Sequence[Spec]) -> None:
    """Take a few steps of two seeds both ways, in float64, and refuse what is not the same.

    A part that begins to look at other rows only later than that is not found out.

    Raises:
        SpecError: naming the part whose number differs first.
    """
    two = list(specs[:2])
    alone, members = ([_wide(spec) for spec in two] for _ in range(2))
    group = Group(members)
    for step in range(min(STEPS, two[0].train.steps)):
        own = [engine.step(step) for engine in alone]
        try:
            group.gather()
            together = group.step(step)
            group.scatter()
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            message = f"seeds cannot be trained together: {type(error).__name__}: {error}"
            raise SpecError(Problem(message)) from error
        for name, value in together.items():
            expected = _expected(name, [told[name] for told in own])
            if not math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                raise SpecError(_unlike(two[0], name, f"{float(value):.6g}", f"{expected:.6g}"))
    for one, other in zip(alone, members, strict=True):
        if tensor := _first_apart(one, other):
            raise SpecError(_unlike(two[0], tensor, "one thing", "another"))


def _wide(spec: Spec) -> Engine:
    """An engine in float64, in which sums in another order agree to many digits."""
    gan, data = build(spec)
    for network in (gan.generator, gan.discriminator):
        network.double()
    return Engine(gan, data, spec.train, torch.device("cpu"))


def _expected(name: str, values: Sequence[Tensor]) -> float:
    """What a group tells where its members tell these: means, of gradients their length."""
    numbers = [float(value) for value in values]
    return math.hypot(*numbers) if name.startswith("gradient_") else sum(numbers) / len(numbers)


def _first_apart(one: Engine, other: Engine) -> str:
    """The first tensor of two engines' networks that is not the same in both, or ""."""
    for network, mine, its in (
        ("D", one.gan.discriminator, other.gan.discriminator),
        ("G", one.gan.generator, other.gan.generator),
        ("average of G", one.ema.average, other.ema.average),
    ):
        for (name, left), right in zip(
            mine.state_dict().items(), its.state_dict().values(), strict=True
        ):
            if not torch.allclose(left.double(), right.double(), rtol=TOLERANCE, atol=TOLERANCE):
                return f"{name} of {network}"
    return ""


def _unlike(spec: Spec, name: str, together: str, alone: str) -> Problem:
    """A number that is not what it should be, told of the part that it comes from."""
    kind, _, player = name.rpartition("_")
    network = spec.discriminator if "D" in (kind, player) else spec.generator
    named = {"loss": spec.loss, "gradient": network, "D": spec.discriminator}
    named |= {part.called: part for part in spec.penalty}
    part = named.get(kind, spec.optimizer)
    error = ValueError(f"{name} is {together} for two seeds together, and {alone} for each alone")
    return problem_at(spec.source, part, _of(part, error))
