"""Images kept on the GPU: the same bits, only where they are asked for and where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit.build import build
from gankit.datasets import Folder, Packed
from gankit.datasets import resident as keeping
from gankit.datasets.packing import folder
from gankit.datasets.resident import SHARE, Resident, resident
from gankit.slots import Dataset
from gankit.spec import loads
from gankit.train.trainer import Trainer
from tests.packs import Told, packed, write_photos
from tests.specs import IMAGES

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
BYTES = 10 * 3 * 16 * 16


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photos of two classes, packed."""
    root = tmp_path_factory.mktemp("resident")
    packed(folder(write_photos(root / "photos"), "folders"), root / "out")
    return root / "out"


@given(st.booleans(), st.lists(st.integers(0, 9), max_size=30), st.data())
@settings(max_examples=30)
def test_kept_images_are_those_of_the_file(
    out: Path, flip: bool, asked: Sequence[int], data: st.DataObject
) -> None:
    source = Packed(root=str(out), size=16, classes=2, flip=flip)
    kept = Resident(source, CPU)
    mirrored = data.draw(st.lists(st.booleans(), min_size=len(asked), max_size=len(asked)))
    indices = torch.tensor(asked, dtype=torch.int64)
    indices = indices + 10 * torch.tensor(mirrored, dtype=torch.int64) * flip
    assert len(kept) == len(source)
    assert kept.image == source.image
    assert torch.equal(kept.images(indices), source.images(indices))
    assert kept.images(indices).dtype == torch.uint8
    ours, theirs = kept.labels(indices), source.labels(indices)
    assert ours is not None
    assert theirs is not None
    assert torch.equal(ours, theirs)
    with pytest.raises(IndexError):
        kept.images(torch.tensor([len(source)]))


def test_images_are_sent_in_pieces(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "CHUNK", 3)
    source = Packed(root=str(out), size=16)
    everything = torch.arange(10)
    assert torch.equal(Resident(source, CPU).images(everything), source.images(everything))


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Where images are moved to, without a GPU."""
    seen: list[torch.device] = []

    class Seen(Resident):
        def __init__(self, source: Packed, device: torch.device) -> None:
            seen.append(device)
            super().__init__(source, CPU)

    monkeypatch.setattr(keeping, "Resident", Seen)
    return seen


def free(count: float, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (int(count), 10**12)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: told)


def test_images_that_fit_are_kept_and_others_are_not(
    out: Path, moved: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mirrored images take no room.
    source = Packed(root=str(out), size=16, on_gpu=True, flip=True)
    told = Told()
    free(BYTES / SHARE, monkeypatch)
    assert isinstance(resident(source, GPU, told), Resident)
    free(BYTES / SHARE - 1, monkeypatch)
    assert resident(source, GPU, told) is source
    assert moved == [GPU]
    assert told == [
        "the images are kept on cuda:0: 7,680 bytes",
        "the images stay on the disk: 7,680 bytes are more than half of the 15,359 that are free"
        " on cuda:0",
    ]


def test_images_stay_where_nobody_asks_or_there_is_no_gpu(
    out: Path, moved: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    free(10**12, monkeypatch)
    asks = Packed(root=str(out), size=16, on_gpu=True)
    silent = Packed(root=str(out), size=16)
    raw = Folder(root=str(out.parent / "photos"), size=16)
    told = Told()
    cases: list[tuple[Dataset, torch.device]] = [(asks, CPU), (silent, GPU), (raw, GPU)]
    for source, device in cases:
        assert resident(source, device, told) is source
    assert (moved, told) == ([], [])


def test_training_on_kept_images_is_training_on_the_file(out: Path) -> None:
    """To the bit; not so on other images, the twin."""
    source = Packed(root=str(out), size=16, channels=3, flip=True)
    recipe = IMAGES.replace('use = "digits"', f'use = "packed"\nroot = "{out}"')
    spec = loads(recipe.replace("steps = 20", "steps = 3"))

    def losses(data: Dataset) -> list[dict[str, float]]:
        gan, _ = build(spec, "cpu")
        return [record.numbers() for record in Trainer(gan, data, spec.train)]

    reference = losses(source)
    assert losses(Resident(source, CPU)) == reference
    assert losses(Packed(root=str(out), size=16)) != reference


@pytest.mark.skipif(not torch.cuda.is_available(), reason="keeps images on a GPU")
def test_a_gpu_gives_the_same_images(out: Path) -> None:
    source = Packed(root=str(out), size=16, flip=True, on_gpu=True)
    kept = resident(source, GPU, Told())
    batch = kept.images(torch.arange(20))
    assert batch.device == GPU
    assert torch.equal(batch.cpu(), source.images(torch.arange(20)))
