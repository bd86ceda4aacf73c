"""From a spec to live modules: binding parts, checking that they fit, making the networks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from gankit.errors import Problem, SpecError
from gankit.fit import promised, unmet
from gankit.latents import normal
from gankit.networks import initialize
from gankit.ops import settle
from gankit.optimizers import adam
from gankit.paths import differentiated_twice, paths
from gankit.randomness import generator, seeded
from gankit.registry import Option, registry
from gankit.slots import Augment, Dataset, Image, Latent, Loss, Norm, Penalty
from gankit.spec import Part, Spec, in_order, problem_at

__all__ = ["GAN", "bind", "build", "make_network"]


@dataclass(kw_only=True)
class GAN:
    """Two networks and all that trains them; a spec builds one, and so can anyone by hand."""

    image: Image
    generator: nn.Module
    discriminator: nn.Module
    loss: Loss
    latent: Latent = normal
    optimizer: Any = adam
    discriminator_optimizer: Any = None
    """D's, where it is not the same as G's."""
    schedules: Sequence[object] = ()
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    augments: Mapping[str, Augment] = field(default_factory=dict)
    seed: int = 0
    joint: bool = False
    """D may judge real and fake images in one pass: it treats each row by itself."""
    compiled: Collection[str] = ()
    """Whose passes are compiled: `generator`, `discriminator`."""

    @property
    def needs(self) -> frozenset[str]:
        """What its loss and penalties have declared, such as real_in_generator."""
        parts = [("loss", self.loss), *(("penalty", part) for part in self.penalties.values())]
        entries = (registry.entry_of(kind, part) for kind, part in parts)
        return frozenset().union(*(entry.needs for entry in entries if entry))

    @property
    def adversarial(self) -> Mapping[str, float]:
        """Which of the discriminator's heads the adversarial loss applies to, with weights."""
        return getattr(self.discriminator, "adversarial", {"logits": 1.0})

    @property
    def latent_width(self) -> int:
        """The width of z."""
        return int(self.generator.latent)  # type: ignore[arg-type]

    def stateful(self) -> dict[str, nn.Module]:
        """The parts other than the networks that have state to save, by path."""
        named: dict[str, object] = {"loss": self.loss, "latent": self.latent}
        named |= {f"penalty.{name}": part for name, part in self.penalties.items()}
        named |= {f"augment.{name}": part for name, part in self.augments.items()}
        return {name: part for name, part in named.items() if isinstance(part, nn.Module)}


def bind(part: Part) -> Any:
    """The part with its options filled in: an object, a function, or the maker of a module."""
    options = part.entry.options
    bound = {name: _bind(options[name], value) for name, value in part.options.items()}
    return part.entry.bind(**bound)


def _bind(option: Option, value: Any) -> Any:
    if option.slot == "norm":
        return Norm(**{part.entry.on: bind(part) for part in value})
    if option.slot and option.many:
        return tuple(bind(part) for part in value)
    if option.slot == "augment":
        return promised("augment", bind(value))
    return bind(value) if option.slot else value


def make_network(part: Part, image: Image, seed: int) -> nn.Module:
    """A generator or discriminator with initial weights that depend on the seed alone.

    Each layer draws from a generator named after it, so exchanging one part leaves the other
    layers' initial weights as they were.
    """
    with seeded(seed, part.kind):
        network: nn.Module = bind(part)(image)
    arguments = getattr(network, "arguments", {})
    first = next(network.parameters(), None)
    if first is None:
        raise ValueError(f'{part.kind} "{part.name}" has nothing to train')
    if "initializer" in arguments and not first.is_meta:
        initialize(network, arguments["initializer"], lambda name: generator(seed, part.kind, name))
    settle(network)
    return network


