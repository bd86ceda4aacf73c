"""The report: one page that loads nothing, of a run in whatever state."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gankit.report.facts
from gankit.errors import SetupError, UsageError
from gankit.evaluate import Card, Scores
from gankit.evaluate import write as write_scores
from gankit.report import report, write
from gankit.report.pictures import BUDGET, MOST, pictures
from gankit.report.plots import draw, panels
from gankit.report.records import LARGEST, Addition, Numbers, Run, Series, additions
from gankit.spec import loads
from gankit.train import run as train
from tests.specs import POINTS
from tests.test_cli import process
from tests.test_cli import run as command

SPEC = """\
# a comment with <script>alert("spec")</script> & more
""" + POINTS.replace("steps = 20", "steps = 20\nlog = 2\nsamples = 5\ncheckpoint = 10")

VOID = {"meta", "img", "input", "link", "br", "hr"}
SECTIONS = [
    *("numbers", "health", "samples", "scores", "curves", "spec", "environment", "checkpoints"),
]


class Page(HTMLParser):
    """What a browser makes of a page, as far as it matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self.classes: dict[str, list[str]] = {}
        self.text: dict[str, str] = {}
        self._sections: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[n] for n in ("href", "src", "action", "data") if n in given]
        self.images += [given["src"]] if tag == "img" and "src" in given else []
        self.scripts += ["" for _ in range(tag == "script")]
        self.handlers += [name for name in given if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
            self._sections.append(given.get("id", "") if given.get("id") in SECTIONS else "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes {self.open[-1]}"
        self.open.pop()
        self._sections.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        for name in {"", *self._sections}:
            self.text[name] = " ".join([*self.text.get(name, "").split(), *data.split()])


def check(text: str) -> Page:
    """What holds for every page: it is whole, loads nothing, and runs our script alone."""
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)), "ids are not unique"
    wanted = [link for link in page.links if not link.startswith(("#", "data:image/"))]
    assert not wanted, f"the page asks for {wanted}"
    inner = {link[1:] for link in page.links if link.startswith("#")}
    inner |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert inner <= set(page.ids)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    ours = (Path(gankit.report.__file__).parent / "page.js").read_text(encoding="utf-8")
    assert page.scripts == [ours], "another script than ours"
    assert not page.handlers
    return page


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, in a folder with blanks and accents."""
    path = tmp_path_factory.mktemp("mes réseaux") / "un été"
    train(loads(SPEC), path)
    return path


@pytest.fixture(scope="module")
def whole(trained: Path) -> str:
    """The page of the run."""
    return report(trained)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run <i>"))


def test_a_page_has_every_section_and_the_numbers_of_the_files(trained: Path) -> None:
    page = check(report(trained))
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    speeds = [json.loads(line) for line in (trained / "timing.jsonl").read_text().splitlines()]
    assert page.text[""].startswith("points: finished at step 20")
    assert "mlp against mlp on ring, nonsaturating" in page.text[""]
    assert "Steps 20 of 20" in page.text["numbers"]
    speed = float(np.median([line["images_per_second"] for line in speeds]))
    shown = f"{speed:,.0f}" if speed >= 1000 else f"{speed:.4g}"
    assert f"Images per second {shown} median" in page.text["numbers"]
    for name in ("loss_D", "loss_G"):
        values = [line[name] for line in lines]
        row = [name, *(f"{v:.4g}" for v in (values[-1], min(values), max(values)))]
        assert " ".join(row) in page.text["curves"]
    assert "Losses" in page.text["curves"]
    assert "D(real) and D(fake)" in page.text["curves"]
    assert "Gradient" in page.text["curves"] or "gradient_D" not in lines[0]
    assert len(page.images) == 4
    assert "4 of the 4 in samples/" in page.text["samples"]
    assert "generator.layers 3" in page.text["spec"]
    assert 'use = "ring"' in page.text["spec"]
    assert json.loads((trained / "env.json").read_text())[0]["torch"] in page.text["environment"]
    assert "checkpoints/step_10" in page.text["checkpoints"]
    assert "checkpoints/step_20" in page.text["checkpoints"]


# --- whatever state the run is in


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def status(folder: Path, **keys: object) -> None:
    put(folder, "status.json", json.dumps(keys))


def test_a_run_that_has_logged_nothing_yet(folder: Path) -> None:
    for name in ("metrics.jsonl", "timing.jsonl"):
        (folder / name).unlink()
    for name in ("samples", "checkpoints"):
        shutil.rmtree(folder / name)
    status(folder, state="running", step=0, steps=20)
    page = check(report(folder))
    assert page.text["health"] == "Health Nothing has been logged yet."
    assert page.text["samples"] == "Samples There are no samples yet."
    assert page.text["curves"] == "Curves Nothing has been logged yet."
    assert page.text["checkpoints"] == "Checkpoints There are no checkpoints yet."
    assert "running step 0 of 20" in page.text[""]


def test_of_a_run_that_goes_on_the_metrics_know_more_than_the_status(folder: Path) -> None:
    status(folder, state="running", step=0, steps=2000)
    put(folder, "timing.jsonl", '{"step": 10, "images_per_second": 4}\n')
    page = check(report(folder))
    assert "running step 20 of 2,000" in page.text[""]
    assert "Images per second 4 median; last 4" in page.text["numbers"]
    assert "Time in steps 20 s" in page.text["numbers"]
    assert "To go about 1 h 6 min" in page.text["numbers"]


def test_what_a_crash_leaves_behind(folder: Path) -> None:
    for name in ("status.json", "env.json"):
        (folder / name).unlink()
    kept = (folder / "metrics.jsonl").read_text()
    put(folder, "metrics.jsonl", f'{kept}{{"step": 22, "loss_D": 1.0\x00')
    put(folder, "timing.jsonl", '{"step": 2, "images_per_sec')
    newest = folder / "samples/step_0000020.png"
    newest.write_bytes(newest.read_bytes()[:1000])
    page = check(report(folder))
    assert "unknown step 20 of 20 There is no status.json that says" in page.text[""]
    assert "1 of the lines in metrics.jsonl could not be read" in page.text["curves"]
    assert "1 of the lines in timing.jsonl could not be read" in page.text["curves"]
    assert "There is no env.json" in page.text["environment"]
    assert "3 of the 4 in samples/" in page.text["samples"]


@pytest.mark.parametrize("text", ["", "{", "7", "[[]]", '{"state": [1]}'])
def test_small_files_of_any_content(folder: Path, text: str) -> None:
    for name in ("status.json", "env.json", "metrics.jsonl", "timing.jsonl", "spec.toml"):
        put(folder, name, text)
    put(folder, "resolved.toml", "train = [1]\ndata = 3\npenalty = [4]\n")
    check(report(folder))
    put(folder, "resolved.toml", text)
    assert check(report(folder)).text[""].startswith("run <i>: ")


def test_keys_of_the_status_that_a_later_version_adds(folder: Path) -> None:
    status(folder, state="diverged", step=7, steps=20, reason="a <b>\nmore", rollbacks=2, who=["x"])
    page = check(report(folder))
    assert "diverged step 7 of 20 a <b> more" in page.text[""]
    assert "Rollbacks 2" in page.text["numbers"]
    assert 'Who ["x"]' in page.text["numbers"]


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "null", "1e300"])
def test_numbers_that_are_not_finite(folder: Path, word: str) -> None:
    kept = (folder / "metrics.jsonl").read_text()
    put(folder, "metrics.jsonl", f'{kept}{{"step": 22, "loss_G": {word}, "odd": {word}}}\n')
    page = check(report(folder))
    assert "Losses " in page.text["curves"]
    assert "1 not finite, the first at step 22" in page.text["curves"]
    assert "odd not finite not finite not finite" in page.text["curves"]
    assert page.text["curves"].count("loss_G not finite 0.") == 1  # the least of the others


def test_starts_on_other_machines(folder: Path) -> None:
    (first,) = json.loads((folder / "env.json").read_text())
    starts = [first, {**first, "threads": 99}, {**first, "threads": 99, "cuda": "<H200>"}]
    put(folder, "env.json", json.dumps(starts))
    text = check(report(folder)).text["environment"]
    assert f"Start 2 was on something else threads {first['threads']} became 99" in text
    assert "Start 3 was on something else cuda none became <H200>" in text
    assert "Start 4" not in text


# --- warnings


def logs(folder: Path, values: list[float], name: str = "diversity") -> None:
    lines = [json.dumps({"step": 10 * i + 10, name: value}) for i, value in enumerate(values)]
    put(folder, "metrics.jsonl", "\n".join(lines) + "\n")


def test_warnings_say_what_when_and_for_how_long(folder: Path) -> None:
    logs(folder, [1.0] * 6 + [0.01] * 2)
    text = check(report(folder)).text["health"]
    assert text.startswith("Health diversity is 0.01, below 0.1: ")
    assert text.endswith("At the end; first at step 70, in 25 % of the run.")
    logs(folder, [1.0] * 6 + [0.01, 1.0])
    assert check(report(folder)).text["health"].endswith("Last at step 70, not any more.")
    logs(folder, [1.0] * 8)
    assert check(report(folder)).text["health"] == (
        "Health No number has crossed a line that tells of trouble."
    )


def test_a_moment_of_trouble_in_a_long_run_is_not_missed(folder: Path) -> None:
    values = [1.0] * 30_001
    values[20_202] = 0.0
    logs(folder, values)
    assert "Last at step 202,030, not any more." in check(report(folder)).text["health"]


# --- scores


def score(folder: Path, step: int, values: dict[str, float], **card: str) -> None:
    """Scores as `gankit eval` writes them."""
    better = dict.fromkeys(set(values) & {"frechet", "modes", "kernel", "mine"}, "lower")
    card = {"count": "100 generated, 200 real", "features": "random(seed = 0)", **card}
    made = Scores(values, dict.fromkeys(values, "some"), better, Card(card), ("a note",))
    write_scores(folder / "eval" / f"step_{step:07d}.json", made)


def score_log(folder: Path, *lines: dict[str, float]) -> None:
    """Scores as training logs them, among other metrics."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def test_of_a_run_without_scores_the_page_says_how_to_get_them(folder: Path) -> None:
    text = check(report(folder)).text["scores"]
    assert text == "Scores Nothing has been scored; gankit eval does."


