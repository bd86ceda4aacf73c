"""What parts are handed and what they promise.

`Image`, `Norm` and `Turn` are records that parts receive. The protocols say what each kind of part
must be able to do; nothing has to inherit from them. A parameter annotated `Norm`, `Attention`,
`Activation`, `Initializer` or `Block` is a slot: a spec puts a part of that kind there, and the
network receives its maker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from gankit.errors import OptionError
from gankit.registry import hand, handed

__all__ = [
    "Activation",
    "Attention",
    "Augment",
    "Block",
    "Dataset",
    "Discriminator",
    "Generator",
    "Image",
    "Initializer",
    "Latent",
    "Logits",
    "Loss",
    "Norm",
    "Observer",
    "Penalty",
    "Rates",
    "ScalesKeys",
    "ScalesRates",
    "Shape",
    "TakesTurns",
    "Turn",
    "conditional",
    "heads_of",
    "keep",
    "kept",
    "unchanged",
]

Shape = tuple[int, int, int]
"""Channels, height and width of what flows between stages."""

Logits = Tensor | Mapping[str, Tensor]
"""What a discriminator returns: logits of any shape (B, ...), or several named heads of them."""

T = TypeVar("T")


@dataclass(frozen=True)
class Image:
    """What the data looks like: what a generator must make and a discriminator is shown.

    `size` is (height, width), or () for points in space, of which `channels` are the coordinates.
    Bounded values lie in [-1, 1]. `classes` is 0 where there are no labels.
    """

    channels: int
    size: tuple[int, int] | tuple[()]
    classes: int = 0
    bounded: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image or point, without the batch."""
        return (self.channels, *self.size)


def _slot(kind: str) -> Callable[[type[T]], type[T]]:
    """Mark a type as the slot of a kind of part; `gankit.registry.options` reads the mark.

    Set from outside, because inside a protocol's body it would become part of the protocol.
    """

    def mark(cls: type[T]) -> type[T]:
        cls.part_kind = kind  # type: ignore[attr-defined]
        return cls

    return mark


# --- parts that networks are made of


def unchanged(layer: nn.Module, /) -> nn.Module:
    """The weight norm that is none."""
    return layer


def keep(layer: nn.Module) -> nn.Module:
    """Mark a layer as initialised by its maker: the network's initializer leaves it as it is.

    >>> self.scale = keep(nn.Linear(condition, channels))

    What a norm in a network's slot makes is marked without asking.
    """
    layer.keeps_initial = True  # type: ignore[assignment]
    return layer


def kept(layer: nn.Module) -> bool:
    """Whether a layer is marked by `keep`."""
    return getattr(layer, "keeps_initial", False) is True


