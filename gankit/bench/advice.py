"""What to change about a spec, by what was measured of it.

Each rule says from which share of a step on it speaks, and what would be gained. It speaks of
nothing that was not measured, and of two ways to the same end it names the one that leaves the
experiment as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gankit.bench.clock import REST
from gankit.bench.profile import Profile
from gankit.bench.seams import AVERAGE, DATA, OPTIMIZER, PENALTY, WEIGHTS
from gankit.build import bind
from gankit.datasets import Folder, Packed
from gankit.spec import Part
from gankit.train.memory import ROOM

__all__ = ["RULES", "Rule", "advice"]

LAZY = 16
"""How seldom a penalty need be applied: StyleGAN2 (arXiv:1912.04958, appendix B) for R1."""
SELDOM = 0.01
"""The share of a step that logs, grids and checkpoints should be down to."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When to speak, and what to say."""

    name: str
    about: str
    """What the share is a share of, in words."""
    share: Callable[[Profile], float]
    above: float
    """From which share on."""
    says: Callable[[Profile], str | None]
    """What to change; None where this is not the spec or the machine for it."""


def advice(profile: Profile) -> dict[str, str]:
    """What every rule says that has something to say, by its name."""
    spoken = ((rule.name, rule.says(profile)) for rule in RULES if _due(rule, profile))
    return {name: said for name, said in spoken if said}


def _due(rule: Rule, profile: Profile) -> bool:
    return rule.share(profile) >= rule.above


def _data(profile: Profile) -> str | None:
    if profile.instead:
        return None
    data = bind(profile.spec.data)
    share = f"{profile.share(DATA):.0%} of the step waits for data"
    if isinstance(data, Folder):
        command = data.hint.splitlines()[-1].strip()
        return f"{share}: decode it once, with {command}"
    if isinstance(data, Packed) and profile.gpu and not data.on_gpu:
        return f"{share}: data.on_gpu=true keeps it in the GPU's memory, if it fits"
    return None


def _penalty(profile: Profile) -> str | None:
    costly = max(_lazier(profile), key=lambda part: profile.share(PENALTY + part.called))
    every = int(costly.options.get("every", costly.entry.options["every"].default))
    share = profile.share(PENALTY + costly.called)
    return (
        f"{share:.0%} of the step goes into {costly.called}: with penalty.{costly.called}.every="
        f"{LAZY} it takes {every / LAZY:.0%} of that, at the same strength on average; it is"
        " another experiment"
    )


def _lazier(profile: Profile) -> Iterator[Part]:
    """The penalties that could be applied less often."""
    for part in profile.spec.penalty:
        if "every" in part.entry.options:
            every = part.options.get("every", part.entry.options["every"].default)
            if every < LAZY:
                yield part


def _costliest(profile: Profile) -> float:
    return max((profile.share(PENALTY + part.called) for part in _lazier(profile)), default=0.0)


def _fixed(profile: Profile) -> float:
    """What a turn takes however many images are in it."""
    return profile.share(WEIGHTS, OPTIMIZER, AVERAGE, REST)


def _batch(profile: Profile) -> str:
    share, batch = _fixed(profile), profile.spec.train.batch
    return (
        f"{share:.0%} of the step is the same for any batch: with train.batch={2 * batch} at least"
        f" {2 / (2 - share):.1f} times as many images a second; it is another experiment"
    )


def _computing(name: str, says: Callable[[Profile], str | None]) -> Rule:
    """For how the networks are computed: from half of the step on."""
    return Rule(
        name=name,
        about="generator, discriminator and penalties",
        share=lambda profile: profile.networks,
        above=0.50,
        says=says,
    )


def _less(key: str, what: str) -> Rule:
    """For what is done every so many steps: from 5 % on, do it more seldom."""

    def says(profile: Profile) -> str:
        share, every = profile.share(key), int(getattr(profile.spec.train, key))
        seldom = _round_number(every * share / SELDOM)
        return f"{share:.0%} of the step goes into {what}: train.{key}={seldom} makes it 1 %"

    return Rule(
        name=key,
        about=f"`{key}`",
        share=lambda profile: profile.share(key),
        above=0.05,
        says=says,
    )


def _round_number(number: float) -> int:
    """The next number with one digit and zeros."""
    unit = 10 ** int(math.log10(max(1.0, number)))
    return math.ceil(number / unit - 1e-9) * unit  # but for rounding


def _bf16(profile: Profile) -> str | None:
    if not (profile.gpu and profile.half and profile.spec.train.precision == "fp32"):
        return None
    return (
        f"{profile.networks:.0%} of the step is the networks, in fp32: train.precision=bf16 uses"
        " the GPU's faster products; it rounds more, so it is another experiment"
    )


def _fp32(profile: Profile) -> str | None:
    precision = profile.spec.train.precision
    if profile.gpu or profile.half or precision == "fp32":
        return None
    return (
        f"this CPU computes {precision} without instructions of its own: compare"
        " train.precision=fp32, which is another experiment"
    )


def _threads(profile: Profile) -> str | None:
    if profile.gpu or profile.threads >= profile.cores:
        return None
    used = f"{profile.threads} of {profile.cores} cores"
    return f"{used} compute the networks: compare --threads {profile.cores}"


def _smaller(profile: Profile) -> str | None:
    train = profile.spec.train
    more = (n for n in range(train.accumulate + 1, train.batch + 1) if train.batch % n == 0)
    shares = next(more, None)
    if shares is None:
        return None
    return (
        f"{_fullness(profile):.0%} of the memory is taken: train.accumulate={shares} works the same"
        " batch off in smaller shares"
    )


def _spread(profile: Profile) -> float:
    return (profile.step.high - profile.step.low) / profile.step.median


def _again(profile: Profile) -> str:
    return (
        f"the quartiles of the step are {_spread(profile):.0%} apart: something else uses the"
        " machine, and the parts need not add up; measure again when it is idle"
    )


def _fullness(profile: Profile) -> float:
    return profile.memory / profile.capacity


def _larger(profile: Profile) -> str | None:
    shares = profile.spec.train.accumulate
    if shares == 1 or _fullness(profile) * shares > ROOM:
        return None
    return (
        f"{_fullness(profile):.0%} of the memory is taken: the batch fits in one share, which is"
        " quicker: train.accumulate=1"
    )


RULES = (
    Rule(
        name="data",
        about="data",
        share=lambda profile: profile.share(DATA),
        above=0.10,
        says=_data,
    ),
    Rule(name="penalty", about="one penalty", share=_costliest, above=0.25, says=_penalty),
    Rule(
        name="batch",
        about="weight norms, optimizer, average and rest",
        share=_fixed,
        above=0.30,
        says=_batch,
    ),
    _less("log", "logs"),
    _less("samples", "grids of samples"),
    _less("checkpoint", "checkpoints"),
    _computing("bf16", _bf16),
    _computing("fp32", _fp32),
    _computing("threads", _threads),
    Rule(
        name="memory", about="the memory, by its peak", share=_fullness, above=ROOM, says=_smaller
    ),
    Rule(
        name="spread",
        about="the step, between its quartiles",
        share=_spread,
        above=0.20,
        says=_again,
    ),
    Rule(name="shares", about="the memory, by its peak", share=_fullness, above=0.0, says=_larger),
)
"""Every rule, in the order in which they are told."""