def test_scores_have_tiles_curves_tables_and_the_card(folder: Path) -> None:
    values = {"frechet": 12.25, "precision": 0.5, "recall": 0.25, "kernel_error": 0.125}
    score_log(folder, {"step": 10, **values}, {"step": 20, **values, "frechet": 7.75})
    score(folder, 10, values)
    score(folder, 20, {**values, "frechet": 7.75})
    page = check(report(folder))
    assert "Frechet distance 7.75 lower is better; step 20" in page.text["numbers"]
    assert "12.25" not in page.text["numbers"]
    text = page.text["scores"]
    for words in ("Frechet distance Falls", "last 7.75", "precision 0.5", "recall 0.25", "a note"):
        assert words in text
    assert "Step 20 score value better frechet 7.75 lower precision 0.5" in text
    assert "kernel_error 0.125" in text
    assert "count 100 generated, 200 real features random(seed = 0)" in text
    assert "Step 10" not in text
    for name in ("Frechet", "Precision and recall"):
        assert name not in page.text["curves"].partition("All numbers")[0]
    assert "frechet 7.75 7.75 12.25" in page.text["curves"]


def test_each_way_of_scoring_has_its_card_the_newest_first(folder: Path) -> None:
    score(folder, 20, {"frechet": 3.5})
    score(folder, 20, {"frechet": 2.5, "mine": 9.0}, count="50 generated, 200 real")
    page = check(report(folder))
    text = page.text["scores"]
    assert text.index("50 generated") < text.index("100 generated")
    assert "Frechet distance 2.5 lower" in page.text["numbers"]
    assert "mine 9 lower" in page.text["numbers"]


