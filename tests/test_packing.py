"""Packing: what comes out is what was there, cropped, resized and labelled as it should be."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import shutil
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from gankit.datasets import Folder
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import (
    Options,
    celeba,
    check,
    folder,
    read,
    verify,
)
from gankit.datasets.packing.duplicates import alike, close_pairs, thumbnail
from gankit.datasets.packing.looking import look
from gankit.errors import DataError, MissingExtra, UsageError
from gankit.train.epochs import Epochs
from tests.packs import (
    BICUBIC,
    COUNT,
    PLAIN,
    SMALL,
    change,
    cut,
    everything,
    noise,
    opened,
    packed,
    quiet,
    same,
    turned,
    write_celeba,
    write_photos,
    zipped,
)


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CelebA of 20 images, not to be written to."""
    return write_celeba(tmp_path_factory.mktemp("celeba"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


# --- what comes out


def by_hand(pixels: Any, size: int) -> Any:
    """Bicubic, a = -1/2, averaged over what is shrunk: along the width, then along the height."""

    def weights(length: int) -> Any:
        scale = length / size
        centres = (np.arange(size) + 0.5) * scale
        x = np.abs((np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1.0))
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        kernel = np.where(x < 1, near, np.where(x < 2, far, 0))
        return kernel / kernel.sum(1, keepdims=True)

    def rounded(values: Any) -> Any:
        return np.floor(values + 0.5).clip(0, 255)

    across = rounded(np.einsum("xw,hwc->hxc", weights(pixels.shape[1]), pixels.astype(float)))
    return rounded(np.einsum("yh,hxc->yxc", weights(pixels.shape[0]), across))


@pytest.mark.parametrize("layout", ["folder", "zip", "stored zip", "Img"])
def test_celeba_is_cropped_and_resized_as_the_manifest_says(
    official: Path, tmp_path: Path, layout: str
) -> None:
    root = official
    if layout != "folder":
        root = tmp_path / "download"
        name = "Img/img_align_celeba.zip" if layout == "Img" else "img_align_celeba.zip"
        method = zipfile.ZIP_STORED if layout == "stored zip" else zipfile.ZIP_DEFLATED
        zipped(official / "img_align_celeba", root / name, method)
    source = packed(celeba(root), tmp_path / "out", Framing(128, 178), mixed=True)
    assert len(source) == COUNT
    seen = source.images(torch.arange(COUNT)).permute(0, 2, 3, 1).numpy()
    for index in range(COUNT):
        with Pillow.open(official / f"img_align_celeba/{index + 1:06d}.jpg") as image:
            face = np.asarray(image)
        assert face.shape == (218, 178, 3)
        centre = Pillow.fromarray(face[20:198])
        assert np.array_equal(seen[index], np.asarray(centre.resize((128, 128), BICUBIC)))
    assert np.abs(seen[-1] - by_hand(face[20:198], 128)).max() <= 1
    # The broken twins: cut out a pixel lower, another filter, resized before it is cut.
    assert np.abs(seen[-1] - by_hand(face[21:199], 128)).max() > 3
    bilinear = centre.resize((128, 128), Pillow.Resampling.BILINEAR)
    assert not np.array_equal(seen[-1], np.asarray(bilinear))
    manifest = read(tmp_path / "out")
    assert (manifest.recipe.crop, manifest.recipe.resize) == ((178, 178), "bicubic")


@given(
    files=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    channels=st.sampled_from([1, 3]),
    flip=st.booleans(),
)
@settings(max_examples=25)
def test_packed_is_what_the_folder_gives(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[int, int]],
    size: tuple[int, int],
    channels: int,
    flip: bool,
) -> None:
    root = tmp_path_factory.mktemp("any")
    for index, (height, width) in enumerate(files):
        shape = (max(height, 2), width, 3)
        pixels = np.random.default_rng(index).integers(0, 256, shape, np.uint8)
        (root / "in").mkdir(exist_ok=True)
        Pillow.fromarray(pixels).save(root / f"in/{index}.png")
    raw = Folder(root=str(root / "in"), size=size, channels=channels, flip=flip)
    packed(folder(root / "in"), root / "out", Framing(size, 0, channels))
    assert np.array_equal(everything(opened(root / "out", flip=flip)), everything(raw))


def test_a_packed_source_is_read_in_any_order_and_can_be_written_on(
    photos: Path, tmp_path: Path
) -> None:
    source = packed(folder(photos, "folders"), tmp_path / "out", Framing(16, 0))
    before = everything(source)
    rows = torch.tensor([7, 0, 7, 3])
    assert np.array_equal(source.images(rows).numpy(), before[[7, 0, 7, 3]])
    source.images(rows).zero_()
    assert np.array_equal(everything(source), before)
    assert not source._open.pixels.flags.writeable, "else it had to fit into memory"
    assert np.array_equal(everything(opened(tmp_path / "out", classes=2)), before)
    labels = source.labels(torch.arange(10))
    assert labels is not None
    assert labels.tolist() == [0] * 5 + [1] * 5
    both = dataclasses.replace(source, flip=True)
    assert np.array_equal(everything(both)[10:], before[..., ::-1])
    assert both.labels(torch.tensor([4, 14, 15])).tolist() == [0, 0, 1]  # type: ignore[union-attr]


def test_batches_need_no_state_to_go_on(photos: Path, tmp_path: Path) -> None:
    source = packed(folder(photos), tmp_path / "out", mixed=False)
    there, again = Epochs(source, 4, seed=1), Epochs(opened(tmp_path / "out"), 4, seed=1)
    drawn = [source.images(there.batch(k)) for k in range(7)]
    assert torch.equal(source.images(again.batch(5)), drawn[5])
    with pytest.raises(DataError, match="the data has 10 images, fewer than a batch of 11"):
        Epochs(source, 11, seed=1).batch(0)


def test_the_manifest_says_what_is_there(official: Path, tmp_path: Path) -> None:
    packed(celeba(official, "Male,Smiling", "train"), tmp_path / "out", Framing(16, 178))
    manifest = read(tmp_path / "out")
    assert manifest.images == manifest.source.files == 8
    assert manifest.cache.bytes == (tmp_path / "out/images.bin").stat().st_size == 8 * 3 * 16 * 16
    assert {one.name: one.images for one in manifest.classes} == {
        "not Male + not Smiling": 3,
        "not Male + Smiling": 1,
        "Male + not Smiling": 2,
        "Male + Smiling": 2,
    }
    assert manifest.splits == {"train": 8, "valid": 0, "test": 0}
    assert manifest.modes == {"RGB": 8}
    assert manifest.versions["pillow"]
    assert manifest.source.root == str(official)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [".lock", "files.csv", "images.bin", "manifest.json", "rows.npy"]


def test_packing_twice_gives_the_same_bytes(official: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        packed(celeba(official), tmp_path / name, Framing(16, 178))
    assert same(tmp_path / "one", tmp_path / "two")
    change(tmp_path / "two/images.bin")
    assert not same(tmp_path / "one", tmp_path / "two")


# --- splits and labels


def test_a_split_is_chosen_when_packing_or_when_training(official: Path, tmp_path: Path) -> None:
    whole = packed(celeba(official), tmp_path / "all", Framing(16, 178))
    pixels = everything(whole)
    for split, rows in {"train": slice(8), "valid": slice(8, 16), "test": slice(16, 20)}.items():
        chosen = opened(tmp_path / "all", split=split)
        assert np.array_equal(everything(chosen), pixels[rows])
        alone = packed(celeba(official, split=split), tmp_path / split, Framing(16, 178))
        assert np.array_equal(everything(alone), pixels[rows])
    with pytest.raises(DataError, match="no images of the split test: train 8, valid 0, test 0"):
        len(opened(tmp_path / "train", split="test"))


def test_a_split_without_the_list_is_refused(official: Path, tmp_path: Path) -> None:
    root = tmp_path / "bare"
    zipped(official / "img_align_celeba", root / "img_align_celeba.zip")
    with pytest.raises(DataError, match=r"no list_eval_partition\.txt, which says what is in the"):
        celeba(root, split="train")
    with pytest.raises(DataError, match=r"no list_attr_celeba\.txt, which says what is Male"):
        celeba(root, labels="Male")
    packed(celeba(root), tmp_path / "out", Framing(16, 178))
    with pytest.raises(DataError, match="has no images of the split train: no splits"):
        len(opened(tmp_path / "out", split="train"))


def test_classes_of_celeba_are_its_attributes(official: Path, tmp_path: Path) -> None:
    source = packed(celeba(official, "Male"), tmp_path / "out", Framing(16, 178))
    assert source.image.classes == 2
    assert source.labels(torch.arange(COUNT)).tolist() == [1, 0] * (COUNT // 2)  # type: ignore[union-attr]
    assert opened(tmp_path / "out").labels(torch.arange(3)) is None, "nobody asked for them"
    with pytest.raises(UsageError, match='no attribute "Mail"; did you mean "Male"'):
        celeba(official, "Mail")
    with pytest.raises(DataError, match=r"1 of 2 \(5_o_Clock_Shadow\)\n.*not 5"):
        packed(celeba(official, "5_o_Clock_Shadow"), tmp_path / "none", Framing(16, 178))


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg 3", "partition.txt:3: not a name"),
        ("list_eval_partition.txt", "000003.jpg 0", "000002.jpg 0", "partition.txt:3: not a name"),
        ("list_eval_partition.txt", "000003.jpg 0\n", "", "does not list 1 of the images: 000003"),
        ("list_attr_celeba.txt", "20\n", "21\n", "celeba.txt:1: says 21, 20 rows follow"),
        ("list_attr_celeba.txt", "000003.jpg -1", "000003.jpg", "celeba.txt:5: not a name"),
        ("list_attr_celeba.txt", "000003.jpg -1", "000003.jpg 0", "celeba.txt:5: not a name"),
    ],
)
def test_lists_with_mistakes_are_refused(
    official: Path, tmp_path: Path, name: str, old: str, new: str, says: str
) -> None:
    root = tmp_path / "wrong"
    root.mkdir()
    (root / "img_align_celeba").symlink_to(official / "img_align_celeba")
    for file in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        shutil.copy(official / file, root / file)
    assert len(celeba(root, "Male").files) == COUNT
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=says):
        celeba(root, "Male")