class _Unconditional(nn.Module):
    """A module of one input, called with a second that it does not look at."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, second: Tensor | None = None) -> Any:
        return self.module(x)


def conditional(module: nn.Module, name: str = "condition") -> nn.Module:
    """The module, callable as `module(x, condition)` whether or not it declares a condition.

    It does if its forward's second parameter has that name; `labels` for whole networks.
    """
    _, *others = inspect.signature(module.forward).parameters
    return module if others and others[0] == name else _Unconditional(module)


@_slot("norm")
class Norm:
    """What normalises a network: the weights of its layers, and what flows between them.

    Blocks always call both: `norm.weight(layer)` gives the layer back, reparametrised or as it
    was, and `norm.activation(channels)` gives a module to call as `module(x, condition)`.
    Where nothing normalises, both are identities.

    `weight` takes a layer and returns it. `activation` is handed as much as it declares of:
    channels, the width E of the condition vector, and the weight norm for layers of its own. The
    layers it makes keep the initial weights that it gives them.

    Shape: `module(x, condition)` keeps x's (B, C, H, W); condition is (B, E) or None.

    Raises:
        OptionError: a conditional norm where the network makes no condition.
    """

    def __init__(
        self,
        weight: Callable[[Any], nn.Module] = unchanged,
        activation: Callable[..., nn.Module] | None = None,
        *,
        condition: int = 0,
    ) -> None:
        self.makers = (weight, activation)
        self.condition = condition

    def weight(self, layer: nn.Module) -> nn.Module:
        """The layer, its weight normalised."""
        return self.makers[0](layer)

    def activation(self, channels: int) -> nn.Module:
        """A module that normalises `channels` feature maps."""
        make = self.makers[1]
        if make is None:
            return conditional(nn.Identity())
        if self.needs_condition and not self.condition:
            name = getattr(getattr(make, "func", make), "__name__", "the norm")
            raise OptionError("condition", f"{name} needs a condition, and this network makes none")
        module = hand(make, channels, self.condition, self.weight)
        for inner in module.modules():
            keep(inner)
        return conditional(module)

    @property
    def needs_condition(self) -> bool:
        """Whether the activation norm declares a condition."""
        return self.makers[1] is not None and (handed(self.makers[1]) or 0) >= 2

    def given(self, condition: int) -> Norm:
        """The same norm for a network whose condition vector is `condition` wide."""
        return Norm(*self.makers, condition=condition)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Norm) and (self.makers, self.condition) == (
            other.makers,
            other.condition,
        )

    def __hash__(self) -> int:
        return hash((self.makers, self.condition))

    def __repr__(self) -> str:
        weight, activation = self.makers
        return f"Norm({weight!r}, {activation!r}, condition={self.condition})"


@_slot("attention")
class Attention(Protocol):
    """Makes a module (B, C, H, W) -> the same, handed the channels and the slot's Norm.

    As all parts, it may declare fewer of them. The module's forward takes x, and the network's
    condition where it declares one: what `norm.activation` gives is called with it.
    """

    def __call__(self, channels: int, /, *args: Any, **kwargs: Any) -> nn.Module: ...


@_slot("activation")
class Activation(Protocol):
    """Makes a nonlinearity."""

    def __call__(self) -> nn.Module: ...


@_slot("initializer")
class Initializer(Protocol):
    """Fills a weight in place, drawing from `random` alone."""

    def __call__(self, weight: Tensor, random: torch.Generator, /) -> object: ...


@_slot("block")
class Block(Protocol):
    """Makes a stage, handed the shape coming in and the network's Norm.

    The stage states the shape going out as `out`, and is called as `stage(x, condition)`.
    """

    def __call__(self, shape: Shape, /, *args: Any, **kwargs: Any) -> nn.Module: ...


@_slot("generator")
class Generator(Protocol):
    """Makes a network z (B, latent)[, labels (B,)] -> images; its width of z is `latent`."""

    def __call__(self, image: Image, /, *args: Any, **kwargs: Any) -> nn.Module: ...


@_slot("discriminator")
class Discriminator(Protocol):
    """Makes a network images[, labels (B,)] -> logits of any shape (B, ...).

    One that returns several heads by name says in `adversarial` which of them the adversarial
    loss applies to, and with which weights: `adversarial = {"global": 1.0, "pixels": 0.5}`.
    """

    def __call__(self, image: Image, /, *args: Any, **kwargs: Any) -> nn.Module: ...


# --- parts that the engine calls


class Loss(Protocol):
    """What each player minimises, on pairs of logits of the same shape (B, ...)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """A scalar for the discriminator."""
        ...

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """A scalar for the generator; real is None unless the loss needs real_in_generator."""
        ...


def heads_of(logits: Logits) -> dict[str, Tensor]:
    """Every head by name; a discriminator of one output has one, called `logits`."""
    return {"logits": logits} if isinstance(logits, Tensor) else dict(logits)


