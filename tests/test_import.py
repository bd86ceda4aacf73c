"""Checkpoints of other libraries: what becomes of them, what is refused, and that nothing is run.

The networks that wrote the files are in `tests/peers.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from gankit.build import build
from gankit.convert import LIBRARIES, LIMIT, convert
from gankit.convert.files import read
from gankit.convert.matching import matched
from gankit.errors import CheckpointError, GankitError, SetupError, UsageError
from gankit.export import of_run
from gankit.ops import settle
from gankit.slots import heads_of
from gankit.spec import Spec, dumps, loads
from gankit.train import checkpoint
from tests import goldens, peers
from tests.test_cli import run

ATTENTION = '{ use = "self_attention", reduction = 8, value_reduction = 2, pool = 2, bias = false }'
TABLE = '{ use = "conditional_batchnorm" }'
LAYERS = '{ use = "conditional_batchnorm", weight_norm = "network", initializer = "orthogonal" }'
HEAD = """
gankit = 1
name = "imported"
[data]
use = "shapes"
size = 32
length = 100
[loss]
use = "hinge"
[train]
steps = 102
batch = 4
ema = 0.9
checkpoint = 1
[generator]
use = "resnet"
latent = 16
widths = [8, 8, 8, 8]
"""
BIG = f"""
last_norm = "batchnorm"
attention = {ATTENTION}
attention_at = [16]
[discriminator]
use = "resnet"
widths = [8, 8, 8, 8]
flat = 2
norm = "spectral"
attention = {ATTENTION}
attention_at = [16]
condition = "label"
head = "projection"
"""
BIGGAN = f"""
norm = ["spectral", {LAYERS}]
condition = ["embedding", "chunk"]
embedding = 6
chunk = 4
{BIG}"""
SAGAN = f"""
norm = ["spectral", {TABLE}]
condition = "label"
{BIG}"""


def stages(*more: str, attends: int = 0, attention: str = ATTENTION, blocks: int = 4) -> str:
    """A discriminator whose blocks rectify what their shortcuts see."""
    listed = ['{ use = "residual_stem", channels = 8 }']
    listed += ['{ use = "residual_down", channels = 8, shortcut = "activated" }']
    listed += ['{ use = "residual", channels = 8, shortcut = "activated" }'] * 2
    if attends:
        listed.insert(attends, f'{{ use = "attend", attention = {attention} }}')
    listed = [*listed[: blocks + bool(attends)], *['"activate"'] * (blocks == 4), *more]
    joined = ",\n  ".join(listed)
    return f'[discriminator]\nuse = "stack"\nstages = [\n  {joined},\n]\n'


DENSE = '{ use = "dense", channels = 1 }'
INFOMAX = '{ use = "infomax", features = 6, shortcut = "activated" }'
MIMICRY = 'norm = "batchnorm"\nupsampling = "bilinear"\n'
SNGAN = MIMICRY + stages('"sum_positions"', DENSE) + 'norm = "spectral"\n'
SSGAN = (
    MIMICRY + stages('"sum_positions"', '{ use = "classify", classes = 4 }') + 'norm = "spectral"\n'
)
MIMIC_SAGAN = (
    f'norm = ["spectral", {TABLE}]\ncondition = "label"\nlast_norm = "batchnorm"\n'
    f'upsampling = "bilinear"\nattention = {ATTENTION}\nattention_at = [16]\n'
    + stages('"sum_positions"', '"project"', attends=2)
    + 'norm = "spectral"\ncondition = "label"\n'
)
EPS = "eps = 1e-4"
LAYERS_EPS = LAYERS.replace(" }", f", {EPS} }}")
STUDIO_G = f"""
use = "stack"
stages = [
  {{ use = "dense", channels = 8, size = [4, 4] }},
  {{ use = "residual_up", channels = 8 }},
  {{ use = "residual_up", channels = 8 }},
  {{ use = "attend", attention = {ATTENTION} }},
  {{ use = "residual_up", channels = 8 }},
  {{ use = "normalise_with", norm = {{ use = "batchnorm", {EPS} }} }},
  {{ use = "conv", channels = 3 }},
  {{ use = "activate", activation = "tanh" }},
]
norm = ["spectral", {LAYERS_EPS}]
"""
STUDIO_D = (
    stages('"sum_positions"', '"project"', attends=1) + 'norm = "spectral"\ncondition = "label"\n'
)
STUDIO_BIG = STUDIO_G + 'condition = ["embedding", "chunk"]\nembedding = 6\nchunk = 4\n' + STUDIO_D


@dataclass(frozen=True)
class Case:
    """A library's networks, and the spec that describes them."""

    library: str
    spec: str
    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module]
    averages: bool = True

    def text(self) -> str:
        """The spec; a table that is written twice is that of the case."""
        head = HEAD
        if 'use = "stack"' in self.spec.partition("[discriminator]")[0]:
            head = head.replace('use = "resnet"\n', "").replace("widths = [8, 8, 8, 8]\n", "")
        return head + self.spec


