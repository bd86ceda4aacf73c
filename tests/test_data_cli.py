"""`gankit data`: what it prints, where, and with which exit code; and what docs/data.md shows."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image as Pillow

from gankit import cli
from gankit.datasets import Folder
from gankit.datasets.packing import packer, read, work
from gankit.recipes import find
from gankit.spec import load
from gankit.train.plan import plan
from tests.packs import COUNT, change, everything, noise, opened, write_celeba, write_photos, zipped
from tests.specs import IMAGES
from tests.test_cli import run
from tests.test_docs import agrees, blocks_of, commands_of, lines_of, output, outputs_of

ROOT = Path(__file__).parent.parent
DATA = ROOT / "docs/data.md"
ONE = ("--workers", "1")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def faces() -> Path:
    return write_celeba(Path("data/celeba"))


@pytest.fixture
def photos() -> Path:
    return write_photos(Path("photos"))


def test_celeba_from_the_download_to_samples(faces: Path) -> None:
    ran = run("data", "check", faces, *ONE)
    assert ran.code == 0
    assert f"data/celeba/img_align_celeba: {COUNT} images, " in ran.out
    assert f"sizes (height x width): 218 x 178 {COUNT}\n" in ran.out
    assert "splits: train 8, valid 8, test 4\n" in ran.out
    assert f"{COUNT} images; the official download has 202,599\n" in ran.err
    assert "next: gankit data pack celeba --root data/celeba --out DIR" in ran.err

    command = ("--crop", 178, "--size", 32, "--labels", "Male", *ONE)
    ran = run("data", "pack", "celeba", "--root", faces, "--out", "packed", *command)
    assert (ran.code, ran.out) == (0, "")
    assert re.search(rf"packed {COUNT}/{COUNT} images, [\d,]+ images/s\n", ran.err)
    assert ran.err.endswith(
        f"packed: {COUNT} images, {COUNT * 3 * 32 * 32:,} bytes\nin a spec:\n"
        '    [data]\n    use = "packed"\n    root = "packed"\n    size = 32\n    classes = 2\n'
    )
    again = run("data", "pack", "celeba", "--root", faces, "--out", "packed", *command)
    assert (again.code, "packed is packed already\n" in again.err) == (0, True)

    ran = run("data", "info", "packed")
    assert (ran.code, ran.err) == (0, "")
    for line in (
        "20 images, 3 x 32 x 32, 61,440 bytes",
        "classes: not Male 10, Male 10",
        "splits: train 8, valid 8, test 4",
        "crop: 178; resized: bicubic",
        "left out: 0",
    ):
        assert f"{line}\n" in ran.out
    (rebuild,) = re.findall(r"Packed anew by:\n    gankit (.*)\n", ran.out)
    before = Path("packed/manifest.json").read_bytes()
    assert run(*shlex.split(rebuild), *ONE).code == 0
    assert Path("packed/manifest.json").read_bytes() == before
    told = json.loads(run("data", "info", "packed", "--json").out)
    assert (told["images"], told["recipe"]["labels"]) == (COUNT, "Male")
    ran = run("data", "verify", "packed")
    assert (ran.code, ran.out) == (
        0,
        f"packed is whole: 20 images, 61,440 bytes; {faces.absolute()} is as it was\n",
    )

    Path("spec.toml").write_text(IMAGES)
    data = '{use="packed", root="packed", size=32, flip=true, split="train"}'
    spec = ("spec.toml", "--set", f"data={data}", "--set", "train.steps=2", "--device", "cpu")
    ran = run("train", *spec, "--run", "run")
    assert ran.code == 0, ran.err
    assert run("sample", "run", "-n", 4, "--out", "x.png", "--device", "cpu").code == 0


@pytest.mark.slow
def test_a_run_on_packed_images_is_the_run_on_the_folder(photos: Path) -> None:
    """To the bit, and stopped in between: the order of the data needs no state."""
    assert run("data", "pack", "folder", "--root", photos, "--out", "out", "--size", 16).code == 0
    Path("spec.toml").write_text(IMAGES)
    common = ["--set", "train.steps=4", "--set", "train.log=1", "--device", "cpu"]
    data = {
        "packed": '{use="packed", root="out", size=16}',
        "folder": '{use="folder", root="photos", size=16}',
    }
    for name, table in data.items():
        ran = run("train", "spec.toml", "--set", f"data={table}", *common, "--run", name)
        assert ran.code == 0, ran.err
        assert ("packed once, they are read much faster:\n" in ran.err) == (name == "folder")
    told = run("train", "spec.toml", "--set", f"data={table}", *common, "--run", "folder").err
    (hint,) = re.findall(r"  gankit (data pack folder .*)\n", told)
    assert run(*shlex.split(hint.replace("DIR", "hinted")), *ONE).code == 0
    assert (everything(opened(Path("hinted"))) == everything(opened(Path("out")))).all()
    first = ["--set", f"data={data['packed']}", "--run", "parts", *common]
    assert run("train", "spec.toml", *first, "--set", "train.steps=2").code == 0
    assert run("train", "spec.toml", *first).code == 0
    lines = [Path(name, "metrics.jsonl").read_text() for name in ("packed", "folder", "parts")]
    assert lines[0] == lines[1] == lines[2]
    other = '{use="packed", root="out", size=16, flip=true}'
    run("train", "spec.toml", "--set", f"data={other}", *common, "--run", "other")
    assert Path("other/metrics.jsonl").read_text() != lines[0], "the twin: other images"


def test_check_says_what_pack_would_refuse(photos: Path) -> None:
    Path("photos/a/bad.jpg").write_text("<html>")
    Pillow.fromarray(noise(64, 48)).save("photos/b/large.png")
    Path("photos/c").mkdir()
    shutil.copy("photos/a/0.png", "photos/a/zero.png")
    ran = run("data", "check", "photos", "--labels", "folders", "--batch", 64, *ONE)
    assert ran.code == 4
    assert "files that are there more than once: 2\n  a/0.png, a/zero.png\n" in ran.out
    assert ran.err.count("Traceback") == 0
    for line in (
        "error: 1 of 13 images cannot be used as they are:\n  a/bad.jpg: a web page or other text",
        "the images have 2 sizes (height x width)\n  40 x 32: 11, a/0.png\n  64 x 48: 1, b/large",
        "classes without an image: 1 of 3 (c)\n",
        "12 images are fewer than a batch of 64\n",
    ):
        assert line in ran.err
    told = run("data", "check", "photos", "--json", *ONE)
    assert told.code == 4
    report = json.loads(told.out)
    assert report["sizes"] == {"40x32": 11, "64x48": 1}
    assert report["bad"][0]["file"] == "a/bad.jpg"
    for arguments in (("--crop", 0, "--on-bad", "skip"), ("--crop", "32x24", "--on-bad", "skip")):
        assert run("data", "check", "photos", *arguments, *ONE).code == 0
    assert not Path("out").exists()


def test_exit_codes_and_messages(photos: Path, faces: Path) -> None:
    pack = ("data", "pack", "folder", "--root", photos, "--out", "out", "--size", 16, *ONE)
    usage = {
        ("data",): "",
        ("data", "pack"): "",
        ("data", "pack", "celeba"): "--root",
        (*pack, "--size", "big"): "--size takes a number, or HEIGHTxWIDTH, not 'big'",
        (*pack, "--size", "0"): "--size = 0: must be 1 or more",
        (*pack, "--crop", "-1"): "--crop takes a number",
        (*pack, "--channels", "2"): "--channels = 2: must be 1 (grey) or 3 (colour)",
        (*pack, "--workers", "-1"): "--workers takes a number of processes, not -1",
        (*pack, "--on-bad", "ignore"): "--on-bad",
        (*pack, "--decoder", "jpeg"): "--decoder",
        ("data", "check", photos, "--split", "train"): "--split is for CelebA",
        ("data", "pack", "celeba", "--root", faces, "--out", "o", "--labels", "Mal"): 'mean "Male"',
    }
    for arguments, says in usage.items():
        ran = run(*arguments)
        assert ran.code == 2, arguments
        assert says in ran.err
    data = {
        ("data", "check", "nowhere"): "nowhere: no such folder or archive",
        ("data", "pack", "celeba", "--root", photos, "--out", "o"): "neither img_align_celeba/ nor",
        ("data", "info", photos): "is no packed data set: it has no manifest.json",
        ("data", "verify", "nowhere"): "nowhere: no such folder",
        (*pack, "--labels", "nowhere.csv"): "nowhere.csv: No such file",
    }
    for arguments, says in data.items():
        ran = run(*arguments)
        assert ran.code == 4, arguments
        assert ran.out == ""
        assert ran.err.startswith("error: ")
        assert says in ran.err
    assert not Path("out").exists()
    assert run(*pack).code == 0
    ran = run("data", "check", "out")
    assert (ran.code, ran.err) == (
        2,
        "error: out is packed already: gankit data info, or gankit data verify\n",
    )


def test_training_is_refused_where_packed_and_spec_differ(photos: Path) -> None:
    pack = ("data", "pack", "folder", "--root", photos, "--out", "out", "--size", 16, *ONE)
    assert run(*pack, "--labels", "folders").code == 0
    Path("spec.toml").write_text(IMAGES)

    def trained(*sets: str) -> str:
        words = [word for one in sets for word in ("--set", one)]
        ran = run("train", "spec.toml", *words, "--set", "train.steps=1", "--device", "cpu")
        assert ran.code == (4 if "error: " in ran.err else 0)
        return ran.err

    good = 'data={use="packed", root="out", size=16, classes=2}'
    assert "samples: " in trained(good)
    assert "size is 16 there and 32 in the options" in trained(good, "data.size=32")
    assert "classes is 2 there and 10 in the options" in trained(good, "data.classes=10")
    assert "10 images, fewer than a batch of 11" in trained(good, "train.batch=11")
    told = trained(good, "data.size=32")
    (fix,) = re.findall(r"take them as they are: --set '(.*)'", told)
    assert "samples: " in trained(good, "data.size=32", fix)
    change(Path("out/images.bin"))
    assert "images.bin that were changed: 1 of 1, the first at image 0\n  pack it" in trained(good)
    os.truncate("out/images.bin", 1000)
    assert "has 1,000 bytes, its manifest says 7,680\n  pack it anew: gankit data" in trained(good)


def test_bad_files_are_listed_left_out_or_converted(photos: Path) -> None:
    Pillow.fromarray(noise(40, 32)).quantize(9).save("photos/b/p.png")
    Path("photos/b/x.png").touch()
    pack = ("data", "pack", "folder", "--root", zipped(photos, Path("p.zip")), "--out", "out")
    ran = run(*pack, "--size", 16, *ONE)
    assert ran.code == 4
    assert ran.err.endswith(
        "error: 2 of 12 images cannot be used as they are:\n"
        "  photos/b/p.png: palette\n  photos/b/x.png: empty: 0 bytes\n"
        "  all of them: out/bad.csv\n"
        "  --convert takes 1 of them as a picture viewer shows them; --on-bad skip leaves the"
        " others out\n"
    )
    ran = run(*pack, "--size", 16, "--convert", "--on-bad", "skip", *ONE)
    assert ran.code == 0
    assert "out: 11 images, 9,216 bytes, left out: 1\n" in ran.err
    shown = run("data", "info", "out").out
    assert "left out: 1\n  photos/b/x.png: empty: 0 bytes\n" in shown
    assert "converted: palette 1\n" in shown
    Path("photos/b/x.png").unlink()
    raw = Folder(root="photos", size=16)
    assert (everything(opened(Path("out"))) == everything(raw)).all()


def test_a_disk_without_room_is_exit_code_4(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=99))
    ran = run("data", "pack", "folder", "--root", photos, "--out", "out", "--size", 16, *ONE)
    assert ran.code == 4
    assert ran.err.endswith("out: no room: 7,680 bytes are needed, 99 are free\n")


def test_ctrl_c_ends_in_order_and_the_same_command_continues(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BLOCK_ROWS", 3)
    real = packer.pack_block

    def interrupted(job: object, block: object) -> object:
        done = real(job, block)  # type: ignore[arg-type]
        if done.number == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return done

    monkeypatch.setattr(packer, "pack_block", interrupted)
    pack = ("data", "pack", "folder", "--root", photos, "--out", "out", "--size", 16, *ONE)
    ran = run(*pack)
    assert ran.code == 130
    assert ran.err.endswith("stopped; the same command continues\n")
    assert run("data", "verify", "out").err.startswith("error: out is not packed to the end")
    monkeypatch.setattr(packer, "pack_block", real)
    assert run(*pack).code == 0
    assert read(Path("out")).images == 10


def test_a_terminal_is_shown_a_bar(photos: Path) -> None:
    leader, follower = pty.openpty()
    child = os.fork()
    if child == 0:
        os.dup2(follower, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.environ["TERM"] = "xterm"
        sys.argv = ["gankit", "data", "pack", "folder", "--root", "photos", "--out", "out", *ONE]
        try:
            cli.main()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(follower)
    shown = b"".join(iter(lambda: chunk(leader), b"")).decode()
    os.waitpid(child, 0)
    os.close(leader)
    assert "packed 10/10" in shown
    assert "━" in shown
    assert "out: 10 images" in shown


def chunk(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal says that nobody writes to it any more
        return b""


# --- what the documents show


def subcommand(words: list[str]) -> str:
    """What our parser has against a command line, down to the innermost command."""
    command, rest = typer.main.get_command(cli.app), words[1:]
    usage = typer.BadParameter.__mro__[1]
    try:
        while hasattr(command, "commands"):
            name, *rest = rest
            if name not in command.commands:
                return f"no command {name}"
            command = command.commands[name]
        command.make_context(words[-1], rest)
    except (usage, ValueError) as error:
        return getattr(error, "format_message", lambda: "no command named")()
    return ""


SHOWN = [
    pytest.param(words, id=f"{document.name}-{' '.join(words)[:60]}")
    for document in (DATA, ROOT / "docs/cli.md")
    for block in blocks_of(document)
    if block.info in ("sh", "console")
    for line in lines_of(block)
    for words in commands_of(line)
    if words[:2] == ["gankit", "data"]
]


@pytest.mark.parametrize("words", SHOWN)
def test_commands_that_are_shown_exist(words: list[str]) -> None:
    assert subcommand(words) == ""


def test_commands_that_do_not_exist_are_noticed() -> None:
    for line, told in {
        "gankit data": "no command named",
        "gankit data pak": "no command pak",
        "gankit data pack celeba --root x": "--out",
        "gankit data pack folder --root x --out y --split all": "--split",
        "gankit data verify x --workers 2": "--workers",
    }.items():
        assert told in subcommand(shlex.split(line))


DOCUMENTED = {
    "202,599": "20",
    "9,958,146,048": f"{20 * 3 * 128 * 128:,}",
    "train 162,770, valid 19,867, test 19,962": "train 8, valid 8, test 4",
}
"""What the documents show of CelebA, and what is so of the small one."""


@pytest.mark.parametrize("document", [DATA, ROOT / "docs/cli.md"], ids=lambda path: path.name)
def test_the_commands_of_a_document_run_and_print_what_it_shows(
    document: Path, faces: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the document's order, on the small CelebA and the photos."""
    zipped(photos, Path("pets.zip"))
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    Path("labels.csv").write_text("file,label\n" + "".join(f"{n},{n[0]}\n" for n in names))
    holidays = write_photos(Path("holidays"))
    (holidays / "a/gone.jpg").write_text("<!DOCTYPE html>")
    (holidays / "notes.txt").touch()
    Pillow.fromarray(noise(40, 32, 99)).convert("CMYK").save(holidays / "b/print.jpg")
    compared = 0
    for block in blocks_of(document):
        if block.info == "sh":
            commands = [(c, "") for line in lines_of(block) for c in commands_of(line)]
        else:
            commands = outputs_of(block)
        for words, shown in commands:
            if words[:2] != ["gankit", "data"] or {"ROOT", "DIR"} & set(words):
                continue
            few = ["--batch", "4"] if "--batch" in words else []
            printed = output([*words, *few], monkeypatch)
            assert "Traceback" not in printed
            if block.info == "sh":
                assert "error: " not in printed
                continue
            for known, small in DOCUMENTED.items():
                shown = shown.replace(known, small)
            # Said of the small one alone.
            printed = printed.replace("20 images; the official download has 202,599\n", "")
            assert agrees(shown, printed), f"shown:\n{shown}\nprinted:\n{printed}"
            assert not agrees(f"{shown}more\n", printed), "the twin"
            compared += 1
    assert compared


def test_the_recipe_trains_on_what_the_document_packs() -> None:
    recipe = find("sagan_celeba_128")
    commands = [words for block in blocks_of(DATA) for words, _ in outputs_of(block)]
    (shown,) = [words for words in commands if words[1:3] == ["train", recipe.stem]]
    assert plan(load(recipe, [shown[shown.index("--set") + 1]])).generator.parameters == 3_856_372


def test_the_size_in_the_documents_is_right() -> None:
    assert f"{202_599 * 3 * 128 * 128:,}" in DATA.read_text()


def test_every_option_is_in_the_document() -> None:
    _, _, behind = (ROOT / "docs/cli.md").read_text().partition("\n## gankit data\n")
    for option in options():
        assert option in behind.partition("\n## ")[0], option


def options() -> Iterator[str]:
    """The options of every command of `gankit data`."""
    ahead = [typer.main.get_command(cli.app).commands["data"]]
    while ahead:
        command = ahead.pop()
        ahead += getattr(command, "commands", {}).values()
        for parameter in command.params:
            yield from (name for name in parameter.opts if name.startswith("--"))
