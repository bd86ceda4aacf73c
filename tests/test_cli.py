"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

import gankit
from gankit import cli, recipes
from gankit.registry import KINDS, REQUIRED, Entry, registry
from gankit.registry.options import options_of
from gankit.spec import Eval, describe, load, loads
from gankit.spec.model import LISTS, SECTIONS
from gankit.train.folder import RunFolder
from tests import goldens
from tests.specs import POINTS

OURS = [entry for entry in registry.find() if entry.provider.name == "gankit"]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is compared, and must not depend on the machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


SMALL = """\
gankit = 1
name = "small"
[data]
use = "shapes"
size = 16
[generator]
use = "dcgan"
width = 4
latent = 8
[discriminator]
use = "dcgan"
width = 4
[loss]
use = "hinge"
[train]
steps = 10
batch = 4
"""


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Ran:
    """Run a command in this process, as `gankit` on the command line would."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gankit", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as exit_:
                code = exit_.code
    return Ran(code or 0, out.getvalue(), err.getvalue())


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(gankit.__file__).parent.parent),
        **environment,
    }
    command = [sys.executable, "-m", "gankit", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment, check=False
    )


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small spec in a folder of its own, which is where commands run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(autouse=True)
def _ours() -> Iterator[None]:
    with goldens.our_parts_alone():
        yield


# --- build


def test_build_prints_two_tables_totals_turns_and_memory(spec: Path) -> None:
    ran = run("build", spec, "--set", "generator.norm=['spectral', 'batchnorm']")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(run("build", spec, "--json").out)
    lines = [line.split() for line in ran.out.splitlines()]
    for name in ("generator", "discriminator"):
        assert f"{name}: dcgan" in ran.out
        for stage in told[name]["stages"]:
            (row,) = [line for line in lines if line[:1] == [stage["name"]]]
            assert f"{stage['macs']:,}" in row
            assert (
                row[1 : 2 * len(stage["output"])] == " x ".join(map(str, stage["output"])).split()
            )
    totals = [line for line in lines if line[:1] == ["total"]]
    assert [line[-1] for line in totals] == [
        f"{told[n]['macs']:,}" for n in ("generator", "discriminator")
    ]
    assert ["transposed_8", "8", "x", "8", "x", "8", "2,048", "32,768", "spectral"] in lines
    assert ["normalise_8", "8", "x", "8", "x", "8", "16", "0", "batchnorm"] in lines
    assert "10 steps: turns 10 of D, 10 of G; 40 real images shown to D" in ran.out
    assert re.search(r"peak memory of a training step at batch 4: about \d+ KiB", ran.out)


@pytest.mark.parametrize("columns", ["20", "300"])
def test_tables_and_messages_are_as_wide_as_they_need_to_be(
    spec: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, refused = run("build", spec), run("build", spec, "--set", "generator.norm=spectrl")
    monkeypatch.setenv("COLUMNS", columns)
    assert run("build", spec).out == plain.out
    assert run("build", spec, "--set", "generator.norm=spectrl").err == refused.err
    assert len(refused.err.splitlines()) == 4


def test_build_json_is_all_that_stdout_has(spec: Path) -> None:
    ran = run("build", spec, "--json", "--set", "train.batch=8", "--set", "schedule.n_critic.n=2")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert (told["name"], told["batch"], told["images"]) == ("small", 8, 160)
    assert told["hash"] == load(spec, ["train.batch=8", "schedule.n_critic={ n = 2 }"]).hash


def test_resolved_says_every_default_and_every_provider(spec: Path) -> None:
    ran = run("build", spec, "--json", "--resolved", "my rés.toml", "--set", "loss.margin=2")
    assert (ran.code, ran.err) == (0, "wrote my rés.toml\n")
    text = Path("my rés.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    assert tables["loss"] == {"use": "hinge", "margin": 2.0}
    assert tables["generator"]["initializer"] == {"use": "xavier", "gain": 1.0}
    assert tables["train"]["log"] == 50
    assert tables["providers"]["loss/hinge"] == f"gankit {gankit.__version__}"
    assert json.loads(ran.out)["hash"] == loads(text).hash
    again = run("build", "my rés.toml", "--json")
    assert json.loads(again.out) == json.loads(ran.out)


@pytest.mark.parametrize("use", ["dcgan", "resnet"])
def test_expand_prints_a_spec_of_the_same_networks(spec: Path, use: str) -> None:
    chosen = ["--set", f"generator.use={use}", "--set", f"discriminator.use={use}"]
    ran = run("build", spec, "--expand", *chosen)
    assert (ran.code, ran.err) == (0, "")
    Path("stack.toml").write_text(ran.out)
    one, two = (
        json.loads(run("build", *a, "--json").out) for a in ([spec, *chosen], ["stack.toml"])
    )
    for name in ("generator", "discriminator"):
        assert (one[name].pop("use"), two[name].pop("use")) == (use, "stack")
        assert one[name] == two[name]
    assert run("build", "stack.toml", "--expand").out == ran.out


def test_build_says_which_code_it_runs(spec: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "cli_plugin.py"
    plugin.write_text(
        "import gankit\n@gankit.latent('cli_test')\n"
        "def cli_test(count: int, width: int, random: object, /) -> object:\n"
        "    import torch\n    return torch.zeros(count, width)\n"
    )
    spec.write_text('plugins = ["cli_plugin.py"]\nlatent = "cli_test"\n' + SMALL)
    ran = run("build", spec, "--json")
    assert (ran.code, ran.err) == (0, f"runs code from {plugin}\n")
    plugin.write_text("raise RuntimeError('not today')\n")
    ran = run("build", spec)
    assert ran.code == 4
    assert "fails: RuntimeError: not today" in ran.err
    assert "Traceback" not in ran.err
    plugin.unlink()
    assert run("build", spec).code == 4


# --- names of specs


@pytest.mark.parametrize("name", ["quickstart_digits", "quickstart-digits"])
def test_a_recipe_is_found_by_its_name(name: str, spec: Path) -> None:
    ran = run(
        "build",
        name,
        "--json",
        "--set",
        "generator.width=4",
        "--set",
        "discriminator.width=4",
        "--set",
        "discriminator.attention.reduction=4",
    )
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["name"] == "quickstart-digits"


def test_a_file_comes_before_a_recipe_of_its_name(spec: Path) -> None:
    Path("ring").write_text(SMALL)
    assert json.loads(run("build", "ring", "--json").out)["name"] == "small"
    assert json.loads(run("build", "./ring", "--json").out)["name"] == "small"


def test_recipes_are_listed_with_what_they_are() -> None:
    ran = run("recipes")
    assert (ran.code, ran.err) == (0, "")
    lines = dict(line.split(None, 1) for line in ran.out.splitlines())
    assert list(lines) == recipes.names() == sorted(lines)
    assert {"quickstart_digits", "sagan_celeba_128"} <= set(lines)
    for name, summary in lines.items():
        assert recipes.find(name).read_text(encoding="utf-8").startswith(f"# {summary}\n")


def test_a_recipe_is_copied_with_its_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("copy", "grid")
    assert (ran.code, ran.out, ran.err) == (0, "grid.toml\n", "next: gankit build grid.toml\n")
    assert Path("grid.toml").read_bytes() == recipes.recipe("grid").read_bytes()
    Path("copied here").mkdir()
    assert (
        run("copy", "sagan-celeba-128", "copied here").out == "copied here/sagan_celeba_128.toml\n"
    )
    ran = run("copy", "sagan_celeba_128", "copied here/mine.toml")
    assert ran.err == "next: gankit build 'copied here/mine.toml'\n"
    copied = Path("copied here/mine.toml").read_text(encoding="utf-8")
    assert copied == recipes.find("sagan_celeba_128").read_text(encoding="utf-8")
    assert "# text: 0.02" in copied


def test_copy_overwrites_nothing_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ring.toml").write_text("mine")
    ran = run("copy", "ring")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: ring.toml is there already: name another file, or remove it\n"
    assert Path("ring.toml").read_text() == "mine"
    assert run("copy", "ring", "no/such/x.toml").err == "error: there is no folder no/such\n"
    for name in ("rnig", "ring.toml", "../examples/ring"):
        ran = run("copy", name)
        assert ran.code == 2
        assert ran.err.startswith(f'error: there is no recipe called "{name}"; ')
    assert 'did you mean "ring"' in run("copy", "rnig").err


# --- list and show


def test_list_names_every_part_with_its_provider_and_summary() -> None:
    ran = run("list")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert len(lines) == len(OURS)
    for line, entry in zip(lines, OURS, strict=True):
        path, rest = line.split(None, 1)
        assert path == entry.path
        assert rest.startswith(f"gankit {gankit.__version__}  ")
        assert rest.endswith(entry.summary)
        assert len(entry.summary) > 2


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("norm/bat*", ["norm/batchnorm"]),
        ("none", ["norm/none", "attention/none", "activation/none"]),
        ("*/sp*", ["norm/spectral"]),
        ("l*/n*", ["loss/nonsaturating", "latent/normal"]),
    ],
)
def test_list_takes_a_pattern(pattern: str, paths: list[str]) -> None:
    ran = run("list", pattern)
    assert [line.split()[0] for line in ran.out.splitlines()] == paths
    assert [
        f"{p['kind']}/{p['name']}" for p in json.loads(run("list", pattern, "--json").out)
    ] == paths


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_a_kind(kind: str) -> None:
    told = json.loads(run("list", kind, "--json").out)
    assert [part["name"] for part in told] == registry.names(kind)
    assert {part["kind"] for part in told} == {kind}


def snippet(out: str) -> str:
    """What `show` prints as a piece of a spec."""
    _, _, indented = out.partition("\nIn a spec:\n")
    assert all(line.startswith("    ") for line in indented.splitlines())
    return "".join(line[4:] + "\n" for line in indented.splitlines())


def with_snippet(entry: Entry, text: str) -> dict[str, Any]:
    """A spec's tables with a snippet put in its place."""
    tables, added = tomllib.loads(SMALL), tomllib.loads(text)
    for section, inner in added.items():
        if isinstance(inner, dict) and "use" not in inner:
            tables[section] = tables.get(section, {}) | inner
        else:
            tables[section] = inner
    return tables


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry.path)
def test_show_tells_all_of_a_part_and_how_to_use_it(entry: Entry) -> None:
    ran = run("show", entry.kind.name, entry.name)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{entry.path}  (gankit {gankit.__version__}")
    assert entry.summary in " ".join(ran.out.split())
    assert "Options:\n" in ran.out or not entry.options
    assert ran.out.count("Options:") == bool(entry.options)
    for name, option in entry.options.items():
        default = "required"
        if option.default is not REQUIRED:
            default = f"default {json.dumps(describe(option.slot, option.default, full=False))}"
        assert f"\n  {name}: {option.type_name}, {default}\n      {option.meaning}\n" in ran.out
        assert option.meaning
    for need in entry.needs:
        assert f"\n  {need}: " in ran.out
    told = json.loads(run("show", entry.kind.name, entry.name, "--json").out)
    assert told in json.loads(run("list", entry.kind.name, "--json").out)
    assert list(told["options"]) == list(entry.options)
    assert (told["on"], told["needs"]) == (entry.on, sorted(entry.needs))

    tables = with_snippet(entry, snippet(ran.out))
    loaded = loads(text_of(tables))
    found = [part for part in loaded.parts() if part.entry == entry]
    assert found, "the snippet does not name the part"
    assert set(found[0].options) == set(entry.options)


def text_of(tables: dict[str, Any]) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in tables.items())


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def test_every_kind_has_a_place_in_a_spec() -> None:
    slots = {"norm", "attention", "activation", "initializer", "block"}
    scored = {option.slot for option in options_of(Eval).values() if option.slot}
    assert set(KINDS) == {*SECTIONS.values(), *LISTS.values(), *slots, *scored}
    assert scored == {"features", "metric"}


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (("features", "digits"), 'features = "digits"'),
        (("metric", "memorisation"), 'metrics = ["memorisation"]'),
        (("metric", "frechet"), 'metrics = [{use = "frechet", singular = false}]'),
    ],
)
def test_what_scores_are_made_of_stands_in_eval(part: tuple[str, str], shown: str) -> None:
    assert snippet(run("show", *part).out) == f"[eval]\n{shown}\n"


