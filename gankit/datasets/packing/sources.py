"""Where images lie before they are packed: a tree of files, or an archive of one."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from gankit.datasets.decoding import reason
from gankit.datasets.files import is_image, names_below, refuse_none
from gankit.errors import DataError

__all__ = ["LARGEST", "File", "Found", "Source", "Tree", "Zip", "fingerprint", "shown", "source_at"]

LARGEST = 2**28
"""The most bytes that a file may have, or an archive's member unpacked: four times any photo."""


class File(NamedTuple):
    """An image file before it is opened, and what would change if it were exchanged."""

    name: str
    bytes: int
    stamp: int
    """The time of its last change in nanoseconds; of a member of an archive its CRC-32."""


@dataclass(frozen=True)
class Found:
    """What a source holds."""

    files: tuple[File, ...]
    """The images, in the order of their names."""
    folders: tuple[str, ...]
    """The folders at the top, those without images too."""
    others: tuple[str, ...]
    """The files that are not called like images."""
    base: str = ""
    """What all names begin with: the folder that an archive wraps everything in."""


class Tree:
    """The files of a folder and its subfolders; names are paths below it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def found(self) -> Found:
        """Look at the disk.

        Raises:
            DataError: there is no image, or a folder that cannot be read.
        """
        names = names_below(self.root)
        images = tuple(self._file(name) for name in names if is_image(name))
        refuse_none(self.root, len(images), len(names))
        with os.scandir(self.root) as inside:
            folders = sorted(one.name for one in inside if one.is_dir() and one.name[0] != ".")
        return Found(images, tuple(folders), tuple(name for name in names if not is_image(name)))

    def open(self, name: str) -> BinaryIO:
        """A file to read from."""
        # Not by way of pathlib, which takes longer than to read a small file.
        return open(os.path.join(self.root, name), "rb")  # noqa: PTH118, PTH123

    def read(self, name: str) -> bytes:
        """All bytes of a file; its size is looked at first.

        Raises:
            ValueError: it is too large to be an image.
        """
        with open(os.path.join(self.root, name), "rb", buffering=0) as stream:  # noqa: PTH118, PTH123
            size = os.fstat(stream.fileno()).st_size
            _refuse_large(size)
            return stream.read(size)

    def _file(self, name: str) -> File:
        try:
            seen = os.stat(os.path.join(self.root, name))  # noqa: PTH116, PTH118
        except OSError:  # a link to nowhere; reading it says so
            return File(name, 0, 0)
        return File(name, seen.st_size, seen.st_mtime_ns)


class Zip:
    """The members of a .zip; names are paths in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archive: zipfile.ZipFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Each process opens the archive for itself."""
        return {"root": self.root, "_archive": None}

    def found(self) -> Found:
        """Look into the archive.

        Raises:
            DataError: it is damaged, holds no image, or one name twice.
        """
        self._archive = None
        members = [m for m in self.archive.infolist() if not m.is_dir() and _plain(m.filename)]
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{self.root} has {shown(twice)} in it more than once")
        files = sorted(File(m.filename, m.file_size, m.CRC) for m in members)
        images = tuple(file for file in files if is_image(file.name))
        refuse_none(self.root, len(images), len(files))
        every = [m.filename for m in self.archive.infolist() if _plain(m.filename)]
        wrapped = len({name.partition("/")[0] for name in every}) == 1 and "/" in every[0]
        base = every[0].partition("/")[0] + "/" if wrapped else ""
        below = [name.removeprefix(base).partition("/") for name in every]
        folders = sorted({top for top, slash, _ in below if slash})
        others = tuple(file.name for file in files if not is_image(file.name))
        return Found(images, tuple(folders), others, base)

    def open(self, name: str) -> BinaryIO:
        """A member to read from."""
        _refuse_large(self.archive.getinfo(name).file_size)
        return self.archive.open(name)  # type: ignore[return-value]

    def read(self, name: str) -> bytes:
        """All bytes of a member; the size that the archive gives it is looked at first.

        Raises:
            ValueError: it is too large to be an image.
        """
        with self.open(name) as stream:
            return stream.read()

    @property
    def archive(self) -> zipfile.ZipFile:
        """The archive, opened when it is first needed."""
        if self._archive is None:
            try:
                self._archive = zipfile.ZipFile(self.root)
            except (OSError, zipfile.BadZipFile) as error:
                raise DataError(f"cannot read {self.root}: {reason(error)}") from error
        return self._archive


Source = Tree | Zip


def source_at(root: Path) -> Source:
    """The tree or archive at a path.

    Raises:
        DataError: there is neither.
    """
    if root.is_dir():
        return Tree(root)
    if not root.exists():
        raise DataError(f"{root}: no such folder or archive")
    if root.suffix.lower() != ".zip":
        raise DataError(f"{root}: neither a folder nor a .zip")
    return Zip(root)


def _refuse_large(size: int) -> None:
    """Refuse a file that would fill the memory before it is known what it is.

    Raises:
        ValueError: with the size.
    """
    if size > LARGEST:
        raise ValueError(f"{size:,} bytes, more than the {LARGEST:,} that an image may have")


def fingerprint(items: Iterable[object]) -> str:
    """One SHA-256 of a list of names, numbers and sums."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode() + b"\n")
    return digest.hexdigest()


def shown(name: str) -> str:
    """A file's name as it may be printed: names from elsewhere can hold anything."""
    return name if name.isprintable() else ascii(name)


def _plain(name: str) -> bool:
    """Whether no folder of a path begins with a dot, and it does not leave the archive."""
    return not any(part.startswith(".") for part in PurePosixPath(name).parts)
