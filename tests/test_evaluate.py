"""An evaluation: exact, however the images come; real ones looked at once; its card complete."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import gankit
from gankit.datasets import Digits, Ring, Shapes
from gankit.errors import DataError, SpecError
from gankit.evaluate import (
    Evaluation,
    Named,
    Scores,
    batches,
    default_count,
    default_features,
    default_metrics,
    given,
    named,
)
from gankit.evaluate.sets import unflipped
from gankit.extractors import cache
from gankit.metrics import Frechet, Moments
from gankit.registry import KINDS, Entry, Provider, registry
from gankit.slots import Dataset, Image, Seen

EVALUATION = importlib.import_module("gankit.evaluate.evaluation")
SETS = importlib.import_module("gankit.evaluate.sets")
REFERENCE = importlib.import_module("gankit.evaluate.reference")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each test its own: whether real images are looked at is what is tested."""
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))


def part(kind: str, name: str, made: Any, provider: str = "gankit", **options: Any) -> Named:
    """A part that is on no plug board."""
    needs = frozenset(getattr(made, "needs", ()))
    return Named(made, Entry(KINDS[kind], name, type(made), Provider(provider), needs), options)


RING = Ring(length=200)
METRICS = ("frechet", "prdc", "modes")


def evaluation(
    data: Dataset = RING,
    metrics: Mapping[str, Named] | None = None,
    features: Named | None = None,
    about: str = "ring",
    **more: Any,
) -> Evaluation:
    wanted = {"frechet": named("metric", "frechet", {})} if metrics is None else metrics
    seen = features or named("features", "pixels", {}, data)
    return Evaluation(data, about, seen, wanted, **more)


def score(made: Evaluation, images: Dataset | None = None, count: int = 100) -> Scores:
    return made.score(batches(images or Ring(length=count, seed=5), count), {"images": "x"}, count)


# --- the same, however it comes


def of_batches(size: int, features: Named | None = None) -> Mapping[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SETS, "BATCH", size)
        patch.setattr(REFERENCE.cache, "found", lambda name, key: None)
        names = METRICS if features is None else ("frechet",)
        metrics = {name: named("metric", name, {}) for name in names}
        features = features or named("features", "mixture", {}, RING)
        return score(evaluation(metrics=metrics, features=features), count=150).values


@settings(max_examples=8)
@examples(size=st.integers(1, 260))
def test_the_batches_make_no_difference(size: int) -> None:
    assert of_batches(size) == pytest.approx(of_batches(64), rel=1e-9)


class Weighty:
    """Points as they are, by weights of some name."""

    def __init__(self, weights: str) -> None:
        self.card = {"weights": weights}
        self.width = 2

    def __call__(self, images: Tensor, /) -> Seen:
        return Seen(images)


def test_features_whose_rows_touch_each_other_are_seen() -> None:
    """The twin."""

    class Touching(Weighty):
        def __call__(self, images: Tensor, /) -> Seen:
            return Seen(images - images.mean(0))

    touching = part("features", "touching", Touching("a"))
    one, other = of_batches(32, touching), of_batches(64, touching)
    assert one["frechet"] != pytest.approx(other["frechet"], rel=1e-3)


def test_the_frechet_distance_of_points_is_the_metric_by_hand() -> None:
    other = Ring(length=100, seed=5)
    real = Moments.of(RING.images(torch.arange(200)))
    fake = Moments.of(other.images(torch.arange(100)))
    expected = Frechet().scores(real, fake)["frechet"]
    assert score(evaluation(), other).values["frechet"] == pytest.approx(expected, rel=1e-9)


def test_real_images_are_at_no_distance_from_themselves() -> None:
    found = score(evaluation(), RING, 200)
    assert found.values["frechet"] == pytest.approx(0, abs=1e-9)


def test_torchs_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    score(evaluation(metrics={name: named("metric", name, {}) for name in ("swd", "prdc")}))
    assert torch.get_rng_state().equal(before)


# --- looked at once


class Counted:
    """A data set that counts how many of its images were looked at."""

    def __init__(self, data: Any, content: str = "") -> None:
        self.data = data
        self.content = content
        self.looked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def __len__(self) -> int:
        return len(self.data)

    def images(self, indices: Tensor) -> Tensor:
        self.looked += len(indices)
        return self.data.images(indices)


def looks(**how: Any) -> int:
    """How many real images an evaluation looks at."""
    data = how.pop("data", None) or Counted(RING)
    score(evaluation(data, **how))
    return int(data.looked)


