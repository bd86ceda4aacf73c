"""Compiled passes: what plain ones give, compiled four times in a run and never again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gankit.build import build
from gankit.ops import unparametrized
from gankit.paths import paths
from gankit.spec import loads
from gankit.train import compiled as module
from gankit.train import run
from gankit.train.compiled import Compiled, has_compiler
from gankit.train.engine import Engine
from tests.engines import SMALL, assert_close, engine_of, take, weights, wide_engine_of

CPU = torch.device("cpu")
SLOW = pytest.mark.slow

RESNET = """
gankit = 1
name = "compiled"
data = { use = "digits", size = 16 }
loss = "hinge"
optimizer = { use = "sgd", lr = 0.05 }
train = { steps = 20, batch = 4 }

[generator]
use = "resnet"
latent = 4
width = 8
norm = ["spectral", "batchnorm"]
attention = { use = "self_attention", reduction = 4 }
attention_at = [8]

[discriminator]
use = "resnet"
width = 8
norm = "spectral"
"""
NORMED = ("generator.norm=spectral", "discriminator.norm=weightnorm")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling stops short of machine code: what is traced runs by torch's own kernels."""
    torch._dynamo.reset()
    monkeypatch.setattr(module, "BACKEND", "aot_eager")


def stepped(
    *overrides: str, text: str = RESNET, steps: int = 3
) -> tuple[Engine, list[dict[str, Tensor]]]:
    engine = wide_engine_of(text, *overrides)
    return engine, [engine.step(step) for step in range(steps)]


def check_steps(*overrides: str, text: str = RESNET) -> Engine:
    """Losses and weights are those of the passes as they are, after several steps."""
    plain, told = stepped(*overrides, text=text)
    engine, others = stepped("train.compile=true", *overrides, text=text)
    for mine, theirs in zip(others, told, strict=True):
        assert_close(mine, theirs, 1e-9)
    assert_close(weights(engine), weights(plain), 1e-9)
    return engine


@SLOW
@pytest.mark.usefixtures("traced")
def test_compiled_steps_are_the_plain_ones_and_compiled_four_times() -> None:
    engine = check_steps()
    assert engine.objective.compilations == 4
    # Neither pictures, nor evaluation, nor more steps have anything compiled anew.
    engine.ema.network()
    with torch.no_grad():
        engine.gan.generator.eval()(torch.zeros(2, engine.gan.latent_width).double())
    engine.gan.generator.train()
    for step in range(3, 6):
        engine.step(step)
    assert engine.objective.compilations == 4


@SLOW
@pytest.mark.usefixtures("traced")
def test_twin_a_compiled_network_that_reads_other_weights_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = Compiled.__init__

    def stale(self: Compiled, network: nn.Module) -> None:
        """The generator as it was at the start, in whose place the real one stands still."""
        right(self, copy.deepcopy(network) if hasattr(network, "latent") else network)

    monkeypatch.setattr(Compiled, "__init__", stale)
    with pytest.raises((AssertionError, RuntimeError)):
        check_steps()