def plain_d(mean: bool) -> nn.Module:
    return peers.MimicDiscriminator(peers.plain, mean=mean)


CASES = {
    "BigGAN": Case(
        "biggan-pytorch", BIGGAN, lambda: peers.BigGenerator(True), peers.BigDiscriminator
    ),
    "SAGAN of BigGAN-PyTorch": Case(
        "biggan-pytorch", SAGAN, lambda: peers.BigGenerator(False), peers.BigDiscriminator
    ),
    "SNGAN of mimicry": Case(
        "mimicry", SNGAN, peers.MimicGenerator, peers.MimicDiscriminator, averages=False
    ),
    "DCGAN of mimicry": Case(
        "mimicry",
        SNGAN.replace('norm = "spectral"\n', ""),
        peers.MimicGenerator,
        lambda: plain_d(mean=False),
        averages=False,
    ),
    "WGAN-GP of mimicry": Case(
        "mimicry",
        SNGAN.replace('norm = "spectral"\n', "").replace("sum_positions", "mean_positions"),
        peers.MimicGenerator,
        lambda: plain_d(mean=True),
        averages=False,
    ),
    "SSGAN of mimicry": Case(
        "mimicry",
        SSGAN,
        peers.MimicGenerator,
        lambda: peers.MimicDiscriminator(head="rotation"),
        averages=False,
    ),
    "InfoMax-GAN of mimicry": Case(
        "mimicry",
        MIMICRY + stages(INFOMAX, blocks=3) + 'norm = "spectral"\n',
        peers.MimicGenerator,
        peers.MimicInfoMax,
        averages=False,
    ),
    "SAGAN of mimicry": Case(
        "mimicry",
        MIMIC_SAGAN,
        lambda: peers.MimicGenerator(classes=True, attends=True),
        lambda: peers.MimicDiscriminator(head="projection"),
        averages=False,
    ),
    "big_resnet of StudioGAN": Case(
        "studiogan",
        STUDIO_BIG,
        lambda: peers.StudioGenerator("big_resnet"),
        lambda: peers.StudioDiscriminator(True),
    ),
    "resnet of StudioGAN": Case(
        "studiogan",
        STUDIO_G + 'condition = "label"\n' + STUDIO_D,
        lambda: peers.StudioGenerator("resnet"),
        lambda: peers.StudioDiscriminator(True),
    ),
    "resnet of StudioGAN without classes": Case(
        "studiogan",
        STUDIO_G.replace(LAYERS_EPS, f'{{ use = "batchnorm", {EPS} }}')
        + STUDIO_D.replace('"project"', DENSE).replace('condition = "label"\n', ""),
        lambda: peers.StudioGenerator(""),
        lambda: peers.StudioDiscriminator(False),
    ),
}

Networks = dict[str, nn.Module]


def networks(case: Case) -> Networks:
    """Those of a trained checkpoint."""
    torch.manual_seed(0)
    made = {"generator": case.generator(), "discriminator": case.discriminator()}
    if case.averages:
        made["ema"] = case.generator()
    return {
        name: peers.lived_in(network, seed) for seed, (name, network) in enumerate(made.items())
    }


