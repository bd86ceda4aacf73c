"""Images that somebody has made: read as they are, or refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from gankit.errors import DataError, UsageError
from gankit.evaluate import given
from gankit.evaluate.given import Arrays, Pictures


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(file: Path, **arrays: Any) -> Path:
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file


def pictures(folder: Path, images: NDArray[np.uint8]) -> Path:
    """Images (N, C, H, W) as PNGs."""
    folder.mkdir()
    for index, image in enumerate(images.transpose(0, 2, 3, 1)):
        Pillow.fromarray(image[..., 0] if len(images[0]) == 1 else image).save(
            folder / f"{index:03d}.png"
        )
    return folder


# --- arrays


@examples(
    count=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    last=st.booleans(),
    labelled=st.booleans(),
    data=st.data(),
)
def test_arrays_are_what_was_saved_channels_first_or_last(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    channels: int,
    size: tuple[int, int],
    last: bool,
    labelled: bool,
    data: st.DataObject,
) -> None:
    images = noise(count, channels, *size)
    shown = images.transpose(0, 2, 3, 1) if last else images
    labels = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    names = data.draw(st.sampled_from([("images", "labels"), ("arr_0", "arr_1")]))
    held = dict(zip(names, (shown, labels)[: 1 + labelled], strict=False))
    file = saved(tmp_path_factory.mktemp("given") / "x.npz", **held, other=np.zeros(3))
    found = given(file)
    indices = torch.arange(count).flip(0)
    assert found.images(indices).equal(torch.from_numpy(images).flip(0))
    told = found.labels(indices)
    assert (
        told is None
        if not labelled
        else told is not None and told.tolist() == labels[::-1].tolist()
    )
    assert (len(found), found.image.shape) == (count, (channels, *size))
    assert found.image.classes == (labels.max() + 1 if labelled else 0)


def test_points_are_float32_rows(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(5, 2))
    found = given(saved(tmp_path / "x.npz", images=points))
    assert found.images(torch.arange(5)).equal(torch.from_numpy(points).float())
    assert (found.image.shape, found.image.bounded) == ((2,), False)


def test_images_win_over_what_other_libraries_call_them(tmp_path: Path) -> None:
    one, other = noise(2, 1, 4, 4), noise(2, 4, 4, 1, seed=1)
    found = given(saved(tmp_path / "x.npz", arr_0=other, images=one))
    assert found.images(torch.arange(2)).equal(torch.from_numpy(one))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"pictures": noise(2, 1, 4, 4)}, "no array `images` or `arr_0`, but pictures"),
    "nothing": ({}, "but none"),
    "no images": ({"images": noise(0, 1, 4, 4)}, r"images \(0, 1, 4, 4\) uint8"),
    "no pixels": ({"images": noise(2, 1, 0, 4)}, r"images \(2, 1, 0, 4\)"),
    "floats": ({"images": noise(2, 1, 4, 4) / 255}, r"\(2, 1, 4, 4\) float64"),
    "two channels": ({"images": noise(2, 2, 4, 4)}, "of 1 or 3 channels"),
    "one image": ({"images": noise(1, 4, 4)}, "of 1 or 3 channels"),
    "whole numbers as points": ({"images": noise(4, 2)}, "of 1 or 3 channels"),
    "a number": ({"images": np.float32(3)}, r"images \(\) float32"),
    "words": ({"images": np.array(["a", "b"])}, "of the type <U1"),
    "flags": ({"images": noise(2, 1, 4, 4) > 9}, "of the type bool"),
    "complex points": ({"images": np.ones((2, 2), complex)}, "of the type complex128"),
    "the other end first": ({"images": np.ones((2, 2), ">f4")}, "of the type >f4"),
    "labels of half": (
        {"images": noise(4, 1, 4, 4), "labels": np.arange(2)},
        r"4 images, and labels of the shape \(2,\)",
    ),
    "labels below 0": (
        {"images": noise(2, 1, 4, 4), "labels": np.array([-1, 0])},
        "labels are whole numbers from 0",
    ),
    "labels between": (
        {"images": noise(2, 1, 4, 4), "labels": np.array([0.5, 1])},
        "labels are whole numbers from 0, not float64",
    ),
    "labels in words": (
        {"images": noise(2, 1, 4, 4), "labels": np.array(["cat", "dog"])},
        "labels are whole numbers from 0, not <U3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_no_images_are_refused_in_words(case: str, tmp_path: Path) -> None:
    arrays, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        given(saved(tmp_path / "x.npz", **arrays))


class Loud:
    """Would say so if it were unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "x.npz", images=np.array([Loud()], dtype=object))
    with pytest.raises(DataError, match=r"is no \.npz of arrays"):
        given(tmp_path / "x.npz")
    assert not (tmp_path / "unpickled").exists()
    with np.load(tmp_path / "x.npz", allow_pickle=True) as trusting:
        trusting["images"]
    assert (tmp_path / "unpickled").exists()  # the twin


