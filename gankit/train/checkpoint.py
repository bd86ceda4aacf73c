"""Checkpoints: folders that are either whole or not there.

`checkpoints/step_N/` holds the networks as safetensors, the trainer's state as plain containers,
and a manifest of SHA-256 sums that is written last. It is made beside its place and renamed, so a
write that is cut short leaves the checkpoint before it untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gankit.errors import CheckpointError, SetupError

__all__ = ["Checkpoint", "latest", "load", "save"]

MANIFEST = "manifest.json"
STATE = "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at the end of a step."""

    step: int
    weights: Mapping[str, Mapping[str, Tensor]]
    """The tensors of each network: `generator`, `discriminator`, `ema`."""
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint under `folder`, and remove all but the newest `keep`.

    Raises:
        SetupError: the disk refuses; what was begun is removed, what was there stays.
    """
    target = folder / f"step_{checkpoint.step}"
    unfinished = folder / f".unfinished_{checkpoint.step}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for name, tensors in checkpoint.weights.items():
            # safetensors takes neither shared nor permuted memory.
            plain = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
            save_file(plain, unfinished / f"{name}.safetensors")
        torch.save(dict(checkpoint.state), unfinished / STATE)
        sums = {file.name: _sha256(file) for file in sorted(unfinished.iterdir())}
        manifest = {"step": checkpoint.step, "sha256": sums}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in unfinished.iterdir():
            _sync(file)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        _sync(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports a full disk as a RuntimeError.
        shutil.rmtree(unfinished, ignore_errors=True)
        size = sum(t.nbytes for tensors in checkpoint.weights.values() for t in tensors.values())
        raise SetupError(
            f"cannot save a checkpoint in {folder}: {error}\n"
            f"  it needs about {3 * size:,} bytes; earlier checkpoints are as they were"
        ) from error
    for old in _numbered(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(folder: Path) -> Checkpoint:
    """Read one checkpoint, after comparing every file with the manifest.

    Nothing in it is executed: the state is read with `weights_only=True`.

    Raises:
        CheckpointError: a file is missing or is not what was written.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        names = set(manifest["sha256"])
        if STATE not in names or any(Path(name).name != name for name in names):
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
        return Checkpoint(int(manifest["step"]), weights, state)
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
    for candidate in _numbered(folder):
        try:
            found = load(candidate)
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


def _numbered(folder: Path) -> list[Path]:
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