def test_images_that_a_list_names_and_that_are_not_there(official: Path, tmp_path: Path) -> None:
    root = tmp_path / "partial"
    shutil.copytree(official, root)
    for number in (4, 9):
        (root / f"img_align_celeba/{number:06d}.jpg").unlink()
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"2 of 20 images cannot .*\n  000004.jpg: a list names it"):
        packed(celeba(root), out, Framing(16, 178))
    source = packed(celeba(root), out, Framing(16, 178), on_bad="skip")
    assert len(source) == COUNT - 2
    assert [one.file for one in read(out).bad] == ["000004.jpg", "000009.jpg"]


def test_a_place_without_celeba_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither img_align_celeba/ nor img_align_celeba\.zip\n"):
        celeba(tmp_path)


def test_an_image_of_another_size_is_not_celebas(official: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    shutil.copytree(official, root)
    Pillow.fromarray(noise(256, 256)).save(root / "img_align_celeba/000002.jpg")
    with pytest.raises(DataError, match=r"000002\.jpg: 256 x 256 pixels .*, not 218 x 178"):
        packed(celeba(root), tmp_path / "out", Framing(16, 178))


def test_labels_come_from_folders_or_a_table(photos: Path, tmp_path: Path) -> None:
    names = [f"{'ab'[seed % 2]}/{seed}.png" for seed in range(10)]
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{n},{'yn'[i % 2]}\n" for i, n in enumerate(names)))
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("file,label\n" + "".join(f"{n},{i % 3}\n" for i, n in enumerate(names)))
    by_folder, by_table = folder(photos, "folders"), folder(photos, str(table))
    assert (by_folder.classes, by_table.classes) == (("a", "b"), ("n", "y"))
    assert by_folder.labels == tuple(1 - label for label in by_table.labels or ())
    by_number = folder(photos, str(numbers))
    assert by_number.classes == ("0", "1", "2")
    assert by_number.labels == (0, 2, 1, 0, 2, 1, 0, 2, 1, 0)
    archive = zipped(photos, tmp_path / "photos.zip")
    inside = folder(archive, "folders")
    assert (inside.classes, inside.labels) == (by_folder.classes, by_folder.labels)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a/0.png,x\n", "labels.csv:1: the first line must be file,label"),
        ("file,label\na/0.png,x,3\n", "labels.csv:2: 3 values, not 2"),
        ("file,label\na/0.png,x\na/0.png,y\n", r"labels.csv:3: a/0\.png is there twice"),
        ("file,label\na/0.png,x\n", r"images without a label: 9 of 10 \(a/2\.png, "),
        (None, "cannot read .*labels.csv: No such file"),
        ("file,label\n\xff,x\n", "cannot read .*labels.csv"),
    ],
)
def test_tables_with_mistakes_are_refused(
    photos: Path, tmp_path: Path, text: str | None, says: str
) -> None:
    table = tmp_path / "labels.csv"
    if text is not None:
        table.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=says):
        folder(photos, str(table))


