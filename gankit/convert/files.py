"""The files of other libraries: found, told apart, and read without running what is in them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gankit.errors import CheckpointError, SetupError, UsageError

__all__ = ["Found", "Naming", "find", "read", "tensors_of"]

MADE_BY: Any = np.float64().__reduce__()[0]
SCALARS = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
"""What numpy has called that."""

NUMBERS: list[Any] = [
    *(np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
    *((MADE_BY, name) for name in SCALARS),
]
"""What a number of numpy's is made of in a file, such as the best FID so far."""


@dataclass(frozen=True)
class Naming:
    """How a library calls its files."""

    pattern: str
    """With the groups `role` and `mark`, which the files of one checkpoint have in common."""
    shown: str
    """The same for people."""
    roles: Mapping[str, str]
    """What `role` may be, and which network that is: `generator`, `discriminator` or `ema`."""
    folders: tuple[str, ...] = ()
    """Where files of other roles may be, seen from the folder of one."""
    key: str = ""
    """What the tensors are called in a file that holds more."""


@dataclass(frozen=True)
class Found:
    """The files of one checkpoint, by network."""

    mark: str
    files: Mapping[str, Path]


def find(given: Path, naming: Naming) -> Found:
    """The files that belong together: those of a folder, or those that belong to a file.

    Raises:
        UsageError: there are none, or several checkpoints to choose from.
    """
    if not given.exists():
        raise UsageError(f"{given}: no such file or folder")
    folder = given if given.is_dir() else given.parent
    places = dict.fromkeys([folder, *((folder / name).resolve() for name in naming.folders)])
    marks: dict[str, dict[str, Path]] = {}
    for place in places:
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if named := re.fullmatch(naming.pattern, file.name):
                marks.setdefault(named["mark"] or "", {})[naming.roles[named["role"]]] = file
    if given.is_file():
        named = re.fullmatch(naming.pattern, given.name)
        if named is None:
            raise UsageError(f"{given.name} is not a name that the library gives: {naming.shown}")
        marks = {named["mark"] or "": marks[named["mark"] or ""]}
    if not marks:
        raise UsageError(f"{given} has no files of the library: {naming.shown}")
    if len(marks) > 1:
        names = ", ".join(sorted(found[min(found)].name for found in marks.values()))
        raise UsageError(f"{given} has several checkpoints; name a file of one: {names}")
    return Found(*marks.popitem())


def read(file: Path) -> Mapping[str, Any]:
    """What a file holds, as plain data.

    Raises:
        CheckpointError: it is no such file, is damaged, or holds what only running code could read.
        SetupError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise SetupError(f"cannot read {file}: {error.strerror or error}") from error
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals(NUMBERS):
            held = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        names = ", ".join(_foreign(file, error))
        if not names:
            raise CheckpointError(f"{file} is damaged, or no file of tensors") from error
        raise CheckpointError(
            f"{file} holds pickled {names}, which only running code could read\n  "
            "save the state_dict alone, where you trust the file"
        ) from error
    except Exception as error:
        # Whatever a damaged file provokes in the readers, it means one thing here.
        raise CheckpointError(f"{file} is damaged, or no file of tensors: {error}") from error
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{file} holds a {type(held).__name__}, not tensors by name")
    return held


def _foreign(file: Path, error: Exception) -> Iterator[str]:
    """What a file holds beyond plain data; in old files the first alone is known."""
    known = {"numpy.dtype", *SCALARS}
    found: list[str] = []
    with suppress(Exception):
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    found = found or re.findall(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    yield from (name for name in dict.fromkeys(found) if name not in known)


def tensors_of(held: Mapping[str, Any], key: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a file, under a key of it or by themselves.

    Raises:
        CheckpointError: there is something else.
    """
    tensors = held.get(key, held) if key else held
    if not isinstance(tensors, Mapping) or not tensors:
        raise CheckpointError(f"{file} has no tensors by name under {key}")
    others = [str(name) for name, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{file} is no state_dict: {', '.join(others[:4])} are no tensors")
    # Of a network that was saved as it was wrapped for several devices.
    wrapped = all(str(name).startswith("module.") for name in tensors)
    return {str(name).removeprefix("module." * wrapped): t for name, t in tensors.items()}
