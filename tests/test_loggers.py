"""Loggers: what arrives where, what continues after a stop, and what a missing package does."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gankit.build import bind
from gankit.errors import MissingExtra, OptionError, SetupError
from gankit.loggers import CSV, TensorBoard, WandB
from gankit.registry import hand, registry
from gankit.slots import Logger
from gankit.spec import loads
from tests.specs import POINTS

SPEC = {"gankit": 1, "name": "faces", "penalty": [{"use": "r1", "weight": 10.0}]}
GREY = Image.fromarray(np.array([[0, 128], [255, 7]], np.uint8))


# --- stand-ins for packages that are not there


class FakeWriter:
    """Keeps what torch's SummaryWriter is given."""

    made: list[FakeWriter]

    def __init__(self, log_dir: str, *, purge_step: int, flush_secs: int) -> None:
        self.log_dir = Path(log_dir)
        self.purge_step = purge_step
        self.flush_secs = flush_secs
        self.scalars: list[tuple[str, float, int]] = []
        self.images: list[tuple[str, np.ndarray, int, str]] = []
        self.closed = False
        self.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        assert not self.closed
        self.scalars.append((tag, value, step))

    def add_image(self, tag: str, pixels: np.ndarray, step: int, *, dataformats: str) -> None:
        assert not self.closed
        self.images.append((tag, pixels, step, dataformats))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[FakeWriter]:
    """Every writer that is made from here on."""
    made: list[FakeWriter] = []
    monkeypatch.setattr(FakeWriter, "made", made, raising=False)
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return made


