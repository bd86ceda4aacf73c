"""The kinds of part there are: what each is handed, and where the built-in ones live."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "Kind", "hand", "handed"]


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    A part declares as positional-only parameters as many of `hands` as it needs, in that order;
    its keyword-only parameters are its options.
    """

    name: str
    plural: str
    """The built-in module and the entry-point group are named by it."""
    hands: tuple[str, ...]
    """What the architecture or the engine hands over, in order."""
    made_late: bool
    """True where the part is built by the network that asks for it, so a spec yields its maker."""
    about: str


_ALL = (
    Kind("norm", "norms", ("channels", "condition", "layer_norm"), True, "normalises"),
    Kind("attention", "attentions", ("channels", "norm"), True, "looks across positions"),
    Kind("activation", "activations", (), True, "a nonlinearity"),
    Kind("initializer", "initializers", ("weight", "random"), False, "fills a weight"),
    Kind("block", "blocks", ("shape", "norm"), True, "a stage of a network"),
    Kind("generator", "networks", ("image",), True, "latents to images"),
    Kind("discriminator", "networks", ("image",), True, "images to logits"),
    Kind("loss", "losses", (), False, "what the two players minimise"),
    Kind("penalty", "penalties", ("turn",), False, "what is added to a player's loss"),
    Kind("schedule", "schedules", (), False, "who moves when, at which rate"),
    Kind("augment", "augments", ("images", "random"), False, "what D sees of an image"),
    Kind("latent", "latents", ("count", "width", "random"), False, "where z is drawn from"),
    Kind("optimizer", "optimizers", ("parameters",), True, "how weights follow gradients"),
    Kind("dataset", "datasets", (), False, "real images"),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def handed(target: Callable[..., Any]) -> int | None:
    """How many positional arguments `target` takes; None for any number."""
    count = 0
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        count += parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return count


def hand(target: Callable[..., Any], *offered: Any) -> Any:
    """Call `target` with as many of the offered arguments, from the left, as it declares."""
    return target(*offered[: handed(target)])
