"""Every source by the same rules, then what is particular to each."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch import Tensor

import gankit.datasets as datasets
from gankit.datasets import (
    Digits,
    Folder,
    Grid,
    Ring,
    Shapes,
    StackedDigits,
    height_width,
    image_grid,
    render,
    scatter,
    to_float,
    to_uint8,
)
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import Options, folder, pack
from gankit.datasets.shapes import CHROMA, CLASSES, HOLE, SIDES, Factors
from gankit.errors import DataError, MissingExtra
from gankit.registry import REQUIRED, registry
from gankit.slots import Dataset

SOURCES = [
    n for n in registry.names("dataset") if registry.get("dataset", n).provider.name == "gankit"
]
SIZED = [name for name in SOURCES if "size" in registry.get("dataset", name).options]

BICUBIC = Pillow.Resampling.BICUBIC


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Any:
    """Bytes that no resize or crop leaves alike."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree of images, none of them to be written to."""
    root = tmp_path_factory.mktemp("photos")
    (root / "deep" / "er").mkdir(parents=True)
    for place, name in enumerate(["b.PNG", "a.png", "deep/c.jpg", "deep/er/d.WebP", "deep/e.jpeg"]):
        Pillow.fromarray(noise(40 + place, 50 - 3 * place, seed=place)).save(root / name)
    (root / "notes.txt").write_text("not an image")
    (root / "._a.png").write_bytes(b"what macOS leaves behind")
    return root


@pytest.fixture
def make(photos: Path, tmp_path: Path) -> Callable[..., Any]:
    """A source by its name, with the options that it cannot do without."""
    required: dict[str, dict[str, Any]] = {"folder": {"root": str(photos)}}

    def made(name: str, **options: Any) -> Any:
        if name == "packed":
            required[name] = {"root": str(pack_photos(photos, tmp_path, **options))}
        return registry.get("dataset", name).bind(**required.get(name, {}), **options)

    return made


def pack_photos(
    photos: Path, tmp_path: Path, *, size: Any = 128, channels: int = 3, **others: Any
) -> Path:
    """The photos, packed as the options of a source want them."""
    out = tmp_path / f"{size}_{channels}"
    try:
        framing = Framing(size if isinstance(size, int) else tuple(size), 0, channels)
    except ValueError:  # which the source is to say for itself
        return out
    pack(folder(photos), out, framing, Options(), lambda message: None, lambda *told: None)
    return out


# --- what holds for every source


@pytest.mark.parametrize("name", SOURCES)
def test_images_are_what_the_source_says_they_are(name: str, make: Callable[..., Any]) -> None:
    source: Dataset = make(name)
    indices = torch.arange(min(len(source), 200))
    images, labels = source.images(indices), source.labels(indices)
    assert images.shape == (len(indices), *source.image.shape)
    if source.image.bounded:
        assert images.dtype == torch.uint8
        assert int(images.min()) < 60
        assert int(images.max()) > 200
    else:
        assert images.dtype == torch.float32
        assert bool(images.isfinite().all())
    if source.image.classes:
        assert labels is not None
        assert (labels.shape, labels.dtype) == (indices.shape, torch.int64)
        everyone = set(range(source.image.classes))
        assert set(labels.tolist()) <= everyone
        # Two hundred images cannot show all of a thousand classes.
        assert source.image.classes > 200 or set(labels.tolist()) == everyone
    else:
        assert labels is None
    assert images.unique(dim=0).shape[0] == len(indices), "no image is there twice"


