"""Models that leave: what is folded, written, read again, compared and refused.

The tests of ONNX run where onnx, onnxscript and onnxruntime are installed (the extra `onnx`).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

import gankit
from gankit.build import build
from gankit.errors import (
    CheckpointError,
    GankitError,
    MissingExtra,
    SetupError,
    SpecError,
    UsageError,
)
from gankit.evaluate import Card, Scores, file_of, write
from gankit.export import FORMATS, LIMIT, Exported, export, load, of_file, of_run
from gankit.export import formats as formats_module
from gankit.export.folding import Passed, _absorb, fold_batchnorms, fold_weights
from gankit.export.tracing import Call, traced
from gankit.export.writing import difference, expected
from gankit.registry import registry
from gankit.spec import dumps, loads
from gankit.train import checkpoint
from gankit.train.checkpoint import Checkpoint
from gankit.train.folder import RunFolder
from tests import goldens
from tests.specs import IMAGES, POINTS
from tests.test_cli import run

CONDITIONAL = IMAGES.replace(
    'norm = ["spectral", "batchnorm"]',
    'norm = ["spectral", "conditional_batchnorm"]\ncondition = "label"',
)


def lived_in(network: nn.Module, seed: int = 0) -> None:
    """Numbers as training leaves them, where initial ones would hide mistakes."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.weight is not None:
                    module.weight.add_(1.5)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.3, 2)


def trained(text: str, folder: Path, step: int = 20) -> Path:
    """A run folder with a checkpoint, as if it had been trained."""
    spec = loads(text)
    gan, _ = build(spec)
    folder.mkdir()
    RunFolder(folder).open_for(spec)
    weights = {}
    for seed, name in enumerate(("generator", "ema", "discriminator")):
        network = gan.discriminator if name == "discriminator" else gan.generator
        lived_in(network, seed)
        weights[name] = {key: t.clone() for key, t in network.state_dict().items()}
    saved = Checkpoint(step, weights, {}, dumps(spec.resolved()))
    checkpoint.save(folder / "checkpoints", saved)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator has spectral norm, batch norm and attention."""
    return trained(IMAGES, tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator looks at labels."""
    return trained(CONDITIONAL, tmp_path_factory.mktemp("classes") / "run")


Export = Callable[[str, str], Exported]


