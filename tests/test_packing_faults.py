"""Packing what is bad, and reading what was damaged: told, and never trained on."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from gankit.datasets import Folder, Packed
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import (
    Options,
    check,
    folder,
    looking,
    read,
    sources,
    verify,
    work,
)
from gankit.datasets.packing.looking import look
from gankit.errors import DataError
from tests.packs import (
    PLAIN,
    SMALL,
    Told,
    change,
    cut,
    everything,
    noise,
    opened_blindly,
    packed,
    quiet,
    turned,
    write_photos,
    zipped,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def blocks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "BLOCK_ROWS", 3)


# --- bad images


def animated(path: Path) -> None:
    frames = [Pillow.fromarray(noise(40, 32, seed)) for seed in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def deep_colour(path: Path) -> None:
    """A PNG of three times 16 bits, which Pillow reads and does not write."""
    rows = b"".join(b"\0" + bytes(6 * 32) for _ in range(40))
    parts = [
        (b"IHDR", struct.pack(">2I5B", 32, 40, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    ]
    path.write_bytes(looking.PNG + b"".join(map(chunk, [*parts, (b"IEND", b"")])))


def chunk(part: tuple[bytes, bytes]) -> bytes:
    name, body = part
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


BAD: dict[str, tuple[str, Callable[[Path], Any], str, bool]] = {
    "truncated": ("x.jpg", cut, "truncated", False),
    "zero-byte": ("x.png", lambda path: path.touch(), "empty: 0 bytes", False),
    "html": ("x.jpg", lambda path: path.write_text("\n<!doctype html>"), "a web page", False),
    "text": ("x.jpg", lambda path: path.write_text("404"), "not a JPEG, PNG or WebP", False),
    "tiff": ("x.jpg", lambda path: PLAIN.save(path, "TIFF"), "not a JPEG, PNG or WebP", False),
    "gone": ("x.png", lambda path: path.symlink_to("gone"), "No such file", False),
    "one pixel": ("x.png", lambda path: Pillow.new("RGB", (1, 1)).save(path), "one pixel", False),
    "CMYK": ("x.jpg", lambda path: PLAIN.convert("CMYK").save(path), "CMYK", True),
    "16 bits": ("x.png", lambda path: Pillow.new("I;16", (32, 40)).save(path), "16 bits", True),
    "16 bits RGB": ("x.png", deep_colour, "16 bits", True),
    "palette": ("x.png", lambda path: PLAIN.quantize(9).save(path), "palette", True),
    "turned": ("x.jpg", turned, "turned by EXIF", True),
    "animated png": ("x.png", animated, "animated", True),
    "animated webp": ("x.webp", animated, "animated", True),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("in_zip", [False, True], ids=["tree", "zip"])
def test_bad_images_are_listed_and_never_trained_on_silently(
    photos: Path, tmp_path: Path, kind: str, in_zip: bool
) -> None:
    name, spoil, why, convertible = BAD[kind]
    if in_zip and kind == "gone":
        pytest.skip("an archive has no links to nowhere")
    spoil(photos / name)
    root = zipped(photos, tmp_path / "photos.zip") if in_zip else photos
    listing, out = folder(root), tmp_path / "out"
    shown = f"photos/{name}" if in_zip else name
    framing = Framing(16, 0)
    with pytest.raises(DataError, match=rf"1 of 11 images .*:\n  {shown}: .*{why}") as caught:
        packed(listing, out, framing)
    assert f"all of them: {out / 'bad.csv'}" in str(caught.value)
    assert ("--convert takes 1 of them" in str(caught.value)) == convertible
    assert not (out / "manifest.json").exists()
    rows = list(csv.DictReader((out / "bad.csv").open(newline="")))
    assert [row["file"] for row in rows] == [shown]
    assert why in rows[0]["reason"]

    source = packed(listing, out, framing, on_bad="skip")
    whole = everything(source)
    assert len(source) == 10
    assert [(one.file, why in one.reason) for one in read(out).bad] == [(shown, True)]
    shutil.rmtree(out)
    if convertible:
        taken = packed(listing, out, framing, convert=True)
        assert len(taken) == 11
        assert list(read(out).converted.values()) == [1]
        assert [why in word for word in read(out).converted] == [True]
        raw = Folder(root=str(photos), size=16)
        assert np.array_equal(everything(taken), everything(raw))
    else:
        with pytest.raises(DataError, match=why):
            packed(listing, out, framing, convert=True)
    # The twin: without the bad image, nothing is told and the others are the same.
    (photos / name).unlink()
    alone = packed(folder(photos), tmp_path / "alone", framing)
    assert np.array_equal(everything(alone), whole)


def test_a_plain_image_is_not_odd() -> None:
    for mode, suffix in (
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "WEBP"),
    ):
        stream = io.BytesIO()
        PLAIN.convert(mode).save(stream, suffix)
        seen, pixels = look(stream.getvalue(), SMALL)
        assert (seen.odd, seen.bad, seen.height, seen.width) == ("", "", 40, 32)
        assert pixels is not None


def test_an_image_smaller_than_the_crop_is_bad(photos: Path, tmp_path: Path) -> None:
    Pillow.fromarray(noise(16, 32)).save(photos / "x.png")
    with pytest.raises(DataError, match=r"x\.png: smaller than the crop: 16 x 32 .*, crop 24 x 24"):
        packed(folder(photos), tmp_path / "out", Framing(16, 24))


@given(st.binary(max_size=300), st.integers(0, 400), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_whatever_a_file_holds_it_is_an_image_or_bad(
    content: bytes, place: int, format_: str
) -> None:
    stream = io.BytesIO()
    Pillow.fromarray(noise(16, 16)).save(stream, format_)
    sound = stream.getvalue()
    for data in (content, sound[:place] + content + sound[place + len(content) :]):
        seen, pixels = look(data, SMALL, convert=bool(place % 2))
        assert (pixels is None) == bool(seen.bad)
        assert pixels is None or pixels.shape == (3, 16, 16)


BOMBS = """
import io, resource, struct, sys, zlib
from gankit.datasets.decoding import Framing
from gankit.datasets.packing.looking import PNG, look

