"""A network out of a file that `gankit export` has written, by this machine or by another."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from gankit.build import build
from gankit.errors import CheckpointError, GankitError, SetupError, UsageError
from gankit.export.formats import FORMATS, Facts
from gankit.export.live import WEIGHTS, Live
from gankit.spec import Spec
from gankit.spec import load as load_spec

__all__ = ["format_of", "load", "of_file"]


def format_of(path: Path) -> str | None:
    """The format that a file's name stands for."""
    return path.suffix[1:] if path.suffix[1:] in FORMATS else None


def load(path: str | Path, *, plugins: Sequence[str | Path] = ()) -> nn.Module:
    """The network in an exported file, in evaluation mode on the CPU.

    Raises:
        UsageError: its name is that of no format.
        SetupError: it cannot be read, or needs a local plugin that was not given.
        CheckpointError: it is no export, or not a whole one.
    """
    if format_of(Path(path)) is None:
        raise UsageError(f"an export is called x.{', x.'.join(FORMATS)}, not {Path(path).name}")
    return of_file(Path(path), plugins=[Path(plugin) for plugin in plugins]).network


def of_file(
    path: Path, *, plugins: Sequence[Path] = (), device: torch.device | str = "cpu"
) -> Live:
    """The network in an exported file; nothing in the file is executed that is not arithmetic.

    Raises:
        UsageError: a program that was exported for the CPU is asked for elsewhere.
        SetupError: it cannot be read, or needs a local plugin that was not given.
        CheckpointError: it is no export, or not a whole one.
    """
    name = format_of(path)
    assert name is not None, path
    if name != "safetensors" and torch.device(device).type != "cpu":
        raise UsageError(f"{path} was exported for the CPU: use --device cpu")
    try:
        facts = FORMATS[name].facts(path)
        spec = _spec(facts, tuple(plugins))
        if facts.weights not in WEIGHTS:
            raise ValueError(f"it holds {facts.weights}")
        # Of a program only what surrounds it is needed, and no weight of it.
        gan, data = build(spec, device if name == "safetensors" else "meta")
        built = gan.discriminator if facts.weights == "discriminator" else gan.generator
        network = FORMATS[name].read(path, built, facts)
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror or error}") from error
    except GankitError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return Live(
        spec=spec,
        gan=gan,
        data=data,
        network=network,
        weights=facts.weights,
        step=facts.step,
        exported=name,
    )


def _spec(facts: Facts, plugins: tuple[Path, ...]) -> Spec:
    """The spec of an export; local files that it names run only where they are given."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "resolved.toml"
        file.write_text(facts.spec, encoding="utf-8")
        return load_spec(file, plugins=plugins, trusted=False)