def build(spec: Spec, device: torch.device | str = "cpu") -> tuple[GAN, Dataset]:
    """The live GAN and the data set of a spec.

    On the device `meta` nothing is allocated, and the weights have no values.

    Raises:
        SpecError: with every part that cannot be built as it was asked for.
    """
    problems: list[Problem] = []
    cause: Exception | None = None
    made: dict[str, Any] = {}
    # On `meta` there is no machine to run out of memory: torch speaks of sizes that are too large.
    on_meta = torch.device(device).type == "meta"
    refusals = (ValueError, RuntimeError) if on_meta else (ValueError,)

    def attempt(name: str, part: Part, make: Callable[[], Any]) -> None:
        try:
            made[name] = make()
        except refusals as error:
            if isinstance(error, SpecError):
                raise
            problems.append(problem_at(spec.source, part, error, spec.data))
            nonlocal cause
            cause = cause or error

    attempt("data", spec.data, partial(_made, spec.data))
    names = ("loss", "latent", "optimizer", "discriminator_optimizer")
    singles = {name: part for name in names if (part := getattr(spec, name))}
    listed = {
        f"{part.kind}.{part.called}": part
        for part in (*spec.schedule, *spec.penalty, *spec.augment)
    }
    for name, part in (singles | listed).items():
        attempt(name, part, partial(_made, part))
    if "data" in made:
        image: Image = made["data"].image
        problems += unmet(spec, image)
        for part in (spec.generator, spec.discriminator):
            attempt(part.kind, part, partial(_placed, part, image, spec.seed, device))
    for name, part, call in _trials(spec, made):
        attempt(name, part, call)
    if problems:
        raise SpecError(in_order(problems)) from cause
    taken = {path.name for path in paths(spec) if path.taken}
    gan = GAN(
        image=image,
        generator=made["generator"],
        discriminator=made["discriminator"],
        loss=made["loss"],
        latent=made["latent"],
        optimizer=made["optimizer"],
        discriminator_optimizer=made.get("discriminator_optimizer"),
        schedules=tuple(made[f"schedule.{part.called}"] for part in spec.schedule),
        penalties={part.called: made[f"penalty.{part.called}"] for part in spec.penalty},
        augments={part.called: made[f"augment.{part.called}"] for part in spec.augment},
        seed=spec.seed,
        joint="joint" in taken,
        compiled={
            name
            for name in ("generator", "discriminator")
            if "compiled" in taken and not differentiated_twice(spec, name == "discriminator")
        },
    )
    for network in (gan.generator, gan.discriminator):
        twice = bool(differentiated_twice(spec, network is gan.discriminator))
        for module in network.modules():
            if hasattr(module, "second_order"):
                setattr(module, "second_order", twice)  # noqa: B010
            if hasattr(module, "fast_path"):
                setattr(module, "fast", module.fast_path in taken)  # noqa: B010
    return gan, made["data"]


def _made(part: Part) -> Any:
    return promised(part.kind, bind(part))


def _trials(
    spec: Spec, made: Mapping[str, Any]
) -> Iterator[tuple[str, Part, Callable[[], object]]]:
    """Calls of the parts that are functions: only when they are called do they refuse an option."""

    def call(name: str, *arguments: Any) -> object:
        made[name](*arguments)
        return made[name]

    random = generator(spec.seed, "trial")
    networks = [made[name] for name in ("generator", "discriminator") if name in made]
    width = int(made["generator"].latent) if "generator" in made else 2
    yield "latent", spec.latent, partial(call, "latent", 2, width, random)
    for name in ("optimizer", "discriminator_optimizer"):
        if name in made:
            for network in networks or [nn.Linear(2, 2)]:
                yield name, getattr(spec, name), partial(call, name, network.parameters())
    for part in spec.augment:
        name = f"augment.{part.called}"
        if {"data", name} <= made.keys():
            image: Image = made["data"].image
            if image.size or "positions" not in part.entry.needs:
                images = torch.zeros(2, *image.shape)
                yield name, part, partial(call, name, images, random)


def _placed(part: Part, image: Image, seed: int, device: torch.device | str) -> nn.Module:
    """A network on its device; made on the CPU first, where its draws are the same everywhere."""
    if torch.device(device).type == "meta":
        with torch.device("meta"):
            return promised(part.kind, make_network(part, image, seed))
    return promised(part.kind, make_network(part, image, seed).to(device))