# --- what is said of mistakes


def test_what_is_said_of_mistakes(
    spec: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(recipes, "names", lambda: ["quickstart_digits", "ring"])
    Path("folder").mkdir()
    Path("file").touch()
    Path("photos.toml").write_text(SMALL.replace('"shapes"', '"folder"\nroot = "photos"'))
    RunFolder(Path("begun")).open_for(load(spec)) if Path("begun").mkdir() is None else None
    commands = [
        *("list zzz", "list norms", "list norm/spectrl", "list spectrl", "show nrm spectral"),
        *("show norm spectrl", "show norm zzz", "build nope", "build quickstart_digit"),
        *("build nope.toml", "build folder", "build nope/ring", "build small.toml --set loss"),
        *("build small.toml --set loss=hing", "build small.toml --resolved nope/x.toml"),
        *("build small.toml --plugin nope.py", "build file"),
        *("train small.toml --device cuda", "train small.toml --device gpu"),
        *("train small.toml --threads -1", "train photos.toml", "train small.toml --run file"),
        *("sample folder --out x.png", "sample nope --out x.png", "sample begun --out x.png"),
        *("sample begun --out x.jpg", "sample begun --out x.png -n 0"),
    ]
    texts = []
    for command in commands:
        ran = run(*command.split())
        assert ran.out == ""
        assert "Traceback" not in ran.err
        said = ran.err.replace(torch.__version__, "TORCH").replace(str(tmp_path), "HERE")
        said = re.sub(r"runs/small-\w{8}", "runs/small-HASH", said)
        texts.append(f"$ gankit {command}\n{said}(exit {ran.code})\n")
    goldens.compare("commands", "\n".join(texts))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["build", "-h"], 0),
        (["list"], 0),
        ([], 2),
        (["biuld"], 2),
        (["build"], 2),
        (["build", "small.toml", "--jsn"], 2),
        (["show", "norm"], 2),
        (["sample", "run"], 2),
        (["train", "small.toml", "--threads", "two"], 2),
    ],
)
def test_exit_codes_of_command_lines(spec: Path, arguments: list[str], code: int) -> None:
    ran = run(*arguments)
    assert ran.code == code
    assert bool(ran.err) == (code != 0)
    assert "Traceback" not in ran.err


