"""What networks are made of: images, norms, and the slots that parts go into."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gankit.errors import OptionError
from gankit.registry import hand, handed

__all__ = [
    "Activation",
    "Attention",
    "Block",
    "Discriminator",
    "Generator",
    "Image",
    "Initializer",
    "Norm",
    "Shape",
    "conditional",
    "keep",
    "kept",
    "slot",
    "unchanged",
]

Shape = tuple[int, int, int]
"""Channels, height and width of what flows between stages."""

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


def slot(kind: str) -> Callable[[type[T]], type[T]]:
    """Mark a type as the slot of a kind of part; `gankit.registry.options` reads the mark.

    Set from outside, because inside a protocol's body it would become part of the protocol.
    """

    def mark(cls: type[T]) -> type[T]:
        cls.part_kind = kind  # type: ignore[attr-defined]
        return cls

    return mark


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


@slot("norm")
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
        called = conditional(module)
        called.normalises = True  # type: ignore[assignment]  # for tables of stages
        called.conditioned = self.needs_condition  # type: ignore[assignment]
        if self.needs_condition and called is not module:
            raise ValueError("a conditional norm's forward takes (x, condition), by these names")
        return called

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


@slot("attention")
class Attention(Protocol):
    """Makes a module (B, C, H, W) -> the same, handed the channels and the slot's Norm.

    As all parts, it may declare fewer of them. The module's forward takes x, and the network's
    condition where it declares one: what `norm.activation` gives is called with it.
    """

    def __call__(self, channels: int, /, *args: Any, **kwargs: Any) -> nn.Module: ...


@slot("activation")
class Activation(Protocol):
    """Makes a nonlinearity."""

    def __call__(self) -> nn.Module: ...


@slot("initializer")
class Initializer(Protocol):
    """Fills a weight in place, drawing from `random` alone."""

    def __call__(self, weight: Tensor, random: torch.Generator, /) -> object: ...


@slot("block")
class Block(Protocol):
    """Makes a stage, handed the shape coming in and the network's Norm.

    The stage states the shape going out as `out`, and is called as `stage(x, condition)`.
    """

    def __call__(self, shape: Shape, /, *args: Any, **kwargs: Any) -> nn.Module: ...


@slot("generator")
class Generator(Protocol):
    """Makes a network z (B, latent)[, labels (B,)] -> images; its width of z is `latent`."""

    def __call__(self, image: Image, /, *args: Any, **kwargs: Any) -> nn.Module: ...


@slot("discriminator")
class Discriminator(Protocol):
    """Makes a network images[, labels (B,)] -> logits of any shape (B, ...).

    One that returns several heads by name says in `adversarial` which of them the adversarial
    loss applies to, and with which weights: `adversarial = {"global": 1.0, "pixels": 0.5}`.
    """

    def __call__(self, image: Image, /, *args: Any, **kwargs: Any) -> nn.Module: ...
