"""A checkpoint of another library as a run folder, from which everything goes on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gankit.build import build
from gankit.convert.comparing import compared
from gankit.convert.files import Found, find, read, tensors_of
from gankit.convert.libraries import LIBRARIES, Library
from gankit.convert.matching import matched
from gankit.errors import SetupError, UsageError, choices
from gankit.paths import resolved
from gankit.slots import Image
from gankit.spec import Spec
from gankit.train import checkpoint
from gankit.train.folder import RunFolder
from gankit.train.trainer import Trainer

__all__ = ["Converted", "convert"]


@dataclass(frozen=True)
class Converted:
    """What was made of a checkpoint."""

    folder: Path
    step: int
    differences: Mapping[str, float]
    """By network, the difference of outputs from the library's own, as a share of the largest."""


def convert(
    library: str,
    given: Path,
    spec: Spec,
    out: Path,
    *,
    fresh: bool = False,
    tell: Callable[[str], object] = lambda message: None,
) -> Converted:
    """Make a run folder of another library's checkpoint, and let it go only if outputs are equal.

    `given` is one of its files or their folder. With `fresh` D is not read: it starts as the spec
    has it start. Nothing in the files is executed.

    Raises:
        UsageError: there is no such library, file, or a run in `out` already.
        CheckpointError: a file holds more than data, or is not the network of the spec.
        SetupError: a disk refuses.
    """
    if library not in LIBRARIES:
        raise UsageError(f'no library "{library}" is known here; {choices(library, LIBRARIES)}')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; --out is a folder to be made")
    known = LIBRARIES[library]
    found = find(given, known.naming)
    names = _networks(found, fresh, tell)
    held = {name: read(found.files[name]) for name in names}
    step = known.step(found, held)
    gan, data = build(spec)
    differences: dict[str, float] = {}
    states: dict[str, dict[str, Tensor]] = {}
    for name, content in held.items():
        player = "discriminator" if name == "discriminator" else "generator"
        network = gan.discriminator if name == "discriminator" else gan.generator
        states[name], differences[name], form = _converted(
            network, known, content, player, gan.image, found.files[name]
        )
        if form:
            tell(f"the {player} is {form}")
    states.setdefault("generator", states.get("ema", {}))
    gan.generator.float().load_state_dict(states["generator"])
    gan.discriminator.float()
    if "discriminator" in states:
        gan.discriminator.load_state_dict(states["discriminator"])
    try:
        trainer = Trainer(gan, data, spec.train, spec=resolved(spec), tell=tell)
    except ValueError as error:
        raise SetupError(str(error)) from error
    trainer.step = step
    trainer.engine.ema.average.load_state_dict(states.get("ema", states["generator"]))
    made = trainer.checkpoint()
    origin = {"library": library, "files": {n: _sum(found.files[n]) for n in names}}
    _write(out, spec, replace(made, state={**made.state, "imported": origin}))
    return Converted(out, step, differences)


def _networks(found: Found, fresh: bool, tell: Callable[[str], object]) -> list[str]:
    """Which networks to read, of those that there are files of."""
    names = [name for name in ("generator", "ema", "discriminator") if name in found.files]
    if fresh and "discriminator" in names:
        names.remove("discriminator")
    if "generator" not in names and "ema" not in names:
        raise UsageError("there is no file of a generator")
    if not fresh and "discriminator" not in names:
        raise UsageError("there is no file of a discriminator; --fresh starts one as the spec does")
    if "generator" not in names:
        tell("there is no file of the generator itself; its average takes its place")
    if "ema" not in names:
        tell("there is no average of the generator; the generator itself takes its place")
    return names


def _converted(
    network: nn.Module,
    known: Library,
    content: Mapping[str, Any],
    player: str,
    image: Image,
    file: Path,
) -> tuple[dict[str, Tensor], float, str]:
    """The state of a network from a file, how far outputs are apart, and what the file's is."""
    original = known.original(tensors_of(content, known.naming.key, file))
    state = matched(network.float(), original, player, file.name)
    network.load_state_dict(state)
    return state, *compared(network, original, player, image, file.name)


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _write(out: Path, spec: Spec, made: checkpoint.Checkpoint) -> None:
    """The folder of a run that was stopped at that step, whole or not there."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = RunFolder(unfinished)
    try:
        with folder.locked(), folder.writing():
            folder.open_for(spec)
            checkpoint.save(folder.checkpoints, made, spec.train.keep)
            folder.note_environment()
            state = "finished" if made.step >= spec.train.steps else "stopped"
            folder.write_status(state, made.step, spec.train.steps)
            unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
