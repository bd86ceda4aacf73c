"""Weights that are made once: found again, made anew where damaged, whole at all times."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from gankit.extractors.cache import cache_folder, digest, kept

RECIPE = "ab" * 32


def weights() -> dict[str, Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1.5])}


class Maker:
    """Makes the weights, and counts how often it has to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Tensor]:
        self.times += 1
        return weights()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_made_once(cache: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert same(kept("part", RECIPE, make), weights())
    assert make.times == 1
    assert [file.name for file in cache.iterdir()] == [f"part-{RECIPE[:16]}.safetensors"]


def test_another_recipe_is_another_file(cache: Path) -> None:
    make = Maker()
    kept("part", RECIPE, make)
    kept("part", "cd" * 32, make)
    # The same beginning: the file's name does not tell them apart, what is in it does.
    kept("part", RECIPE[:16] + "0" * 48, make)
    assert make.times == 3
    assert len(list(cache.iterdir())) == 2


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_made_anew(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, cut: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("damaged")
        patch.setenv("GANKIT_CACHE", str(root))
        make = Maker()
        kept("part", RECIPE, make)
        (file,) = root.iterdir()
        whole = file.read_bytes()
        content = bytearray(whole)
        at = int(place * len(content))
        if cut:
            content = content[:at]
        else:
            content[at] ^= 1 << bit
        file.write_bytes(content)
        assert same(kept("part", RECIPE, make), weights())
        # Spaces that fill up the header may change and mean the same.
        assert make.times == 2 or (not cut and b"  " in whole[at - 2 : at + 3])
        assert same(kept("part", RECIPE, make), weights())
        assert make.times <= 2, "and mended"


def test_twin_safetensors_alone_would_not_notice(cache: Path) -> None:
    kept("part", RECIPE, Maker())
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert not same(load_file(file), weights())


@pytest.mark.parametrize("said", [None, {"recipe": RECIPE}, {"recipe": RECIPE, "sha256": "0" * 64}])
def test_a_file_of_somebody_elses_is_made_anew(cache: Path, said: dict[str, str] | None) -> None:
    cache.mkdir()
    save_file({"a": torch.zeros(2)}, cache / f"part-{RECIPE[:16]}.safetensors", said)
    make = Maker()
    assert same(kept("part", RECIPE, make), weights())
    assert make.times == 1


def test_a_folder_in_the_place_of_the_file_is_left_there(cache: Path) -> None:
    (cache / f"part-{RECIPE[:16]}.safetensors").mkdir(parents=True)
    with pytest.warns(UserWarning, match="cannot keep .*part-"):
        assert same(kept("part", RECIPE, Maker()), weights())
    assert len(list(cache.iterdir())) == 1, "and nothing unfinished beside it"


def test_where_nothing_can_be_written_weights_are_used_all_the_same(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot keep "):
        assert same(kept("part", RECIPE, Maker()), weights())


def test_what_breaks_off_leaves_the_old_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept("part", RECIPE, Maker())
    (file,) = cache.iterdir()
    file.write_bytes(b"damaged")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert same(kept("part", RECIPE, Maker()), weights())
    assert file.read_bytes() == b"damaged"
    assert list(cache.iterdir()) == [file]


def _both(barrier: object, folder: str) -> None:
    os.environ["GANKIT_CACHE"] = folder

    def make() -> dict[str, Tensor]:
        barrier.wait(20)  # type: ignore[attr-defined]  # until the other has found nothing either
        return weights()

    assert same(kept("part", RECIPE, make), weights())


def test_two_processes_may_make_the_same_at_once(cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    pair = [context.Process(target=_both, args=(barrier, str(cache))) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(30)
    assert [process.exitcode for process in pair] == [0, 0]
    make = Maker()
    kept("part", RECIPE, make)
    assert make.times == 0
    assert len(list(cache.iterdir())) == 1


def test_the_digest_sees_names_types_shapes_and_bytes() -> None:
    base = digest(weights())
    assert base == digest(dict(reversed(weights().items())))
    others = [
        {"c": weights()["a"], "b": weights()["b"]},
        weights() | {"a": weights()["a"].view(3, 2)},
        weights() | {"b": weights()["b"].double()},
        weights() | {"b": -weights()["b"]},
        {"a": weights()["a"]},
    ]
    assert len({base, *map(digest, others)}) == 6


def test_the_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("GANKIT_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("GANKIT_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "gankit"
    for none in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        assert cache_folder() == tmp_path / ".cache" / "gankit"
