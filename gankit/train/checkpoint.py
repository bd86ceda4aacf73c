"""Checkpoints: folders that are either whole or not there.

`checkpoints/step_N/` holds the networks as safetensors, the trainer's state as plain containers,
the resolved spec, and a manifest of SHA-256 sums that is written last. It is made beside its place
and renamed, so a write that is cut short leaves the checkpoint before it untouched.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gankit.errors import CheckpointError, SetupError

__all__ = [
    "MANIFEST",
    "SPEC",
    "Checkpoint",
    "Writer",
    "latest",
    "load",
    "numbered_in",
    "save",
]

MANIFEST = "manifest.json"
STATE = "state.pt"
SPEC = "resolved.toml"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at the end of a step."""

    step: int
    weights: Mapping[str, Mapping[str, Tensor]]
    """The tensors of each network: `generator`, `discriminator`, `ema`."""
    state: Mapping[str, Any]
    spec: str = ""
    """The text of the resolved spec, so that the networks can be made again."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What was measured at that step."""

    @property
    def bytes(self) -> int:
        """About how much space it takes on a disk."""
        leaves = tree_leaves([dict(self.weights), dict(self.state)])
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))


class Writer:
    """Writes checkpoints beside the training: one at a time, in a thread of its own.

    What goes wrong is told by the next call. `best` is the metric by which one more checkpoint is
    kept than the newest `keep`: that where it was lowest, or with a `-` before it highest.
    """

    def __init__(self, folder: Path, keep: int = 2, best: str = "") -> None:
        self.folder = folder
        self.keep = keep
        self.best = best
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        for left in folder.glob(".unfinished_*"):
            shutil.rmtree(left, ignore_errors=True)

    def write(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, once the one before is written.

        Raises:
            SetupError: the one before could not be written.
        """
        self.wait()
        # A daemon, so that a second Ctrl-C leaves at once; what it began is no checkpoint yet.
        self._thread = Thread(target=self._write, args=(checkpoint,), daemon=True)
        self._thread.start()

    def _write(self, checkpoint: Checkpoint) -> None:
        try:
            save(self.folder, checkpoint, self.keep, self.best)
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            SetupError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def save(folder: Path, checkpoint: Checkpoint, keep: int = 2, best: str = "") -> Path:
    """Write a checkpoint under `folder`, and remove all but the newest `keep` and the best.

    Raises:
        SetupError: the disk refuses; what was begun is removed, what was there stays.
    """
    target = folder / f"step_{checkpoint.step}"
    unfinished = folder / f".unfinished_{checkpoint.step}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        sums = dict(_at_once(partial(_written, unfinished), list(_files(checkpoint))))
        manifest = {
            "step": checkpoint.step,
            "numbers": dict(checkpoint.numbers),
            "sha256": sums,
        }
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(unfinished / MANIFEST)
        _sync(unfinished)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        _sync(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports a full disk as a RuntimeError.
        shutil.rmtree(unfinished, ignore_errors=True)
        needed = f"about {checkpoint.bytes:,} bytes{_free(folder)}"
        raise SetupError(
            f"cannot save a checkpoint in {folder}: {error}\n"
            f"  it needs {needed}; earlier checkpoints are as they were"
        ) from error
    for old in _superfluous(folder, keep, best):
        shutil.rmtree(old, ignore_errors=True)
    return target


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """The files of a checkpoint, and what writes each; the largest first."""
    yield STATE, partial(torch.save, dict(checkpoint.state))
    for name, tensors in checkpoint.weights.items():
        # safetensors takes neither shared nor permuted memory.
        plain = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
        yield f"{name}.safetensors", partial(save_file, plain)
    yield SPEC, lambda path: path.write_text(checkpoint.spec, encoding="utf-8")


def _at_once(call: Callable[[T], R], given: Sequence[T]) -> list[R]:
    """What `call` gives for each; summing one file and waiting for the disk go together.

    In daemons, for which nobody waits at the end of the process: an executor's would be joined.
    """
    results: dict[int, R] = {}
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            results[index] = call(given[index])
        except BaseException as error:
            errors.append(error)

    threads = [Thread(target=work, args=(i,), daemon=True) for i in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(given))]


def _written(folder: Path, file: tuple[str, Callable[[Path], object]]) -> tuple[str, str]:
    """Write a file, and give its name and sum."""
    name, write = file
    write(folder / name)
    total = _sha256(folder / name)
    _sync(folder / name)
    return name, total


def _free(folder: Path) -> str:
    try:
        return f", {shutil.disk_usage(folder).free:,} are free"
    except OSError:
        return ""


def _superfluous(folder: Path, keep: int, best: str) -> list[Path]:
    """The checkpoints that are neither among the newest nor the best."""
    numbered = numbered_in(folder)
    # Of equal ones the newest.
    winner = min(numbered, key=lambda path: _score(path, best)) if best else None
    return [path for path in numbered[keep:] if path != winner]


def _score(checkpoint: Path, best: str) -> float:
    """What a checkpoint is judged by: lower is better, and what is not finite is no best."""
    try:
        numbers = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["numbers"]
        value = float(numbers[best.removeprefix("-")])
    except (OSError, ValueError, LookupError, TypeError):
        return float("inf")
    if not math.isfinite(value):
        return float("inf")
    return -value if best.startswith("-") else value


def load(folder: Path) -> Checkpoint:
    """Read one checkpoint, after comparing every file with the manifest.

    Nothing in it is executed: the state is read with `weights_only=True`.

    Raises:
        CheckpointError: a file is missing or is not what was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = set(manifest["sha256"])
        if not {STATE, SPEC} <= names or any(Path(name).name != name for name in names):
            raise CheckpointError(f"{folder / MANIFEST} does not list what it should")
        for name, recorded in manifest["sha256"].items():
            if _sha256(folder / name) != recorded:
                raise CheckpointError(f"{folder / name} is not what was written")
        weights = {
            Path(name).stem: load_file(folder / name)
            for name in manifest["sha256"]
            if name.endswith(".safetensors")
        }
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        spec = (folder / SPEC).read_text(encoding="utf-8")
        numbers = dict(manifest.get("numbers", {}))
        return Checkpoint(int(manifest["step"]), weights, state, spec, numbers)
    except (CheckpointError, MemoryError):
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise CheckpointError(f"{folder} lacks {Path(error.filename).name}") from error
        # A disk that does not answer says nothing about what is on it.
        raise SetupError(f"cannot read {folder}: {error.strerror}") from error
    except Exception as error:
        # Whatever a damaged file provokes in the readers, it means one thing here.
        raise CheckpointError(f"{folder} cannot be read: {error}") from error


def latest(folder: Path, set_aside: bool = True) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint under `folder`, and what was wrong with newer ones.

    Unsound ones are set aside under a name that says so, if there is a sound one to go on from; a
    mere reader leaves them where they are.

    Raises:
        CheckpointError: there are checkpoints, and none is sound.
    """
    complaints: list[str] = []
    unsound: list[Path] = []
    for candidate in numbered_in(folder):
        try:
            found = load(candidate)
            if candidate.name != f"step_{found.step}":
                raise CheckpointError(f"{candidate} holds what was saved at step {found.step}")
        except CheckpointError as error:
            complaints.append(str(error))
            unsound.append(candidate)
            continue
        for index, path in enumerate(unsound if set_aside else ()):
            aside = path.with_name(f"{path.name}.unsound")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            complaints[index] += f"; set aside as {aside.name}"
        return found, complaints
    if complaints:
        raise CheckpointError("no checkpoint is sound\n  " + "\n  ".join(complaints))
    return None, complaints


def numbered_in(folder: Path) -> list[Path]:
    """Finished checkpoints, the newest first."""
    found = [(re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.glob("step_*")]
    return [path for _, path in sorted(((int(m[1]), p) for m, p in found if m), reverse=True)]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
