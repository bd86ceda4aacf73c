"""Loggers: where a run's metrics and samples go beside its own files.

`metrics.jsonl` is written by the run itself, whichever loggers there are. They raise what goes
wrong, a full disk or a lost connection; the trainer sees to it that a run does not end by that.

Steps may come again: a run that was killed goes on from its last checkpoint, and one that left the
finite numbers goes back to its last good state. What comes later counts.
"""

from __future__ import annotations

import csv
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gankit.errors import MissingExtra, OptionError, SetupError
from gankit.registry import logger

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["CSV", "TensorBoard", "WandB"]


@logger("csv")
class CSV:
    """Writes the metrics into `metrics.csv` in the run folder, a row per log, for spreadsheets."""

    def __init__(self, folder: Path, /) -> None:
        self.file = folder / "metrics.csv"
        self.columns: list[str] = []
        self.last = 0

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a row; what is there of this step and later ones goes."""
        row = {"step": step, **numbers}
        if step <= self.last or not row.keys() <= set(self.columns):
            # At the first call too, when no number has a column yet.
            rows = [*self._before(step), row]
            self.columns = list(dict.fromkeys(name for each in rows for name in each))
            unfinished = self.file.with_name(".metrics.csv.tmp")
            self._write(unfinished, "w", [{name: name for name in self.columns}, *rows])
            unfinished.replace(self.file)
        else:
            self._write(self.file, "a", [row])
        self.last = step

    def picture(self, step: int, picture: Picture) -> None:
        """Nothing: there is no place for it in a table."""

    def close(self) -> None:
        """Nothing: every row is in the file already."""

    def _before(self, step: int) -> list[dict[str, Any]]:
        """The rows of the steps before a step, as they are in the file."""
        if not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        # A line cut short by a crash has no newline.
        rows = csv.DictReader(line for line in lines if line.endswith("\n"))
        return [row for row in rows if int(row["step"]) < step]

    def _write(self, file: Path, mode: str, rows: Iterable[Mapping[str, object]]) -> None:
        with file.open(mode, encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, self.columns, lineterminator="\n").writerows(rows)


@logger("tensorboard")
class TensorBoard:
    """Writes metrics and sample grids for TensorBoard (needs the extra `tensorboard`).

    `tensorboard --logdir RUN` shows them. They lie in the run folder, under `tensorboard`.

    Options:
        flush_seconds: what is written reaches the disk after so many seconds at the latest

    Raises:
        MissingExtra: where TensorBoard is not installed.
        OptionError: less than a second.
    """

    def __init__(self, folder: Path, /, *, flush_seconds: int = 30) -> None:
        if flush_seconds < 1:
            message = f"flush_seconds must be at least 1, not {flush_seconds}"
            raise OptionError("flush_seconds", message)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra('logger "tensorboard"', "tensorboard") from error
        self.folder = folder / "tensorboard"
        self.flush_seconds = flush_seconds
        self._make = SummaryWriter
        self._writer: Any = None
        self._step = 0

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """A curve for each."""
        writer = self._writer_from(step)
        for name, number in numbers.items():
            writer.add_scalar(name, number, step)

    def picture(self, step: int, picture: Picture) -> None:
        """Under the name `samples`."""
        import numpy

        pixels = numpy.asarray(picture.convert("RGB"))
        self._writer_from(step).add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _writer_from(self, step: int) -> Any:
        """A writer for a step, which tells TensorBoard to forget what came of it and after it.

        So none can be made before the first step that is logged is known.
        """
        if self._writer is None or step < self._step:
            self.close()
            seconds = self.flush_seconds
            self._writer = self._make(str(self.folder), purge_step=step, flush_secs=seconds)
        self._step = step
        return self._writer


@logger("wandb")
class WandB:
    """Sends metrics, sample grids and the spec to Weights & Biases (needs the extra `wandb`).

    Offline, as it is by default, nothing is sent and no login is asked for: `wandb sync` sends
    later what lies in the run folder, under `wandb`. A run that continues is the same run there:
    its id is in the run folder, and stays when that is moved. Of steps that come again wandb keeps
    what it had.

    Options:
        project: the project that the run is listed in
        entity: the user or team whose project it is; empty for whoever is logged in
        mode: `online` sends at once and needs `wandb login`; `disabled` keeps nothing

    Raises:
        MissingExtra: where wandb is not installed.
        SetupError: it cannot start, for want of a login or a connection.
    """

    def __init__(
        self,
        folder: Path,
        spec: Mapping[str, Any],
        /,
        *,
        project: str = "gankit",
        entity: str = "",
        mode: Literal["offline", "online", "disabled"] = "offline",
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra('logger "wandb"', "wandb") from error
        self._image = wandb.Image
        try:
            self._run: Any = wandb.init(
                project=project,
                entity=entity or None,
                mode=mode,
                name=spec["name"],
                config=dict(spec),
                dir=str(folder),
                id=_identity(folder / "wandb" / "id"),
                resume="allow",
                # It would put itself in the place of standard output, and of the progress bar.
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise SetupError(f'logger "wandb" cannot start: {error}') from error

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """A curve for each."""
        self._run.log(dict(numbers), step=step)

    def picture(self, step: int, picture: Picture) -> None:
        """Under the name `samples`."""
        self._run.log({"samples": self._image(picture)}, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def _identity(file: Path) -> str:
    """What a file says, made up at random where there is none yet."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(8), encoding="utf-8")
    return file.read_text(encoding="utf-8")
