"""The classifier of digits: trained once, the same wherever it is trained, and right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import gankit.extractors.classifier as classifier
from gankit import datasets
from gankit.extractors import Digits
from gankit.extractors.cache import cache_folder, digest
from gankit.slots import Image, Seen

HELD_OUT = datasets.Digits(split="test")


def right(seen: Seen, labels: Tensor) -> float:
    """The share of images of which the class is seen."""
    assert seen.logits is not None
    return float((seen.logits.argmax(1) == labels).float().mean())


def accuracy(extractor: Digits, data: datasets.Digits) -> float:
    rows = torch.arange(len(data))
    return right(extractor(data.images(rows)), data.labels(rows))


def all_of(data: datasets.Digits) -> Tensor:
    return data.images(torch.arange(len(data)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 28, 32, (20, 33), 64])
def test_held_out_digits_are_seen_for_what_they_are(size: Any, channels: int) -> None:
    data = datasets.Digits(size=size, channels=channels, split="test")
    assert accuracy(Digits(data), data) >= 0.98


def test_twin_a_network_that_was_not_trained_is_found_out() -> None:
    extractor = Digits(HELD_OUT)
    extractor.__dict__["network"] = classifier.classifier().eval()
    assert accuracy(extractor, HELD_OUT) < 0.5


def test_no_held_out_digit_is_trained_on() -> None:
    shown, _ = classifier._material()
    seen = {image.numpy().tobytes() for image in shown}
    held_out = all_of(datasets.Digits(size=classifier.INPUT, split="test"))
    assert len(seen) == 1442
    assert not any(image.numpy().tobytes() in seen for image in held_out)
    # The broken twin: the whole set has them.
    whole = all_of(datasets.Digits(size=classifier.INPUT))
    assert sum(image.numpy().tobytes() in seen for image in whole) == 1442


@pytest.mark.parametrize("change", ["moved", "noisy", "blurred", "faint"])
def test_digits_are_still_seen_where_a_generator_gets_them_nearly_right(change: str) -> None:
    images = all_of(HELD_OUT).float()
    changed = {
        "moved": images.roll((2, -2), (2, 3)),
        "noisy": images + 40 * torch.randn(images.shape),
        "blurred": torch.nn.functional.avg_pool2d(images, 5, 1, 2, count_include_pad=False),
        "faint": images * 0.7,
    }[change]
    labels = HELD_OUT.labels(torch.arange(len(HELD_OUT)))
    assert right(Digits(HELD_OUT)(changed.clamp(0, 255).byte()), labels) > 0.95


def test_three_equal_channels_are_one() -> None:
    grey, colour = all_of(HELD_OUT), all_of(datasets.Digits(channels=3, split="test"))
    one, three = Digits(HELD_OUT)(grey), Digits(datasets.Digits(channels=3))(colour)
    assert torch.equal(one.features, three.features)
    mixed = colour.clone()
    mixed[:, 0] = 255 - mixed[:, 0]
    other = Digits(datasets.Digits(channels=3))(mixed)
    assert not torch.allclose(other.features, one.features, atol=0.1), "their mean is seen"


def test_logits_are_log_probabilities() -> None:
    logits = Digits(HELD_OUT)(all_of(HELD_OUT)).logits
    assert logits is not None
    assert torch.allclose(logits.exp().sum(1), torch.ones(len(logits)), atol=1e-5)


def test_features_of_all_digits_fill_their_space() -> None:
    data = datasets.Digits()
    seen = Digits(data)(all_of(data)).features.double()
    spectrum = torch.linalg.eigvalsh(seen.T.cov())
    assert float(spectrum[0]) > 1e-4 * float(spectrum[-1])
    assert seen.shape == (1797, 64)


# --- three digits in one image


def check_stacked(extractor: Digits, images: Tensor, labels: Tensor) -> None:
    assert right(extractor(images), labels) > 0.97


def test_stacked_digits_have_the_class_of_their_number() -> None:
    data = datasets.StackedDigits()
    rows = torch.arange(500)
    images, labels = data.images(rows), data.labels(rows)
    extractor = Digits(data)
    check_stacked(extractor, images, labels)
    # The broken twins: channels read from the right, or all as one.
    with pytest.raises(AssertionError):
        check_stacked(extractor, images.flip(1), labels)
    with pytest.raises(AssertionError):
        check_stacked(Digits(datasets.Digits(size=16, channels=3)), images, labels)


def test_stacked_answers_are_those_of_the_single_digits() -> None:
    data = datasets.StackedDigits()
    images = data.images(torch.arange(20))
    seen = Digits(data)(images)
    alone = [Digits(datasets.Digits())(images[:, c : c + 1]) for c in range(3)]
    assert seen.features.shape == (20, 192)
    together = torch.cat([each.features for each in alone], 1)
    assert torch.allclose(seen.features, together, atol=1e-4)
    assert seen.logits is not None
    logs = [each.logits for each in alone if each.logits is not None]
    for row in range(3):
        for number in (0, 7, 42, 305, 999):
            digits = number // 100, number // 10 % 10, number % 10
            expected = sum(float(log[row, d]) for log, d in zip(logs, digits, strict=True))
            assert float(seen.logits[row, number]) == pytest.approx(expected, abs=1e-3)
    assert torch.allclose(seen.logits.exp().sum(1), torch.ones(20), atol=1e-4)


def test_a_thousand_classes_of_grey_images_are_not_stacked() -> None:
    data: Any = SimpleNamespace(image=Image(1, (16, 16), classes=1000))
    assert Digits(data).width == 64


# --- its training


def test_making_features_trains_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path))
    assert Digits(HELD_OUT).width == 64
    assert list(tmp_path.iterdir()) == []


def test_the_weights_on_the_card_are_those_in_the_cache() -> None:
    extractor = Digits(HELD_OUT)
    assert extractor.card["weights"] == digest(extractor.network.state_dict())
    (file,) = cache_folder().glob("digits-*.safetensors")
    # Found again: a second one is made of the same file, which nobody has written to since.
    written = file.stat().st_mtime_ns
    assert Digits(HELD_OUT).card == extractor.card
    assert file.stat().st_mtime_ns == written


def test_training_depends_on_nothing_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch stands for all of them."""
    monkeypatch.setattr(classifier, "EPOCHS", 1)
    torch.manual_seed(1)
    first = digest(classifier.trained())
    torch.manual_seed(2)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            weights = classifier.trained()
        assert torch.get_num_threads() == 2, "nor does it leave a trace"
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before)
    assert digest(weights) == first
    assert not any(weight.requires_grad or weight.is_inference() for weight in weights.values())
    # The broken twin: other draws are noticed.
    monkeypatch.setattr(classifier, "SMOOTHING", 0.2)
    assert digest(classifier.trained()) != first


