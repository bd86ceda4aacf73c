"""Small sources of images, and what becomes of them when they are packed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from gankit.datasets import Packed
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import Listing, Options, pack, read

BICUBIC = Pillow.Resampling.BICUBIC
COUNT = 20
ATTRIBUTES = ("5_o_Clock_Shadow", "Male", "Smiling")


def noise(height: int, width: int, seed: int = 0) -> Any:
    """Smooth enough for JPEG, and nowhere the same."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(Pillow.fromarray(small).resize((width, height), BICUBIC))


def write_celeba(root: Path) -> Path:
    """What the official download holds, but for the number of images."""
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, COUNT + 1)]
    for seed, name in enumerate(names):
        Pillow.fromarray(noise(218, 178, seed)).save(root / "img_align_celeba" / name, quality=90)
    splits = "".join(f"{name} {min(2, i // 8)}\n" for i, name in enumerate(names))
    (root / "list_eval_partition.txt").write_text(splits)
    # Male is every other one, Smiling every third.
    rows = [
        f"{n} -1 {1 - 2 * (i % 2):2d} {1 if i % 3 == 0 else -1:2d}" for i, n in enumerate(names)
    ]
    text = "\n".join([str(COUNT), " ".join(ATTRIBUTES) + " ", *rows]) + "\n"
    (root / "list_attr_celeba.txt").write_text(text)
    return root


def zipped(tree: Path, archive: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A folder as an archive, which has it in it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", method) as file:
        for path in sorted(tree.rglob("*")):
            file.write(path, path.relative_to(tree.parent).as_posix())
    return archive


class Told(list[str]):
    """What people are told."""

    def __call__(self, message: str) -> None:
        self.append(message)


def quiet(doing: str, done: int, total: int, bad: int, /) -> None:
    """Who is told how far it is, and says nothing."""
    assert 0 <= bad <= done <= total


SMALL = Framing(16)


def packed(
    listing: Listing, out: Path, framing: Framing = SMALL, tell: Any = print, **options: Any
) -> Packed:
    """Pack, and open what was packed."""
    manifest = pack(listing, out, framing, Options(**options), tell, quiet)
    return opened(out, classes=len(manifest.classes))


def opened(out: Path, **options: Any) -> Packed:
    """A packed folder, with the options that its manifest calls for."""
    recipe = read(out).recipe
    size = (recipe.height, recipe.width)
    return Packed(**{"root": str(out), "size": size, "channels": recipe.channels, **options})


def everything(source: Any) -> Any:
    """All images of a source."""
    return source.images(torch.arange(len(source))).numpy()


def same(one: Path, two: Path) -> bool:
    """Whether two packed folders hold the same bytes."""
    files = ("images.bin", "manifest.json", "rows.npy", "files.csv")
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in files)


def change(path: Path, place: int = -1) -> None:
    """Turn over a bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def turned(path: Path) -> None:
    """An image that stands upright only for those who look at its EXIF."""
    tags = Pillow.Exif()
    tags[0x0112] = 6
    Pillow.fromarray(noise(40, 32)).save(path, exif=tags)


PLAIN = Pillow.fromarray(noise(40, 32, 99))


def write_photos(root: Path) -> Path:
    """Ten images of one size in two folders."""
    for seed in range(10):
        (root / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(noise(40, 32, seed)).save(root / "ab"[seed % 2] / f"{seed}.png")
    return root


def cut(path: Path) -> None:
    """A JPEG without its end."""
    Pillow.fromarray(noise(40, 32)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])


def opened_blindly(out: Path) -> Packed:
    """The photos, packed with labels, without a look at their manifest."""
    return Packed(root=str(out), size=16, classes=2)