class FakeRun:
    """Keeps what a run of wandb is given."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished = False

    def log(self, data: dict[str, Any], *, step: int) -> None:
        self.logged.append((data, step))

    def finish(self) -> None:
        self.finished = True


class FakeError(Exception):
    """Stands for wandb.Error."""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """Every run that is begun from here on."""
    begun: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        if options["mode"] == "online":
            raise FakeError("no API key configured")
        begun.append(FakeRun(options))
        return begun[-1]

    module = ModuleType("wandb")
    parts = {"init": init, "Error": FakeError, "Image": lambda picture: ("image", picture)}
    vars(module).update(parts, Settings=lambda **options: SimpleNamespace(**options))
    monkeypatch.setitem(sys.modules, "wandb", module)
    return begun


# --- what all of them do


MAKERS: dict[str, Callable[[Path], Logger]] = {
    "csv": CSV,
    "tensorboard": TensorBoard,
    "wandb": lambda folder: WandB(folder, SPEC),
}


def ours() -> list[str]:
    return [entry.name for entry in registry.find("logger") if entry.provider.name == "gankit"]


def test_all_of_them_are_looked_at_here() -> None:
    assert ours() == sorted(MAKERS)


@pytest.mark.usefixtures("writers", "runs")
@pytest.mark.parametrize("name", MAKERS)
def test_a_run_that_ends_at_any_place_can_be_logged(name: str, tmp_path: Path) -> None:
    for calls in range(4):
        logger = MAKERS[name](tmp_path)
        for step in range(10, 10 * calls, 10):
            logger.numbers(step, {"loss_D": 1.0, "loss_G": -0.5})
            logger.picture(step, GREY)
        logger.close()
        logger.close()


@pytest.mark.usefixtures("writers", "runs")
@pytest.mark.parametrize("name", MAKERS)
def test_a_spec_binds_one_that_is_handed_folder_and_tables(name: str, tmp_path: Path) -> None:
    spec = loads(POINTS, [f"logger.{name}={{}}"])
    (part,) = spec.logger
    hand(bind(part), tmp_path, spec.plain()).numbers(5, {"loss_D": 1.0})


def test_logging_is_no_part_of_what_a_run_is() -> None:
    plain = loads(POINTS)
    assert {loads(POINTS, [f"logger.{name}={{}}"]).hash for name in MAKERS} == {plain.hash}


PACKAGES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_missing_is_told_at_the_start(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)  # as if not installed
    with pytest.raises(MissingExtra) as caught:
        MAKERS[name](tmp_path)
    assert caught.value.exit_code == 4
    assert str(caught.value) == (
        f"logger \"{name}\" needs a package that is not installed\n  pip install 'gankit[{name}]'"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_module_imports_none_of_the_packages() -> None:
    code = "import sys, gankit.loggers; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "tensorboard", "wandb", "PIL", "numpy"} & set(ran.stdout.split())


# --- csv


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "metrics.csv").read_text())))


def test_csv_is_a_row_per_log(tmp_path: Path) -> None:
    logger = CSV(tmp_path)
    logger.numbers(5, {"loss_D": 1.5, "loss_G": -0.1})
    logger.numbers(10, {"loss_D": 1e-9, "loss_G": 2.0})
    text = (tmp_path / "metrics.csv").read_text()
    assert text == "step,loss_D,loss_G\n5,1.5,-0.1\n10,1e-09,2.0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_csv_makes_room_for_a_number_that_comes_later(tmp_path: Path) -> None:
    logger = CSV(tmp_path)
    for step, numbers in ((5, {"a": 1.0}), (10, {"a": 2.0, "r1_D": 3.0}), (15, {"a": 4.0})):
        logger.numbers(step, numbers)
    text = (tmp_path / "metrics.csv").read_text()
    assert text == "step,a,r1_D\n5,1.0,\n10,2.0,3.0\n15,4.0,\n"


def test_csv_leaves_out_what_a_crash_cut_short(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n5,1.0\n10,2.0\n1")
    CSV(tmp_path).numbers(15, {"a": 3.0})
    assert (tmp_path / "metrics.csv").read_text() == "step,a\n5,1.0\n10,2.0\n15,3.0\n"


STARTS = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(-9, 9)), max_size=6),
    ),
    max_size=4,
)
"""Starts of a run: how many logs it goes back, and what it logs from there."""


@given(STARTS, st.booleans())
def test_csv_holds_what_metrics_jsonl_holds(
    tmp_path_factory: pytest.TempPathFactory,
    starts: list[tuple[int, list[dict[str, float]]]],
    again: bool,
) -> None:
    assert_holds_the_same(tmp_path_factory.mktemp("run"), starts, again)


def assert_holds_the_same(
    folder: Path, starts: list[tuple[int, list[dict[str, float]]]], again: bool
) -> None:
    """Whether a run starts anew or goes back within one start, the newest of each step is there."""
    expected: dict[int, dict[str, float]] = {}
    logger = CSV(folder)
    for back, logs in starts:
        logger = CSV(folder) if again else logger
        first = max(1, max(expected, default=0) + 1 - back)
        for step, numbers in enumerate(logs, start=first):
            expected = {s: n for s, n in expected.items() if s < step} | {step: numbers}
            logger.numbers(step, numbers)
    if expected:
        found = [{name: float(cell) for name, cell in row.items() if cell} for row in table(folder)]
        assert found == [{"step": step, **numbers} for step, numbers in expected.items()]


TWICE = [(0, [{"a": 1.0}, {"a": 2.0}]), (1, [{"a": 2.0}])]


def test_twin_rows_that_come_twice_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_holds_the_same(tmp_path, TWICE, again=True)
    all_rows = CSV._before
    monkeypatch.setattr(CSV, "_before", lambda self, step: all_rows(self, 1000))
    with pytest.raises(AssertionError):
        assert_holds_the_same(tmp_path, TWICE, again=True)


# --- tensorboard


def test_tensorboard_gets_curves_and_grids(tmp_path: Path, writers: list[FakeWriter]) -> None:
    logger = TensorBoard(tmp_path, flush_seconds=7)
    assert writers == []  # a run that is finished already leaves no file
    logger.numbers(5, {"loss_D": 1.5, "loss_G": -0.1})
    logger.picture(5, GREY)
    logger.numbers(10, {"loss_D": 1.0})
    logger.close()
    (writer,) = writers
    assert (writer.log_dir, writer.flush_secs) == (tmp_path / "tensorboard", 7)
    assert writer.scalars == [("loss_D", 1.5, 5), ("loss_G", -0.1, 5), ("loss_D", 1.0, 10)]
    ((tag, pixels, step, layout),) = writer.images
    assert (tag, step, layout, pixels.shape) == ("samples", 5, "HWC", (2, 2, 3))
    assert (pixels == np.asarray(GREY)[..., None]).all()
    assert writer.closed


def test_tensorboard_forgets_what_comes_again(tmp_path: Path, writers: list[FakeWriter]) -> None:
    first = TensorBoard(tmp_path)
    for step in (5, 10, 15):
        first.numbers(step, {"loss_D": 1.0})
    second = TensorBoard(tmp_path)  # the first was killed, and the checkpoint was at 8
    second.picture(9, GREY)
    second.numbers(10, {"loss_D": 1.0})
    second.numbers(15, {"loss_D": 1.0})
    second.numbers(10, {"loss_D": 2.0})  # went back to a good state
    second.close()
    assert [writer.purge_step for writer in writers] == [5, 9, 10]
    assert [writer.closed for writer in writers] == [False, True, True]


def test_tensorboard_refuses_to_write_without_pause(
    tmp_path: Path, writers: list[FakeWriter]
) -> None:
    with pytest.raises(OptionError, match="flush_seconds must be at least 1, not 0"):
        TensorBoard(tmp_path, flush_seconds=0)


def curve(folder: Path) -> dict[int, float]:
    """What TensorBoard shows of loss_D."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder / "tensorboard"))
    shown.Reload()
    return {event.step: event.value for event in shown.Scalars("loss_D")}


