"""Tensors that are made once on a machine, and kept on its disk under what they were made from."""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

__all__ = ["cache_folder", "digest", "found", "keep", "kept"]


def cache_folder() -> Path:
    """`GANKIT_CACHE`, or else the folder `gankit` in `XDG_CACHE_HOME` or in ~/.cache."""
    if own := os.environ.get("GANKIT_CACHE"):
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The standard says to pass over a relative one.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "gankit"


def digest(weights: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the weights' names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        total.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        total.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def kept(name: str, recipe: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a recipe: from the cache, or else made and put there."""
    tensors = found(name, recipe)
    if tensors is None:
        tensors = make()
        keep(name, recipe, tensors)
    return tensors


def found(name: str, recipe: str) -> dict[str, Tensor] | None:
    """The tensors of a recipe; None where there are none, or a damaged file or one of another."""
    return _read(_file(name, recipe), recipe)


def keep(name: str, recipe: str, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of a recipe there.

    Processes that do so at the same time each put theirs, and the last whole file stays. Where
    nothing can be written there is a warning.
    """
    about = {"recipe": recipe, "sha256": digest(tensors)}
    _write(_file(name, recipe), save(dict(tensors), about))


def _file(name: str, recipe: str) -> Path:
    return cache_folder() / f"{name}-{recipe[:16]}.safetensors"


def _read(file: Path, recipe: str) -> dict[str, Tensor] | None:
    try:
        with safe_open(file, "pt") as opened:
            said = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    # A flipped bit in a tensor goes unnoticed by the format itself.
    sums = said.get("recipe"), said.get("sha256")
    return weights if sums == (recipe, digest(weights)) else None


def _write(file: Path, content: bytes) -> None:
    """Put a file there whole or not at all, whoever else does so at the same time."""
    unfinished = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"cannot keep {file}: {error.strerror or error}", stacklevel=2)
