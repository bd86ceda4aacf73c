"""How fast images are packed, and how fast packed ones are read.

    python benchmarks/data.py [--images 2000] [--rounds 5] [--workers 1 2]

Stand-ins for CelebA, in its layout and of its size: 178 x 218 JPEGs of about 10 kB, cut to 178 and
resized to 128; everything lies in the page cache. One JSON line per measure, the median of the
rounds: images per second of the clock, and per second of this process's own CPU time, which other
work on the machine disturbs less; `times_decode` compares the latter, round by round.

- `decode`: Pillow alone, in a loop: open, convert, crop, resize, as an array. What the others are
  compared with.
- `pack`: `gankit data pack` in this process, sums and files and all; target 85 % of `decode`.
- `pack, N workers`: the same with processes, their start included; by the clock alone.
- `folder`, `packed`: batches of 64 in the order of training; target: `packed` 20 times `decode`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gankit.datasets import Folder, Packed
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import Decoder, Options, celeba, pack
from gankit.slots import Dataset
from gankit.train.epochs import Epochs

BATCH = 64


def write(root: Path, count: int) -> list[Path]:
    """Smooth colours and some grain, which compress about as faces do."""
    tree = root / "img_align_celeba"
    tree.mkdir(parents=True)
    random = np.random.default_rng(0)
    paths = [tree / f"{number:06d}.jpg" for number in range(1, count + 1)]
    for path in paths:
        small = Image.fromarray(random.integers(0, 256, (14, 12, 3), np.uint8))
        smooth = np.asarray(small.resize((178, 218), Image.Resampling.BICUBIC)).astype(int)
        grain = random.normal(0, 4, (218, 178, 1)).round().astype(int)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)
    return paths


def decode(paths: list[Path]) -> None:
    """What anyone would write who has Pillow."""
    for path in paths:
        with Image.open(path) as image:
            face = image.convert("RGB").crop((0, 20, 178, 198))
        np.asarray(face.resize((128, 128), Image.Resampling.BICUBIC))


def packed(root: Path, out: Path, workers: int, decoder: Decoder = "pillow") -> None:
    """Pack from nothing."""
    options = Options(workers=workers, decoder=decoder)
    pack(celeba(root), out, Framing(128, 178), options, lambda _: None, lambda *_: None)


def read(source: Dataset, batches: int) -> None:
    """Take batches as training does."""
    epochs = Epochs(source, BATCH, seed=0)
    for k in range(batches):
        source.images(epochs.batch(k))


def main() -> None:
    """Take every measure in turn, round by round."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--workers", type=int, nargs="*", default=[2])
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "celeba"), Path(folder, "out")
        count: int = chosen.images
        paths = write(root, count)
        packed(root, out, 1)
        raw = Folder(root=str(root / "img_align_celeba"), crop=178, size=128)
        whole = count // BATCH
        measures: dict[str, tuple[int, Callable[[], object]]] = {
            "decode": (count, lambda: decode(paths)),
            "pack": (count, lambda: packed(root, Path(folder, "again"), 1)),
            "folder": (whole * BATCH, lambda: read(raw, whole)),
            "packed": (20 * whole * BATCH, lambda: read(Packed(root=str(out)), 20 * whole)),
        }
        for workers in chosen.workers:
            measures[f"pack, {workers} workers"] = (
                count,
                lambda workers=workers: packed(root, Path(folder, "again"), workers),  # type: ignore[misc]
            )
        if find_spec("simplejpeg"):
            measures["pack, simplejpeg"] = (
                count,
                lambda: packed(root, Path(folder, "again"), 1, "simplejpeg"),
            )
        clock: dict[str, list[float]] = {name: [] for name in measures}
        own: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(chosen.rounds):
            for name, (images, act) in measures.items():
                start, cpu = time.perf_counter(), time.process_time()
                act()
                own[name].append(images / (time.process_time() - cpu))
                clock[name].append(images / (time.perf_counter() - start))
                shutil.rmtree(Path(folder, "again"), ignore_errors=True)
    for name in measures:
        record: dict[str, object] = {"measure": name, **told("clock", clock[name])}
        if "workers" not in name:
            ratios = [one / raw for one, raw in zip(own[name], own["decode"], strict=True)]
            record |= told("cpu", own[name])
            record["times_decode"] = round(statistics.median(ratios), 2)
        print(json.dumps(record))


def told(which: str, speeds: list[float]) -> dict[str, object]:
    """The median of some speeds, and the range."""
    low, high = round(min(speeds)), round(max(speeds))
    return {f"{which}_per_s": round(statistics.median(speeds)), f"{which}_range": [low, high]}


if __name__ == "__main__":
    main()
