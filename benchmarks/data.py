"""How fast images are packed, and how fast packed ones are read.

    python benchmarks/data.py [--images 2000] [--rounds 7] [--workers 1 2]

Stand-ins for CelebA, in its layout and of its size: 178 x 218 JPEGs of about 10 kB, cut to 178 and
resized to 128; everything lies in the page cache. What is measured takes turns, every few dozen
images, with decoding such files by Pillow alone in a loop (open, convert, crop, resize, as an
array), so that other work on the machine slows both alike. One JSON line per measure, with median
and range over the rounds: images per second of this process's own CPU time, and how many times as
fast as decoding that is.

- `pack`: `gankit data pack` in this process, sums and files and all; target 0.85.
- `folder`, `packed`: batches of 64 in the order of training; target for `packed` 20.
- `pack by the clock`: with so many processes, their start included; for a machine that does
  nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
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

Pair = tuple[float, float]
"""Seconds of CPU time: of decoding, and of what is compared with it."""


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


def packed_in_turn(root: Path, out: Path, paths: list[Path], decoder: Decoder) -> Pair:
    """Pack with one worker, and after each block decode as many files: both take turns."""
    seconds, before = [0.0, 0.0], 0
    # Not the files that were just packed, which the processor's caches still hold.
    others = paths[len(paths) // 2 :] + paths[: len(paths) // 2]

    def watch(doing: str, done: int, total: int, bad: int, /) -> None:
        nonlocal before
        start = time.process_time()
        decode(others[before:done])
        seconds[0] += time.process_time() - start
        before = done

    start = time.process_time()
    options = Options(decoder=decoder)
    pack(celeba(root), out, Framing(128, 178), options, lambda _: None, watch)
    seconds[1] = time.process_time() - start - seconds[0]
    return seconds[0], seconds[1]


def read(source: Dataset, first: int, batches: int) -> float:
    """Take batches as training does."""
    epochs = Epochs(source, BATCH, seed=0)
    start = time.process_time()
    for k in range(first, first + batches):
        source.images(epochs.batch(k))
    return time.process_time() - start


def read_in_turn(source: Dataset, paths: list[Path], times: int) -> Pair:
    """Decode a batch of files, then read `times` batches, until all files are decoded."""
    seconds = [0.0, 0.0]
    for k in range(len(paths) // BATCH):
        start = time.process_time()
        decode(paths[k * BATCH : (k + 1) * BATCH])
        seconds[0] += time.process_time() - start
        seconds[1] += read(source, k * times, times) / times
    return seconds[0], seconds[1]


def main() -> None:
    """Take every measure in turn, round by round."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--workers", type=int, nargs="*", default=[])
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, out, again = Path(folder, "celeba"), Path(folder, "out"), Path(folder, "again")
        paths = write(root, chosen.images)
        packed(root, out, 1)
        sources: dict[str, tuple[Dataset, int]] = {
            "folder": (Folder(root=str(root / "img_align_celeba"), crop=178, size=128), 1),
            "packed": (Packed(root=str(out)), 100),
        }
        decoders: list[Decoder] = ["pillow"]
        decoders += ["simplejpeg"] * (find_spec("simplejpeg") is not None)
        pairs: dict[str, list[Pair]] = {}
        clock: dict[int, list[float]] = {}
        for _ in range(chosen.rounds):
            for decoder in decoders:
                pair = packed_in_turn(root, again, paths, decoder)
                pairs.setdefault(f"pack, {decoder}", []).append(pair)
                shutil.rmtree(again)
            for name, (source, times) in sources.items():
                pairs.setdefault(name, []).append(read_in_turn(source, paths, times))
            for workers in chosen.workers:
                start = time.perf_counter()
                packed(root, again, workers)
                clock.setdefault(workers, []).append(time.perf_counter() - start)
                shutil.rmtree(again)
    for name, seen in pairs.items():
        # Of a last batch that would not be full, nothing is read.
        count = len(paths) if "pack," in name else len(paths) // BATCH * BATCH
        print(json.dumps({"measure": name, **compared(seen, count)}))
    for workers, seconds in clock.items():
        speeds = [chosen.images / one for one in seconds]
        record = {"measure": "pack by the clock", "workers": workers, **told("per_s", speeds, 0)}
        print(json.dumps(record))


def compared(pairs: list[Pair], count: int) -> dict[str, object]:
    """Speeds of both, and how many times as fast the second was, round by round."""
    ratios = [decoding / own for decoding, own in pairs]
    speeds = [[count / seconds for seconds in side] for side in zip(*pairs, strict=True)]
    return (
        told("decode_per_s", speeds[0], 0) | told("per_s", speeds[1], 0) | told("times", ratios, 2)
    )


def told(which: str, values: list[float], digits: int) -> dict[str, object]:
    """The median of some values, and the range."""
    low, middle, high = (round(f(values), digits) for f in (min, statistics.median, max))
    return {which: middle, f"{which}_range": [low, high]}


if __name__ == "__main__":
    main()
