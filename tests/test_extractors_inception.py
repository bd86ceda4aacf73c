"""Inception sees what torch-fidelity's network sees, and looks through no other file than meant."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from gankit.errors import OptionError, SetupError
from gankit.extractors import Inception, inception, inception_weights
from gankit.extractors.inception_network import CLASSES, WIDTH, Branches, Network
from gankit.extractors.inception_weights import PUBLISHED, names
from gankit.extractors.resizing import FILTERS
from gankit.registry import registry
from gankit.slots import Seen
from tests import inception_oracle as oracle
from tests.test_extractors_resizing import antialiased, half_pixels, on_corners, rounded

CASES = [
    (how, name)
    for how in FILTERS
    for name in oracle.SHAPES
    if how == "tensorflow" or name != "exact"
]


def meta() -> Network:
    with torch.device("meta"):
        return Network()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def drawn() -> dict[str, Tensor]:
    """Weights as the published file names them, drawn from a seed."""
    return oracle.weights(dict(names(meta())))


@pytest.fixture(scope="module")
def file(drawn: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(drawn, path)
    return path


@pytest.fixture(scope="module")
def whole(file: Path) -> Inception:
    return Inception(weights=str(file), sha256=digest(file))


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    with np.load(oracle.KEPT) as kept:
        return {name: torch.from_numpy(kept[name]) for name in kept.files}


@pytest.fixture(scope="module")
def look(whole: Inception) -> Callable[[str, str], Seen]:
    """What is seen by a filter of images by name, looked at once."""

    @functools.cache
    def seen(how: Any, name: str) -> Seen:
        other = dataclasses.replace(whole, resize=how)
        # Its weights are the same, and not read again.
        vars(other)["_network"] = whole._network
        return other(oracle.images(name))

    return seen


def furthest(seen: Seen, reference: dict[str, Tensor], case: str) -> float:
    """The largest relative distance of features and of logits from the reference."""
    assert seen.logits is not None
    pairs = [
        (seen.features[:, :: oracle.EVERY], reference[f"{case}/features"]),
        (seen.logits, reference[f"{case}/logits"]),
    ]
    return max(
        float((ours - theirs).norm(dim=1).div(theirs.norm(dim=1)).max())
        for ours, theirs in [(ours[: len(theirs)], theirs[: len(ours)]) for ours, theirs in pairs]
    )


# --- the network


@pytest.mark.parametrize(("how", "name"), CASES)
def test_equal_to_torch_fidelity(
    look: Callable[[str, str], Seen], reference: dict[str, Tensor], how: str, name: str
) -> None:
    seen = look(how, name)
    assert seen.features.shape == (oracle.SHAPES[name][0], WIDTH)
    assert seen.logits is not None
    assert seen.logits.shape == (oracle.SHAPES[name][0], CLASSES)
    assert seen.features.dtype == seen.logits.dtype == torch.float32
    # 3e-7 to 5e-7 where this was measured.
    assert furthest(seen, reference, f"{how}/{name}") < 1e-5


def pooled(network: Network, stage: str) -> nn.Sequential:
    """A stage's row behind a pool."""
    found = network.body.get_submodule(stage).get_submodule("3")
    assert isinstance(found, nn.Sequential)
    return found


def counts_the_padding(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, nn.AvgPool2d):
            module.count_include_pad = True


def averages_last(network: Network) -> None:
    pooled(network, "Mixed_7c")[0] = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def maximum_before(network: Network) -> None:
    pooled(network, "Mixed_7b")[0] = nn.MaxPool2d(3, 1, padding=1)


def pools_after(network: Network) -> None:
    """Average and convolution commute; the ReLU between them does not."""
    row = pooled(network, "Mixed_6b")
    row[0], row[1] = row[1], row[0]


def pads_the_stem(network: Network) -> None:
    network.body.get_submodule("Conv2d_2a_3x3").padding = (1, 1)  # type: ignore[assignment]


def joins_in_another_order(network: Network) -> None:
    stage = network.body.get_submodule("Mixed_6b")
    assert isinstance(stage, Branches)
    stage[1], stage[2] = stage[2], stage[1]


def forgets_a_relu(network: Network) -> None:
    last = network.body.get_submodule("Mixed_7c.0.branch1x1")
    last.forward = lambda x: nn.Conv2d.forward(last, x)  # type: ignore[arg-type]


def centred(network: Network) -> None:
    """Between -1 and 1 exactly, as most networks have it."""
    network.register_forward_pre_hook(lambda _, given: ((given[0] * 128 + 0.5) / 127.5,))


def from_0_to_1(network: Network) -> None:
    network.register_forward_pre_hook(lambda _, given: ((given[0] * 128 + 128) / 255,))


def adds_the_bias(network: Network) -> None:
    network.fc.bias = nn.Parameter(torch.full((CLASSES,), 0.1), requires_grad=False)


