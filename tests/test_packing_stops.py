"""Packing that is stopped, killed, short of room or shared: it ends in the same bytes."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from gankit.datasets import Packed
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import (
    Listing,
    Options,
    check,
    folder,
    pack,
    packer,
    read,
    target,
    verify,
    work,
)
from gankit.errors import DataError, SetupError
from tests.packs import (
    PLAIN,
    SMALL,
    Told,
    everything,
    noise,
    opened_blindly,
    packed,
    quiet,
    same,
    write_photos,
    zipped,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.fixture
def blocks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "BLOCK_ROWS", 3)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, in order."""
    names: list[str] = []
    real = work._look

    def noted(job: Any, file: Any) -> Any:
        names.append(file.name)
        return real(job, file)

    monkeypatch.setattr(work, "_look", noted)
    return names


# --- begun, stopped, continued


@pytest.fixture
def whole(photos: Path, tmp_path: Path, blocks_of_three: None) -> Path:
    """The photos, packed in four blocks."""
    packed(folder(photos, "folders"), tmp_path / "out", Framing(16, 0))
    return tmp_path / "out"


class Stop(Exception):
    """The power fails."""


def stopped_after(blocks: int) -> Callable[[str, int, int, int], None]:
    calls = iter(range(blocks))

    def watch(doing: str, done: int, total: int, bad: int, /) -> None:
        if next(calls, None) is None:
            raise Stop

    return watch


def begin(listing: Listing, out: Path, blocks: int = 1, **options: Any) -> None:
    """Pack until some blocks are noted, and then no more."""
    with pytest.raises(Stop):
        pack(listing, out, SMALL, Options(**options), print, stopped_after(blocks))


@pytest.fixture
def reference(photos: Path, tmp_path: Path, blocks_of_three: None) -> Path:
    packed(folder(photos), tmp_path / "reference")
    return tmp_path / "reference"


def test_a_pack_that_was_stopped_continues(
    photos: Path, tmp_path: Path, reference: Path, decoded: list[str]
) -> None:
    out = tmp_path / "out"
    begin(folder(photos), out, 1)
    assert len(decoded) == 6
    with pytest.raises(DataError, match="is not packed to the end"):
        len(Packed(root=str(out), size=16))
    decoded.clear()
    packed(folder(photos), out)
    assert len(decoded) == 4, "two blocks of three were there"
    assert same(out, reference)


@pytest.mark.parametrize("cut", range(0, 3000, 150))
def test_a_journal_cut_anywhere_is_continued(
    photos: Path, tmp_path: Path, reference: Path, cut: int
) -> None:
    out = tmp_path / "out"
    begin(folder(photos), out, 2)
    journal = out / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:cut])
    packed(folder(photos), out)
    assert same(out, reference)


def test_a_block_that_never_reached_the_disk_is_packed_again(
    photos: Path, tmp_path: Path, reference: Path, decoded: list[str]
) -> None:
    """After a power failure the journal may say more than the images' file holds."""
    out = tmp_path / "out"
    begin(folder(photos), out, 1)
    size = (out / "images.bin").stat().st_size
    os.truncate(out / "images.bin", 0)
    os.truncate(out / "images.bin", size)
    decoded.clear()
    packed(folder(photos), out)
    assert len(decoded) == 10
    assert same(out, reference)


def test_a_file_that_changed_in_between_is_read_again(
    photos: Path, tmp_path: Path, blocks_of_three: None, decoded: list[str]
) -> None:
    out = tmp_path / "out"
    begin(folder(photos), out, 1)
    PLAIN.save(photos / "a/0.png")
    decoded.clear()
    packed(folder(photos), out)
    assert len(decoded) == 7
    packed(folder(photos), tmp_path / "fresh")
    assert same(out, tmp_path / "fresh")


@pytest.mark.parametrize("framing", [Framing(8), Framing(16, 8), Framing(16, 0, 1)])
def test_other_options_start_over_and_say_so(
    photos: Path, tmp_path: Path, blocks_of_three: None, framing: Framing, decoded: list[str]
) -> None:
    out, tell = tmp_path / "out", Told()
    begin(folder(photos), out, 1)
    decoded.clear()
    packed(folder(photos), out, framing, tell)
    assert len(decoded) == 10
    assert tell == [f"{out} was being packed otherwise; starting over"]
    packed(folder(photos), tmp_path / "fresh", framing)
    assert same(out, tmp_path / "fresh")