def chunk(name, body):
    crc = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

def png(side):
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
    head = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")

def webp(side):
    head = bytes(4) + (side - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\\2" + head[1:]
    frame = bytes(6) + (side - 1).to_bytes(3, "little") * 2 + bytes(4)
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(frame) + 16) + frame + b"VP8L" + struct.pack("<I", 8)
    body += b"\\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + bytes(3)
    return b"RIFF" + struct.pack("<I", len(body)) + body

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

files = {"small": png(500), "png": png(11_000), "webp": webp(16_000)}
before = peak()
for name, data in files.items():
    seen, _ = look(data, Framing(16))
    print(name, len(data) < 2**20, peak() - before, seen.bad or "sound", sep="|")
"""


def test_a_decompression_bomb_is_refused_below_a_memory_cap() -> None:
    ran = subprocess.run([sys.executable, "-c", BOMBS], check=True, capture_output=True, text=True)
    small, png, webp = (line.split("|") for line in ran.stdout.splitlines())
    assert small[3] == "sound"
    assert "121,000,000 pixels, more than Pillow's limit of 89,478,485" in png[3]
    assert webp[3] != "sound"
    for name, tiny, grown, _ in (small, png, webp):
        assert tiny == "True", name
        assert int(grown) < 64, f"{name}: {grown} MiB"


def test_a_file_too_large_to_be_an_image_is_not_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (photos / "x.png").open("wb") as stream:
        stream.truncate(2**20)
    monkeypatch.setattr(sources, "LARGEST", 2**19)
    for root in (photos, zipped(photos, tmp_path / "p.zip")):
        report = check(folder(root), Framing(16, 0), Options(), 1, quiet)
        assert [one.reason for one in report.bad] == [
            "1,048,576 bytes, more than the 524,288 that an image may have"
        ]


# --- damage


@pytest.fixture
def whole(photos: Path, tmp_path: Path, blocks_of_three: None) -> Path:
    """The photos, packed in four blocks."""
    packed(folder(photos, "folders"), tmp_path / "out", Framing(16, 0))
    return tmp_path / "out"


def test_twin_what_is_whole_is_verified(whole: Path, photos: Path) -> None:
    done = verify(whole, quiet)
    assert done.source == f"{photos} is as it was"
    assert len(done.manifest.cache.sha256) == 4
    shutil.rmtree(photos)
    assert verify(whole, quiet).source == f"{photos} is not there, and was not compared"


@pytest.mark.parametrize("place", [0, 16 * 16 * 3 * 3, -1])
def test_a_changed_byte_is_found_by_verify(whole: Path, place: int) -> None:
    change(whole / "images.bin", place)
    block = {0: 0, 16 * 16 * 3 * 3: 3, -1: 9}[place]
    with pytest.raises(DataError, match=rf"changed: 1 of 4, the first at image {block}\n"):
        verify(whole, quiet)


def test_a_file_written_to_after_its_manifest_is_compared_before_training(whole: Path) -> None:
    images = whole / "images.bin"
    before = images.stat().st_mtime_ns
    os.utime(images)
    assert len(opened_blindly(whole)) == 10, "a copy is younger, and whole"
    change(images, 7)
    with pytest.raises(DataError, match=r"changed: 1 of 4, .*\n  pack it anew: gankit data pack"):
        len(opened_blindly(whole))
    os.utime(images, ns=(before, before))
    assert len(opened_blindly(whole)) == 10, "the twin: what hides its time is left to verify"


@pytest.mark.parametrize("name", ["manifest.json", "rows.npy"])
def test_changes_of_the_tables_are_found_before_training(whole: Path, name: str) -> None:
    change(whole / name, -9)
    with pytest.raises(
        DataError, match=rf"{name} was changed after|cannot read .*{name}"
    ) as caught:
        len(opened_blindly(whole))
    assert "--rebuild" in str(caught.value)


@pytest.mark.parametrize("size", [0, 100, 16 * 16 * 3 * 10 - 1, 16 * 16 * 3 * 10 + 1])
def test_a_file_of_another_length_is_found_before_training(whole: Path, size: int) -> None:
    os.truncate(whole / "images.bin", size)
    for attempt in (lambda: len(opened_blindly(whole)), lambda: verify(whole, quiet)):
        with pytest.raises(DataError, match=rf"has {size:,} bytes, its manifest says 7,680\n") as e:
            attempt()
        assert "  pack it anew: gankit data pack folder --root" in str(e.value)


def test_what_is_missing_or_unfinished_is_not_read(whole: Path, tmp_path: Path) -> None:
    (whole / "rows.npy").rename(whole / "elsewhere.npy")
    with pytest.raises(DataError, match=r"cannot read .*rows\.npy: No such file"):
        len(opened_blindly(whole))
    (whole / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"is not packed to the end: the same .* command continues"):
        len(opened_blindly(whole))
    with pytest.raises(DataError, match=r"is no packed data set: it has no manifest\.json"):
        len(opened_blindly(tmp_path))
    with pytest.raises(DataError, match=r"no such folder\n  set data\.root"):
        len(opened_blindly(tmp_path / "none"))


def test_a_manifest_of_another_version_is_refused(whole: Path) -> None:
    tables = json.loads((whole / "manifest.json").read_text())
    tables.pop("sha256")
    from gankit.datasets.packing.manifest import _seal

    for wrong in ({"format": 2}, {"images": "ten"}, {"recipe": {}}):
        changed = {**tables, **wrong}
        (whole / "manifest.json").write_text(json.dumps({**changed, "sha256": _seal(changed)}))
        with pytest.raises(DataError, match="of another version of gankit"):
            read(whole)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 32}, "size is 16 there and 32 in the options\n.* --set 'data.size=16'"),
        ({"size": (16, 8)}, r"size is 16 there and \[16, 8\] in the options"),
        ({"channels": 1}, "channels is 3 there and 1 in the options"),
        ({"classes": 3}, "classes is 2 there and 3 in the options\n.* --set 'data.classes=2'"),
        ({"classes": 5, "size": 8}, "--set 'data.size=16' --set 'data.classes=2'"),
    ],
)
def test_options_that_contradict_the_manifest_are_refused(
    whole: Path, options: dict[str, Any], says: str
) -> None:
    source = Packed(**{"root": str(whole), "size": 16, **options})
    assert source.image.size == ((16, 8) if options.get("size") == (16, 8) else (source.size,) * 2)
    with pytest.raises(DataError, match=says):
        len(source)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: PLAIN.save(root / "a/0.png"),
        lambda root: (root / "a/0.png").unlink(),
        lambda root: PLAIN.save(root / "a/new.png"),
        lambda root: (root / "a/0.png").rename(root / "b/0.png"),
    ],
    ids=["changed", "gone", "new", "moved"],
)
def test_a_source_that_changed_is_found(
    whole: Path, photos: Path, change: Callable[[Path], Any]
) -> None:
    change(photos)
    with pytest.raises(DataError, match=f"{photos} has changed since .*\n  images of the") as told:
        verify(whole, quiet)
    assert "pack it anew: gankit data pack folder" in str(told.value)
    with pytest.raises(DataError, match="was packed from something else\n  images of the source"):
        packed(folder(photos, "folders"), whole, Framing(16, 0))
    tell = Told()
    packed(folder(photos, "folders"), whole, Framing(16, 0), tell, rebuild=True)
    assert verify(whole, quiet).source.endswith("is as it was")


def test_twin_a_source_that_was_only_copied_is_the_same(whole: Path, photos: Path) -> None:
    os.utime(photos / "a/0.png", ns=(1, 1))
    assert verify(whole, quiet).source.endswith("is as it was")
    # Of the same length and time, a change is found when everything is read.
    path = photos / "a/0.png"
    time_ns = path.stat().st_mtime_ns
    change(path, 60)
    os.utime(path, ns=(time_ns, time_ns))
    with pytest.raises(DataError, match=r"source that are changed: 1 \(a/0\.png\)"):
        verify(whole, quiet, everything=True)


def test_changed_labels_are_found(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"{'ab'[seed % 2]}/{seed}.png,{seed // 5}\n" for seed in range(10)]
    table.write_text("file,label\n" + "".join(rows))
    packed(folder(photos, str(table)), tmp_path / "out", Framing(16, 0))
    verify(tmp_path / "out", quiet)
    table.write_text("file,label\n" + "".join(rows[:9]) + "b/9.png,0\n")
    with pytest.raises(DataError, match=r"has changed since .*\n  labels that have changed: 1\n"):
        verify(tmp_path / "out", quiet)