def log_and_go_back(folder: Path) -> None:
    """Two starts, of which the second logs less often, and goes back itself."""
    for steps, loss in ((range(10, 60, 10), 1.0), (range(30, 90, 20), 2.0)):
        logger = TensorBoard(folder)
        for step in steps:
            logger.numbers(step, {"loss_D": loss, "loss_G": 0.0})
            logger.picture(step, GREY)
        if loss == 2.0:
            logger.numbers(50, {"loss_D": 3.0})
        logger.close()


def test_tensorboard_itself_shows_each_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log_and_go_back(tmp_path)
    assert curve(tmp_path) == {10: 1.0, 20: 1.0, 30: 2.0, 50: 3.0}


def test_twin_steps_that_are_not_forgotten_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def keep_all(folder: str, *, purge_step: int, flush_secs: int) -> SummaryWriter:
        return SummaryWriter(folder, flush_secs=flush_secs)

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", keep_all)
    log_and_go_back(tmp_path)
    assert 40 in curve(tmp_path)


# --- wandb


def test_wandb_is_given_the_spec_and_stays_offline(tmp_path: Path, runs: list[FakeRun]) -> None:
    logger = WandB(tmp_path, SPEC)
    logger.numbers(5, {"loss_D": 1.5})
    logger.picture(5, GREY)
    logger.close()
    (run,) = runs
    assert run.options.pop("settings") == SimpleNamespace(console="off")
    assert run.options == {
        "project": "gankit",
        "entity": None,
        "mode": "offline",
        "name": "faces",
        "config": SPEC,
        "dir": str(tmp_path),
        "id": (tmp_path / "wandb" / "id").read_text(),
        "resume": "allow",
    }
    assert run.logged == [({"loss_D": 1.5}, 5), ({"samples": ("image", GREY)}, 5)]
    assert run.finished


def test_wandb_continues_a_run_that_was_moved(tmp_path: Path, runs: list[FakeRun]) -> None:
    for name in ("a", "other"):
        (tmp_path / name).mkdir()
        WandB(tmp_path / name, SPEC, project="p", entity="e", mode="disabled")
    (tmp_path / "a").rename(tmp_path / "b")
    WandB(tmp_path / "b", SPEC)
    first, other, second = (run.options["id"] for run in runs)
    assert first == second != other
    assert first.isalnum()
    chosen = ("project", "entity", "mode")
    assert [runs[0].options[name] for name in chosen] == ["p", "e", "disabled"]


def test_wandb_without_a_login_is_told_at_the_start(tmp_path: Path, runs: list[FakeRun]) -> None:
    with pytest.raises(SetupError, match='logger "wandb" cannot start: no API key') as caught:
        WandB(tmp_path, SPEC, mode="online")
    assert caught.value.exit_code == 4
    assert runs == []


@pytest.fixture
def _no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, and no connection that wandb could use."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")  # which the option overrides


@pytest.mark.usefixtures("_no_home")
def test_wandb_itself_takes_what_it_is_given(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    out, err = sys.stdout, sys.stderr
    for first in (5, 15):
        time.sleep(1)  # its folders are named by the second
        logger = WandB(tmp_path, SPEC)
        assert wandb.run.offline
        for step in (first, first + 5):
            logger.numbers(step, {"loss_D": 1.5})
            logger.picture(step, GREY)
        assert logger._run.summary["loss_D"] == 1.5
        assert json.loads(json.dumps(dict(logger._run.config))) == SPEC
        logger.close()
    ident = (tmp_path / "wandb" / "id").read_text()
    kept = list((tmp_path / "wandb").glob(f"offline-run-*-{ident}/run-{ident}.wandb"))
    assert len(kept) == 2
    assert len(list((tmp_path / "wandb").glob("offline-run-*/files/media/images/*.png"))) == 4
    assert (sys.stdout, sys.stderr) == (out, err)