def test_real_images_are_looked_at_once() -> None:
    assert [looks(), looks(), looks()] == [200, 0, 0]


def test_one_evaluation_looks_once_where_nothing_can_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(REFERENCE, "LARGEST", 0)
    data = Counted(RING)
    made = evaluation(data)
    assert score(made).values == score(made).values
    assert data.looked == 200
    assert looks() == 200  # nothing was kept


OTHERS: dict[str, Callable[[], dict[str, Any]]] = {
    "the data": lambda: {"about": "ring(modes = 7)"},
    "what is in it": lambda: {"data": Counted(RING, "other bytes")},
    "how many of them": lambda: {"real": 150},
    "the features": lambda: {"features": named("features", "mixture", {}, RING)},
    "weights of features": lambda: {"features": part("features", "pixels", Weighty("b"))},
    "options of features": lambda: {"features": part("features", "x", Weighty("a"), width=3)},
    "whose features": lambda: {"features": part("features", "pixels", Weighty("a"), "mine.py")},
    "options of a metric": lambda: {
        "metrics": {"frechet": named("metric", "frechet", {"singular": True})}
    },
    "whose metric": lambda: {"metrics": {"frechet": part("metric", "frechet", Frechet(), "my.py")}},
    "one metric more": lambda: {
        "metrics": {name: named("metric", name, {}) for name in ("frechet", "prdc")}
    },
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_decides_the_statistics_decides_where_they_are_kept(what: str) -> None:
    looks()
    looks(features=part("features", "pixels", Weighty("a")))
    assert looks(**OTHERS[what]()) > 0
    assert looks(**OTHERS[what]()) == 0
    assert looks() == 0


def test_a_cache_that_forgets_a_line_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: were the content left out of the key, other files would be scored as these."""
    monkeypatch.setattr(EVALUATION, "content", lambda data: "")
    looks()
    assert looks(**OTHERS["what is in it"]()) == 0


def test_what_is_held_out_is_kept_apart() -> None:
    metrics = {"memorisation": named("metric", "memorisation", {})}
    data = Ring(length=300)
    first = score(evaluation(data, metrics)).values
    assert score(evaluation(data, metrics)).values == first
    assert len(list(cache.cache_folder().glob("real-*"))) == 2


def damaged(flip: int = -9) -> Mapping[str, float]:
    """The scores after a bit of what was kept was flipped."""
    (file,) = cache.cache_folder().glob("real-*")
    content = bytearray(file.read_bytes())
    content[flip] ^= 1 << 6
    file.write_bytes(content)
    return score(evaluation()).values


def test_a_damaged_file_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = score(evaluation()).values
    assert damaged() == first
    assert looks() == 0  # it is whole again
    (file,) = cache.cache_folder().glob("real-*")
    file.write_bytes(b"")
    assert (looks(), looks()) == (200, 0)
    monkeypatch.setattr(cache, "digest", lambda weights: "trusted")
    assert looks() == 200
    assert damaged() != first  # the twin, which believes what it reads


# --- what is refused


@dataclass(frozen=True, kw_only=True)
class Says:
    """Gives one number, whatever it is shown."""

    better: ClassVar[Mapping[str, str]] = {"said": "lower"}
    value: float = 1.0

    def gather(self) -> Moments:
        return Moments()

    def scores(self, real: Moments, fake: Moments, /) -> dict[str, float]:
        return {"said": self.value}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(DataError, match=f'metric "says": said is {value} for these images'):
        score(evaluation(metrics={"says": part("metric", "says", Says(value=value))}))


def test_two_metrics_never_write_over_each_other() -> None:
    both = {name: part("metric", name, Says()) for name in ("one", "other")}
    with pytest.raises(DataError, match='metrics "one" and "other" both give "said"'):
        score(evaluation(metrics=both))


def test_too_few_images_are_refused_in_the_metrics_words() -> None:
    with pytest.raises(DataError, match="frechet: needs at least 3 images and got 2 fake"):
        score(evaluation(), count=2)
    with pytest.raises(DataError, match="got 2 real"):
        score(evaluation(real=2))


def test_features_that_are_no_numbers_are_refused_by_name() -> None:
    def broken(images: Tensor) -> Seen:
        return Seen(images * float("nan"))

    class Broken(Weighty):
        __call__ = staticmethod(broken)

    with pytest.raises(DataError, match="real images: features of 64 in 64 images are not finite"):
        score(evaluation(features=part("features", "broken", Broken("a"))))


def test_metrics_of_held_out_images_need_some() -> None:
    metrics = {"memorisation": named("metric", "memorisation", {})}
    data = Digits(size=8)
    with pytest.raises(DataError, match='"memorisation" compares with real images that were not'):
        evaluation(data, metrics)
    assert evaluation(replace(data, split="train"), metrics).held_out is not None


def test_parts_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SpecError, match='unknown metric "frecht"'):
        named("metric", "frecht", {})


def test_a_metric_that_needs_no_real_images_looks_at_none() -> None:
    alone = [e.name for e in registry.find("metric") if getattr(e.target, "reference_free", False)]
    assert "inception" in alone
    data = Counted(RING)
    mixture = named("features", "mixture", {}, RING)
    made = evaluation(
        data,
        {"inception": named("metric", "inception", {})},
        mixture,
    )
    score(made)
    assert data.looked == 0


def test_a_rehearsal_looks_at_one_real_image() -> None:
    class Missing(Weighty):
        def __call__(self, images: Tensor, /) -> Seen:
            raise DataError(f"no weights for {len(images)}")

    with pytest.raises(DataError, match="no weights for 1"):
        evaluation(features=part("features", "missing", Missing("a"))).rehearse()
    data = Counted(RING)
    evaluation(data).rehearse()
    assert data.looked == 1


# --- the card


def test_the_card_says_all_that_decides_a_score() -> None:
    data = Ring(length=300)
    metrics = {name: named("metric", name, {}) for name in ("frechet", "memorisation")}
    made = Evaluation(data, "ring()", named("features", "mixture", {}, data), metrics, real=250)
    lines = score(made).card.lines
    assert lines["images"] == "x"
    assert lines["count"] == "100 generated, 250 real"
    assert lines["held out"] == "300 real"
    assert lines["data"] == "ring()"
    assert lines["features"].startswith("mixture")
    assert lines["metric frechet"] == "frechet(singular = false)"
    assert lines["metric memorisation"].startswith("memorisation")
    assert lines["device"] == "cpu"
    for library in ("gankit", "torch", "numpy", "Pillow", "Python"):
        assert f"{library} " in lines["versions"]


@pytest.mark.parametrize("name", [n for n in registry.names("features") if n != "digits"])
def test_features_have_a_line_for_all_that_they_say(name: str) -> None:
    data: Any = {"shapes": Shapes(size=16), "mixture": RING}.get(name, Digits(size=16))
    options = {"weights": "nowhere.pth"} if name == "inception" else {}
    made = named("features", name, options, data)
    lines = evaluation(data, {}, made).card({}, 1).lines
    assert lines["features"] == made.text
    assert dict(made.part.card) == {
        line.removeprefix("features "): text
        for line, text in lines.items()
        if line.startswith("features ")
    }
    if name in ("random", "inception"):
        assert len(lines["features weights"]) == 64
    if name == "inception":
        assert "299" in lines["features resize"]


def test_parts_of_others_are_named_with_their_makers() -> None:
    mine = part("metric", "says", Says(), "mine.py sha256:12", value=1.0)
    assert mine.text == "says(value = 1.0) of mine.py sha256:12"
    assert named("metric", "frechet", {}).text == "frechet(singular = false)"


def test_mirrored_copies_are_no_real_images() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mirrored:
        flip: bool = True
        image: ClassVar[Image] = Image(1, (4, 4))

        def __len__(self) -> int:
            return 20 if self.flip else 10

        def images(self, indices: Tensor) -> Tensor:
            return torch.zeros(len(indices), 1, 4, 4, dtype=torch.uint8)

        def labels(self, indices: Tensor) -> None:
            return None

    assert len(unflipped(Mirrored())) == 10
    assert evaluation(Mirrored()).real_count == 10
    assert unflipped(RING) is RING


# --- what goes with data


def test_data_says_how_it_is_scored_and_what_does_not_has_a_makeshift(tmp_path: Path) -> None:
    assert default_features(Digits()) == ("digits", "")
    assert default_features(RING) == ("mixture", "")
    assert default_metrics(RING) == ("modes",)
    assert (default_count(RING), default_count(Digits())) == (2500, 10_000)
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 4, 4), np.uint8))
    np.savez(tmp_path / "points.npz", images=np.zeros((2, 3)))
    images, points = given(tmp_path / "x.npz"), given(tmp_path / "points.npz")
    name, note = default_features(images)
    assert name == "random"
    assert "compare with no published score" in note
    assert default_features(points) == ("pixels", "")
    assert default_metrics(images) == ("frechet", "prdc")


def test_another_version_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks()
    monkeypatch.setattr(gankit, "__version__", "99")
    assert looks() == 200