def test_scores_of_metrics_from_outside_leave_the_curves(folder: Path) -> None:
    score_log(folder, {"step": 20, "mine": 9.0, "odd": 1.0})
    score(folder, 20, {"mine": 9.0})
    page = check(report(folder))
    assert "mine last 9" in page.text["scores"]
    assert "odd last 1" in page.text["curves"]
    assert "mine last 9" not in page.text["curves"]


def test_a_score_per_class_is_cut_short(folder: Path) -> None:
    values = {"intra_frechet": 1.0, **{f"intra_frechet/{i}": float(i) for i in range(1000)}}
    score_log(folder, {"step": 20, **values})
    score(folder, 20, values)
    page = check(report(folder))
    assert "961 more are in eval/" in page.text["scores"]
    assert page.text["scores"].count("Frechet distance within classes") == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "7", "[]", "[[]]", '[{"scores": {}}]', "[" * 100_000, "\0", "null"),
        '[{"scores": {"a": "b"}, "of": {}, "better": {}, "card": {}, "notes": [], "floor": {}}]',
    ],
)
def test_files_of_scores_with_any_content(folder: Path, text: str) -> None:
    score(folder, 10, {"frechet": 3.5})
    put(folder, "eval/step_0000020.json", text)
    page = check(report(folder))
    assert "1 of the files in eval/ could not be read and is left out." in page.text["scores"]
    assert "Frechet distance 3.5 lower is better; step 10" in page.text["numbers"]
    put(folder, "eval/step_0000010.json", text)
    score_log(folder, {"step": 20, "frechet": 4.5})
    page = check(report(folder))
    assert "2 of the files in eval/ could not be read and are left out." in page.text["scores"]
    assert "Frechet distance 4.5 step 20" in page.text["numbers"]