BROKEN = [
    *(counts_the_padding, averages_last, maximum_before, pools_after, pads_the_stem),
    *(joins_in_another_order, forgets_a_relu, centred, from_0_to_1, adds_the_bias),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_twin_a_network_that_deviates_is_found(
    whole: Inception, reference: dict[str, Tensor], broken: Callable[[Network], None]
) -> None:
    twin = dataclasses.replace(whole)
    vars(twin)["_network"] = copy.deepcopy(whole._network)
    broken(twin._network)
    assert furthest(twin(oracle.images("small")[:1]), reference, "tensorflow/small") > 1e-4


def test_twin_another_eps_is_found(
    whole: Inception,
    drawn: dict[str, Tensor],
    reference: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inception_weights, "EPS", 1e-5)
    twin = dataclasses.replace(whole)
    vars(twin)["_network"] = inception_weights._filled(drawn, Path("drawn"))
    assert furthest(twin(oracle.images("small")[:1]), reference, "tensorflow/small") > 1e-4


@pytest.mark.parametrize("filters", [half_pixels, antialiased, on_corners, rounded])
def test_twin_another_bilinear_filter_is_found(
    whole: Inception,
    reference: dict[str, Tensor],
    filters: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inception, "resized", filters)
    assert furthest(whole(oracle.images("large")), reference, "tensorflow/large") > 1e-4


@pytest.mark.parametrize("name", [name for name in oracle.SHAPES if name != "exact"])
@pytest.mark.parametrize(("meant", "taken"), list(itertools.permutations(FILTERS, 2)))
def test_twin_a_filter_in_place_of_another_is_found(
    look: Callable[[str, str], Seen],
    reference: dict[str, Tensor],
    meant: str,
    taken: str,
    name: str,
) -> None:
    assert furthest(look(taken, name), reference, f"{meant}/{name}") > 1e-4


def test_rows_do_not_touch_each_other(whole: Inception, look: Callable[[str, str], Seen]) -> None:
    together, alone = look("tensorflow", "small"), whole(oracle.images("small")[1:])
    assert together.logits is not None
    assert alone.logits is not None
    torch.testing.assert_close(together.features[1:], alone.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.logits[1:], alone.logits, rtol=1e-5, atol=1e-4)


def test_training_around_it_changes_nothing(whole: Inception) -> None:
    images = oracle.images("small")[:1]
    plain = whole(images)
    state, precision = torch.get_rng_state(), torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    with torch.autocast("cpu", torch.bfloat16):
        inside = whole(images)
    assert torch.equal(inside.features, plain.features)
    assert not inside.features.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cudnn.conv.fp32_precision == precision  # type: ignore[attr-defined]


def test_gpus_are_told_not_to_round(whole: Inception, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        told.append(torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
        return images, images

    monkeypatch.setattr(whole._network, "forward", look)
    whole(oracle.images("small"))
    assert told == ["ieee"]


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.zeros(1, 3, 8, 8), TypeError, "uint8"),
        (torch.zeros(1, 2, dtype=torch.uint8), TypeError, "uint8"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.uint8), ValueError, "1 or 3 channels, not 4"),
    ],
)
def test_what_it_cannot_look_at(images: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Inception(weights="none")(images)


# --- the file of weights


def test_it_is_a_part_and_says_how_it_looks() -> None:
    entry = registry.get("features", "inception")
    assert entry.needs == {"positions"}
    assert all(option.meaning for option in entry.options.values())
    # Of a file that is not there: nothing on the disk is touched.
    made = entry.bind(weights="none.pth", resize="clean")()
    assert made.width == WIDTH
    assert made.card == {
        "network": "Inception-v3 of 2015-12-05",
        "weights": PUBLISHED,
        "resize": "to 299 x 299: bicubic with antialiasing (Pillow, unrounded; clean-fid)",
    }


def test_cards_differ_where_what_is_seen_differs() -> None:
    made = [Inception(weights="a", resize=how) for how in FILTERS]
    made += [Inception(weights="a", sha256="0" * 64)]
    assert len({tuple(each.card.items()) for each in made}) == 4
    assert Inception(weights="a").card == Inception(weights="b").card


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"weights": ""}, "weights"),
        ({"weights": "a", "sha256": PUBLISHED[:8]}, "sha256"),
        ({"weights": "a", "sha256": PUBLISHED.upper()}, "sha256"),
        ({"weights": "a", "resize": "bicubic"}, "resize"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionError) as caught:
        Inception(**options)
    assert caught.value.option == option


def test_names_are_those_of_the_published_file() -> None:
    kept = dict(names(meta()))
    # 94 convolutions, each with five tensors and a count that is passed over; a dense layer.
    assert len(kept) == 94 * 5 + 2 == 566 - 94
    assert kept["Mixed_7c.branch3x3dbl_3a.conv.weight"] == (384, 384, 1, 3)
    assert kept["Mixed_5b.branch_pool.bn.running_var"] == (32,)
    assert sum(shape.numel() for shape in kept.values()) == 23_885_392