def test_a_recipe_is_the_version_and_what_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first = classifier.recipe()
    assert classifier.recipe() == first
    monkeypatch.setattr(classifier, "VERSION", classifier.VERSION + 1)
    assert classifier.recipe() != first
    monkeypatch.undo()
    images, labels = classifier._material()
    monkeypatch.setattr(classifier, "_material", lambda: (images, labels.flip(0)))
    assert classifier.recipe() != first


@pytest.mark.slow
def test_training_again_gives_the_same_weights_in_under_a_minute() -> None:
    import time

    began = time.process_time()
    weights = classifier.trained()
    assert time.process_time() - began < 60
    assert digest(weights) == Digits(HELD_OUT).card["weights"]


def test_varied_digits_are_still_digits() -> None:
    shown, _ = classifier._material()
    floats = shown[:200].float() / 127.5 - 1
    varied = classifier._varied(floats, torch.Generator().manual_seed(1))
    assert varied.shape == floats.shape
    assert float(varied.min()) >= -1
    assert float(varied.max()) <= 1
    off = (varied - floats).square().mean((1, 2, 3)).sqrt()
    assert 0.1 < float(off.mean()) < 0.6
    # What comes in from outside is black, as digits' surroundings are.
    black = classifier._varied(torch.full((50, 1, 16, 16), -1.0), torch.Generator().manual_seed(1))
    assert float(black.mean()) < -0.8