@SLOW
@pytest.mark.usefixtures("traced")
def test_twin_compiled_modules_are_compiled_more_than_four_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the functions are for: a module is compiled anew when its parametrizations change."""

    def forward(self: Compiled, x: Tensor, labels: Tensor | None = None) -> Any:
        return self._forward_of_module(x)

    def compiled(self: Compiled, network: nn.Module) -> None:
        nn.Module.__init__(self)
        called = torch.compile(network, backend=self._backend, dynamic=False)
        object.__setattr__(self, "_forward_of_module", called)

    monkeypatch.setattr(Compiled, "__init__", compiled)
    monkeypatch.setattr(Compiled, "forward", forward)
    engine, _ = stepped("train.compile=true")
    assert engine.objective.compilations > 4


@SLOW
@pytest.mark.usefixtures("traced")
def test_several_gans_in_a_process_are_all_compiled() -> None:
    """Beyond the few versions of a function that torch remembers."""
    for width in range(4, 10):
        engine = engine_of(SMALL, "train.compile=true", f"generator.width={width}")
        for index, player in enumerate("DG"):
            take(engine, player, index=index)
        assert engine.objective.compilations == 4


@SLOW
@pytest.mark.usefixtures("traced")
def test_where_second_derivatives_are_taken_of_d_only_g_is_compiled() -> None:
    engine = engine_of(SMALL, "train.compile=true", "penalty.r1.weight=1.0")
    assert isinstance(engine.objective.generate, Compiled)
    assert not isinstance(engine.objective.discriminate, Compiled)
    for index, player in enumerate("DG"):
        take(engine, player, index=index)
    assert engine.objective.compilations == 2


@SLOW
@pytest.mark.skipif(not has_compiler(CPU), reason="there is no C++ compiler")
def test_machine_code_gives_the_plain_steps() -> None:
    torch._dynamo.reset()
    engine = check_steps("discriminator.norm=spectral", text=SMALL)
    assert engine.objective.compilations == 4


@SLOW
@pytest.mark.usefixtures("traced")
def test_a_fault_is_still_found_layer_by_layer() -> None:
    engine = engine_of(SMALL, "train.compile=true")
    engine.step(0)
    with torch.no_grad():
        next(iter(engine.gan.discriminator.parameters())).fill_(float("nan"))
    engine.step(1)
    fault = engine.fault()
    assert fault is not None
    assert fault.layer.startswith("discriminator.")


@SLOW
@pytest.mark.usefixtures("traced")
def test_a_run_tells_of_its_first_step(tmp_path: Path) -> None:
    said: list[str] = []
    overrides = ["train.compile=true", "train.steps=2"]
    run(loads(SMALL, overrides), tmp_path / "run", tell=said.append)
    (line,) = [line for line in said if line.startswith("first step after")]
    assert line.endswith(" s, in which 4 passes were compiled")


def test_a_run_without_a_compiler_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not has_compiler(CPU)
    said: list[str] = []
    overrides = ["train.compile=true", "train.steps=2"]
    run(loads(SMALL, overrides), tmp_path / "run", tell=said.append)
    assert "train.compile: there is no compiler here; goes on without" in said
    assert "compiled" not in (tmp_path / "run" / "env.json").read_text()
    (line,) = [line for line in said if line.startswith("first step after")]
    assert line.endswith(" s")


@pytest.mark.parametrize(
    ("overrides", "networks", "why"),
    [
        ((), set(), "train.compile is off: it costs minutes at the start"),
        (
            ("train.compile=true",),
            {"generator", "discriminator"},
            "the networks' passes are compiled at the start",
        ),
        (
            ("train.compile=true", "penalty.r1.weight=1.0"),
            {"generator"},
            "the networks' passes are compiled at the start; not the discriminator's, of which r1 "
            "takes second derivatives",
        ),
    ],
)
def test_the_build_decides_what_is_compiled(
    overrides: tuple[str, ...], networks: set[str], why: str
) -> None:
    spec = loads(SMALL, list(overrides))
    (path,) = [path for path in paths(spec) if path.name == "compiled"]
    assert (path.taken, path.why) == (bool(networks), why)
    assert build(spec, "meta")[0].compiled == networks


def test_a_network_without_parametrizations_leaves_the_first_alone() -> None:
    gan, _ = build(loads(SMALL, NORMED))
    for network in (gan.generator, gan.discriminator):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        plain = unparametrized(network)
        assert not [name for name in plain.state_dict() if "parametrizations" in name]
        assert plain.training == network.training
        assert_close(dict(network.state_dict()), before, 0.0)
        x = (
            torch.randn(2, gan.latent_width)
            if network is gan.generator
            else torch.randn(2, *gan.image.shape)
        )
        with torch.no_grad():
            torch.testing.assert_close(plain.eval()(x), network.eval()(x))