def test_words_that_do_harm_in_scores(folder: Path) -> None:
    one = {
        "scores": {EVIL: 1.0},
        "of": {EVIL: EVIL},
        "better": {EVIL: "lower"},
        "card": {EVIL: EVIL},
        "notes": [EVIL],
        "floor": {},
    }
    (folder / "eval").mkdir()
    put(folder, "eval/step_0000020.json", json.dumps([one]))
    page = check(report(folder))
    assert page.text["scores"].count(EVIL) == 4
    assert EVIL in page.text["numbers"]


def test_twin_a_score_that_is_not_known_as_one_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["gankit.report.facts"], "score_names", lambda found, logged: [])
    with pytest.raises(AssertionError):
        test_scores_have_tiles_curves_tables_and_the_card(folder)


# --- nothing gets out, and nothing gets in

EVIL = "</script><script>alert(1)</script><img src=http://evil.example onerror=alert(1)>\"'`&${{1}}"


def poisoned(folder: Path) -> None:
    """Put what could do harm wherever a run folder holds text."""
    word = json.dumps(EVIL)
    resolved = (folder / "resolved.toml").read_text()
    put(folder, "resolved.toml", resolved.replace('"points"', word) + f"{word} = {word}\n")
    put(folder, "spec.toml", f"# {EVIL}\nname = {word}\n[loss]\nuse = {word}\n{word} = {word}\n")
    keys = {EVIL: EVIL, "nested": {EVIL: [EVIL]}}
    put(folder, "env.json", json.dumps([keys, {**keys, "more": EVIL}]))
    status(folder, state=EVIL, step=3, steps=20, reason=EVIL, **{EVIL: EVIL})
    logs(folder, [1.0, 2.0], EVIL)
    record = {"step": 30, f"{EVIL}_D": 1.0, f"$\\frac{{{EVIL}": 2.0, "word": EVIL, "loss_D": 3.0}
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def test_all_text_is_escaped(folder: Path) -> None:
    poisoned(folder)
    page = check(report(folder))
    assert page.text["spec"].replace("\\", "").count(EVIL) > 3
    for section in ("numbers", "curves", "environment"):
        assert EVIL in page.text[section].replace("\\", "")
    assert page.text[""].startswith(EVIL)


def test_twin_text_that_is_not_escaped_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jinja2

    folder = folder.rename(tmp_path / "run")
    put(folder, "spec.toml", "")
    careful = jinja2.Environment
    monkeypatch.setattr(
        jinja2, "Environment", lambda **how: careful(**{**how, "autoescape": False})
    )
    check(report(folder))
    poisoned(folder)
    with pytest.raises(AssertionError):
        check(report(folder))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("</main>", '<img src="http://example.org/x.png"></main>'),
        ("</main>", '<a href="https://example.org">x</a></main>'),
        ("</main>", "<script>1</script></main>"),
        ("</main>", '<p onclick="x()">x</p></main>'),
        ("</main>", '<p id="curves"></p></main>'),
        ("</main>", "<p></main>"),
        ("</main>", '<a href="#nowhere">x</a></main>'),
        ("</style>", "@import 'x.css';</style>"),
        ("</style>", "p { background: url(x.png) }</style>"),
        ("</script>", "alert(1)</script>"),
    ],
)
def test_twin_a_page_that_asks_for_more_is_found(whole: str, before: str, after: str) -> None:
    check(whole)
    assert before in whole
    with pytest.raises(AssertionError):
        check(whole.replace(before, after, 1))


def test_the_page_forbids_what_it_does_not_bring(whole: str) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', whole)
    (script,) = re.findall(r"<script>(.*?)</script>", whole, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = policy.split("; ")
    assert {"default-src 'none'", "img-src data:", f"script-src 'sha256-{digest}'"} <= set(rules)


def test_a_page_says_nothing_of_where_it_was_made(trained: Path, whole: str) -> None:
    assert str(trained.parent) not in whole
    assert "un été" in whole


def test_the_same_folder_gives_the_same_page(trained: Path, whole: str, tmp_path: Path) -> None:
    assert write(trained, tmp_path / "x.html").read_text(encoding="utf-8") == whole
    # In another process hashes of strings are others, and here its user likes other drawings.
    (tmp_path / "matplotlibrc").write_text("svg.hashsalt: other\nlines.linewidth: 9\n")
    other = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "PYTHONHASHSEED": "1"}
    assert process("report", trained, "--out", tmp_path / "y.html", **other).returncode == 0
    assert (tmp_path / "y.html").read_text(encoding="utf-8") == whole