@settings(max_examples=60)
@examples(at=st.floats(0, 1, exclude_max=True), cut=st.booleans(), bits=st.integers(1, 255))
def test_a_damaged_file_is_refused_or_holds_what_it_did(
    tmp_path_factory: pytest.TempPathFactory, at: float, cut: bool, bits: int
) -> None:
    """A zip has sums of its own; where a byte changes nothing that is read, nothing changes."""
    images = noise(3, 1, 4, 4)
    file = saved(tmp_path_factory.mktemp("given") / "x.npz", images=images)
    content = bytearray(file.read_bytes())
    place = int(at * len(content))
    content[place] ^= bits
    file.write_bytes(content[:place] if cut else content)
    try:
        found = given(file)
    except DataError:
        return
    assert found.images(torch.arange(3)).equal(torch.from_numpy(images))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00", b"gankit = 1\n"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz is no \.npz of arrays: "):
        given(tmp_path / "x.npz")


def test_one_array_alone_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as stream:
        np.save(stream, noise(2, 1, 4, 4))
    with pytest.raises(DataError, match=r"is no \.npz of arrays"):
        given(tmp_path / "x.npz")


def test_an_array_that_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.npz", images=noise(2, 1, 4, 4))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("more.npy", b"not an array")
    assert len(given(file)) == 2


def test_the_content_of_a_file_is_its_bytes(tmp_path: Path) -> None:
    one = Arrays(saved(tmp_path / "a.npz", images=noise(2, 1, 4, 4)))
    same = Arrays(saved(tmp_path / "b.npz", images=noise(2, 1, 4, 4)))
    other = Arrays(saved(tmp_path / "c.npz", images=noise(2, 1, 4, 4, seed=1)))
    assert one.content == same.content != other.content


# --- folders


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_pngs_is_its_pixels_in_order(channels: int, tmp_path: Path) -> None:
    images = noise(12, channels, 5, 7)
    found = given(pictures(tmp_path / "made", images))
    (tmp_path / "made" / "notes.txt").write_text("not an image")
    assert found.images(torch.arange(12)).equal(torch.from_numpy(images))
    assert found.labels(torch.arange(2)) is None
    assert (len(found), found.image.shape) == (12, (channels, 5, 7))


def test_pictures_of_two_sizes_are_refused_with_both_names(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "made", noise(2, 1, 4, 6))
    Pillow.fromarray(noise(6, 4)).save(folder / "b.png")
    found = given(folder)
    assert len(found.images(torch.arange(2))) == 2
    with pytest.raises(DataError, match=r"b\.png is 6 x 4 of 1 channel, and .*000\.png is 4 x 6"):
        found.images(torch.arange(3))


def test_grey_among_colours_is_refused(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "made", noise(2, 3, 4, 4))
    Pillow.fromarray(noise(4, 4)).save(folder / "b.png")
    with pytest.raises(DataError, match=r"of 1 channel, and .* of 3 channels"):
        given(folder).images(torch.arange(3))


def test_transparent_pictures_are_refused(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "made", noise(1, 3, 4, 4))
    Pillow.fromarray(noise(4, 4, 4)).save(folder / "b.png")
    with pytest.raises(DataError, match=r"cannot read .*b\.png: transparent images are not scored"):
        given(folder).images(torch.arange(2))


def test_a_palette_without_transparency_is_its_colours(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    flat = np.zeros((4, 4, 3), np.uint8)
    flat[:2] = 255, 7, 0
    Pillow.fromarray(flat).quantize(2).save(folder / "a.png")
    assert (
        given(folder).images(torch.arange(1))[0].permute(1, 2, 0).numpy().tolist() == flat.tolist()
    )


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no image at all"])
def test_a_damaged_picture_is_named(content: bytes, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "made", noise(2, 1, 4, 4))
    (folder / "001.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*001\.png"):
        given(folder).images(torch.arange(2))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(DataError, match="none of the 1 files in it is an image"):
        given(tmp_path)
    with pytest.raises(UsageError, match="there is no"):
        given(tmp_path / "nowhere")


def test_the_content_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "made", noise(2, 1, 4, 4))

    def content() -> str:
        found = given(folder)
        assert isinstance(found, Pictures)
        return found.content

    seen = [content()]
    assert content() == seen[0]
    Pillow.fromarray(noise(4, 4, seed=3)).save(folder / "more.png")
    seen.append(content())
    (folder / "more.png").rename(folder / "other.png")
    seen.append(content())
    os.utime(folder / "000.png", ns=(1, 1))
    seen.append(content())
    assert len(set(seen)) == 4


def test_rows_beyond_the_last_are_refused(tmp_path: Path) -> None:
    for found in (
        given(saved(tmp_path / "x.npz", images=noise(2, 1, 4, 4))),
        given(pictures(tmp_path / "made", noise(2, 1, 4, 4))),
    ):
        for wrong in (2, -1):
            with pytest.raises(IndexError):
                found.images(torch.tensor([wrong]))