def test_our_own_bugs_are_not_dressed_up(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slip(*arguments: object) -> None:
        raise KeyError("slip")

    monkeypatch.setattr("gankit.recipes.find", slip)
    with pytest.raises(KeyError):
        run("build", spec)


# --- train and sample


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "points.toml"
    path.write_text(POINTS)
    return path


QUICK = ["--device", "cpu", "--set", "train.steps=2", "--set", "train.log=1"]


def test_a_run_from_spec_to_samples(points: Path) -> None:
    ran = run("train", points, *QUICK)
    name = f"points-{load(points).hash[:8]}"
    assert (ran.code, ran.out) == (0, "")
    assert f"points in runs/{name} on cpu\n" in ran.err
    assert f"samples: runs/{name}/samples/step_0000002.png\n" in ran.err
    assert f"next: gankit sample runs/{name} --seed 1 --out grid.png\n" in ran.err
    for out in ("a/grid.png", "points.npz"):
        ran = run("sample", f"runs/{name}", "-n", "5", "--out", out, "--device", "cpu")
        assert (ran.code, ran.out, ran.err) == (0, "", f"wrote 5 samples of step 2 to {out}\n")
        assert Path(out).stat().st_size > 100
    ran = run("sample", f"runs/{name}", "--out", "folder", "--device", "cpu")
    assert (ran.code, ran.err) == (
        2,
        "error: points in space have no PNG each; use --out x.npz or x.png\n",
    )


def test_a_folder_of_samples_has_an_image_each(spec: Path) -> None:
    assert run("train", spec, *QUICK, "--run", "my run").code == 0
    assert run("sample", "my run", "-n", "3", "--out", "out", "--device", "cpu").code == 0
    files = sorted(Path("out").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert Image.open(files[0]).size == (16, 16)
    assert (
        run("sample", "my run", "--out", "my run/resolved.toml/x.png", "--device", "cpu").code == 4
    )


def test_a_run_folder_is_quoted_in_what_to_type_next(points: Path) -> None:
    ran = run("train", points, *QUICK, "--run", "my rún")
    assert "next: gankit sample 'my rún' --seed 1" in ran.err


def test_exit_codes_of_runs(points: Path) -> None:
    assert run("train", points, *QUICK, "--run", "run").code == 0
    other = run("train", points, *QUICK, "--run", "run", "--set", "loss=wasserstein")
    assert other.code == 5
    assert 'loss.use: "nonsaturating" became "wasserstein"' in other.err
    again = run("train", points, *QUICK, "--run", "run")
    assert again.code == 0
    diverged = run("train", points, *QUICK, "--run", "lost", "--set", "optimizer.lr=1e38")
    assert diverged.code == 6
    assert "is not finite at step" in diverged.err
    resolved = Path("run/resolved.toml")
    kept = resolved.read_text()
    resolved.write_text(kept.replace("width = 8", "width = 9"))
    unfit = run("sample", "run", "--out", "x.png")
    assert unfit.code == 5
    assert "does not fit the spec of run" in unfit.err
    resolved.write_text(kept)
    for file in Path("run/checkpoints").glob("step_*/ema.safetensors"):
        file.write_bytes(b"")
    assert run("sample", "run", "--out", "x.png").code == 5
    for ran in (other, diverged, unfit):
        assert "Traceback" not in ran.err


# --- processes


def test_help_and_specs_that_are_refused_do_not_wait_for_torch() -> None:
    source = (
        "import sys\nfrom gankit import cli\nsys.argv = ['gankit', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as exit_:\n    code = exit_.code or 0\n"
        "print('torch' in sys.modules, code, file=sys.stderr)\n"
    )
    for arguments, code in ((["--help"], 0), (["recipes"], 0), (["build", "nope.toml"], 2)):
        command = [sys.executable, "-c", source, *arguments]
        root = str(Path(gankit.__file__).parent.parent)
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
            check=False,
        )
        assert ran.stderr.splitlines()[-1] == f"False {code}"


def test_a_process_that_fails_says_why_and_no_more(tmp_path: Path) -> None:
    """A path with blanks and accents, a terminal of plain ASCII, no traceback, exit code 3."""
    folder = tmp_path / "mes réseaux"
    folder.mkdir()
    (folder / "été.toml").write_text(SMALL.replace('"hinge"', '"hingé"'), encoding="utf-8")
    ran = process("build", folder / "été.toml", LC_ALL="C", LANG="C", COLUMNS="30")
    assert (ran.returncode, ran.stdout) == (3, "")
    lines = ran.stderr.splitlines()
    assert lines[0] == 'error: unknown loss "hingé"'
    assert lines[1].endswith("mes réseaux/été.toml:14:7")
    assert lines[3].startswith(
        '   |       ^^^^^^^ did you mean "hinge"? available: hinge, least_squares'
    )
    assert len(lines) == 4


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(unbuffered: str) -> None:
    root = str(Path(gankit.__file__).parent.parent)
    command = f"sleep 0.1; '{sys.executable}' -m gankit recipes; echo code $? >&2"
    ran = subprocess.run(
        ["bash", "-c", f"({command}) | true"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    assert ran.stderr == "code 0\n"


def test_texts_are_in_utf8_whatever_the_locale() -> None:
    """A run folder is read on another machine, and a spec may name a folder with an accent."""
    for file in sorted(Path(gankit.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                mode = next((a.value for a in node.args if isinstance(a, ast.Constant)), "")
                texts = node.func.attr == "open" and mode in ("a", "w", "r")
                if texts or node.func.attr in ("read_text", "write_text"):
                    named = any(keyword.arg == "encoding" for keyword in node.keywords)
                    assert named, f"{file}:{node.lineno}"