def save(case: Case, made: Networks, folder: Path) -> Path:
    """The files of a checkpoint at step 100, as the library writes them."""
    states = {name: network.state_dict() for name, network in made.items()}
    folder.mkdir(parents=True, exist_ok=True)
    if case.library == "biggan-pytorch":
        for name, word in (("generator", "G"), ("discriminator", "D"), ("ema", "G_ema")):
            torch.save(states[name], folder / f"{word}_best0.pth")
        optimizer = {"state": {0: {"step": 100}, 1: {"step": 100}}, "param_groups": []}
        torch.save(optimizer, folder / "G_optim_best0.pth")
        torch.save(optimizer, folder / "D_optim_best0.pth")
        torch.save({"itr": 100, "config": {"nl": nn.ReLU()}}, folder / "state_dict_best0.pth")
    elif case.library == "mimicry":
        for name, word in (("generator", "netG"), ("discriminator", "netD")):
            (folder / word).mkdir(exist_ok=True)
            held = {"model_state_dict": states[name], "global_step": 100}
            held |= {"optimizer_state_dict": {"state": {}, "param_groups": []}}
            torch.save(held, folder / word / f"{word}_100_steps.pth")
    else:
        more = {"generator": {}, "ema": {}, "discriminator": {"step": 100, "topk": "initialize"}}
        more["discriminator"] |= {"best_fid": np.float64(9.5), "lecam_emas": {"decay": 0.9}}
        for name, word in (("generator", "G"), ("discriminator", "D"), ("ema", "G_ema")):
            held = {"state_dict": states[name], "optimizer": {}, **more[name]}
            torch.save(held, folder / f"model={word}-best-weights-step=100.pth")
    return folder


@dataclass(frozen=True)
class Saved:
    """A case with its networks, its files and its spec's file."""

    case: Case
    made: Networks
    files: Path
    spec: Path

    @property
    def loaded(self) -> Spec:
        return loads(self.spec.read_text())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """The files of each case, written once."""
    folder = tmp_path_factory.mktemp("peers")
    kept: dict[str, Saved] = {}

    def of(name: str) -> Saved:
        if name not in kept:
            case = CASES[name]
            made = networks(case)
            place = folder / str(len(kept))
            files = save(case, made, place / "files")
            (place / "spec.toml").write_text(case.text())
            kept[name] = Saved(case, made, files, place / "spec.toml")
        return kept[name]

    return of