def refused(weights: Path | str, sha256: str = PUBLISHED) -> str:
    with pytest.raises(SetupError) as caught:
        Inception(weights=str(weights), sha256=sha256)(oracle.images("small")[:1])
    # Every refusal says where the published file is.
    assert "github.com/toshas/torch-fidelity/releases" in str(caught.value)
    return str(caught.value).replace(os.fspath(Path(weights).expanduser().parent), "DIR")


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(tmp_path / "none.pth").startswith("DIR/none.pth: no such file\n")
    assert "Is a directory" in refused(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kept.pth").write_bytes(b"")
    assert refused("~/kept.pth").startswith("DIR/kept.pth is not the published weights")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file that cannot be weights, so that its hash is what is refused first."""
    (tmp_path / "w.pth").write_bytes(b"not these weights")
    return tmp_path / "w.pth"


def test_another_file_than_the_published(small: Path) -> None:
    assert refused(small) == (
        "DIR/w.pth is not the published weights: its SHA-256 is\n"
        f"  {digest(small)}, not\n"
        f"  {PUBLISHED}\n"
        "  the weights of 2015 are at https://github.com/toshas/torch-fidelity/releases/download/"
        "v0.2.0/weights-inception-2015-12-05-6726825d.pth\n"
        f'  where this file is meant, say so: sha256 = "{digest(small)}"'
    )


def test_one_flipped_bit_is_noticed(small: Path) -> None:
    meant = digest(small)
    assert "is no file of tensors" in refused(small, meant)
    changed = bytearray(small.read_bytes())
    changed[3] ^= 1
    small.write_bytes(changed)
    assert "is not the weights asked for" in refused(small, meant)


def test_a_file_is_read_once(file: Path, whole: Inception, tmp_path: Path) -> None:
    (tmp_path / "w.pth").hardlink_to(file)
    made = Inception(weights=str(tmp_path / "w.pth"), sha256=whole.sha256)
    state = torch.get_rng_state()
    network = made._network
    assert torch.equal(torch.get_rng_state(), state)
    (tmp_path / "w.pth").unlink()
    assert made._network is network


def as_torch_saves(tensors: dict[str, Tensor], file: Path) -> None:
    torch.save(tensors, file)


def as_torch_saved(tensors: dict[str, Tensor], file: Path) -> None:
    """Before version 1.6."""
    torch.save(tensors, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("save", "suffix"),
    [
        (as_torch_saves, "pth"),
        (as_torch_saved, "pth"),
        (safetensors.torch.save_file, "safetensors"),
    ],
)
def test_every_format_is_read(
    tmp_path: Path, save: Callable[[dict[str, Tensor], Path], None], suffix: str
) -> None:
    held = {"fc.bias": torch.rand(3), "a.bn.num_batches_tracked": torch.tensor(0)}
    file = tmp_path / f"w.{suffix}"
    save(held, file)
    read = inception_weights._tensors(file.read_bytes(), file)
    assert list(read) == ["fc.bias"]
    assert torch.equal(read["fc.bias"], held["fc.bias"])


class Runs:
    """Leaves a file behind where a pickle of it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"fc.bias": Runs(tmp_path / "trace")}, tmp_path / "w.pth")
    words = refused(tmp_path / "w.pth", digest(tmp_path / "w.pth"))
    assert words.startswith("DIR/w.pth is no file of tensors\n")
    assert not (tmp_path / "trace").exists()
    # Twin: it would have been, by a reader that runs what it reads.
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_of_anything_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>Not found</html>")
    words = refused(tmp_path / name, digest(tmp_path / name))
    assert words.startswith(f"DIR/{name} is no file of tensors\n")


@pytest.mark.parametrize("held", [[1, 2], {"fc.weight": 1.0}, torch.zeros(2)])
def test_files_of_something_that_is_no_state(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "w.pth")
    words = refused(tmp_path / "w.pth", digest(tmp_path / "w.pth"))
    assert words.startswith("DIR/w.pth does not hold tensors by name\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fc.bias": None}, "too many are fc.bias\n"),
        ({"fc.weight": torch.zeros(1000, 2048)}, "too many are fc.weight\n"),
        ({"AuxLogits.fc.bias": torch.zeros(1000)}, "too many are AuxLogits.fc.bias\n"),
        (
            {
                f"Mixed_5b.branch1x1.bn.{each}": None
                for each in ("bias", *inception_weights.NORM[2:])
            }
            | {"Conv2d_1a_3x3.bn.weight": torch.zeros(3)},
            "Conv2d_1a_3x3.bn.weight, Mixed_5b.branch1x1.bn.bias, "
            "Mixed_5b.branch1x1.bn.running_mean and 1 more\n",
        ),
    ],
)
def test_weights_of_another_network(
    drawn: dict[str, Tensor], change: dict[str, Tensor | None], words: str
) -> None:
    changed = {name: tensor for name, tensor in (drawn | change).items() if tensor is not None}
    with pytest.raises(SetupError) as caught:
        inception_weights._filled(changed, Path("w.pth"))
    assert words in str(caught.value)