@dataclass(frozen=True)
class Turn:
    """All that a turn has when a penalty is asked for its share.

    In a generator's turn `real` and its heads are None unless a part needs real_in_generator.
    """

    step: int
    total: int
    player: str
    """`D` or `G`: whose loss is being made up."""
    real: Tensor | None
    fake: Tensor
    labels: Tensor | None
    """One label per row, of the real and of the fake batch alike; None without classes."""
    latent: Tensor
    real_heads: Mapping[str, Tensor] | None
    fake_heads: Mapping[str, Tensor]
    image: Image
    """What one row of real and fake looks like."""
    generator: nn.Module
    generate: Callable[[Tensor], Tensor]
    """The generator with the turn's labels in it: latents to images."""
    heads: Callable[[Tensor], dict[str, Tensor]]
    """The discriminator with the turn's labels and augments in it: images to every head.

    Rows are those of the batch, or several times over."""
    adversarial: Mapping[str, float]
    """Which heads the adversarial loss applies to, and their weights in it."""
    random: torch.Generator
    """What a penalty draws from, on the CPU; each penalty is given one of its own."""

    @classmethod
    def of(cls, discriminator: nn.Module, *, real: Tensor, fake: Tensor) -> Turn:
        """A discriminator's turn in a loop of one's own: enough for penalties of images alone.

        What the loop does not have (labels, latents, a generator, a count of steps) is empty;
        draws come from torch's global generator, as all draws by hand do.
        """

        def heads(images: Tensor) -> dict[str, Tensor]:
            return heads_of(discriminator(images))

        return cls(
            step=0,
            total=1,
            player="D",
            real=real,
            fake=fake,
            labels=None,
            latent=fake.new_empty(len(fake), 0),
            real_heads=heads(real),
            fake_heads=heads(fake),
            image=Image(real.shape[1], tuple(real.shape[2:])),  # type: ignore[arg-type]
            generator=nn.Identity(),
            generate=nn.Identity(),
            heads=heads,
            adversarial=getattr(discriminator, "adversarial", {"logits": 1.0}),
            random=torch.default_generator,
        )

    def discriminator(self, images: Tensor) -> Tensor:
        """The adversarial logits of images, with the turn's labels and augments in them.

        Of several adversarial heads, all logits side by side, unweighted: (B, N).
        """
        return self._joined(self.heads(images))

    @property
    def real_logits(self) -> Tensor:
        """The adversarial logits of the real batch."""
        assert self.real_heads is not None, "this turn has no real batch"
        return self._joined(self.real_heads)

    @property
    def fake_logits(self) -> Tensor:
        """The adversarial logits of the fake batch."""
        return self._joined(self.fake_heads)

    def _joined(self, heads: Mapping[str, Tensor]) -> Tensor:
        """One head as it is; several side by side, (B, N)."""
        chosen = [heads[name] for name in self.adversarial]
        return chosen[0] if len(chosen) == 1 else torch.cat([h.flatten(1) for h in chosen], 1)


class Penalty(Protocol):
    """A scalar added to a player's loss, at every `every`-th turn of that player.

    The engine multiplies by `every`, so the expected strength does not depend on it.
    """

    @property
    def players(self) -> str:
        """For whom: `D`, `G` or `DG`."""
        ...

    @property
    def every(self) -> int:
        """Applied once in so many turns of its player."""
        ...

    def __call__(self, turn: Turn, /) -> Tensor: ...


class Rates(NamedTuple):
    """Factors on the two learning rates."""

    generator: float = 1.0
    discriminator: float = 1.0


@runtime_checkable
class TakesTurns(Protocol):
    """A schedule that says who moves: ("D", "D", "G"), or ("DG",) for both at once."""

    def turns(self, step: int, total: int) -> Sequence[str]:
        """The turns of a step, in order."""
        ...


@runtime_checkable
class ScalesRates(Protocol):
    """A schedule that multiplies learning rates."""

    def rates(self, step: int, total: int) -> Rates:
        """Factors for a step."""
        ...


@runtime_checkable
class ScalesKeys(Protocol):
    """A schedule that multiplies other numbers of the spec, by path: `penalty.r1.weight`."""

    def factors(self, step: int, total: int) -> Mapping[str, float]:
        """Factors for a step, by path."""
        ...


class Augment(Protocol):
    """A differentiable change of images, drawn from `random`, applied to real and fake alike."""

    def __call__(self, images: Tensor, random: torch.Generator, /) -> Tensor: ...


@runtime_checkable
class Observer(Protocol):
    """An augment or penalty that is shown every turn of D once its losses are made up."""

    def observe(self, turn: Turn) -> None:
        """Take note; called without gradients, before D's weights move."""
        ...


class Latent(Protocol):
    """Draws (count, width) latents from `random`."""

    def __call__(self, count: int, width: int, random: torch.Generator, /) -> Tensor: ...


class Dataset(Protocol):
    """Real images by index. Making one touches no disk; asking for its length or images may."""

    @property
    def image(self) -> Image:
        """What one image looks like."""
        ...

    def __len__(self) -> int: ...

    def images(self, indices: Tensor) -> Tensor:
        """(B, C, H, W), uint8 or float in [-1, 1]; points are (B, C) float."""
        ...

    def labels(self, indices: Tensor) -> Tensor | None:
        """(B,) int64, or None without classes."""
        ...
