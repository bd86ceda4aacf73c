"""How long a checkpoint holds the training up, and how long it takes to be on the disk.

    python benchmarks/checkpoint.py                       # both flagship recipes, at full width
    python benchmarks/checkpoint.py --folder /where/runs/are

`hold_s` is what the loop waits for: the copy of the state. `write_s` is from there until everything
is written, summed, synced and renamed, in a thread beside the training. `disk_s` is a plain write
and sync of as many bytes, for comparison. Prints one JSON line per recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from gankit.build import build
from gankit.spec import load
from gankit.train import Trainer

EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPES = ("sagan_celeba_128", "sagan_resnet_celeba_128")


def measure(recipe: str, folder: Path, rounds: int) -> dict[str, object]:
    """Save a trainer several times over."""
    spec = load(EXAMPLES / f"{recipe}.toml", ['data={use="shapes", size=128}'])
    trainer = Trainer(*build(spec), spec.train, folder=folder)
    for player in trainer.engine.players.values():
        for parameter in player.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        player.optimizer.step()  # which makes the optimizer's state
        player.optimizer.zero_grad()
    trainer.open()
    held, written = [], []
    for number in range(rounds):
        trainer.step = number
        start = time.perf_counter()
        trainer.save()
        middle = time.perf_counter()
        trainer.wait()
        held.append(middle - start)
        written.append(time.perf_counter() - middle)
    (newest,) = (folder / "checkpoints").glob(f"step_{rounds - 1}")
    size = sum(file.stat().st_size for file in newest.iterdir())
    return {
        "recipe": recipe,
        "bytes": size,
        "hold_s": round(statistics.median(held), 3),
        "write_s": round(statistics.median(written), 3),
        "worst_s": [round(max(held), 3), round(max(written), 3)],
        "disk_s": round(statistics.median(plain(folder, size) for _ in range(rounds)), 3),
    }


def plain(folder: Path, size: int) -> float:
    """Seconds to write and sync so many bytes."""
    content = os.urandom(1 << 20)
    start = time.perf_counter()
    with (folder / "plain").open("wb") as stream:
        for _ in range(size >> 20):
            stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return time.perf_counter() - start


def main() -> None:
    """Print a JSON line for each recipe."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path, help="a folder on the disk that is to be measured")
    chosen = options.parse_args()
    for recipe in RECIPES:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
            print(json.dumps(measure(recipe, Path(folder), chosen.rounds)), flush=True)


if __name__ == "__main__":
    main()
