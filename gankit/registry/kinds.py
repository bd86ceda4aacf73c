"""The kinds of part there are: what each is handed, and where the built-in ones live."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["KINDS", "NEEDS", "Kind", "hand", "handed"]


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
    form: Literal["maker", "function", "object"]
    """A maker is called by the network that has the slot; a function or an object that can be
    called is there from the start; an object with methods has to be a class."""
    about: str


_ALL = (
    Kind("norm", "norms", ("channels", "condition", "weight_norm"), "maker", "normalises"),
    Kind("attention", "attentions", ("channels", "norm"), "maker", "looks across positions"),
    Kind("activation", "activations", (), "maker", "a nonlinearity"),
    Kind("initializer", "initializers", ("weight", "random"), "function", "fills a weight"),
    Kind("block", "blocks", ("shape", "norm"), "maker", "a stage of a network"),
    Kind("generator", "networks", ("image",), "maker", "latents to images"),
    Kind("discriminator", "networks", ("image",), "maker", "images to logits"),
    Kind("loss", "losses", (), "object", "what the two players minimise"),
    Kind("penalty", "penalties", (), "object", "what is added to a player's loss"),
    Kind("schedule", "schedules", (), "object", "who moves when, at which rate"),
    Kind("augment", "augments", ("images", "random"), "function", "what D sees of an image"),
    Kind("latent", "latents", ("count", "width", "random"), "function", "where z is drawn from"),
    Kind("optimizer", "optimizers", ("parameters",), "maker", "how weights follow gradients"),
    Kind("dataset", "datasets", (), "object", "real images"),
    Kind("features", "extractors", ("data",), "maker", "what metrics see of an image"),
    Kind("metric", "metrics", (), "object", "how far generated images are from real ones"),
    Kind("logger", "loggers", ("folder", "spec"), "maker", "where metrics and samples go"),
)

NEEDS: dict[str, str] = {
    "labels": "cannot work without labels; refused where the data has no classes",
    "real_in_generator": "is given real images in a generator's turn too",
    "second_order": "differentiates a gradient",
    "independent_rows": "treats each image by itself; refused with a D that mixes rows",
    "batch_statistics": "mixes the rows of a batch",
    "separate_batches": "cannot be shown real and fake images in one batch",
    "positions": "needs feature maps or images, not points",
    "held_out": "is shown real images that were not trained on",
    "total": "depends on how many steps there are in all, so train.steps is fixed",
}
"""What a part may declare about itself, and what follows from it."""

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def handed(target: Callable[..., Any]) -> int | None:
    """How many arguments `target` has to be handed by position; None for any number.

    Those before a `/` all count. Of the others, as torch's own modules have them, those without a
    default do: `nn.BatchNorm2d` is handed its channels, and not its eps.
    """
    count = 0
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        count += parameter.kind is parameter.POSITIONAL_ONLY or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and parameter.default is parameter.empty
        )
    return count


def hand(target: Callable[..., Any], *offered: Any) -> Any:
    """Call `target` with as many of the offered arguments, from the left, as it declares."""
    return target(*offered[: handed(target)])