def test_an_empty_class_is_refused_with_the_numbers(photos: Path, tmp_path: Path) -> None:
    (photos / "c").mkdir()
    with pytest.raises(DataError, match=r"image: 1 of 3 \(c\)\n  the others: a 5, b 5"):
        packed(folder(photos, "folders"), tmp_path / "out")
    (photos / "c/bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"classes without an image: 1 of 3 \(c\)\n"):
        packed(folder(photos, "folders"), tmp_path / "out", on_bad="skip")
    (photos / "loose.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"images in no sub-folder, .*: 1 of 12 \(loose\.png\)"):
        folder(photos, "folders")
    (photos / "loose.png").unlink()
    for name in "bc":
        shutil.rmtree(photos / name)
    with pytest.raises(DataError, match="classes are sub-folders, and there is only one"):
        folder(photos, "folders")


# --- archives


def test_archives_that_cannot_be_read_are_refused(photos: Path, tmp_path: Path) -> None:
    archive = zipped(photos, tmp_path / "p.zip")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cannot read .*broken\.zip: File is not a zip file"):
        folder(broken)
    (tmp_path / "x.rar").touch()
    with pytest.raises(DataError, match=r"x\.rar: neither a folder nor a \.zip"):
        folder(tmp_path / "x.rar")
    with pytest.raises(DataError, match=r"nowhere: no such folder or archive"):
        folder(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as file:
        file.writestr("photos/a/0.png", b"")
    with pytest.raises(DataError, match=r"has photos/a/0\.png in it more than once"):
        folder(archive)


def test_what_is_hidden_in_an_archive_or_no_image_is_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "p.zip"
    png = io.BytesIO()
    PLAIN.save(png, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("b.png", "__MACOSX/._b.png", ".git/x.png", "../up.png", "notes.txt", "a.PNG"):
            file.writestr(name, png.getvalue())
    listing = folder(archive)
    assert [file.name for file in listing.files] == ["a.PNG", "b.png"]
    assert listing.others == ("notes.txt",)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as file:
        file.writestr("notes.txt", "")
    with pytest.raises(DataError, match="none of the 1 files in it is an image"):
        folder(tmp_path / "empty.zip")


def test_a_damaged_member_is_bad_and_the_others_are_not(photos: Path, tmp_path: Path) -> None:
    archive = zipped(photos, tmp_path / "p.zip", zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        place = file.getinfo("photos/a/4.png").header_offset
    content[place + 200] ^= 0xFF
    archive.write_bytes(content)
    source = packed(folder(archive), tmp_path / "out", Framing(16, 0), on_bad="skip")
    assert len(source) == 9
    (bad,) = read(tmp_path / "out").bad
    assert bad.file == "photos/a/4.png"
    assert "CRC" in bad.reason


def test_names_that_are_no_good_unicode_are_packed_and_shown_harmlessly(
    photos: Path, tmp_path: Path
) -> None:
    wild = os.fsdecode(b"caf\xe9.png"), "new\nline.png", "\x1b[31mred.png"
    for name in wild:
        (photos / name).write_bytes(b"no image")
    out = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        packed(folder(photos), out)
    assert "\x1b" not in str(caught.value)
    assert r"'caf\udce9.png'" in str(caught.value)
    str(caught.value).encode()
    packed(folder(photos), out, on_bad="skip")
    assert len(read(out).bad) == 3
    assert verify(out, quiet).manifest.images == 10
    text = (out / "files.csv").open(errors="surrogateescape", encoding="utf-8", newline="")
    with text as stream:
        assert {row["file"] for row in csv.DictReader(stream)} >= set(wild)


# --- sizes


def test_mixed_sizes_are_refused_unless_a_crop_is_given(photos: Path, tmp_path: Path) -> None:
    for name in ("x.png", "y.png"):
        Pillow.fromarray(noise(48, 64)).save(photos / name)
    (photos / "bad.png").touch()
    Pillow.new("RGB", (1, 1)).save(photos / "dot.png")  # bad, so not a size
    out = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        packed(folder(photos), out, mixed=False, on_bad="skip")
    assert str(caught.value) == (
        "the images have 2 sizes (height x width)\n"
        "  40 x 32: 10, a/0.png\n  48 x 64: 2, x.png\n"
        "  --crop 0 takes the largest piece of each, --crop N the N x N pixels of its centre"
    )
    assert len(packed(folder(photos), out, on_bad="skip")) == 12


# --- the other decoder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A simplejpeg that darkens, to be told from Pillow."""
    calls: list[str] = []

    def decode_jpeg(data: bytes, colorspace: str) -> Any:
        calls.append(colorspace)
        pixels = np.asarray(Pillow.open(io.BytesIO(data))) // 2
        return pixels if colorspace == "RGB" else pixels[..., None]

    module = types.ModuleType("simplejpeg")
    module.__dict__.update(decode_jpeg=decode_jpeg, __version__="0.0")
    monkeypatch.setitem(sys.modules, "simplejpeg", module)
    return calls


def test_simplejpeg_is_used_for_plain_jpegs_and_only_when_asked_for(
    photos: Path, tmp_path: Path, fake: list[str]
) -> None:
    PLAIN.save(photos / "a/c.jpg")
    PLAIN.convert("L").save(photos / "a/g.jpg")
    turned(photos / "a/t.jpg")
    pillow = everything(packed(folder(photos), tmp_path / "pillow", SMALL, convert=True))
    assert fake == []
    options: dict[str, Any] = {"decoder": "simplejpeg", "convert": True}
    simple = everything(packed(folder(photos), tmp_path / "simple", SMALL, **options))
    assert fake == ["RGB", "GRAY"]
    names = [file.name for file in folder(photos).files]
    differ = {names[i] for i in range(len(names)) if not np.array_equal(simple[i], pillow[i])}
    assert differ == {"a/c.jpg", "a/g.jpg"}
    assert read(tmp_path / "simple").versions["simplejpeg"] == "0.0"
    assert "simplejpeg" not in read(tmp_path / "pillow").versions
    with pytest.raises(DataError, match='decoder: "simplejpeg" became "pillow"'):
        packed(folder(photos), tmp_path / "simple", SMALL, convert=True)


def test_simplejpeg_that_is_not_installed_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'gankit\[fastjpeg\]'"):
        packed(folder(photos), tmp_path / "out", SMALL, decoder="simplejpeg")
    assert not (tmp_path / "out").exists()


def test_the_real_simplejpeg_agrees_within_rounding(official: Path, tmp_path: Path) -> None:
    pytest.importorskip("simplejpeg")
    framing = Framing(128, 178)
    one = everything(packed(celeba(official), tmp_path / "one", framing)).astype(int)
    options: dict[str, Any] = {"decoder": "simplejpeg"}
    two = everything(packed(celeba(official), tmp_path / "two", framing, **options))
    assert np.abs(one - two).max() <= 8
    cut(tmp_path / "x.jpg")
    seen, _ = look((tmp_path / "x.jpg").read_bytes(), SMALL, decoder="simplejpeg")
    assert seen.bad


# --- a look before


def test_check_counts_what_there_is(photos: Path, tmp_path: Path) -> None:
    Pillow.fromarray(noise(12, 64)).save(photos / "a/small.png")
    PLAIN.convert("L").save(photos / "b/grey.jpg")
    PLAIN.quantize(9).save(photos / "b/palette.png")
    (photos / "b/empty.jpg").touch()
    (photos / "b/notes.txt").touch()
    (photos / "b/movie.gif").touch()
    shutil.copy(photos / "a/0.png", photos / "b/copy.png")
    report = check(folder(photos, "folders"), Framing(16, 0), Options(mixed=False), 64, quiet)
    assert (report.files, report.usable) == (15, 13)
    assert report.sizes == {(40, 32): 13, (12, 64): 1}
    assert report.modes == {"RGB": 12, "L": 1, "P": 1}
    assert report.odd == {"palette": 1}
    assert report.others == {".gif": 1, ".txt": 1}
    assert report.classes == {"a": 6, "b": 7}
    assert report.enlarged == 1
    assert [(one.file, one.reason) for one in report.bad] == [
        ("b/empty.jpg", "empty: 0 bytes"),
        ("b/palette.png", "palette"),
    ]
    assert report.identical == [["a/0.png", "b/copy.png"]]
    first, second, third = report.problems
    assert first.startswith("2 of 15 images cannot be used as they are:")
    assert second.startswith("the images have 2 sizes")
    assert third == "13 images are fewer than a batch of 64"
    assert not list(tmp_path.glob("out*"))
    # The twin: with what is wrong allowed, there is no problem.
    allowed = Options(mixed=True, convert=True, on_bad="skip")
    assert check(folder(photos, "folders"), Framing(16, 0), allowed, 14, quiet).problems == ()


def test_copies_are_found_though_they_were_recompressed_or_shrunk(tmp_path: Path) -> None:
    tree = tmp_path / "in"
    tree.mkdir()
    for seed in range(30):
        Pillow.fromarray(noise(96, 96, seed)).save(tree / f"{seed:02d}.png")
    with Pillow.open(tree / "03.png") as image:
        image.save(tree / "x3.jpg", quality=70)
        image.resize((64, 64), BICUBIC).save(tree / "y3.png")
    with Pillow.open(tree / "05.png") as image:
        image.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT).save(tree / "z5.png")
    report = check(folder(tree), Framing(64, 0), Options(), 1, quiet)
    assert report.alike == [["03.png", "x3.jpg", "y3.png"]]
    assert report.identical == []


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=4)), max_size=12))
def test_close_pairs_are_all_that_differ_in_three_bits(seeds: list[tuple[int, set[int]]]) -> None:
    bases = [0, 2**64 - 1, 0x0123456789ABCDEF, 0xFFFF0000FFFF0000]
    numbers = [bases[base] ^ sum(1 << bit for bit in bits) for base, bits in seeds]
    found = {
        (int(a), int(b))
        for one, other in close_pairs(np.array(numbers, np.uint64))
        for a, b in zip(one, other, strict=True)
    }
    count = range(len(numbers))
    assert found == {
        (a, b) for a in count for b in count if a < b and (numbers[a] ^ numbers[b]).bit_count() <= 3
    }