def test_after_an_error_skip_and_convert_take_up_what_was_done(
    photos: Path, tmp_path: Path, blocks_of_three: None, decoded: list[str]
) -> None:
    PLAIN.quantize(9).save(photos / "a/p.png")
    (photos / "b/x.png").touch()
    out = tmp_path / "out"
    with pytest.raises(DataError, match="2 of 12 images"):
        packed(folder(photos), out)
    decoded.clear()
    packed(folder(photos), out, on_bad="skip")
    assert decoded == []
    shutil.rmtree(out)
    with pytest.raises(DataError, match="2 of 12 images"):
        packed(folder(photos), out)
    decoded.clear()
    packed(folder(photos), out, on_bad="skip", convert=True)
    assert len(decoded) == 3, "the block with the palette"
    assert len(read(out).bad) == 1


def test_what_is_packed_is_left_as_it_is(whole: Path, photos: Path, decoded: list[str]) -> None:
    tell, before = Told(), (whole / "images.bin").stat().st_mtime_ns
    packed(folder(photos, "folders"), whole, Framing(16, 0), tell, on_bad="skip")
    assert (tell, decoded) == ([f"{whole} is packed already"], [])
    assert (whole / "images.bin").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="something else\n  height: 16 became 8\n  width: 16"):
        packed(folder(photos, "folders"), whole, Framing(8, 0))
    with pytest.raises(DataError, match='something else\n  labels: "folders" became ""\n'):
        packed(folder(photos), whole, Framing(16, 0))


def test_a_reader_keeps_what_it_opened_while_it_is_packed_anew(whole: Path, photos: Path) -> None:
    reading = opened_blindly(whole)
    before = everything(reading)
    PLAIN.save(photos / "a/0.png")
    packed(folder(photos, "folders"), whole, Framing(16, 0), rebuild=True)
    assert np.array_equal(everything(reading), before)
    assert not np.array_equal(everything(opened_blindly(whole)), before)


def test_a_rebuild_that_was_stopped_continues_and_one_that_cannot_be_harms_nothing(
    whole: Path, photos: Path, decoded: list[str]
) -> None:
    PLAIN.save(photos / "a/0.png")
    listing, options = folder(photos, "folders"), Options(rebuild=True)
    other = dataclasses.replace(listing, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="classes without an image: 1 of 3"):
        pack(other, whole, Framing(16, 0), options, print, quiet)
    assert len(opened_blindly(whole)) == 10
    with pytest.raises(Stop):
        pack(listing, whole, Framing(16, 0), options, print, stopped_after(1))
    decoded.clear()
    pack(listing, whole, Framing(16, 0), options, print, quiet)
    assert len(decoded) == 4
    assert verify(whole, quiet).source.endswith("is as it was")


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_folder_with_other_things_in_it_is_left_alone(
    photos: Path, tmp_path: Path, rebuild: bool
) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"has other files in it, thesis\.tex for one"):
        packed(folder(photos), out, rebuild=rebuild)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write to"):
        packed(folder(photos), tmp_path / "file")


def test_no_room_is_told_before_anything_is_begun(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    need = 10 * 3 * 16 * 16
    for free in (need, need - 1):
        usage = types.SimpleNamespace(free=free)
        monkeypatch.setattr(target.shutil, "disk_usage", lambda path, usage=usage: usage)
        out = tmp_path / str(free)
        if free == need:
            packed(folder(photos), out)
            decoded.clear()
            continue
        with pytest.raises(DataError, match="no room: 7,680 bytes are needed, 7,679 are free"):
            packed(folder(photos), out)
    assert decoded == []


def test_a_disk_that_fills_up_meanwhile_is_told_and_continued(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Path
) -> None:
    real, out = packer.pack_block, tmp_path / "out"

    def full(job: Any, block: Any) -> Any:
        if block.number == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(job, block)

    monkeypatch.setattr(packer, "pack_block", full)
    with pytest.raises(DataError, match="No space left on device; 7,680 bytes are needed in all"):
        packed(folder(photos), out)
    monkeypatch.setattr(packer, "pack_block", real)
    packed(folder(photos), out)
    assert same(out, reference)


def test_nothing_usable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="none of the 0 files in it is an image"):
        folder(tmp_path / "in")
    (tmp_path / "in/x.png").touch()
    with pytest.raises(DataError, match="none of 1 images can be used"):
        packed(folder(tmp_path / "in"), tmp_path / "out", on_bad="skip")


