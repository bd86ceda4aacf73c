"""What a packed folder says of itself: from what it was made, how, and the sums of its files."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from gankit.datasets.decoding import reason
from gankit.datasets.packing.looking import Decoder
from gankit.errors import DataError

__all__ = [
    "FILES",
    "IMAGES",
    "MANIFEST",
    "ROWS",
    "Bad",
    "Cache",
    "Class",
    "Manifest",
    "Origin",
    "Recipe",
    "command",
    "pair",
    "read",
    "replace",
    "write",
]

MANIFEST = "manifest.json"
"""Written last: a folder without it is not finished, and is not read."""
IMAGES = "images.bin"
"""The images one after another, (images, channels, height, width) of uint8."""
ROWS = "rows.npy"
"""(images, 3) int32: the place in `images.bin`, the class and the split; -1 where there is none."""
FILES = "files.csv"
"""Every file of the source: size, stamp, SHA-256, and what was found in it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was asked for."""

    kind: Literal["folder", "celeba"]
    height: int
    width: int
    channels: int
    crop: tuple[int, int] | Literal[0]
    mixed: bool
    """Whether files may be of several sizes."""
    labels: str
    split: str
    convert: bool
    on_bad: Literal["error", "skip"]
    decoder: Decoder
    resize: Literal["bicubic"] = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """From what it was made."""

    root: str
    files: int
    bytes: int
    sha256: str
    """Of the names and the SHA-256 of all files."""


@dataclass(frozen=True, kw_only=True)
class Class:
    """A class, by its place in the list."""

    name: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A file that was left out."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Cache:
    """`images.bin`."""

    bytes: int
    block: int
    """The images of a block."""
    sha256: tuple[str, ...]
    """Of each block."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of a packed folder."""

    format: Literal[1] = 1
    gankit: str
    recipe: Recipe
    versions: dict[str, str]
    source: Origin
    images: int
    classes: tuple[Class, ...]
    splits: dict[str, int]
    """Images of each split, in the order of their numbers in `rows.npy`."""
    modes: dict[str, int]
    converted: dict[str, int]
    bad: tuple[Bad, ...]
    cache: Cache
    tables: dict[str, str]
    """The SHA-256 of the other files."""


def write(folder: Path, manifest: Manifest) -> None:
    """Put the manifest into its folder, sealed by its own sum; this makes the folder finished."""
    tables = _manifests().dump_python(manifest, mode="json")
    replace(folder / MANIFEST, json.dumps({**tables, "sha256": _seal(tables)}, indent=1).encode())


def read(folder: Path) -> Manifest:
    """The manifest of a packed folder.

    The sizes of the files it speaks of are compared; their sums are not, which would take reading
    them whole: `verify` does.

    Raises:
        DataError: there is none, it was changed, or a file is missing or has another size.
    """
    if not folder.is_dir():
        kind = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {kind}\n  set data.root, or --set data.root=PATH")
    try:
        tables = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        begun = (folder / IMAGES).exists()
        raise DataError(
            f"{folder} is not packed to the end: the same `gankit data pack` command continues"
            if begun
            else f"{folder} is no packed data set: it has no {MANIFEST}\n"
            "  `gankit data pack` makes one of a folder or archive of images"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / MANIFEST}: {reason(error)}\n{_anew()}") from error
    if not isinstance(tables, dict) or tables.pop("sha256", "") != _seal(tables):
        raise DataError(f"{folder / MANIFEST} was changed after it was written\n{_anew()}")
    try:
        manifest = _manifests().validate_json(json.dumps(tables))
    except ValidationError as error:
        raise DataError(
            f"{folder / MANIFEST} is of another version of gankit\n{_anew()}"
        ) from error
    _compare_size(folder, manifest)
    return manifest


def command(manifest: Manifest, folder: Path) -> str:
    """The command line that packs a folder anew."""
    recipe = manifest.recipe
    options = {
        "--root": manifest.source.root,
        "--out": str(folder),
        "--crop": pair(recipe.crop) if recipe.mixed or recipe.kind == "celeba" else "",
        "--size": pair((recipe.height, recipe.width)),
        "--channels": "" if recipe.channels == 3 else str(recipe.channels),
        "--labels": recipe.labels,
        "--split": "" if recipe.split == "all" else recipe.split,
        "--on-bad": "" if recipe.on_bad == "error" else recipe.on_bad,
        "--decoder": "" if recipe.decoder == "pillow" else recipe.decoder,
    }
    words = [word for name, value in options.items() if value for word in (name, value)]
    flags = ["--convert"] * recipe.convert + ["--rebuild"]
    return shlex.join(["gankit", "data", "pack", recipe.kind, *words, *flags])


def pair(size: int | tuple[int, int]) -> str:
    """A size as it is typed: 128, or 128x96 (height x width)."""
    if isinstance(size, int):
        return str(size)
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def replace(file: Path, content: bytes) -> None:
    """Write a small file so that it is at all times the old one or the new one."""
    unfinished = file.with_name(f".{file.name}.tmp")
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)


def _compare_size(folder: Path, manifest: Manifest) -> None:
    expected = {IMAGES: manifest.cache.bytes, **dict.fromkeys(manifest.tables)}
    for name, size in expected.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            problem = f"cannot read {folder / name}: {reason(error)}"
        else:
            if size in (None, found):
                continue
            problem = f"{folder / name} has {found:,} bytes, its manifest says {size:,}"
        raise DataError(f"{problem}\n  pack it anew: {command(manifest, folder)}")


def _seal(tables: Any) -> str:
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


def _anew() -> str:
    return "  pack it anew: the `gankit data pack` command that made it, with --rebuild"


@cache
def _manifests() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