def test_many_equal_images_are_one_group() -> None:
    thumbnails = np.zeros((5000, 8, 9), np.uint8)
    thumbnails[4990:] = 128
    assert [len(group) for group in alike(thumbnails)] == [4990, 10]
    gradient = np.broadcast_to(np.arange(0, 252, 28, dtype=np.uint8), (3, 8, 9)).copy()
    gradient[1] += 2
    gradient[2] += 9
    assert alike(gradient) == [[0, 1]]
    assert alike(gradient[:0]) == []
    assert thumbnail(np.full((3, 16, 16), 77, np.uint8)).tolist() == [[77] * 9] * 8


@given(st.lists(st.integers(0, 40), max_size=30))
def test_groups_are_what_pairs_connect(levels: list[int]) -> None:
    """Grey images 4 levels apart belong together, and so do those that a chain of them joins."""
    thumbnails = np.array(levels, np.uint8).reshape(-1, 1, 1) * np.ones((1, 8, 9), np.uint8) * 3
    groups: list[list[int]] = []
    for place in sorted(range(len(levels)), key=lambda place: levels[place]):
        near = groups and levels[place] - levels[groups[-1][-1]] <= 1
        groups[-1].append(place) if near else groups.append([place])
    expected = sorted(sorted(group) for group in groups if len(group) > 1)
    assert sorted(alike(thumbnails)) == expected