def test_drawing_changes_nothing_for_others(trained: Path) -> None:
    import sys

    import matplotlib

    before = dict(matplotlib.rcParams)
    known = "matplotlib.pyplot" in sys.modules
    report(trained)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == known


# --- how large it is


def test_the_page_of_a_long_run_is_small(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["loss_D", "loss_G", "D_real", "D_fake", "gradient_D", "gradient_G", "r1_D", "gain_D"]
    noise = rng.normal(size=(20_000, len(names)))
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as stream:
        for index, row in enumerate(noise.tolist()):
            stream.write(json.dumps({"step": 50 * index, **dict(zip(names, row, strict=True))}))
            stream.write("\n")
    grid = Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8))
    for step in range(0, 1_000_001, 20_000):
        grid.save(folder / f"samples/step_{step:07d}.png")
    text = report(folder)
    page = check(text)
    assert len(text) < 5_000_000
    assert len(page.images) == MOST
    assert f"{MOST} of the 55 in samples/" in page.text["samples"]


def test_pictures_are_spread_over_the_run_and_reduced_to_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (900, 900, 3), dtype=np.uint8))
    plain = Image.new("L", (16, 16))
    files = []
    for step in range(40):
        files.append((step, tmp_path / f"{step}.png"))
        (noise if step in (0, 39) else plain).save(files[-1][1])
    found = pictures(files)
    steps = [picture.step for picture in found]
    assert len(steps) == MOST
    assert (steps[0], steps[-1]) == (0, 39)
    assert set(np.diff(steps)) == {2, 3}
    assert [picture.reduced for picture in found] == [True] + [False] * (MOST - 2) + [True]
    assert sum(len(picture.uri) for picture in found) < BUDGET * 4 / 3 + 100 * MOST
    assert max(found[0].width, found[0].height) < 900
    assert pictures([]) == []


def numbers(values: list[float]) -> Series:
    return Series(np.arange(1.0, len(values) + 1), np.array(values))


def test_a_long_line_keeps_its_spikes() -> None:
    values = [0.0] * 100_000
    values[12_345], values[54_321] = 7.0, -9.0
    (panel,) = panels({"loss_D": numbers(values)})
    svg = draw(panel, 0, 100_000)
    assert len(svg) < 60_000
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", svg)]
    assert max(heights) - min(heights) > 100


@given(
    st.lists(
        st.floats(-LARGEST, LARGEST) | st.sampled_from([0.0, 1e-320, math.nan]),
        min_size=1,
        max_size=60,
    ).filter(lambda values: any(map(math.isfinite, values)))
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    panel, *_ = panels({"loss_D": numbers(values), "loss_G": numbers(values[::-1])})
    svg = draw(panel, 3, len(values), [1.0, -math.inf])
    assert svg.startswith("<svg viewBox=")
    assert "nan" not in svg
    assert "#0a0b0" not in svg
    assert not re.search(r'\bid="(?!p3-)', svg)


# --- what is read of the files


def test_numbers_are_in_the_order_of_their_steps(folder: Path) -> None:
    lines = ['{"step": 4, "a": 1}', '{"step": 2, "a": 5}', "", '{"step": 4, "a": 3, "b": true}']
    lines += ['{"a": 1}', '{"step": "x"}', "[]", '{"step": -1}', '{"step": NaN, "a": 2}']
    lines += ['{"step": 6, "c": "x", "d": [1], "e": 1' + "0" * 400 + "}", '{"step": 1' + "0" * 5000]
    put(folder, "metrics.jsonl", "\n".join(lines))
    found = Run(folder).metrics
    assert (found.damaged, list(found.series)) == (6, ["a", "e"])
    assert found.series["a"].steps.tolist() == [2, 4]
    assert found.series["a"].values.tolist() == [5, 3]
    assert math.isnan(found.series["e"].values[0])
    assert found.at(3) == {"a": 5.0}
    assert found.last == 6
    assert Numbers({}).last == 0
    assert found.moments(2).tolist() == [2, 6]
    assert found.moments(9).tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("given", "resolved", "told"),
    [
        ({"loss": "hinge"}, {"loss": {"use": "hinge"}}, []),
        (
            {"loss": "hinge"},
            {"loss": {"use": "hinge", "margin": 1.0}},
            [Addition("loss.margin", "1.0", None)],
        ),
        ({"a": {"norm": "x"}}, {"a": {"norm": ["x"]}}, []),
        ({"a": 4}, {"a": 4.0}, []),
        ({"a": 4}, {"a": 5}, [Addition("a", "5", "4")]),
        ({"a": 4}, {}, [Addition("a", None, "4")]),
        ({"penalty": []}, {}, []),
        ({}, {"penalty": [{"use": "r1"}]}, [Addition("penalty", '[{ use = "r1" }]', None)]),
        (
            {"penalty": [{"use": "r1"}]},
            {"penalty": [{"use": "r1", "weight": 1.0}]},
            [Addition("penalty[0].weight", "1.0", None)],
        ),
        (
            {"plugins": ["a.py"]},
            {"plugins": [{"file": "a.py", "sha256": "00"}]},
            [Addition("plugins[0].sha256", '"00"', None)],
        ),
        ({"loss": {"use": "a"}}, {"loss": "a"}, []),
    ],
)
def test_what_a_resolved_spec_adds(
    given: dict[str, object], resolved: dict[str, object], told: list[Addition]
) -> None:
    assert list(additions(given, resolved)) == told


