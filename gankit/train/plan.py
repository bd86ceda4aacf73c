"""What a spec amounts to, before anything is allocated: shapes, counts, turns and memory."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from gankit.build import bind, build
from gankit.errors import OptionError, Problem, SpecError
from gankit.ops import plainly
from gankit.paths import paths
from gankit.registry import registry
from gankit.schedules import turns_of
from gankit.slots import TakesTurns, conditional, heads_of
from gankit.spec import Part, Spec, describe, problem_at
from gankit.train.memory import peak_bytes
from gankit.train.reach import check_reach

__all__ = ["NetworkPlan", "Plan", "Stage", "expand", "networks", "plan"]

LOOKED_AT = 1_000_000
STRETCHES = 1000
"""How many steps a schedule is asked about; of longer runs, so many evenly spaced ones."""


@dataclass(frozen=True)
class Stage:
    """A row of a network's table."""

    name: str
    output: tuple[int, ...]
    """The shape of one image's output, without the batch."""
    parameters: int
    macs: int
    """Multiply-accumulates for one image, of the layers as they are written."""
    norm: str
    attention: str


@dataclass(frozen=True)
class NetworkPlan:
    """One network, stage by stage."""

    use: str
    parameters: int
    macs: int
    output: tuple[int, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Plan:
    """A checked spec with what it will make and cost."""

    spec: Spec
    generator: NetworkPlan
    discriminator: NetworkPlan
    turns: dict[str, int]
    """How often each kind of turn (D, G, DG) is played over the whole run."""
    memory: int | None
    """Bytes alive at the peak of a training step; None where no dry run was possible."""
    choices: tuple[str, ...] = ()
    """What was chosen because of the rest of the spec, in words."""

    @property
    def images(self) -> int:
        """Real images shown to D over the whole run."""
        return self.spec.train.batch * sum(n for turn, n in self.turns.items() if "D" in turn)

    def json(self) -> dict[str, Any]:
        """The plan as `gankit build --json` prints it."""
        return {
            "name": self.spec.name,
            "hash": self.spec.hash,
            "generator": _network_json(self.generator),
            "discriminator": _network_json(self.discriminator),
            "steps": self.spec.train.steps,
            "batch": self.spec.train.batch,
            "turns": self.turns,
            "images": self.images,
            "memory_bytes": self.memory,
            "choices": list(self.choices),
        }


def _network_json(network: NetworkPlan) -> dict[str, Any]:
    return {
        "use": network.use,
        "parameters": network.parameters,
        "macs": network.macs,
        "output": list(network.output),
        "stages": [vars(stage) | {"output": list(stage.output)} for stage in network.stages],
    }


def plan(spec: Spec) -> Plan:
    """The plan of a spec; allocates nothing and reads no data.

    Raises:
        SpecError: with every part that cannot be built, or cannot run, as it was asked for.
    """
    generator, discriminator = networks(spec)
    check_reach(spec)
    turns = _turns(spec)
    memory = _memory(spec, turns)
    return Plan(spec, generator, discriminator, turns, memory, tuple(_choices(spec)))


def _choices(spec: Spec) -> Iterator[str]:
    """Which of several forms the GAN computes in, and why."""
    for path in paths(spec):
        yield f"{path.name} is {'taken' if path.taken else 'not taken'}: {path.why}"


def networks(spec: Spec) -> tuple[NetworkPlan, NetworkPlan]:
    """The generator and the discriminator, each run once on a batch without content.

    On the device `meta`; on the CPU where a part asks for values, which are not there on `meta`.

    Raises:
        SpecError: one cannot be built or run, or the two do not fit each other or the data.
    """
    try:
        return _networks(spec, "meta")
    except _NoValues:
        return _networks(spec, "cpu")


class _NoValues(Exception):
    """A part looked at values where there are none."""


def _networks(spec: Spec, device: str) -> tuple[NetworkPlan, NetworkPlan]:
    gan, _ = build(spec, device)
    batch, image = spec.train.batch, gan.image
    try:
        latents = torch.zeros(batch, gan.latent_width, device=device)
        images = torch.zeros(batch, *image.shape, device=device)
    except RuntimeError as error:
        place = spec.source.value(("train", "batch"))
        message = f"a batch of {batch} is more than any memory holds"
        raise SpecError(Problem(message, place)) from error
    labels = torch.zeros(batch, dtype=torch.int64, device=device) if image.classes else None
    generator = _measured(spec, spec.generator, gan.generator, (latents, labels), ("logits",))
    if generator.output != image.shape:
        problem = ValueError(f"the generator makes {generator.output}, the data is {image.shape}")
        raise SpecError(problem_at(spec.source, spec.generator, problem))
    heads = tuple(gan.adversarial)
    discriminator = _measured(spec, spec.discriminator, gan.discriminator, (images, labels), heads)
    return generator, discriminator


def expand(spec: Spec) -> dict[str, Any]:
    """The spec's tables with each network as the explicit stack of stages that it stands for.

    Raises:
        SpecError: a network is no list of stages.
    """
    gan, _ = build(spec, "meta")
    tables = spec.plain(full=False)
    for section, network in (("generator", gan.generator), ("discriminator", gan.discriminator)):
        arguments: Any = getattr(network, "arguments", None)
        if arguments is None:
            part: Part = getattr(spec, section)
            message = f'{section} "{part.name}" is not a list of stages, so it cannot be expanded'
            raise SpecError(problem_at(spec.source, part, ValueError(message)))
        options = registry.get(section, "stack").options
        tables[section] = {"use": "stack"}
        for name, option in options.items():
            value = describe(option.slot, arguments[name], full=False)
            if value != describe(option.slot, option.default, full=False):
                tables[section][name] = value
    return tables


def _measured(
    spec: Spec,
    part: Part,
    network: nn.Module,
    inputs: tuple[Tensor, Tensor | None],
    heads: tuple[str, ...],
) -> NetworkPlan:
    """Run a network once, and note what each of its stages does.

    A forward pass that fails is the spec's fault, and is told at the network's place; so is one
    that lacks a head that the adversarial loss applies to.
    """
    rows: dict[str, Stage] = {}
    counter = FlopCounterMode(display=False)
    batch = len(inputs[0])
    norms = _norm_names(part)
    before: list[int] = []

    def start(stage: nn.Module, args: Any) -> None:
        before.append(counter.get_total_flops())

    def finish(name: str, stage: nn.Module, args: Any, output: Any) -> None:
        macs = (counter.get_total_flops() - before.pop()) // 2 // batch
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        if shape != getattr(stage, "out", shape):
            raise ValueError(f"stage {name} gives {shape}, and not the {stage.out} that it states")
        rows[name] = Stage(
            name, shape, _count(stage), macs, _norms(stage, norms), _attention(stage)
        )

    with ExitStack() as hooks, plainly(network), counter, torch.no_grad():
        for name, stage in _stages(network):
            hooks.callback(stage.register_forward_pre_hook(start).remove)
            hooks.callback(stage.register_forward_hook(partial(finish, name)).remove)
        try:
            logits = heads_of(conditional(network, "labels")(*inputs))
            if missing := set(heads) - set(logits):
                have = ", ".join(sorted(logits))
                raise ValueError(
                    f'there is no head "{missing.pop()}" for the loss; there is {have}'
                )
        except (OptionError, ValueError, RuntimeError) as error:
            if isinstance(error, NotImplementedError) or "meta tensor" in str(error):
                raise _NoValues from error
            raise SpecError(problem_at(spec.source, part, error)) from error
    output = logits[heads[0]]
    return NetworkPlan(
        part.name,
        _count(network),
        counter.get_total_flops() // 2 // batch,
        tuple(output.shape[1:]),
        tuple(rows.values()),
    )


def _stages(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A stack's stages, or the children of a network that is no stack."""
    stages = getattr(network, "stages", network)
    yield from stages.named_children()


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _norm_names(part: Part) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {"weight": [], "activation": []}
    for inner in part.inner():
        if inner.entry.on:
            found[inner.entry.on].append(inner)
    return found


def _norms(stage: nn.Module, norms: dict[str, list[Part]]) -> str:
    """Which of the network's norms act in a stage."""
    names = []
    if any(parametrize.is_parametrized(module) for module in stage.modules()):
        names += [part.name for part in norms["weight"]]
    for part in norms["activation"]:
        target = part.entry.target
        if isinstance(target, type):
            acts = any(isinstance(module, target) for module in stage.modules())
        else:
            acts = any(getattr(module, "normalises", False) for module in stage.modules())
        if acts:
            names.append(part.name)
    return " + ".join(names)


def _attention(stage: nn.Module) -> str:
    entries = (registry.entry_of("attention", module) for module in stage.modules())
    return " + ".join(entry.name for entry in entries if entry)


def _turns(spec: Spec) -> dict[str, int]:
    """How often each kind of turn is played over all steps; near enough where those are many."""
    total = spec.train.steps
    pairs = [(part, bind(part)) for part in spec.schedule]
    takers = [(part, schedule) for part, schedule in pairs if isinstance(schedule, TakesTurns)]
    if not takers:
        return {"D": total, "G": total}
    part, taker = takers[0]
    rounds: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], int] = {}
    try:
        for step in _looked_at(total):
            turns = tuple(taker.turns(step, total))
            rounds[turns] += 1
            first.setdefault(turns, step)
        for step in first.values():
            turns_of([taker], step, total)  # refuses what is no turn
    except ValueError as error:
        raise SpecError(problem_at(spec.source, part, error)) from error
    counts: Counter[str] = Counter()
    for turns, count in rounds.items():
        for turn in turns:
            counts[turn] += count
    return {turn: count * total // rounds.total() for turn, count in sorted(counts.items())}


def _looked_at(total: int) -> Iterator[int]:
    """Every step, or of very many whole stretches spread over all of them.

    Stretches, because single steps a stride apart would all fall on one beat of an alternation.
    """
    if total <= LOOKED_AT:
        yield from range(total)
        return
    for first in range(0, total, total // STRETCHES):
        yield from range(first, min(first + LOOKED_AT // STRETCHES, total))


def _at_fault(spec: Spec, error: Exception) -> Part:
    """The part whose code the error came out of, or that it names; the loss if it was none."""
    ran = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
    for part in (*spec.penalty, *spec.augment):
        target = part.entry.target
        functions = vars(target).values() if isinstance(target, type) else [target]
        own = {getattr(function, "__code__", None) for function in functions}
        if own & ran or f'{part.kind} "{part.called}"' in str(error):
            return part
    return spec.loss


_MISTAKES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""What a part's own mistakes show up as."""


def _memory(spec: Spec, turns: Sequence[str] | dict[str, int]) -> int | None:
    """The peak of a dry run, where the parts can do without values."""
    spec = replace(spec, train=replace(spec.train, compile=False))
    make: Callable[[], Any] = partial(build, spec, "meta")
    try:
        return peak_bytes(make, spec.train, tuple(turns))
    except (NotImplementedError, DataDependentOutputException, DynamicOutputShapeException):
        # A part that looks at values (a mask, an `.item()`) cannot run where there are none.
        return None
    except _MISTAKES as error:
        problem = problem_at(spec.source, _at_fault(spec, error), error)
        needs = {need for part in spec.parts() for need in part.entry.needs}
        hint = ""
        if "NoneType" in str(error) and "real_in_generator" not in needs:
            hint = 'what looks at real images in a turn of G declares needs={"real_in_generator"}'
        message = f"a training step fails: {type(error).__name__}: {error}"
        raise SpecError(replace(problem, message=message, hint=hint)) from error
