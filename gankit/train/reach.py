"""How far schedules take the numbers that they scale, and what the parts say to that."""

from __future__ import annotations

import torch

from gankit.build import GAN, bind, build
from gankit.errors import Problem, SpecError
from gankit.randomness import generator
from gankit.schedules import factors_of
from gankit.spec import Spec, in_order
from gankit.train.scaling import scaled

__all__ = ["check_reach"]

LOOKED_AT = 1000
"""How many steps of a run are looked at, evenly spaced, beside the last."""


def check_reach(spec: Spec) -> None:
    """Refuse schedules that take a number where its part will not have it.

    Raises:
        SpecError: at each such schedule, with the step and what the part says.
    """
    reached = _reached(spec)
    if not reached:
        return
    gan, _ = build(spec, "meta")
    problems = []
    for path, factors in reached.items():
        # Of the least and of the greatest the first.
        for factor, step in {min(factors), max(factors, key=lambda each: (each[0], -each[1]))}:
            try:
                _call(scaled(gan, {path: factor}))
            except ValueError as error:
                at = next(p for p in spec.schedule if path in factors_of([bind(p)], step, 1 + step))
                message = f'schedule "{at.called}" takes {path} too far at step {step:,}: {error}'
                problems.append(Problem(message, spec.source.value((*at.path, "on"))))
    if problems:
        raise SpecError(in_order(problems))


def _reached(spec: Spec) -> dict[str, list[tuple[float, int]]]:
    """The factors on each number that is scaled, and at which steps."""
    total = spec.train.steps
    schedules = [bind(part) for part in spec.schedule]
    found: dict[str, list[tuple[float, int]]] = {}
    for step in (*range(0, total, max(1, total // LOOKED_AT)), total - 1):
        for path, factor in factors_of(schedules, step, total).items():
            found.setdefault(path, []).append((factor, step))
    return found


def _call(gan: GAN) -> None:
    """Call the parts that are functions, which refuse an option no earlier."""
    random = generator(gan.seed, "trial")
    gan.latent(2, gan.latent_width, random)
    if gan.image.size:
        for augment in gan.augments.values():
            augment(torch.zeros(2, *gan.image.shape), random)
