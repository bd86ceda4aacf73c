"""What holds for every part of the kind `features` that needs no file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from gankit import datasets
from gankit.errors import GankitError, SpecError
from gankit.evaluate import default_features
from gankit.registry import hand, registry
from gankit.slots import Dataset, Features, Image, Seen

IMAGES: dict[str, Dataset] = {
    "grey digits": datasets.Digits(size=24),
    "stacked digits": datasets.StackedDigits(),
    "shapes": datasets.Shapes(size=20),
    "grey oblong shapes": datasets.Shapes(size=(16, 28), channels=1),
}
POINTS: dict[str, Dataset] = {"ring": datasets.Ring(), "grid": datasets.Grid()}
DATA = IMAGES | POINTS
OF_IMAGES, OF_POINTS, OF_BOTH = ("digits", "random", "shapes"), ("mixture",), ("pixels",)

PAIRS = [
    *((name, data) for name in OF_IMAGES + OF_BOTH for data in IMAGES),
    *((name, data) for name in OF_POINTS + OF_BOTH for data in POINTS),
]


def made(name: str, data: Dataset) -> Features:
    return hand(registry.get("features", name).bind(), data)


def batch(data: Dataset, count: int = 9) -> Tensor:
    return data.images(torch.arange(count))


def equal(one: Seen, other: Seen, *, within: float = 0.0) -> bool:
    """Whether two answers are alike, in every part."""
    for left, right in zip(one, other, strict=True):
        if (left is None) != (right is None):
            return False
        if left is None or right is None:
            continue
        if left.dtype == torch.bool:
            if not torch.equal(left, right):
                return False
        elif not torch.allclose(left, right, rtol=within, atol=within):
            return False
    return True


def check_contract(extractor: Features, images: Tensor) -> None:
    """Shapes, types, and that a row's answer is the row's own."""
    seen = extractor(images)
    assert seen.features.shape == (len(images), extractor.width)
    assert seen.features.dtype in (torch.float32, torch.float64)
    assert bool(seen.features.isfinite().all())
    assert not seen.features.requires_grad
    if seen.logits is not None:
        assert seen.logits.shape[0] == len(images)
        assert seen.logits.dim() == 2
        assert bool(seen.logits.isfinite().all())
    if seen.good is not None:
        assert (seen.good.shape, seen.good.dtype) == ((len(images),), torch.bool)
    assert seen.labels is None, "which class it was meant to be is for others to tell"
    order = torch.tensor([4, 0, 7])
    rows = Seen(*(None if part is None else part[order] for part in seen))
    assert equal(extractor(images[order]), rows, within=1e-4), "rows do not touch each other"
    assert len(extractor(images[:0]).features) == 0


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_features_are_what_the_contract_says(name: str, data: str) -> None:
    images = batch(DATA[data])
    kept = images.clone()
    check_contract(made(name, DATA[data]), images)
    assert torch.equal(images, kept), "the images are left as they are"


class Twin:
    """Features whose rows look at each other, or that are wrong in another way."""

    width = 1
    card: ClassVar[dict[str, str]] = {}

    def __init__(self, spoil: Callable[[Tensor], Seen]) -> None:
        self.spoil = spoil

    def __call__(self, images: Tensor, /) -> Seen:
        return self.spoil(images.flatten(1).float().mean(1, keepdim=True))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: Seen(x - x.mean() if len(x) else x),
        lambda x: Seen(x.squeeze(1)),
        lambda x: Seen(x.expand(-1, 2)),
        lambda x: Seen(x.long()),
        lambda x: Seen(x / 0),
        lambda x: Seen(x, good=x[:, 0]),
        lambda x: Seen(x, x[:1]),
        lambda x: Seen(x, labels=x[:, 0].long()),
    ],
)
def test_twin_features_that_break_the_contract_are_found(spoil: Callable[[Tensor], Seen]) -> None:
    images = batch(datasets.Shapes(size=16))
    check_contract(Twin(Seen), images)
    with pytest.raises(AssertionError):
        check_contract(Twin(spoil), images)


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_features_are_the_same_each_time_they_are_made(name: str, data: str) -> None:
    images = batch(DATA[data])
    torch.manual_seed(1)
    one = made(name, DATA[data])
    first = one(images)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    with torch.inference_mode():
        other = made(name, DATA[data])
        assert equal(other(batch(DATA[data])), first)
    assert one.card == other.card
    assert torch.equal(torch.get_rng_state(), before), "the global generator stays where it is"


@pytest.mark.parametrize(("name", "data"), PAIRS)
def test_the_card_is_plain_text(name: str, data: str) -> None:
    card = made(name, DATA[data]).card
    assert card
    assert json.loads(json.dumps(dict(card))) == card
    assert all(isinstance(value, str) for value in card.values())


@pytest.mark.parametrize("name", OF_IMAGES)
def test_features_of_images_refuse_points(name: str) -> None:
    with pytest.raises(SpecError, match=f'features "{name}" are of images, and this data is of po'):
        made(name, datasets.Ring())
    assert "positions" in registry.get("features", name).needs


@pytest.mark.parametrize("name", [*OF_IMAGES, *OF_BOTH])
@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 16, 16), torch.zeros(3, 16, 16).byte(), torch.zeros(2, 3, 16, 16).long()],
)
def test_batches_that_are_no_images_are_refused(name: str, images: Tensor) -> None:
    with pytest.raises(TypeError, match=r"images are \(B, C, H, W\) uint8, not \("):
        made(name, datasets.Shapes(size=16))(images)


@pytest.mark.parametrize("name", ["pixels", "random"])
def test_images_of_another_shape_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 9\), not \(3, 16, 16\) as the data has"):
        made(name, datasets.Shapes(size=16))(torch.zeros(2, 3, 8, 9).byte())


@pytest.mark.parametrize("name", [*OF_IMAGES, *OF_POINTS, *OF_BOTH])
def test_every_option_is_documented(name: str) -> None:
    entry = registry.get("features", name)
    assert entry.summary
    assert all(option.meaning for option in entry.options.values())


# --- which features when none are named


class Foreign:
    """A data set of somebody else's, who says nothing of features."""

    def __init__(self, size: Any = (16, 16)) -> None:
        self.image = Image(3, size)

    def __len__(self) -> int:
        return 1

    def images(self, indices: Tensor) -> Tensor:
        return torch.zeros(len(indices), *self.image.shape)

    def labels(self, indices: Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (datasets.Digits(), "digits"),
        (datasets.StackedDigits(), "digits"),
        (datasets.Shapes(), "shapes"),
        (datasets.Ring(), "mixture"),
        (datasets.Grid(), "mixture"),
        (datasets.Folder(root="somewhere"), "random"),
        (datasets.Packed(root="somewhere"), "random"),
        (Foreign(), "random"),
        (Foreign(()), "pixels"),
    ],
)
def test_every_data_set_has_features_that_go_with_it(data: Dataset, name: str) -> None:
    chosen, note = default_features(data)
    assert chosen == name
    assert bool(note) == (name == "random"), "a makeshift is said to be one"
    assert made(chosen, data).width


def test_a_third_party_says_which_features_go_with_its_data() -> None:
    data = Foreign()
    data.features = "pixels"  # type: ignore[attr-defined]
    assert default_features(data) == ("pixels", "")


def test_a_default_is_no_option_of_the_data() -> None:
    for name in registry.names("dataset"):
        assert "features" not in registry.get("dataset", name).options
    with pytest.raises((TypeError, GankitError)):
        datasets.Digits(features="random")  # type: ignore[call-arg]
