"""Numbers of the spec that schedules scale: a part as it is with some of its options multiplied."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from gankit.build import GAN
from gankit.fit import STRENGTH

__all__ = ["scaled"]


def scaled(gan: GAN, factors: Mapping[str, float]) -> GAN:
    """The GAN with the options of its parts multiplied, by path: `loss.margin`, `augment.flip.p`.

    Paths that lead elsewhere are left to whom they concern, a penalty's weight among them.
    """
    if not factors:
        return gan
    return replace(
        gan,
        loss=_part(gan.loss, "loss", factors),
        latent=_part(gan.latent, "latent", factors),
        penalties={n: _part(p, f"penalty.{n}", factors) for n, p in gan.penalties.items()},
        augments={n: _part(a, f"augment.{n}", factors) for n, a in gan.augments.items()},
    )


def _part(part: Any, path: str, factors: Mapping[str, float]) -> Any:
    chosen = {
        key: value * factors[f"{path}.{key}"]
        for key, value in _options(part).items()
        if f"{path}.{key}" in factors and (path.split(".")[0], key) != STRENGTH
    }
    if not chosen:
        return part
    return replace(part, **chosen) if is_dataclass(part) else partial(part, **chosen)  # type: ignore[type-var]


def _options(part: Any) -> dict[str, Any]:
    """The options of a part with their values, where they can be exchanged."""
    if is_dataclass(part) and not isinstance(part, type):
        return {field.name: getattr(part, field.name) for field in fields(part)}
    function: Callable[..., Any] = part.func if isinstance(part, partial) else part
    if not inspect.isfunction(function):
        return {}
    signature = inspect.signature(part)
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