@pytest.mark.parametrize("name", SOURCES)
def test_an_image_depends_on_its_index_alone(name: str, make: Callable[..., Any]) -> None:
    source: Dataset = make(name)
    count = min(len(source), 67)
    whole = source.images(torch.arange(count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    again: Dataset = make(name)
    for rows in (*order.split(7), order, order.to(torch.int32), order[:1].repeat(3)):
        assert torch.equal(again.images(rows), whole[rows.long()])
        labels, expected = again.labels(rows), source.labels(torch.arange(count))
        assert labels is None or expected is None or torch.equal(labels, expected[rows.long()])
    assert source.images(order[:0]).shape == (0, *source.image.shape)


@pytest.mark.parametrize("name", SOURCES)
def test_what_comes_out_can_be_written_on(name: str, make: Callable[..., Any]) -> None:
    source: Dataset = make(name)
    before = source.images(torch.arange(3))
    kept = before.clone()
    before.mul_(0)
    assert torch.equal(source.images(torch.arange(3)), kept)


@pytest.mark.parametrize("name", SOURCES)
def test_the_global_generators_stay_where_they_are(name: str, make: Callable[..., Any]) -> None:
    def states() -> list[bytes]:
        numpys = np.random.get_state(legacy=False)["state"]
        return [
            torch.get_rng_state().numpy().tobytes(),
            repr(numpys).encode(),
            repr(random.getstate()).encode(),
        ]

    before = states()
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        source: Dataset = make(name)
        drawn.append(source.images(torch.arange(4)))
        source.labels(torch.arange(4))
    assert torch.equal(*drawn), "the global generator is not read"
    torch.set_rng_state(torch.from_numpy(np.frombuffer(before[0], np.uint8).copy()))
    make(name).images(torch.arange(4))
    assert states() == before, "nor moved"


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    ("indices", "error"),
    [
        (torch.tensor([-1]), IndexError),
        (torch.tensor([10**9]), IndexError),
        (torch.tensor([0.0]), TypeError),
        (torch.tensor([True]), TypeError),
        (torch.tensor(0), TypeError),
    ],
)
def test_indices_that_are_none_are_refused(
    name: str, indices: Tensor, error: type[Exception], make: Callable[..., Any]
) -> None:
    with pytest.raises(error):
        make(name).images(indices)


@pytest.mark.parametrize("name", SIZED)
def test_images_need_not_be_square(name: str, make: Callable[..., Any]) -> None:
    if "channels" not in registry.get("dataset", name).options:
        assert make(name, size=(12, 20)).images(torch.arange(2)).shape == (2, 3, 12, 20)
        return
    source = make(name, size=(12, 20), channels=1)
    assert source.image.shape == (1, 12, 20)
    assert source.images(torch.arange(2)).shape == (2, 1, 12, 20)
    colour = make(name, size=[12, 20], channels=3).images(torch.arange(2))
    assert colour.shape == (2, 3, 12, 20)
    assert colour.is_contiguous()


@pytest.mark.parametrize("name", SOURCES)
def test_every_option_is_documented_and_has_a_toml_default(name: str) -> None:
    entry = registry.get("dataset", name)
    assert entry.summary
    for option in entry.options.values():
        assert option.meaning, option.name
        assert option.default is REQUIRED or isinstance(option.default, int | float | str)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_a_value(name: str, make: Callable[..., Any]) -> None:
    source = make(name)
    source.images(torch.arange(1))
    assert source == make(name)
    assert hash(source) == hash(make(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.size = 3


def test_making_a_source_touches_no_disk() -> None:
    for name in SOURCES:
        options = {"root": "/no/such/folder"} if name in ("folder", "packed") else {}
        source = registry.get("dataset", name).bind(**options)
        assert source.image.channels > 0
    code = (
        "import sys, gankit.datasets as d; d.Digits().image; d.Folder(root='/no/such').image;"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("digits", {"size": 0}, "size = 0: must be 1 or more"),
        ("digits", {"size": (32, -1)}, "size = -1: must be 1 or more"),
        ("digits", {"size": (1, 2, 3)}, r"size = \[1, 2, 3\]: must be one number, or \[height"),
        ("digits", {"channels": 2}, r"channels = 2: must be 1 \(grey\) or 3 \(colour\)"),
        ("digits", {"split": "valid"}, 'split = "valid": must be "all", "train" or "test"'),
        ("shapes", {"size": 7}, "size = 7: must be 8 or more"),
        ("shapes", {"channels": 4}, "channels = 4"),
        ("shapes", {"length": 0}, "length = 0: must be 1 or more"),
        ("shapes", {"seed": -1}, "seed = -1: must be 0 or more"),
        ("ring", {"modes": 0}, "modes = 0: must be 1 or more"),
        ("ring", {"std": 0.0}, "std = 0.0: must be a finite number above 0"),
        ("ring", {"radius": math.nan}, "radius = nan: must be a finite"),
        ("ring", {"length": 0}, "length = 0"),
        ("ring", {"seed": -1}, "seed = -1"),
        ("grid", {"side": 0}, "side = 0: must be 1 or more"),
        ("grid", {"spacing": -1.0}, "spacing = -1.0: must be"),
        ("grid", {"std": math.inf}, "std = inf: must be"),
        ("folder", {"size": 0}, "size = 0"),
        ("folder", {"crop": -1}, "crop = -1: must be 0 or more"),
        ("folder", {"crop": (0, 3)}, "crop = 0: must be 1 or more"),
        ("folder", {"channels": 4}, "channels = 4"),
        ("packed", {"size": (0, 3)}, "size = 0"),
        ("packed", {"channels": 2}, "channels = 2"),
        ("packed", {"classes": -1}, "classes = -1: must be 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(
    name: str, options: dict[str, Any], says: str, make: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=says):
        make(name, **options)


def test_all_is_sorted_and_there() -> None:
    assert datasets.__all__ == sorted(datasets.__all__)
    assert all(hasattr(datasets, name) for name in datasets.__all__)


def test_one_number_is_a_square() -> None:
    assert height_width(3) == height_width((3, 3)) == (3, 3)
    assert height_width((2, 5)) == (2, 5)


# --- digits


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    source = Digits(size=8)
    everything = torch.arange(len(source))
    assert len(source) == 1797
    assert np.array_equal(source.labels(everything).numpy(), labels)
    assert np.array_equal(
        source.images(everything).numpy(), np.rint(levels * 255 / 16).reshape(-1, 1, 8, 8)
    )


def test_digits_are_resized_to_height_and_width() -> None:
    small, large = Digits(size=8), Digits(size=(16, 24), channels=3)
    index = torch.tensor([5])
    grey = Pillow.fromarray(small.images(index)[0, 0].numpy())
    expected = np.asarray(grey.resize((24, 16), BICUBIC))
    assert np.array_equal(large.images(index)[0].numpy(), np.stack([expected] * 3))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        MissingExtra, match=r"the digits data set .*\n  pip install 'gankit\[digits\]'"
    ):
        len(Digits())


def bytes_of(source: Dataset) -> list[bytes]:
    return [image.numpy().tobytes() for image in source.images(torch.arange(len(source)))]


def test_digits_are_divided_by_class_and_nothing_is_lost() -> None:
    whole, train, test = (Digits(size=8, split=split) for split in ("all", "train", "test"))
    assert (len(train), len(test)) == (1442, 355)
    assert sorted(bytes_of(train) + bytes_of(test)) == sorted(bytes_of(whole))
    labels = [each.labels(torch.arange(len(each))) for each in (whole, test)]
    for count, held in zip(*(each.bincount(minlength=10) for each in labels), strict=True):
        assert int(held) == int(count) // 5
    # Every fifth of a class, in the order of the whole.
    zeros = (labels[0] == 0).nonzero()[:, 0]
    fifth = whole.images(zeros[4:5])[0]
    assert torch.equal(test.images((labels[1] == 0).nonzero()[0])[0], fifth)


def check_held_out(source: Any) -> None:
    """What is held out is of the same kind, and none of the images are those trained on."""
    held = source.held_out
    assert type(held) is type(source)
    assert held.image == source.image
    rows = torch.arange(min(500, len(source), len(held)))
    shown = {image.numpy().tobytes() for image in source.images(torch.arange(len(source))[:5000])}
    assert not any(image.numpy().tobytes() in shown for image in held.images(rows))


@pytest.mark.parametrize(
    "source",
    [
        Digits(size=8, channels=3, split="train"),
        Shapes(size=(8, 12), channels=1, length=5000),
        Ring(modes=3, std=0.2, seed=4),
        Grid(side=2, length=70),
    ],
)
def test_what_is_held_out_was_not_trained_on(source: Any) -> None:
    check_held_out(source)
    assert source.held_out == source.held_out, "and is always the same"


def test_twin_a_data_set_that_holds_nothing_out_is_found_out() -> None:
    class Leaky(Ring):
        @property
        def held_out(self) -> Ring:
            return Leaky(modes=self.modes)

    with pytest.raises(AssertionError):
        check_held_out(Leaky())


@pytest.mark.parametrize(
    "source",
    [Digits(), Digits(split="test"), StackedDigits(), Folder(root="/no/such/folder")],
)
def test_where_nothing_is_left_aside_nothing_is_held_out(source: Any) -> None:
    assert getattr(source, "held_out", None) is None


def test_a_packed_folder_holds_out_its_test_images(make: Callable[..., Any]) -> None:
    source = make("packed")
    assert source.held_out is None
    train = dataclasses.replace(source, split="train")
    assert train.held_out is None, "it was packed without splits"
    # The manifest is looked up once, and is all that is asked.
    splits = {"train": 3, "valid": 1, "test": 1}
    train.__dict__["manifest"] = dataclasses.replace(source.manifest, splits=splits)
    assert train.held_out == dataclasses.replace(source, split="test")
    train.__dict__["manifest"] = dataclasses.replace(source.manifest, splits={**splits, "test": 0})
    assert train.held_out is None
    for split in ("all", "valid", "test"):
        assert dataclasses.replace(source, split=split).held_out is None


# --- stacked digits


def test_stacked_digits_are_digits_and_their_number() -> None:
    source, digits = StackedDigits(size=8, length=3000), Digits(size=8)
    indices = torch.arange(len(source))
    images, labels = source.images(indices), source.labels(indices)
    known = {
        picture.numpy().tobytes(): i for i, picture in enumerate(digits.images(torch.arange(1797)))
    }
    ones = digits.labels(torch.arange(1797))
    for image, label in zip(images[:200], labels[:200], strict=True):
        each = [int(ones[known[channel.numpy().tobytes()]]) for channel in image]
        assert int(label) == 100 * each[0] + 10 * each[1] + each[2]
    # Each of the three is drawn by itself, and evenly.
    for place in (100, 10, 1):
        counts = torch.bincount(labels // place % 10, minlength=10)
        assert (counts / 3000 - 0.1).abs().max() < 0.03
    assert len(labels.unique()) > 900


def test_a_longer_set_of_stacked_digits_begins_with_the_shorter() -> None:
    short, long = (StackedDigits(length=length) for length in (50, 5000))
    indices = torch.arange(50)
    assert torch.equal(short.images(indices), long.images(indices))
    other = StackedDigits(length=50, seed=1)
    assert not torch.equal(short.labels(indices), other.labels(indices))


# --- shapes: a picture is read back without looking at how it was drawn


def decoded(images: Tensor) -> dict[str, Tensor]:
    """Factors from coloured pixels: chroma is coverage, its angle the hue, the rest moments."""
    pixels = images.double() / 255
    height, width = pixels.shape[-2:]
    turns = torch.exp(2j * math.pi * torch.arange(3).double() / 3)
    chroma = torch.einsum("bchw,c->bhw", pixels.to(turns.dtype), turns)
    coverage = chroma.abs() / (1.5 * CHROMA)
    area = coverage.sum((1, 2))
    across = (torch.arange(width) + 0.5).double()
    down = (torch.arange(height) + 0.5).double()
    return {
        "hue": chroma.sum((1, 2)).angle() / (2 * math.pi) % 1,
        "shade": pixels[:, 0, 0, 0],
        "x": torch.einsum("bhw,w->b", coverage, across) / area / width,
        "y": torch.einsum("bhw,h->b", coverage, down) / area / height,
        "area": area,
    }


def areas(factors: Factors, side: int) -> Tensor:
    """The exact areas of the shapes, in pixels."""
    of_unit = torch.tensor(
        [
            math.pi,
            math.pi * (1 - HOLE**2),
            3 * math.sqrt(3) / 4,
            2.0,
            # A pentagram: ten triangles from the centre to a tip and the notch beside it.
            5 * math.sin(math.pi / 5) * math.cos(2 * math.pi / 5) / math.cos(math.pi / 5),
        ],
        dtype=torch.float64,
    )
    return of_unit[factors.label] * (factors.radius.double() * side) ** 2


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_shapes_show_their_factors(size: tuple[int, int]) -> None:
    source = Shapes(size=size)
    indices = torch.arange(500)
    factors = source.factors(indices)
    seen = decoded(source.images(indices))
    hues = (seen["hue"] - factors.hue + 0.5) % 1 - 0.5
    assert float(hues.abs().max()) < 2e-3
    assert float((seen["shade"] - factors.shade).abs().max()) <= 0.5 / 255 + 1e-6
    assert float((seen["x"] - factors.x).abs().max()) * size[1] < 0.2
    assert float((seen["y"] - factors.y).abs().max()) * size[0] < 0.2
    relative = seen["area"] / areas(factors, min(size)) - 1
    assert float(relative.abs().max()) < 0.06
    assert float(relative.abs().mean()) < 0.01
    # The broken twin: the decoder notices another image's factors, one by one.
    for name in ("hue", "shade", "x", "y"):
        assert float((seen[name] - getattr(factors, name).roll(1)).abs().mean()) > 0.05


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_a_shape_turns_with_its_symmetry(label: int) -> None:
    """Equal after the least turn that shows it unchanged, and unlike its half, but for circles."""

    def drawn(rotation: float) -> Tensor:
        numbers = [0.2, 0.3, 0.5, 0.5, 0.3, rotation]
        factors = Factors(torch.tensor([label]), *(torch.tensor([n]) for n in numbers))
        return render(factors, (64, 64), 3).float()

    full = 2 * math.pi / (SIDES[label] or 7)
    assert float((drawn(0) - drawn(full)).abs().max()) <= 1
    changed = float((drawn(0) - drawn(full / 2)).abs().max())
    assert changed <= 1 if SIDES[label] == 0 else changed > 100
    upright = drawn(0)
    assert float((upright - upright.flip(-1)).abs().max()) <= 1, "mirrored left to right"


def test_a_triangle_points_up_and_turns_clockwise() -> None:
    def height_of_mass(label: str, rotation: float) -> tuple[float, float]:
        numbers = [0.0, 0.1, 0.5, 0.5, 0.3, rotation]
        factors = Factors(
            torch.tensor([CLASSES.index(label)]), *(torch.tensor([n]) for n in numbers)
        )
        red = render(factors, (64, 64), 3)[0, 0] > 128
        rows, columns = red.nonzero().double().add(0.5).unbind(1)
        return float(rows.amin() + rows.amax()) / 2 - 32, float(
            columns.amin() + columns.amax()
        ) / 2 - 32

    for label in ("triangle", "star"):
        down, _ = height_of_mass(label, 0.0)
        assert down < -0.5, "its tip reaches farther up than its base down"
        down, right = height_of_mass(label, math.pi / 2)
        assert abs(down) <= 0.5
        assert right > 0.5


def test_shapes_are_drawn_evenly_and_independently() -> None:
    source = Shapes(length=20_000)
    factors = source.factors(torch.arange(20_000))
    counts = factors.label.bincount().double() / 20_000
    assert float((counts - 0.2).abs().max()) < 0.012
    bounds = {
        "hue": (0, 1),
        "shade": (0.1, 0.6),
        "x": (0.3, 0.7),
        "y": (0.3, 0.7),
        "radius": (0.15, 0.3),
    }
    columns = [factors.label.double()]
    for name, (low, high) in bounds.items():
        values = (getattr(factors, name).double() - low) / (high - low)
        assert -1e-6 <= float(values.min()) < 0.001
        assert 0.999 < float(values.max()) <= 1 + 1e-6
        assert abs(float(values.mean()) - 0.5) < 0.01
        assert abs(float(values.var()) - 1 / 12) < 0.003
        columns.append(values)
    turn = factors.rotation.double() * torch.tensor(SIDES)[factors.label] / (2 * math.pi)
    turned = turn[torch.tensor(SIDES)[factors.label] > 0]
    assert abs(float(turned.mean()) - 0.5) < 0.01
    table = torch.stack(columns)
    off_diagonal = table.corrcoef() - torch.eye(len(table))
    assert float(off_diagonal.abs().max()) < 0.035
    following = torch.corrcoef(torch.stack([columns[1][1:], columns[1][:-1]]))[0, 1]
    assert abs(float(following)) < 0.035, "nor does an image tell the next"


def test_a_longer_set_begins_with_the_shorter_one_and_seeds_differ() -> None:
    indices = torch.arange(50)
    short, long = Shapes(length=50), Shapes(length=10**12)
    assert torch.equal(short.images(indices), long.images(indices))
    assert not torch.equal(short.factors(indices).x, Shapes(seed=1).factors(indices).x)
    assert len(Shapes(length=10**12).images(torch.tensor([10**12 - 1]))) == 1


def test_shapes_stay_as_they_were_first_drawn() -> None:
    """What was once seen, to the bit: a change here changes every run on shapes."""
    factors = Shapes().factors(torch.tensor([0, 1, 49_999]))
    assert factors.label.tolist() == [4, 2, 3]
    assert factors.hue.tolist() == pytest.approx([0.4315280, 0.7648787, 0.2092154], abs=1e-6)
    pixels = Shapes().images(torch.arange(64)).numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest()[:16] == "73ef6eeb74459a1e"


# --- ring and grid


def test_centres_are_those_of_the_protocol() -> None:
    ring = [(math.cos(2 * math.pi * i / 8), math.sin(2 * math.pi * i / 8)) for i in range(8)]
    assert torch.equal(Ring().centres, torch.tensor(ring, dtype=torch.float64).float())
    axis = (-4.0, -2.0, 0.0, 2.0, 4.0)
    assert Grid().centres.tolist() == [[x, y] for x in axis for y in axis]
    assert Ring(modes=1, radius=3.0).centres.tolist() == [[3.0, 0.0]]
    assert Grid(side=1).centres.tolist() == [[0.0, 0.0]]
    assert Grid(side=2, spacing=1.0).centres.tolist() == [
        [-0.5, -0.5],
        [-0.5, 0.5],
        [0.5, -0.5],
        [0.5, 0.5],
    ]


@pytest.mark.parametrize("source", [Ring(), Grid(), Ring(modes=3, std=0.02, seed=5)])
def test_points_are_gaussians_of_equal_weight(source: Ring | Grid) -> None:
    points = source.images(torch.arange(len(source))).double()
    centres = source.centres.double()
    distances, nearest = torch.cdist(points, centres).min(1)
    count = len(source)
    # exp(-9/2) lies beyond three standard deviations in the plane; five standard errors around it.
    expected = 1 - math.exp(-4.5)
    close = float((distances <= 3 * source.std).double().mean())
    assert abs(close - expected) < 5 * math.sqrt(expected * (1 - expected) / count)
    share = 1 / len(centres)
    counts = nearest.bincount(minlength=len(centres)).double() / count
    assert float((counts - share).abs().max()) < 5 * math.sqrt(share * (1 - share) / count)
    offsets = (points - centres[nearest]) / source.std
    assert float(offsets.mean(0).abs().max()) < 5 / math.sqrt(count)
    assert float((offsets.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / count)


def test_points_follow_their_seed() -> None:
    rows = torch.arange(10)
    assert not torch.equal(Ring().images(rows), Ring(seed=1).images(rows))


# --- folder


def read(root: Path, index: int = 0, **options: Any) -> Any:
    """One image of a folder as (H, W, C)."""
    return (
        Folder(root=str(root), **options).images(torch.tensor([index]))[0].permute(1, 2, 0).numpy()
    )


def alone(root: Path, image: Pillow.Image, name: str = "a.png", **options: Any) -> Path:
    """The folder with one image in it."""
    image.save(root / name, **options)
    return root


def test_files_come_in_the_order_of_their_paths(photos: Path) -> None:
    source = Folder(root=str(photos))
    names = [path.relative_to(photos).as_posix() for path in source.paths]
    assert names == ["a.png", "b.PNG", "deep/c.jpg", "deep/e.jpeg", "deep/er/d.WebP"]


@pytest.mark.parametrize("crop", [20, 23, (20, 31), (33, 33)])
def test_the_centre_is_cut_out_and_then_resized(tmp_path: Path, crop: Any) -> None:
    pixels = noise(40, 59)
    height, width = height_width(crop)
    top, left = round((40 - height) / 2), round((59 - width) / 2)
    cut = Pillow.fromarray(pixels[top : top + height, left : left + width])
    expected = np.asarray(cut.resize((12, 10), BICUBIC))
    seen = read(alone(tmp_path, Pillow.fromarray(pixels)), crop=crop, size=(10, 12))
    assert np.array_equal(seen, expected)
    # The broken twins: resized first, or cut out elsewhere.
    first = Pillow.fromarray(pixels).resize((12, 10), BICUBIC)
    assert not np.array_equal(seen, np.asarray(first))
    corner = Pillow.fromarray(pixels[:height, :width]).resize((12, 10), BICUBIC)
    assert not np.array_equal(seen, np.asarray(corner))


def test_a_crop_of_the_size_is_copied_exactly(tmp_path: Path) -> None:
    pixels = noise(218, 178)
    root = alone(tmp_path, Pillow.fromarray(pixels))
    assert np.array_equal(read(root, crop=178, size=178), pixels[20:198])


@pytest.mark.parametrize(
    ("size", "piece"),
    [
        (16, np.s_[:, 10:50]),
        ((16, 16), np.s_[:, 10:50]),
        ((8, 24), np.s_[10:30, :]),
        ((20, 10), np.s_[:, 20:40]),
        ((40, 60), np.s_[:, :]),
    ],
)
def test_without_a_crop_the_largest_piece_is_taken(tmp_path: Path, size: Any, piece: Any) -> None:
    pixels = noise(40, 60)
    height, width = height_width(size)
    expected = np.asarray(Pillow.fromarray(pixels[piece]).resize((width, height), BICUBIC))
    assert np.array_equal(read(alone(tmp_path, Pillow.fromarray(pixels)), size=size), expected)


@given(
    file=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=60, deadline=None)
def test_any_image_fits_any_size(file: tuple[int, int], size: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        alone(Path(root), Pillow.new("RGB", (file[1], file[0]), (200, 100, 50)))
        seen = read(Path(root), size=size)
    assert seen.shape == (*size, 3)
    # Nothing from beyond the border, which Pillow's crop would fill with black, gets in.
    assert np.array_equal(np.unique(seen.reshape(-1, 3), axis=0), [[200, 100, 50]])


def test_flip_doubles_the_set_with_mirrored_images(photos: Path) -> None:
    plain, both = Folder(root=str(photos), size=16), Folder(root=str(photos), size=16, flip=True)
    count = len(plain)
    assert len(both) == 2 * count
    straight = plain.images(torch.arange(count))
    assert torch.equal(both.images(torch.arange(count)), straight)
    assert torch.equal(both.images(torch.arange(count, 2 * count)), straight.flip(-1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(tmp_path: Path, orientation: int) -> None:
    pixels = noise(20, 30)
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    root = alone(tmp_path, Pillow.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(read(root, size=(20, 30)), pixels)
    # Cropped after turning: the file's own height would be too small for it.
    assert read(root, crop=(20, 30), size=8).shape == (8, 8, 3)


def test_grey_palette_and_cmyk_files_become_rgb_and_grey(tmp_path: Path) -> None:
    colour = Pillow.fromarray(noise(16, 16))
    sources = {
        "a.png": colour.convert("L"),
        "b.png": colour.quantize(32),
        "c.jpg": colour.convert("CMYK"),
        "d.png": colour.convert("1"),
        "e.jpg": colour.convert("L"),
        "f.webp": colour,
    }
    for name, image in sources.items():
        image.save(tmp_path / name)
    for index, name in enumerate(sources):
        with Pillow.open(tmp_path / name) as opened:
            rgb, grey = opened.convert("RGB"), opened.convert("L")
        assert np.array_equal(read(tmp_path, index, size=16), np.asarray(rgb)), name
        one = read(tmp_path, index, size=16, channels=1)
        assert np.array_equal(one[..., 0], np.asarray(grey)), name


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    pixels = noise(8, 8, 4)
    pixels[..., 3] = 255
    pixels[:4, :, 3] = 0
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    half = Pillow.new("RGBA", (8, 8), (0, 0, 0, 128))
    half.save(tmp_path / "b.png")
    palette = Pillow.new("P", (8, 8), 0)
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "c.png", transparency=0)
    seen = read(tmp_path, size=8)
    assert (seen[:4] == 255).all()
    assert np.array_equal(seen[4:], pixels[4:, :, :3])
    assert (read(tmp_path, 1, size=8) == 127).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (read(tmp_path, 2, size=8) == 255).all()


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    root = alone(tmp_path, Pillow.fromarray(deep))
    expected = np.arange(256).reshape(16, 16)
    assert np.array_equal(read(root, size=16, channels=1)[..., 0], expected)
    assert np.array_equal(read(root, size=16)[..., 2], expected)


def test_a_missing_folder_says_what_to_set(tmp_path: Path) -> None:
    missing, file = tmp_path / "none", tmp_path / "file"
    file.touch()
    advice = "\n  set data.root, or --set data.root=PATH"
    for path, says in ((missing, "no such folder"), (file, "not a folder")):
        with pytest.raises(DataError) as caught:
            len(Folder(root=str(path)))
        assert str(caught.value) == f"{path}: {says}{advice}"
    with pytest.raises(ValueError, match="root is empty"):
        Folder(root="")


def test_a_folder_without_images_says_what_it_has(tmp_path: Path) -> None:
    for name in ("a.txt", "b.gif", ".hidden.png"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="none of the 2 files in it is an image\n  looked for "):
        len(Folder(root=str(tmp_path)))


def test_a_folder_called_like_an_image_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    alone(tmp_path / "a.png", Pillow.new("RGB", (8, 8)))
    assert [path.parent.name for path in Folder(root=str(tmp_path)).paths] == ["a.png"]


def test_home_is_expanded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos))
    assert len(Folder(root="~")) == 5
    assert len(Folder(root="~/deep")) == 3


def test_links_to_folders_are_followed_once(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "one").symlink_to(photos)
    (tmp_path / "two").symlink_to(photos)
    (tmp_path / "loop").symlink_to(tmp_path)
    names = {path.relative_to(tmp_path).parts[0] for path in Folder(root=str(tmp_path)).paths}
    assert names == {"one"}


def test_an_image_smaller_than_the_crop_is_named(tmp_path: Path) -> None:
    root = alone(tmp_path, Pillow.new("RGB", (30, 20)))
    with pytest.raises(DataError) as caught:
        read(root, crop=25)
    assert str(caught.value) == (
        f"{tmp_path}/a.png is smaller than the crop: 20 x 30 pixels (height x width), crop 25 x 25"
    )


def truncated(path: Path) -> None:
    Pillow.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("a.jpg", truncated, "truncated"),
        ("a.png", truncated, "truncated"),
        ("a.webp", truncated, ""),
        ("a.png", lambda path: path.write_bytes(b""), "not a JPEG, PNG or WebP image"),
        ("a.jpg", lambda path: path.write_text("<html>404"), "not a JPEG, PNG or WebP image"),
        ("a.jpg", lambda path: Pillow.new("L", (8, 8)).save(path, "TIFF"), "not a JPEG, PNG or"),
        ("a.png", lambda path: path.symlink_to("gone.png"), "No such file"),
    ],
)
def test_an_unreadable_file_is_named_with_the_reason(
    tmp_path: Path, name: str, spoil: Callable[[Path], Any], reason: str
) -> None:
    Pillow.new("RGB", (8, 8)).save(tmp_path / "0.png")
    Pillow.new("RGB", (8, 8)).save(tmp_path / "z.png")
    spoil(tmp_path / name)
    assert read(tmp_path, 0, size=8).shape == (8, 8, 3), "the others can be read"
    with pytest.raises(DataError, match=f"cannot read {tmp_path}/{name}: .*{reason}") as caught:
        read(tmp_path, 1, size=8)
    assert caught.value.__cause__ is not None


@given(cut=st.integers(0, 400), place=st.integers(0, 400), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_read_or_refused(cut: int, place: int, value: int) -> None:
    written = io.BytesIO()
    Pillow.fromarray(noise(8, 8)).save(written, "PNG")
    damaged = bytearray(written.getvalue()[: cut + 1])
    damaged[place % len(damaged)] = value
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path(root, "a.png").write_bytes(damaged)
        try:
            assert read(Path(root), size=8).shape == (8, 8, 3)
        except DataError as error:
            assert "a.png" in str(error)  # noqa: PT017


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [100, 60, 40])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Pillow warns above its limit and raises above twice that; both are errors here."""
    root = alone(tmp_path, Pillow.new("RGB", (10, 10)))
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", limit)
    if limit == 100:
        assert read(root, size=8).shape == (8, 8, 3)
        return
    with pytest.raises(DataError, match=f"cannot read {root}/a.png: .*100 pixels"):
        read(root, size=8)


def test_threads_may_read_together(photos: Path) -> None:
    source = Folder(root=str(photos), size=32, flip=True)
    with ThreadPoolExecutor(4) as pool:
        rows = torch.arange(10).repeat(4)
        together = torch.cat(list(pool.map(source.images, rows.split(3))))
    assert torch.equal(together, source.images(rows))


# --- bytes, floats and pictures


def test_every_byte_survives_the_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert (float(floats[0]), float(floats[-1])) == (-1.0, 1.0)
    assert torch.equal(to_uint8(floats), every)
    assert torch.equal(to_uint8(floats.double()), every)
    assert torch.equal(to_uint8(every), every)
    assert to_float(floats) is floats


@given(st.floats(-1, 1, width=32))
def test_a_float_becomes_the_nearest_byte(value: float) -> None:
    chosen = to_uint8(torch.tensor([value]))
    every = torch.arange(256, dtype=torch.uint8)
    nearest = (to_float(every).double() - value).abs().min()
    assert float((to_float(chosen).double() - value).abs()) <= float(nearest) + 1e-7


def test_what_lies_outside_is_clamped() -> None:
    values = torch.tensor([-math.inf, -7.0, -1.01, 1.01, 300.0, math.inf, math.nan])
    assert to_uint8(values).tolist() == [0, 0, 0, 255, 255, 255, 128]
    for change in (to_float, to_uint8):
        with pytest.raises(TypeError, match="uint8 or float, not int64"):
            change(torch.zeros(1, dtype=torch.int64))


def test_a_grid_holds_every_image_where_it_should() -> None:
    images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 8, 16)
    picture = image_grid(images, columns=3, padding=4)
    factor = 11  # the least with 3 x 16 pixels and four paddings 512 wide
    assert picture.mode == "RGB"
    assert picture.size == (3 * 16 * factor + 4 * 4, 2 * 8 * factor + 3 * 4)
    pixels = np.asarray(picture)
    for place in range(5):
        top, left = 4 + place // 3 * (8 * factor + 4), 4 + place % 3 * (16 * factor + 4)
        tile = pixels[top : top + 8 * factor, left : left + 16 * factor]
        assert (tile == int(to_uint8(images[place, 0, 0, 0]))).all()
    assert (pixels[:4] == 255).all()
    assert (pixels[-8 * factor - 4 :, -16 * factor - 4 :] == 255).all(), "an empty place is white"


def test_grids_are_wide_enough_and_about_square() -> None:
    for count, size in ((1, 8), (7, 28), (64, 32), (64, 128)):
        picture = image_grid(torch.zeros(count, 1, size, size))
        assert picture.mode == "L"
        assert picture.width >= 512
        assert picture.height <= picture.width
    assert image_grid(torch.zeros(4, 3, 512, 512), columns=1, padding=0).size == (512, 2048)
    tall = image_grid(torch.zeros(16, 3, 64, 16))
    assert 0.5 < tall.height / tall.width < 2


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 2, 8, 8), (3, 8, 8)])
def test_a_grid_of_no_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a grid is made of"):
        image_grid(torch.zeros(shape))
    with pytest.raises(ValueError, match="columns = 0"):
        image_grid(torch.zeros(1, 1, 8, 8), columns=0)


def test_a_scatter_shows_points_where_they_are() -> None:
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])
    picture = np.asarray(scatter(corners)).astype(int)
    assert picture.shape == (512, 512, 3)
    blue = (picture[..., 2] - picture[..., 0]) > 60
    rows, columns = blue.nonzero()
    quadrants = {(bool(r > 256), bool(c > 256)) for r, c in zip(rows, columns, strict=True)}
    assert quadrants == {(True, False), (True, True), (False, True)}, "y is upwards"


def test_a_scatter_bears_any_points() -> None:
    real = Grid().images(torch.arange(50))
    wild = torch.tensor([[math.nan, 0.0], [math.inf, 1.0], [1e9, -1e9], [0.0, 0.0]])
    for points, under in ((wild, real), (wild[:1], None), (real[:0], None), (real[:1], None)):
        assert scatter(points, under).size == (512, 512)
    with pytest.raises(ValueError, match=r"are \(B, 2\), not \(4, 3\)"):
        scatter(torch.zeros(4, 3))
