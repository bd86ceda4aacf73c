"""A trained network with all that it is drawn from, out of a run folder or one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gankit.build import GAN, build
from gankit.errors import CheckpointError, UsageError, choices
from gankit.ops import settle
from gankit.slots import Dataset
from gankit.spec import Spec, load
from gankit.train import checkpoint
from gankit.train.checkpoint import Checkpoint
from gankit.train.folder import RunFolder

__all__ = ["WEIGHTS", "Live", "of_run"]

WEIGHTS = ("ema", "generator", "discriminator")
"""What can be taken out of a checkpoint: the averaged generator, the newest one, its opponent."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """A network in evaluation mode, ready to be called, and where it comes from."""

    spec: Spec
    gan: GAN
    data: Dataset
    network: nn.Module
    weights: str
    """One of `WEIGHTS`."""
    step: int
    run: Path | None = None
    """The run folder, where it came from one."""
    exported: str = ""
    """The format of the file it was read from; empty for a checkpoint."""

    @property
    def player(self) -> str:
        """`generator` or `discriminator`."""
        return "discriminator" if self.weights == "discriminator" else "generator"


def of_run(
    path: Path,
    weights: str = "ema",
    *,
    plugins: Sequence[Path] = (),
    device: torch.device | str = "cpu",
    tell: Callable[[str], object] = lambda message: None,
) -> Live:
    """The network of a run's newest sound checkpoint, or of the checkpoint that is named.

    `tell` hears of newer checkpoints that are not sound.

    Raises:
        UsageError: there is no run there, or no such weights.
        CheckpointError: there is no sound checkpoint, or it does not fit the spec.
    """
    if weights not in WEIGHTS:
        raise UsageError(f'there are no weights "{weights}"; {choices(weights, WEIGHTS)}')
    spec, saved, run = _found(path, tuple(plugins), tell)
    gan, data = build(spec, device)
    network = gan.discriminator if weights == "discriminator" else gan.generator
    try:
        gan.generator.load_state_dict(dict(saved.weights["ema"]))
        network.load_state_dict(dict(saved.weights[weights]))
        if "imported" not in saved.state:
            # What another library made is what it was with the vectors that it had.
            settle(network)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit the spec of {path}: {error}") from error
    network.eval()
    return Live(
        spec=spec, gan=gan, data=data, network=network, weights=weights, step=saved.step, run=run
    )


def _found(
    path: Path, plugins: tuple[Path, ...], tell: Callable[[str], object]
) -> tuple[Spec, Checkpoint, Path | None]:
    """The spec, the checkpoint, and the run folder if there is one."""
    if (path / checkpoint.MANIFEST).exists():
        whole = checkpoint.load(path)
        spec = load(path / checkpoint.SPEC, plugins=plugins, trusted=False)
        run = path.resolve().parent.parent
        return spec, whole, run if RunFolder(run).resolved.exists() else None
    folder = RunFolder(path)
    spec = folder.spec(plugins)
    saved, complaints = checkpoint.latest(folder.checkpoints, set_aside=False)
    for complaint in complaints:
        tell(complaint)
    if saved is None:
        raise CheckpointError(f"{path} has no checkpoint yet")
    return spec, saved, path