@torch.no_grad()
def difference(
    folder: Path, role: str, peer: nn.Module, alter: Callable[[nn.Module], object]
) -> float:
    """How far a network of a run is from the library's, as a share of the largest output."""
    torch.manual_seed(1)
    network = of_run(folder, role).network
    alter(network)
    labels = torch.tensor([4, 0, 2])
    x = torch.rand(3, 3, 32, 32) * 2 - 1 if role == "discriminator" else torch.randn(3, 16)
    ours: Any = network(x.clone(), labels)
    theirs = peer(x.clone(), labels)
    listed = theirs if isinstance(theirs, tuple) else (theirs,)
    pairs = zip(heads_of(ours).values() if role == "discriminator" else [ours], listed, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


# --- equal to what the library's networks give


@pytest.mark.parametrize("name", CASES)
def test_gives_what_the_librarys_networks_give(
    name: str, saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it, out = saved(name), tmp_path / "run"
    ran = run("import", it.case.library, it.files, "--spec", it.spec, "--out", out)
    assert (ran.code, ran.out) == (0, f"{out}\n"), ran.err
    assert "step 100 of 102, without the optimizers' state" in ran.err
    for role in ("generator", "ema", "discriminator"):
        peer = it.made.get(role, it.made["generator"])
        assert difference(out, role, peer, lambda network: None) < 2e-5


@pytest.mark.parametrize("name", ["BigGAN", "SAGAN of mimicry", "big_resnet of StudioGAN"])
def test_twin_estimates_that_settle_would_be_another_network(
    name: str, saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it = saved(name)
    convert(it.case.library, it.files, it.loaded, tmp_path / "run")
    for role in ("generator", "discriminator"):
        assert difference(tmp_path / "run", role, it.made[role], settle) > 10 * LIMIT


@pytest.mark.parametrize("name", ["BigGAN", "SAGAN of mimicry", "resnet of StudioGAN"])
def test_the_files_are_those_that_belong_to_one(
    name: str, saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it = saved(name)
    role = {"biggan-pytorch": "D", "mimicry": "netD", "studiogan": "model=D"}[it.case.library]
    (file,) = (
        f for f in it.files.rglob("*.pth") if f.name.startswith(role) and "opt" not in f.name
    )
    made = convert(it.case.library, file, it.loaded, tmp_path / "run")
    assert made.step == 100
    assert {"generator", "discriminator"} <= made.differences.keys()
    assert max(made.differences.values()) < 2e-5


# --- what is another network is refused

REFUSED = {
    "other widths": ("BigGAN", {"generator.widths": [8, 8, 8, 16]}),
    "another latent": ("SNGAN of mimicry", {"generator.latent": 20}),
    "chunks": ("BigGAN", {"generator.chunk": 3, "generator.latent": 12}),
    "another embedding": ("BigGAN", {"generator.embedding": 7}),
    "no spectral norm": ("SNGAN of mimicry", {"discriminator.norm": "none"}),
    "attention elsewhere": ("BigGAN", {"generator.attention_at": [8]}),
    "no attention": ("BigGAN", {"discriminator.attention": "none"}),
    "attention with biases": ("BigGAN", {"discriminator.attention": {"use": "self_attention"}}),
    "another norm": ("SNGAN of mimicry", {"generator.norm": "pixelnorm"}),
    "another last norm": ("BigGAN", {"generator.last_norm": "network", "generator.latent": 20}),
    "another head": ("BigGAN", {"discriminator.head": "dense"}),
    "another size": ("SNGAN of mimicry", {"data.size": 64, "generator.widths": [8] * 5}),
    "nearest upsampling": ("SNGAN of mimicry", {"generator.upsampling": "nearest"}),
    "means": ("BigGAN", {"discriminator.pool": "mean"}),
    "another order": ("BigGAN", {"generator.condition": ["chunk", "embedding"]}),
    "another activation": ("BigGAN", {"generator.activation": "leaky_relu"}),
}


def altered(text: str, changes: dict[str, Any]) -> Spec:
    tables = tomllib.loads(text)
    for path, value in changes.items():
        section, _, key = path.partition(".")
        tables[section][key] = value
    return loads(dumps(tables))


def refusal(it: Saved, spec: Spec, out: Path) -> GankitError:
    with pytest.raises(GankitError) as caught:
        convert(it.case.library, it.files, spec, out)
    assert not out.exists()
    return caught.value


def test_another_network_is_refused_with_what_differs(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    texts = []
    for name, (case, changes) in REFUSED.items():
        it = saved(case)
        error = refusal(it, altered(it.case.text(), changes), tmp_path / "run")
        assert isinstance(error, CheckpointError)
        texts.append(f"--- {name}\n{error}\n")
    goldens.compare("import", re.sub(r"are \S+ of", "are N of", "\n".join(texts)))


@pytest.mark.parametrize("name", ["SNGAN of mimicry", "resnet of StudioGAN without classes"])
def test_shortcuts_that_see_what_is_not_rectified_are_refused(
    name: str, saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it = saved(name)
    tables = tomllib.loads(it.case.text())
    for stage in tables["discriminator"]["stages"]:
        if isinstance(stage, dict):
            stage.pop("shortcut", None)
    error = refusal(it, loads(dumps(tables)), tmp_path / "run")
    assert "an in-place one" in str(error)


def test_batch_norms_of_another_eps_are_refused(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it = saved("resnet of StudioGAN")
    spec = loads(it.case.text().replace("1e-4", "1e-5"))
    assert "eps = 1e-4" in str(refusal(it, spec, tmp_path / "run"))


def original(it: Saved, role: str, change: Callable[[dict[str, Tensor]], object]) -> Any:
    tensors = {key: tensor.clone() for key, tensor in it.made[role].state_dict().items()}
    change(tensors)
    return LIBRARIES[it.case.library].original(tensors)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_tensor_has_one_place(saved: Callable[[str], Saved], data: st.DataObject) -> None:
    """Without one, with one more, or with one of another shape, nothing fits; and each counts."""
    it = saved(data.draw(st.sampled_from(sorted(CASES))))
    role = data.draw(st.sampled_from(["generator", "discriminator"]))
    gan, _ = build(it.loaded)
    network = gan.generator if role == "generator" else gan.discriminator
    whole = matched(network, original(it, role, lambda tensors: None), role, "file")
    assert whole.keys() == network.state_dict().keys()
    names = sorted(it.made[role].state_dict())
    name = data.draw(st.sampled_from(names))
    idle = name.endswith(("sv0", "sn_sigma"))
    changes: dict[str, Callable[[dict[str, Tensor]], object]] = {
        "one less": lambda tensors: tensors.pop(name),
        "one more": lambda tensors: tensors.update({f"{name}_more": torch.zeros(3)}),
        "another shape": lambda tensors: tensors.update({name: torch.zeros(3, 7, 2, 2, 2)}),
    }
    for word, change in changes.items():
        if not idle or word == "one more":
            with pytest.raises(CheckpointError, match="does not hold the spec's"):
                matched(network, original(it, role, change), role, "file")
    random = torch.rand_like(it.made[role].state_dict()[name].float())
    other = original(
        it, role, lambda tensors: tensors[name].add_((random * 3 + 1).to(tensors[name]))
    )
    changed = matched(network, other, role, "file")
    apart = [key for key in whole if not torch.equal(whole[key], changed[key])]
    assert bool(apart) != idle


@pytest.mark.parametrize(
    ("name", "role", "tensor", "said"),
    [
        ("BigGAN", "generator", "blocks.0.0.conv3.weight", "BigGAN-deep"),
        ("BigGAN", "discriminator", "blocks.0.2.conv4.weight", "BigGAN-deep"),
        ("big_resnet of StudioGAN", "generator", "blocks.0.0.deconv0.weight_orig", "deep_conv"),
        ("big_resnet of StudioGAN", "generator", "blocks.0.0.conv2d3.weight_orig", "BigGAN-deep"),
        ("big_resnet of StudioGAN", "discriminator", "linear2.weight_orig", "other heads"),
        ("big_resnet of StudioGAN", "generator", "info_mix_linear.weight_orig", "InfoGAN"),
    ],
)
def test_networks_without_a_counterpart_are_called_by_their_name(
    name: str, role: str, tensor: str, said: str, saved: Callable[[str], Saved]
) -> None:
    it = saved(name)
    gan, _ = build(it.loaded)
    network = gan.generator if role == "generator" else gan.discriminator
    more = original(it, role, lambda tensors: tensors.update({tensor: torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=said):
        matched(network, more, role, "file")


# --- files


class Harm:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)

    def __init__(self, place: Path) -> None:
        self.place = str(place)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_named_and_not_run(
    saved: Callable[[str], Saved], tmp_path: Path, zipped: bool
) -> None:
    it = saved("SNGAN of mimicry")
    save(it.case, it.made, tmp_path / "files")
    file = tmp_path / "files" / "netD" / "netD_100_steps.pth"
    held = {
        "model_state_dict": it.made["discriminator"].state_dict(),
        "x": Harm(tmp_path / "trace"),
    }
    torch.save(held, file, _use_new_zipfile_serialization=zipped)
    ran = run("import", "mimicry", tmp_path / "files", "--spec", it.spec, "--out", tmp_path / "run")
    assert ran.code == 5
    assert f"{file} holds pickled posix.mkdir, which only running code could read" in ran.err
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "run").exists()
    torch.load(file, weights_only=False)  # the twin: the file would have done it
    assert (tmp_path / "trace").exists()


@settings(max_examples=40, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), cut=st.booleans())
def test_a_damaged_file_is_no_bug(saved: Callable[[str], Saved], at: float, cut: bool) -> None:
    """Cut short or with a byte exchanged, it is refused, or what is left of it is whole."""
    it = saved("SNGAN of mimicry")
    file = it.files / "netD" / "netD_100_steps.pth"
    content = bytearray(file.read_bytes())
    place = int(at * len(content))
    damaged = content[:place] if cut else content[:place] + b"\xff" + content[place + 1 :]
    own = it.files.parent / "damaged"
    save(it.case, it.made, own)
    (own / "netD" / file.name).write_bytes(bytes(damaged))
    with contextlib.suppress(CheckpointError):
        read(own / "netD" / file.name)


def test_formats_that_hold_the_same_are_read_alike(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    """Old files, safetensors, bare state dicts, halves, and networks saved in their wrapping."""
    it = saved("SNGAN of mimicry")
    states = {name: network.state_dict() for name, network in it.made.items()}
    writes: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
        "old": lambda s, f: torch.save(s, f, _use_new_zipfile_serialization=False),
        "bare": lambda s, f: torch.save(s, f),
        "safetensors": lambda s, f: save_file(s, f.with_suffix(".safetensors")),
        "wrapped": lambda s, f: torch.save({f"module.{k}": t for k, t in s.items()}, f),
        "half": lambda s, f: torch.save(
            {k: t.half() if t.is_floating_point() else t for k, t in s.items()}, f
        ),
    }
    for word, write in writes.items():
        folder = tmp_path / word
        folder.mkdir()
        write(states["generator"], folder / "netG_7_steps.pth")
        write(states["discriminator"], folder / "netD_7_steps.pth")
        made = convert("mimicry", folder, it.loaded, tmp_path / f"{word}_run")
        assert made.step == 7
        apart = difference(tmp_path / f"{word}_run", "ema", it.made["generator"], lambda n: None)
        assert (apart < 2e-5) != (word == "half")


def test_what_is_not_there_is_said(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    it = saved("BigGAN")
    out = tmp_path / "run"
    files = save(it.case, it.made, tmp_path / "files")

    def refused(given: Path, library: str = it.case.library, **more: bool) -> str:
        with pytest.raises(UsageError) as caught:
            convert(library, given, it.loaded, out, **more)
        assert not out.exists()
        return str(caught.value)

    assert "no such file" in refused(files / "gone.pth")
    assert 'did you mean "mimicry"' in refused(files, "mimicri")
    assert "not a name that the library gives" in refused(files / "state_dict_best0.pth")
    assert "has no files of the library" in refused(tmp_path)
    torch.save({}, files / "G.pth")
    assert "several checkpoints" in refused(files)
    (files / "G.pth").unlink()
    (files / "D_best0.pth").unlink()
    assert "--fresh" in refused(files)
    (files / "G_best0.pth").unlink()
    (files / "G_ema_best0.pth").unlink()
    assert "no file of a generator" in refused(files, fresh=True)
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        convert(it.case.library, it.files, it.loaded, out)


def test_a_fresh_discriminator_is_that_of_the_spec(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it = saved("BigGAN")
    files = save(it.case, it.made, tmp_path / "files")
    (files / "D_best0.pth").unlink()
    (files / "G_best0.pth").unlink()
    (files / "G_optim_best0.pth").unlink()
    told: list[str] = []
    made = convert(
        "biggan-pytorch", files, it.loaded, tmp_path / "run", fresh=True, tell=told.append
    )
    assert made.step == 0
    assert told == ["there is no file of the generator itself; its average takes its place"]
    assert difference(tmp_path / "run", "generator", it.made["ema"], lambda n: None) < 2e-5
    gan, _ = build(it.loaded)
    kept = of_run(tmp_path / "run", "discriminator").network.state_dict()
    assert all(torch.equal(kept[key], t) for key, t in gan.discriminator.state_dict().items())


def test_a_disk_that_refuses_leaves_nothing(
    saved: Callable[[str], Saved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    it = saved("SNGAN of mimicry")
    monkeypatch.setattr(checkpoint, "_written", full)
    with pytest.raises(SetupError, match="No space left"):
        convert("mimicry", it.files, it.loaded, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    convert("mimicry", it.files, it.loaded, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# --- a run like any other


@pytest.mark.slow
def test_everything_goes_on_from_it(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    it, out = saved("BigGAN"), tmp_path / "run"
    convert(it.case.library, it.files, it.loaded, out)
    state = json.loads((out / "status.json").read_text())
    assert state == {"state": "stopped", "step": 100, "steps": 102}
    found = checkpoint.load(out / "checkpoints" / "step_100")
    assert found.state["imported"]["library"] == "biggan-pytorch"
    assert run("sample", out, "-n", 2, "--out", tmp_path / "x.png").code == 0
    exported = run("export", out, "--to", "safetensors", "--out", tmp_path / "x.safetensors")
    assert exported.code == 0, exported.err
    assert run("report", out).code == 0
    before = of_run(out, "generator").network.state_dict()
    trained = run("train", it.spec, "--run", out, "--device", "cpu")
    assert trained.code == 0, trained.err
    assert "continues at step 100 of 102" in trained.err
    after = checkpoint.load(out / "checkpoints" / "step_102")
    assert "imported" not in after.state
    weight = "stages.conv_32.layer.parametrizations.weight.original"
    assert 0 < (after.weights["generator"][weight] - before[weight]).abs().max() < 0.01


def test_one_that_was_trained_as_long_as_the_spec_says_is_finished(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    it, out = saved("SNGAN of mimicry"), tmp_path / "run"
    convert("mimicry", it.files, altered(it.case.text(), {"train.steps": 100}), out)
    assert json.loads((out / "status.json").read_text())["state"] == "finished"
    ran = run("train", it.spec, "--run", out, "--set", "train.steps=100", "--device", "cpu")
    assert ran.code == 0
    assert "a larger train.steps would go on" in ran.err