# --- several processes


def slowly(photos: Path, out: Path, each: float) -> int:
    """Pack in a child of this process, slowly; its process id once it has the lock."""
    child = os.fork()
    if child == 0:
        try:
            real = work._look
            work._look = lambda job, file: (time.sleep(each), real(job, file))[1]
            work.BLOCK_ROWS = 1
            pack(folder(photos), out, SMALL, Options(), lambda message: None, quiet)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while not (out / "journal.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return child


def test_of_two_processes_one_packs_and_one_waits(
    photos: Path, tmp_path: Path, decoded: list[str]
) -> None:
    out, tell = tmp_path / "out", Told()
    child = slowly(photos, out, 0.05)
    assert len(packed(folder(photos), out, SMALL, tell)) == 10
    os.waitpid(child, 0)
    assert decoded == [], "the other has done it"
    assert tell == [
        f"another process is packing into {out}: waiting for it",
        f"{out} is packed already",
    ]


def test_a_process_that_is_killed_leaves_nothing_to_be_misread(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setattr(work, "BLOCK_ROWS", 1)
    out, tell = tmp_path / "out", Told()
    child = slowly(photos, out, 0.2)
    while (out / "journal.jsonl").read_text().count("\n") < 3:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(DataError, match="is not packed to the end"):
        len(Packed(root=str(out), size=16))
    packed(folder(photos), out, SMALL, tell)
    assert tell == [], "nobody to wait for"
    assert 6 <= len(decoded) <= 8
    packed(folder(photos), tmp_path / "fresh")
    assert same(out, tmp_path / "fresh")


def test_workers_give_the_same_bytes_and_report_what_ends_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that import what they need, as on any system; the archive is opened in each."""
    for seed in range(40):
        Pillow.fromarray(noise(200, 208, seed)).save(photos / f"a/more_{seed}.png")
    (photos / "a/x.png").touch()
    PLAIN.quantize(9).save(photos / "b/p.png")
    archive = zipped(photos, tmp_path / "p.zip")
    framing, taken = Framing(200, 0), {"convert": True, "on_bad": "skip"}
    assert len(work.Job(folder(archive).source, folder(archive).files, framing).blocks) == 2
    for name, workers in (("one", 1), ("two", 2)):
        packed(folder(archive), tmp_path / name, framing, workers=workers, **taken)
    assert same(tmp_path / "one", tmp_path / "two")
    reports = [
        check(folder(archive), framing, Options(workers=workers, **taken), 1, quiet)
        for workers in (1, 2)
    ]
    assert reports[0] == reports[1]
    monkeypatch.setattr(packer, "pack_block", _end)
    with pytest.raises(SetupError, match=r"a worker process was ended.*\n  the same command"):
        packed(folder(archive), tmp_path / "three", framing, workers=2)


def _end(job: Any, block: Any) -> None:
    os._exit(9)


ORPHANS = """
import sys, time
from pathlib import Path
from gankit.datasets.decoding import Framing
from gankit.datasets.packing import Options, folder, pack

def watch(*told):
    print("packed", flush=True)

if __name__ == "__main__":
    root, out = map(Path, sys.argv[1:])
    pack(folder(root), out, Framing(500, 0), Options(workers=2), print, watch)
"""


def test_workers_end_with_a_parent_that_is_killed(photos: Path, tmp_path: Path) -> None:
    for seed in range(24):
        Pillow.fromarray(noise(800, 800, seed)).save(photos / f"a/large_{seed}.jpg")
    script = tmp_path / "script.py"
    script.write_text(ORPHANS)
    command = [sys.executable, str(script), str(photos), str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == "packed\n"
        assert len(group(ran.pid)) >= 3, "the parent and two workers"
        ran.kill()
    deadline = time.monotonic() + 10
    while group(ran.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group(ran.pid) == []


def group(leader: int) -> list[int]:
    """The processes of a session that are not over."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        found += [int(path.parent.name)] * (int(session) == leader and state != "Z")
    return found