def test_an_override_is_told(tmp_path: Path) -> None:
    spec = loads(SPEC, ["loss=hinge", "penalty.r1.weight=2", "train.batch=4"])
    from gankit.train.folder import RunFolder

    tmp_path.joinpath("run").mkdir()
    RunFolder(tmp_path / "run").open_for(spec)
    found = Run(tmp_path / "run").additions()
    changed = [addition for addition in found if addition.given is not None]
    assert changed == [
        Addition("loss.use", '"hinge"', '"nonsaturating"'),
        Addition("train.batch", "4", "8"),
    ]
    assert any(addition.key == "penalty" for addition in found)
    assert "loss_D" not in check(report(tmp_path / "run")).text[""]


def test_fast_paths_are_told_with_why_they_are_not_taken(tmp_path: Path) -> None:
    from gankit.train.folder import RunFolder

    tmp_path.joinpath("run").mkdir()
    RunFolder(tmp_path / "run").open_for(loads(SPEC, ["train.fast=['folded']"]))
    assert "paths" not in {a.key.partition(".")[0] for a in Run(tmp_path / "run").additions()}
    shown = report(tmp_path / "run")
    assert "<th>folded</th><td>taken</td>" in shown
    assert "<th>joint</th><td>not taken: train.fast leaves it out</td>" in shown
    (tmp_path / "run/resolved.toml").write_text("paths = { joint = '<b>' }")
    assert "<th>joint</th><td>not taken: &lt;b&gt;</td>" in report(tmp_path / "run")


# --- the command


def test_the_command_prints_where_the_page_is(folder: Path, tmp_path: Path) -> None:
    ran = command("report", folder)
    assert (ran.code, ran.out, ran.err) == (0, f"{folder / 'report.html'}\n", "")
    out = tmp_path / "a new/page"
    ran = command("report", folder, "--out", out)
    assert (ran.code, ran.out, ran.err) == (0, f"{out}\n", "")
    assert check(out.read_text(encoding="utf-8")).text == check(report(folder)).text
    assert sorted(path.name for path in out.parent.iterdir()) == ["page"]


def test_what_is_said_of_mistakes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nope", folder / "spec.toml"):
        ran = command("report", path)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == f"error: {path} is no run folder: it has no resolved.toml\n"
    for out in (tmp_path, Path("/"), Path(), folder / "spec.toml/x.html"):
        ran = command("report", folder, "--out", out)
        assert (ran.code, ran.out) == (4, "")
        assert ran.err.startswith(f"error: cannot write {out}: ")
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    ran = command("report", folder)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith(f"error: cannot read {folder / 'metrics.jsonl'}: ")
    with pytest.raises(UsageError):
        report(tmp_path / "empty")
    with pytest.raises(SetupError):
        write(folder)


def test_a_full_disk_leaves_the_page_that_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(folder)
    before = out.read_text(encoding="utf-8")

    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SetupError, match="No space left on device"):
        write(folder)
    assert out.read_text(encoding="utf-8") == before
    assert not list(folder.glob(".report*"))