@pytest.fixture(scope="module")
def exported(images: Path, classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports of the two, each made once: `exported("images", "pt2")`."""
    folder = tmp_path_factory.mktemp("exported")
    runs = {"images": images, "classes": classes}

    @cache
    def made(source: str, to: str) -> Exported:
        for step, name, value in ((20, "frechet", 12.5), (10, "kid", 1.0)):
            made = Scores({name: value}, {name: name}, {name: "lower"}, Card({"count": "4 of 4"}))
            write(file_of(runs[source], step), made)
        return export(of_run(runs[source]), to, folder / f"{source}.{to}")

    return made


@pytest.fixture
def pt2(exported: Export) -> Path:
    """A program without labels."""
    return exported("images", "pt2").file


def forget_plugins() -> None:
    """Local parts are off the plug board again, and their files would be run anew."""
    kept = {key: e for key, e in registry._entries.items() if e.provider.name == "gankit"}
    registry._entries = kept
    for name in [name for name in sys.modules if name.startswith("gankit_plugin_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget_plugins()


def largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().amax())


# --- folding weights


def test_folded_weights_are_plain_and_the_same(images: Path) -> None:
    live = of_run(images)
    plain, count = fold_weights(live.network)
    assert count == 7
    assert not any(parametrize.is_parametrized(module) for module in plain.modules())
    z = live.gan.latent(5, live.gan.latent_width, torch.Generator().manual_seed(0))
    assert torch.equal(plain(z), live.network(z))


def test_the_live_network_is_left_as_it_was(images: Path) -> None:
    live = of_run(images)
    before = {name: tensor.clone() for name, tensor in live.network.state_dict().items()}
    fold_weights(live.network)
    after = live.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    layer = next(m for m in live.network.modules() if parametrize.is_parametrized(m))
    assert isinstance(layer.weight, Tensor)


def test_twin_torch_takes_the_weights_of_a_copy_from_the_original_too() -> None:
    layer = gankit.norms.spectral(nn.Linear(3, 3))
    parametrize.remove_parametrizations(copy.deepcopy(layer), "weight")
    with pytest.raises(AttributeError):
        layer.weight  # noqa: B018


# --- folding batch norms


@given(
    kind=st.sampled_from(["conv", "transposed", "dense"]),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_layer_absorbs_a_factor_and_an_offset(
    kind: str, groups: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer: nn.Module
    if kind == "dense":
        layer, x = nn.Linear(5, 12, bias=bias), torch.randn(3, 5)
    else:
        make = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
        layer, x = make(4, 6, 3, 2, 1, groups=groups, bias=bias), torch.randn(2, 4, 6, 5)
    factor, offset = torch.randn(6).double(), torch.randn(6).double()
    before = layer(x).unflatten(1, (6, -1))
    shape = (6, *[1] * (before.dim() - 2))
    wanted = (before * factor.view(shape) + offset.view(shape)).float()
    _absorb(layer, factor, offset)
    assert largest(layer(x).unflatten(1, (6, -1)), wanted) < 2e-6


class Between(nn.Module):
    """A batch norm that cannot go into the layer before it, for the reason of the name."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.dense = nn.Linear(12, 12)
        self.bias = nn.Parameter(torch.randn(3))
        self.norm = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        match self.why:
            case "a function stands between":
                return self.norm(h.relu())
            case "the layer is read elsewhere":
                return self.norm(h) + h
            case "the layer is used twice":
                return self.norm(h) + self.conv(2 * x)
            case "the norm is used twice":
                return self.norm(h) + self.norm(self.other(x))
            case "the norm's scale is read elsewhere":
                return self.norm(h) + self.norm.weight.sum()
            case "the bias is another's":
                return self.norm(nn.functional.conv2d(x, self.conv.weight, self.bias, padding=1))
            case "a sum comes before":
                return self.norm(h + x)
            case "the weight is used elsewhere":
                return self.norm(h) + self.conv.weight.sum()
            case "a reshape mixes channels":
                flat = self.dense(x.flatten(1)[:, :12])
                return self.norm(flat.view(-1, 3, 2, 2).transpose(1, 2)[:, [0, 1, 1]])
            case "the norm goes by the batch":
                return nn.functional.batch_norm(h, None, None, training=True)
        return self.norm(h)


STAY = [
    *("a function stands between", "the layer is read elsewhere", "the layer is used twice"),
    *("the norm is used twice", "a sum comes before", "the weight is used elsewhere"),
    *("the norm's scale is read elsewhere", "the bias is another's"),
    *("a reshape mixes channels", "the norm goes by the batch"),
]


def folded(network: nn.Module, x: Tensor) -> tuple[nn.Module, list[str]]:
    lived_in(network)
    plain, _ = fold_weights(network)
    names, _ = fold_batchnorms(plain, traced(plain, Call({"x": x}, ("y",))))
    return plain, names


@pytest.mark.parametrize("why", [*STAY, "nothing stands between"])
def test_only_what_nothing_stands_between_is_folded(why: str) -> None:
    network, x = Between(why).eval(), torch.randn(4, 3, 2, 2)
    plain, names = folded(network, x)
    assert names == ([] if why in STAY else ["norm"])
    assert largest(plain(x), network(x)) < 1e-6


@pytest.mark.parametrize("why", STAY[:6])
def test_twin_folding_regardless_is_another_network(why: str) -> None:
    network, x = Between(why).eval(), torch.randn(4, 3, 2, 2)
    lived_in(network)
    wrong = copy.deepcopy(network)
    norm = network.norm
    factor = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    _absorb(wrong.conv, factor, norm.bias.double() - norm.running_mean.double() * factor)
    wrong.norm = Passed()
    assert largest(wrong(x), network(x)) > LIMIT


@pytest.mark.parametrize(
    ("generator", "counts"),
    [
        ('use = "dcgan"\nwidth = 4\nlatent = 8\nstem = "transposed"\nhead = "transposed"', (2, 2)),
        # What enters a block is a sum, or is read by the shortcut as well.
        ('use = "resnet"\nwidth = 4\nlatent = 8', (2, 5)),
        ('use = "mlp"\nwidth = 6\nlatent = 8', (3, 3)),
    ],
)
def test_what_is_folded_of_each_preset(generator: str, counts: tuple[int, int]) -> None:
    text = re.sub(r"\[generator\].*?\[disc", f"[generator]\n{generator}\n[disc", IMAGES, flags=re.S)
    gan, _ = build(loads(text, ["generator.norm=['weightnorm', 'batchnorm']"]))
    network = gan.generator.eval().double()  # where rounding is no excuse
    lived_in(network)
    plain, count = fold_weights(network)
    z = torch.randn(4, 8, dtype=torch.float64)
    names, norms = fold_batchnorms(plain, traced(plain, Call({"z": z}, ("images",))))
    assert count > 2
    assert (len(names), norms) == counts
    assert largest(plain(z), network(z)) < 1e-12


# --- files


@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_a_file_is_the_live_network(images: Path, exported: Export, to: str) -> None:
    live, made = of_run(images), exported("images", to)
    assert made.difference < 1e-6
    assert (made.weight_norms, len(made.folded), made.batchnorms) == (7, 2, 2)
    assert made.card.name == f"images.{to}.md"
    assert not [file for file in made.file.parent.iterdir() if "unfinished" in file.name]
    assert made.file.stat().st_mode & 0o777 == 0o666 & ~umask()
    back = of_file(made.file)
    assert (back.step, back.weights, back.exported) == (20, "ema", to)
    assert back.spec.hash == live.spec.hash
    z = torch.randn(7, 8)
    with torch.no_grad():
        for count in (1, 2, 7):
            assert largest(back.network(z[:count]), live.network(z[:count])) < 1e-6
            assert torch.equal(load(made.file)(z[:count]), back.network(z[:count]))


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_labels_are_a_second_input_where_they_are_read(
    classes: Path, exported: Export, to: str
) -> None:
    live, made = of_run(classes), exported("classes", to)
    assert made.difference < 1e-6
    assert FORMATS[to].facts(made.file).inputs == ("z", "labels")
    # The plain normalisation within a conditional norm is folded, what the label says stays.
    assert len(made.folded) == made.batchnorms == 2
    network, z, labels = load(made.file), torch.randn(3, 8), torch.tensor([0, 5, 9])
    with torch.no_grad():
        assert largest(network(z, labels), live.network(z, labels)) < 1e-6
        assert largest(network(z, labels), network(z, labels.flip(0))) > 1e-3


def test_labels_that_nobody_reads_are_no_input(pt2: Path) -> None:
    assert FORMATS["pt2"].facts(pt2).inputs == ("z",)


def test_the_weights_are_those_that_were_chosen(images: Path, tmp_path: Path) -> None:
    tensors = {}
    for weights in ("ema", "generator", "discriminator"):
        made = export(of_run(images, weights), "safetensors", tmp_path / f"{weights}.safetensors")
        assert made.difference < 1e-6
        with safe_open(made.file, "pt") as file:
            tensors[weights] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    ours, newest = tensors["ema"], tensors["generator"]
    assert ours.keys() == newest.keys() != tensors["discriminator"].keys()
    assert not any(torch.equal(ours[n], newest[n]) for n in ours if n.endswith("weight"))
    live, back = of_run(images, "discriminator"), load(tmp_path / "discriminator.safetensors")
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    assert largest(back(x), live.network(x)) < 1e-5


def test_a_discriminator_leaves_as_a_program(images: Path, tmp_path: Path) -> None:
    made = export(of_run(images, "discriminator"), "pt2", tmp_path / "d.pt2")
    assert made.difference < 1e-6
    assert FORMATS["pt2"].facts(made.file).inputs == ("images",)
    assert load(made.file)(torch.rand(3, 1, 16, 16)).shape == (3, 1)
    assert run_card(made.card)["logits"].shape == (16, 1)


class Paired(nn.Module):
    """A discriminator with two heads that looks at several images at once."""

    def __init__(self, image: gankit.slots.Image, /, *, pack: int = 2) -> None:
        super().__init__()
        self.pack = pack
        self.dense = nn.Linear(pack * image.channels * 16 * 16, 3)

    adversarial = {"real": 1.0}  # noqa: RUF012

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        made = self.dense(images.flatten(1).unflatten(0, (-1, self.pack)).flatten(1))
        return {"real": made[:, :1], "other": made[:, 1:]}


@pytest.mark.parametrize("pack", [1, 2])
def test_a_discriminator_of_several_heads_or_images(tmp_path: Path, pack: int) -> None:
    gankit.discriminator("paired")(Paired)
    text = re.sub(
        r"\[discriminator\].*?\[loss",
        f'[discriminator]\nuse = "paired"\npack = {pack}\n[loss',
        IMAGES,
        flags=re.S,
    )
    live = of_run(trained(text, tmp_path / "run"), "discriminator")
    made = export(live, "safetensors", tmp_path / "x.safetensors")
    assert made.difference == 0
    assert FORMATS["safetensors"].facts(made.file).outputs == ("real", "other")
    if pack == 2:  # not for any number of rows
        with pytest.raises(SpecError, match="cannot trace"):
            export(live, "pt2", tmp_path / "x.pt2")
        return
    program, x = load(export(live, "pt2", tmp_path / "x.pt2").file), torch.rand(3, 1, 16, 16)
    heads = live.network(x)
    assert {name: largest(program(x)[name], heads[name]) < 1e-6 for name in heads} == {
        "real": True,
        "other": True,
    }


def test_points_leave_too(tmp_path: Path) -> None:
    made = export(of_run(trained(POINTS, tmp_path / "run")), "pt2")
    assert made.file == tmp_path / "run/exports/points-ema-20.pt2"
    assert made.difference < 1e-6
    assert run_card(made.card)["images"].shape == (16, 2)


def test_a_checkpoint_alone_is_enough(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = images / "checkpoints" / "step_20"
    made = export(of_run(folder), "safetensors")
    assert made.file.parent == images.resolve() / "exports"
    alone = images.parent / "alone"
    alone.mkdir()
    copied = folder.rename(alone / "step_20")
    try:
        monkeypatch.chdir(alone)
        assert export(of_run(copied), "safetensors").file == Path("images-ema-20.safetensors")
    finally:
        copied.rename(folder)


def test_no_file_names_this_machine(pt2: Path) -> None:
    """Traces of torch's graphs quote the source files that they were made of."""
    ours = str(Path(gankit.__file__).parent).encode()
    with zipfile.ZipFile(pt2) as archive:
        assert not any(ours in archive.read(name) for name in archive.namelist())
    assert ours not in pt2.with_name("images.pt2.md").read_bytes()


def test_twin_a_trace_left_alone_names_it(images: Path) -> None:
    plain, _ = fold_weights(of_run(images).network)
    out = io.BytesIO()
    torch.export.save(torch.export.export(plain, (torch.randn(2, 8),)), out)
    with zipfile.ZipFile(out) as archive:
        found = [name for name in archive.namelist() if b"gankit/networks" in archive.read(name)]
    assert found


# --- what differs is not let go


def spoiled(network: nn.Module, by: float) -> nn.Module:
    other, _ = fold_weights(network)
    with torch.no_grad():
        next(p for p in reversed(list(other.parameters())) if p.dim() == 1).add_(by)
    return other


@pytest.mark.parametrize(
    ("by", "goes"), [(0.0, True), (1e-6, True), (3e-3, False), (float("nan"), False)]
)
def test_a_file_that_differs_is_refused_and_nothing_is_left(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: float, goes: bool
) -> None:
    kind = type(FORMATS["safetensors"])
    whole = kind.write

    def write(self: Any, path: Path, network: nn.Module, call: Call, facts: Any) -> None:
        whole(self, path, spoiled(network, by), call, facts)

    monkeypatch.setattr(kind, "write", write)
    out = tmp_path / "x.safetensors"
    out.write_text("what was there before")
    if goes:
        assert export(of_run(images), "safetensors", out).difference <= LIMIT
        return
    with pytest.raises(SpecError, match=r"would differ from the live generator .*\n  nothing is"):
        export(of_run(images), "safetensors", out)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert out.read_text() == "what was there before"


def test_batch_norms_that_rounding_makes_another_network_of_stay(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chaotic network: folding is exact, and the last bits are enough."""

    def chaotic(network: nn.Module, program: Any) -> tuple[list[str], int]:
        names, count = fold_batchnorms(network, program)
        with torch.no_grad():
            next(p for p in reversed(list(network.parameters())) if p.dim() == 1).add_(0.02)
        return names, count

    monkeypatch.setattr("gankit.export.writing.fold_batchnorms", chaotic)
    said: list[str] = []
    made = export(of_run(images), "safetensors", tmp_path / "x.safetensors", tell=said.append)
    assert (made.folded, made.batchnorms, made.difference) == ((), 2, 0.0)
    assert re.fullmatch(r"batch norms stay: folded, they would change values by .*", said[0])
    assert load(made.file)(torch.randn(2, 8)).shape == (2, 1, 16, 16)


def test_the_difference_is_a_share_of_the_range(images: Path) -> None:
    live = of_run(images)
    z = torch.randn(16, 8)
    call = Call({"z": z}, ("images",))
    wanted = expected(live, call)
    assert list(wanted) == [1, 3, 16]

    class Off(nn.Module):
        def __init__(self, by: float, rows: int) -> None:
            super().__init__()
            self.inner, self.by, self.rows = live.network, by, rows

        def forward(self, z: Tensor) -> Tensor:
            made = self.inner(z).clone()
            if len(z) >= self.rows:
                made[-1, 0, 3, 3] += self.by
            return made

    for rows in (1, 2, 16):  # one wrong pixel in one row of any batch is seen
        assert difference(live, Off(0.5, rows), call, wanted) == pytest.approx(0.25, rel=1e-5)
    assert difference(live, Off(0.0, 1), call, wanted) == 0
    assert difference(live, Off(float("inf"), 1), call, wanted) == float("inf")


class Branching(nn.Module):
    """A generator that looks at values, which no graph of tensors can say."""

    def __init__(self, image: gankit.slots.Image, /) -> None:
        super().__init__()
        self.latent = 4
        self.dense = nn.Linear(4, image.channels * 16 * 16)
        self.norm = nn.BatchNorm1d(image.channels * 16 * 16)
        self.image = image

    def forward(self, z: Tensor) -> Tensor:
        made = self.norm(self.dense(z))
        if float(made.detach().mean()) > 1e9:
            made = made * 2
        return made.tanh().view(-1, *self.image.shape)


def test_what_cannot_be_traced_leaves_as_tensors_alone(tmp_path: Path) -> None:
    gankit.generator("branching")(Branching)
    text = re.sub(
        r"\[generator\].*?\[disc", '[generator]\nuse = "branching"\n[disc', IMAGES, flags=re.S
    )
    live = of_run(trained(text, tmp_path / "run"))
    with pytest.raises(SpecError, match=r"torch.export cannot trace this network: .+\n.*--to s"):
        export(live, "pt2", tmp_path / "x.pt2")
    said: list[str] = []
    made = export(live, "safetensors", tmp_path / "x.safetensors", tell=said.append)
    assert (made.folded, made.batchnorms, made.difference) == ((), 1, 0.0)
    assert [line.partition(":")[0] for line in said] == ["batch norms stay"]
    z = torch.randn(3, 4)
    assert torch.equal(load(made.file)(z), live.network(z))


# --- the card


def code_of(card: Path) -> str:
    """The first of its blocks, which makes the network."""
    return codes_of(card)[0]


def codes_of(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)


def run_card(card: Path) -> dict[str, Any]:
    """What the card's code leaves behind, run beside the file."""
    here = Path.cwd()
    names: dict[str, Any] = {}
    os.chdir(card.parent)
    try:
        exec(compile(code_of(card), str(card), "exec"), names)
    finally:
        os.chdir(here)
    return names


@pytest.mark.parametrize("to", ["safetensors", "pt2"])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_card_is_true_and_its_code_runs(
    images: Path, classes: Path, exported: Export, to: str, labelled: bool
) -> None:
    live = of_run(classes if labelled else images)
    made = exported("classes" if labelled else "images", to)
    text = made.card.read_text(encoding="utf-8")
    assert hashlib.sha256(made.file.read_bytes()).hexdigest() in text
    assert f"{made.file.stat().st_size:,} bytes" in text
    assert dumps(live.spec.resolved()) in text
    assert "| `frechet` | 12.5 |" in text
    assert "| count | `4 of 4` |" in text, "the card of how they were made"
    assert "kid" not in text
    assert "`digits`: 1797 handwritten digits" in text
    assert f"differs by at most {made.difference:.1e}" in text
    assert "| in: `labels` | int64 (batch), from 0 to 9 |" in text or not labelled
    code = code_of(made.card)
    assert len([line for line in code.splitlines() if line]) <= 5
    assert ("gankit" in code) == (to == "safetensors")
    assert run_card(made.card)["images"].shape == (16, 1, 16, 16)


ELSEWHERE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
{code}
assert not {missing} & set(sys.modules)
print({shown})
"""


def elsewhere(card: Path, folder: Path, shown: str, *missing: str, block: int = 0) -> str:
    """What code of a card prints in an interpreter of its own, in a folder with the file alone."""
    folder.mkdir()
    shutil.copy(card.with_suffix(""), folder)
    script = ELSEWHERE.format(missing=set(missing), code=codes_of(card)[block], shown=shown)
    ran = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("source", ["images", "classes"])
def test_a_card_is_true_where_there_is_no_gankit(
    exported: Export, tmp_path: Path, source: str
) -> None:
    """In plain PyTorch: a program as it is, and tensors for whoever has a network for them."""
    program, tensors = (exported(source, to).card for to in ("pt2", "safetensors"))
    assert len([line for line in code_of(program).splitlines() if line]) <= 5
    shape = elsewhere(program, tmp_path / "pt2", "tuple(images.shape)", "gankit")
    assert shape == "(16, 1, 16, 16)"
    names = elsewhere(tensors, tmp_path / "tensors", "sorted(tensors)", "gankit", block=1)
    with safe_open(tensors.with_suffix(""), "pt") as file:
        assert names == str(sorted(file.keys()))


def test_twin_code_that_needs_gankit_fails_there(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError: gankit"):
        elsewhere(exported("images", "safetensors").card, tmp_path / "x", "1", "gankit")


def test_the_card_draws_as_training_drew(tmp_path: Path) -> None:
    latents = {
        '"uniform"': "torch.empty(16, 2).uniform_(-1.0, 1.0)",
        '{ use = "normal", std = 0.5 }': "0.5 * torch.randn(16, 2)",
        '{ use = "truncated", threshold = 1.0 }': "torch.randn(16, 2)",
    }
    for number, (latent, drawn) in enumerate(latents.items()):
        live = of_run(trained(f"latent = {latent}\n{POINTS}", tmp_path / str(number)))
        made = export(live, "safetensors", tmp_path / f"{number}.safetensors")
        assert f"z = {drawn}\n" in code_of(made.card)


# --- reading


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def tampered(
    pt2: Path, out: Path, change: Callable[[dict[str, bytes]], object], packed: bool = False
) -> Path:
    """A copy of a pt2 file with other contents."""
    with zipfile.ZipFile(pt2) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{out.stem}/{name}", content)
    return out


def in_program(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, bytes]], object]:
    def changed(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return changed


def first_call(program: dict[str, Any]) -> dict[str, Any]:
    return program["graph_module"]["graph"]["nodes"][0]


def expression(program: dict[str, Any], text: str) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    for value in values.values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = text


def pickled_weight(members: dict[str, bytes]) -> None:
    config = json.loads(members["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def attacks(marker: Path) -> dict[str, Callable[[dict[str, bytes]], object]]:
    """Ways to have code run by whoever loads a pt2 file."""
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    sample = pickle.dumps(Touch(marker), protocol=2)
    return {
        "inputs": lambda members: members.update({"data/sample_inputs/model.pt": sample}),
        "expression": in_program(lambda program: expression(program, code)),
        "call": in_program(lambda p: first_call(p).update(target="torch.hub.load")),
        "method": in_program(lambda p: first_call(p).update(target="_operator.methodcaller")),
        "file": in_program(
            lambda p: first_call(p).update(target="torch.ops.aten.from_file.default")
        ),
        "name": in_program(lambda p: first_call(p).update(name=f"x\n{code}")),
        "argument": in_program(
            lambda p: first_call(p)["inputs"][0].update(arg={"as_operator": "torch.hub.load"})
        ),
        "weight": pickled_weight,
        "legacy": lambda members: members.update({"data/weights/model.pt": sample}),
        "object": lambda members: members.update({"data/constants/custom_obj_0": sample}),
    }


@pytest.mark.parametrize("attack", attacks(Path("x")))
def test_a_program_that_could_run_code_is_not_read(pt2: Path, tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "ran"
    file = tampered(pt2, tmp_path / "bad.pt2", attacks(marker)[attack])
    with pytest.raises(CheckpointError, match="is not read: "):
        of_file(file)
    assert not marker.exists()


@pytest.mark.parametrize("attack", ["inputs", "expression"])
def test_twin_torch_alone_would_have_run_it(pt2: Path, tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "ran"
    file = tampered(pt2, tmp_path / "bad.pt2", attacks(marker)[attack])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logging.Logger.warning", lambda *args, **how: None)
        with contextlib.suppress(Exception):
            torch.export.load(file)
    assert marker.exists()


def test_guards_are_left_out_and_all_else_is_read(pt2: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    guard = f"not __import__('pathlib').Path({str(marker)!r}).touch()"
    change = in_program(lambda program: program.update(guards_code=[guard]))
    network = load(tampered(pt2, tmp_path / "x.pt2", change))
    z = torch.randn(3, 8)
    assert torch.equal(network(z), load(pt2)(z))
    assert not marker.exists()


def test_a_program_is_not_asked_to_run_elsewhere(pt2: Path) -> None:
    with pytest.raises(UsageError, match="was exported for the CPU: use --device cpu"):
        of_file(pt2, device="cuda")


@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_files_that_are_none_of_ours_are_told_so(images: Path, tmp_path: Path, to: str) -> None:
    file = tmp_path / f"x.{to}"
    with pytest.raises(SetupError, match=r"cannot read .*No such file"):
        of_file(file)
    for content in (b"", b"PK\x03\x04", os.urandom(200), b"{}"):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.(safetensors|pt2)"):
            of_file(file)
    if to == "safetensors":
        save_file({"a": torch.zeros(3)}, file)
    else:
        torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
    with pytest.raises(CheckpointError, match="no export of gankit"):
        of_file(file)


def test_damage_is_told_as_damage(exported: Export, pt2: Path, tmp_path: Path) -> None:
    whole, cut = exported("images", "safetensors").file, tmp_path / "x.safetensors"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(CheckpointError):
        of_file(cut)
    with safe_open(whole, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = file.metadata()
    for spoil in (
        lambda facts: facts.update(folded=["stages"]),
        lambda facts: facts.update(folded=["nowhere.at.all"]),
        lambda facts: facts.update(weights="everything"),
        lambda facts: facts.update(version=2),
        lambda facts: facts.pop("spec"),
    ):
        facts = json.loads(told["gankit"])
        spoil(facts)
        save_file(tensors, cut, metadata={"gankit": json.dumps(facts)})
        with pytest.raises(CheckpointError):
            of_file(cut)
    part = tampered(pt2, tmp_path / "x.pt2", lambda members: members.pop("data/weights/weight_0"))
    with pytest.raises(CheckpointError):
        of_file(part)


PLUGIN = """\
from pathlib import Path

import gankit
from gankit.latents import normal

Path(__file__).with_name("ran").touch()


@gankit.latent("exported_plugin")
def drawn(count: int, width: int, random: object, /) -> object:
    return normal(count, width, random)
"""


@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_an_export_runs_local_plugins_only_where_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.py").write_text(PLUGIN)
    source = trained(f'plugins = ["part.py"]\nlatent = "exported_plugin"\n{POINTS}', Path("run"))
    made = export(of_run(source, plugins=[Path("part.py")]), to, tmp_path / f"x.{to}")
    forget_plugins()
    Path("ran").unlink()
    with pytest.raises(SetupError, match=r"part\.py, which is code\n.*--plugin FILE"):
        of_file(made.file)
    assert not Path("ran").exists()
    assert of_file(made.file, plugins=[Path("part.py")]).step == 20
    assert Path("ran").exists()
    run_card(made.card)


# --- the command


def test_the_command_prints_the_file_and_tells_the_rest(
    images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("export", images, "--to", "safetensors", "--out", "out/x.safetensors")
    assert (ran.code, ran.out) == (0, "out/x.safetensors\n")
    assert re.fullmatch(
        r"weights: ema, step 20\nweight norms computed into the weights: 7\n"
        r"batch norms folded: 2 of 2\n"
        r"largest difference from the live generator: \d\.\de-0[78] of the range of its values;"
        r" at most 1e-04 is let go\ncard: out/x\.safetensors\.md\n",
        ran.err,
    )


def test_what_is_said_of_mistakes(
    images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(formats_module.importlib.util, "find_spec", lambda name: None)
    Path("folder.pt2").mkdir()
    Path("taken").touch()
    Path("x.onnx").touch()
    Path("run").symlink_to(images)
    commands = [
        *("export nope --to pt2", "export run --to pt3", "export run --to pt2 --weights em"),
        *(
            "export run --to pt2 --out x.onnx",
            "export run --to safetensors --out taken/x.safetensors",
        ),
        *("export run --to onnx", "sample x.onnx --out x.png", "export x.onnx --to pt2"),
    ]
    texts = []
    for command in commands:
        ran = run(*command.split())
        assert (ran.out, "Traceback" in ran.err) == ("", False)
        texts.append(f"$ gankit {command}\n{ran.err}(exit {ran.code})\n")
    goldens.compare("export", "\n".join(texts))


def test_an_extra_that_is_missing_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'gankit\[onnx\]'"):
        export(of_run(images), "onnx", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


# --- ONNX, where its packages are


@pytest.mark.parametrize("labelled", [False, True])
def test_onnx_is_the_live_network(
    images: Path, classes: Path, tmp_path: Path, labelled: bool
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    live = of_run(classes if labelled else images)
    made = export(live, "onnx", tmp_path / "x.onnx")
    assert made.difference < 1e-6
    facts = FORMATS["onnx"].facts(made.file)
    assert facts.inputs == (("z", "labels") if labelled else ("z",))
    back, z, labels = load(made.file), torch.randn(5, 8), torch.arange(5)
    with torch.no_grad():
        for count in (1, 5):
            given = z[:count], labels[:count]
            assert largest(back(*given), live.network(*given)) < 1e-6
    assert str(Path(gankit.__file__).parent).encode() not in made.file.read_bytes()
    assert len([line for line in code_of(made.card).splitlines() if line]) <= 5
    shape = elsewhere(made.card, tmp_path / "else", "images.shape", "gankit", "torch")
    assert shape == "(16, 1, 16, 16)"
    ran = run("sample", made.file, "-n", "3", "--out", tmp_path / "x.npz")
    assert (ran.code, ran.err) == (0, f"wrote 3 samples of step 20 to {tmp_path / 'x.npz'}\n")


def test_onnx_says_what_a_discriminator_gives_by_name(images: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    made = export(of_run(images, "discriminator"), "onnx", tmp_path / "d.onnx")
    assert made.difference < 1e-6
    assert load(made.file)(torch.rand(2, 1, 16, 16))["logits"].shape == (2, 1)
    assert run_card(made.card)["logits"].shape == (16, 1)
    made.file.write_bytes(b"nothing")
    with pytest.raises(GankitError):
        of_file(made.file)
