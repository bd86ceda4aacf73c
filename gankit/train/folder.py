"""The run folder: what belongs to one run, and the rule that one process at a time writes to it."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gankit.errors import CheckpointError, SetupError, UsageError
from gankit.paths import resolved
from gankit.spec import Spec, load

__all__ = ["RunFolder", "differences"]


class RunFolder:
    """Paths in a run folder, and the small files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resolved = path / "resolved.toml"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.timing = path / "timing.jsonl"
        self.status = path / "status.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the lock goes with the process, however it ends.

        Raises:
            SetupError: another process holds it, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise SetupError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            with suppress(ImportError):  # where there is no fcntl, there is no lock
                import fcntl

                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise SetupError(f"another process is training in {self.path}") from None
            yield
        finally:
            os.close(handle)

    def open_for(self, spec: Spec, plugins: tuple[Path, ...] = ()) -> bool:
        """Take the folder for a spec; True where an earlier run of it is there to continue.

        Raises:
            CheckpointError: the folder belongs to another spec; says in what it differs.
        """
        continues = self.resolved.exists()
        if continues:
            recorded = load(self.resolved, plugins=(*plugins, *_files(spec)), trusted=False)
            _refuse_other(recorded, spec, self.path)
        self.samples.mkdir(exist_ok=True)
        replace(self.path / "spec.toml", spec.source.document.text)
        replace(self.resolved, resolved(spec))
        return continues

    def spec(self, plugins: tuple[Path, ...] = ()) -> Spec:
        """The spec of the run in this folder.

        Raises:
            UsageError: there is no run here.
        """
        if not self.resolved.exists():
            raise UsageError(f"{self.path} is no run folder: it has no resolved.toml")
        return load(self.resolved, plugins=plugins, trusted=False)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the disk refuses while a run writes to it, in words."""
        try:
            yield
        except OSError as error:
            raise SetupError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps after `step`, which will be taken again."""
        for file in (self.metrics, self.timing):
            if file.exists():
                lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
                # A line cut short by a crash has no newline, and is after the checkpoint anyway.
                kept = [line for line in lines if line.endswith("\n")]
                replace(file, "".join(k for k in kept if json.loads(k)["step"] <= step))

    def note_environment(self, processes: int = 1, **more: int | str) -> list[str]:
        """Add what this start runs on to `env.json`; in words, how it differs from the last."""
        file = self.path / "env.json"
        starts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        now = environment(processes) | more
        changed = differences(starts[-1], now) if starts else []
        if changed or not starts:
            replace(file, json.dumps([*starts, now], indent=1))
        return changed

    def write_status(self, state: str, step: int, steps: int, **more: str | int) -> None:
        """Say where the run stands: `running`, `finished`, `stopped`, `diverged` or `failed`."""
        replace(self.status, json.dumps({"state": state, "step": step, "steps": steps, **more}))

    @staticmethod
    def append(file: Path, record: Mapping[str, Any]) -> None:
        """Add a line of JSON to a file; numbers that are not finite, which it has not, are null."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite) + "\n")


def replace(file: Path, text: str) -> None:
    """Write a small file so that it is at all times the old one or the new one."""
    unfinished = file.with_name(f".{file.name}.tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)


def _files(spec: Spec) -> list[Path]:
    """The plugin files of a spec that is being trained; its author has trusted them."""
    return [plugin.path for plugin in spec.plugins]


def _refuse_other(recorded: Spec, wanted: Spec, path: Path) -> None:
    problem = f"{path} belongs to another spec"
    changed = differences(recorded.identity(), wanted.identity())
    if recorded.hash == wanted.hash:
        by_total = [part.called for part in wanted.schedule if "total" in part.entry.needs]
        if recorded.train.steps == wanted.train.steps or not by_total:
            return
        changed = differences(
            {"train.steps": recorded.train.steps}, {"train.steps": wanted.train.steps}
        )
        problem = f'{path} cannot change train.steps: schedule "{by_total[0]}" depends on it'
    raise CheckpointError(
        f"{problem}\n  "
        + "\n  ".join(changed)
        + "\n  choose another folder with --run, or make the spec what it was"
    )


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """In words, how two trees of plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in new:
                lines.append(f"{inner}: {_shown(old[key])} is gone")
            elif key not in old:
                lines.append(f"{inner}: {_shown(new[key])} is new")
            else:
                lines += differences(old[key], new[key], inner)
        return lines
    return [] if old == new else [f"{path}: {_shown(old)} became {_shown(new)}"]


def _shown(value: Any) -> str:
    return json.dumps(value)


def environment(processes: int = 1) -> dict[str, Any]:
    """What the machine adds to a run's result: versions, threads and processes."""
    import numpy
    import torch

    from gankit import __version__

    return {
        "gankit": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "argv0": Path(sys.argv[0]).name,
    }
