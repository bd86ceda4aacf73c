"""CelebA as its official download lays it out.

Liu, Luo, Wang and Tang, "Deep Learning Face Attributes in the Wild", 2015, arXiv:1411.7766: 202,599
aligned and cropped faces, each 178 wide and 218 high, 40 attributes, three splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gankit.datasets.decoding import reason
from gankit.datasets.packing.listing import SPLITS, Listing, some
from gankit.datasets.packing.sources import Source, Tree, Zip
from gankit.errors import DataError, UsageError, choices

__all__ = ["COUNT", "ORIGINAL", "celeba", "images_of"]

COUNT = 202_599
ORIGINAL = (218, 178)
"""Height and width of every image."""

IMAGES = "img_align_celeba"
PARTITION = "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"
PLACES = ("", "Img", "Anno", "Eval")
"""The download has a folder for each part; unpacked by hand they often lie side by side."""


def images_of(root: Path) -> Source | None:
    """The folder or archive of the images, if this is CelebA."""
    for place in PLACES:
        if (root / place / IMAGES).is_dir():
            return Tree(root / place / IMAGES)
        if (root / place / f"{IMAGES}.zip").is_file():
            return Zip(root / place / f"{IMAGES}.zip")
    return None


def celeba(root: Path, labels: str = "", split: str = "all") -> Listing:
    """The images of a split, in the order of their numbers.

    Labels are attributes, `Male` or `Male,Smiling`, of which each combination is a class.

    Raises:
        DataError: images or a list are missing, or the lists do not fit the images.
        UsageError: there is no such attribute.
    """
    source = images_of(root)
    if source is None:
        raise DataError(
            f"{root}: neither {IMAGES}/ nor {IMAGES}.zip\n"
            f"  looked there and in {', '.join(PLACES[1:])}; docs/data.md says where CelebA is from"
        )
    found = source.found()
    by_name = {file.name.rpartition("/")[2]: file for file in found.files}
    if len(by_name) < len(found.files):
        raise DataError(f"{source.root} has an image of one name in several folders")
    partition = _list(root, PARTITION)
    splits: Mapping[str, str] = {}
    if partition is not None:
        splits = _partition(partition)
        _refuse_unlisted(by_name, splits, partition)
    elif split != "all":
        raise DataError(f"{root} has no {PARTITION}, which says what is in the split {split}")
    attributes = _list(root, ATTRIBUTES)
    classes: tuple[str, ...] = ()
    of: Mapping[str, int] = {}
    if labels:
        if attributes is None:
            raise DataError(f"{root} has no {ATTRIBUTES}, which says what is {labels}")
        classes, of = _classes(attributes, labels.split(","))
        _refuse_unlisted(by_name, of, attributes)
    listed = sorted(set(splits) | set(of) | set(by_name))
    wanted = [name for name in listed if split == "all" or splits.get(name) == split]
    there = [name for name in wanted if name in by_name]
    note = f"{len(found.files):,} images; the official download has {COUNT:,}"
    return Listing(
        "celeba",
        root,
        source,
        tuple(by_name[name] for name in there),
        tuple(of[name] for name in there) if labels else None,
        classes,
        tuple(splits[name] for name in there) if splits else None,
        split,
        labels,
        tuple(name for name in wanted if name not in by_name),
        found.others,
        ORIGINAL,
        (note,) if len(found.files) != COUNT else (),
    )


def _list(root: Path, name: str) -> Path | None:
    places = [root / place / name for place in PLACES]
    return next((path for path in places if path.is_file()), None)


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error
    return [line.split() for line in text.splitlines()]


def _partition(path: Path) -> dict[str, str]:
    """`000001.jpg 0` a line: 0 for training, 1 for validation, 2 for testing."""
    splits: dict[str, str] = {}
    for number, words in enumerate(_lines(path), 1):
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2") or words[0] in splits:
            raise DataError(f"{path}:{number}: not a name, once, and 0, 1 or 2")
        splits[words[0]] = SPLITS[int(words[1])]
    return splits


def _classes(path: Path, wanted: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """A count, the names, then `000001.jpg -1 1 ...` a line; classes count up in binary."""
    lines = [*_lines(path), [], []]
    count, names, rows = lines[0], lines[1], [line for line in lines[2:] if line]
    if count != [str(len(rows))]:
        raise DataError(f"{path}:1: says {' '.join(count) or 'nothing'}, {len(rows):,} rows follow")
    for name in wanted:
        if name not in names:
            raise UsageError(f'CelebA has no attribute "{name}"; {choices(name, names)}')
    columns = [1 + names.index(name) for name in wanted]
    of: dict[str, int] = {}
    for number, row in enumerate(rows, 3):
        if len(row) != 1 + len(names) or set(row[1:]) - {"1", "-1"} or row[0] in of:
            raise DataError(f"{path}:{number}: not a name, once, and {len(names)} times 1 or -1")
        of[row[0]] = int("".join("1" if row[column] == "1" else "0" for column in columns), 2)
    digits = [format(index, f"0{len(wanted)}b") for index in range(2 ** len(wanted))]
    return tuple(" + ".join(_worded(wanted, bits)) for bits in digits), of


def _worded(names: Sequence[str], bits: str) -> list[str]:
    return [name if bit == "1" else f"not {name}" for name, bit in zip(names, bits, strict=True)]


def _refuse_unlisted(found: Mapping[str, object], listed: Mapping[str, object], path: Path) -> None:
    unlisted = sorted(set(found) - set(listed))
    if unlisted:
        raise DataError(f"{path} does not list {len(unlisted):,} of the images: {some(unlisted)}")
