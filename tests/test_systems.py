"""Class-conditional systems, and R3GAN, in small: they train, continue exactly, and see labels."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from gankit.build import build
from gankit.slots import conditional
from gankit.spec import Spec, loads
from gankit.train.engine import Engine

STEPS = 6
HEAD = """
gankit = 1
seed = 3
data = { use = "digits", size = 16 }
optimizer = { use = "adam", lr = 1e-3 }
train = { steps = 6, batch = 8 }
"""
SPECS = {
    "tables and a projection": """
loss = "hinge"
[generator]
use = "resnet"
latent = 8
width = 4
norm = ["spectral", "conditional_batchnorm"]
last_norm = "batchnorm"
condition = "label"
attention = { use = "self_attention", reduction = 4, value_reduction = 2, pool = 2, bias = false }
attention_at = [8]
[discriminator]
use = "resnet"
width = 4
norm = "spectral"
head = "projection"
condition = "label"
""",
    "a shared embedding and chunks": """
loss = "hinge"
penalty = ["orthogonal"]
[generator]
use = "resnet"
latent = 12
chunk = 4
width = 4
last_norm = "batchnorm"
condition = ["embedding", "chunk"]
embedding = 6
initializer = "orthogonal"
norm = [
  "spectral",
  { use = "conditional_batchnorm", weight_norm = "network", initializer = "orthogonal" },
]
[discriminator]
use = "resnet"
width = 4
norm = "spectral"
head = "projection"
condition = "label"
initializer = "orthogonal"
""",
    "self-modulation": """
loss = "nonsaturating"
penalty = ["r1"]
[generator]
use = "dcgan"
latent = 8
width = 4
norm = { use = "self_modulated_batchnorm", hidden = 8 }
condition = ["latent", "embedding"]
[discriminator]
use = "dcgan"
width = 4
head = "projection"
condition = "embedding"
embedding = 5
""",
    "an auxiliary classifier": """
loss = "nonsaturating"
penalty = ["auxiliary_classifier"]
[generator]
use = "dcgan"
latent = 8
width = 4
input = ["latent", "label"]
norm = "batchnorm"
[discriminator]
use = "dcgan"
width = 4
head = "auxiliary"
""",
    "packs and the minibatch's spread": """
loss = "nonsaturating"
[generator]
use = "dcgan"
latent = 8
width = 4
[discriminator]
use = "pacgan"
pack = 2
[discriminator.network]
use = "dcgan"
width = 4
before_head = [{ use = "minibatch_std", group = 2 }]
""",
    "R3GAN": """
loss = "relativistic"
penalty = ["r1", "r2"]
[generator]
use = "stack"
latent = 8
input = ["latent", "embedding"]
embedding = 4
initializer = { use = "kaiming", slope = 1.0 }
stages = [
  { use = "basis", channels = 8 },
  { use = "inverted_bottleneck", groups = 4, depth = 3 },
  { use = "interpolate_up", channels = 8 },
  { use = "inverted_bottleneck", groups = 4, depth = 3 },
  { use = "interpolate_up", channels = 4 },
  { use = "inverted_bottleneck", groups = 2, depth = 3 },
  { use = "conv", channels = 1, kernel = 1, bias = false },
]
[discriminator]
use = "stack"
condition = "label"
initializer = { use = "kaiming", slope = 1.0 }
stages = [
  { use = "conv", channels = 4, kernel = 1, bias = false },
  { use = "inverted_bottleneck", groups = 2, depth = 3 },
  { use = "interpolate_down", channels = 8 },
  { use = "inverted_bottleneck", groups = 4, depth = 3 },
  { use = "interpolate_down", channels = 8 },
  { use = "inverted_bottleneck", groups = 4, depth = 3 },
  { use = "conv", channels = 8, kernel = 4, padding = "none", groups = 8, bias = false },
  { use = "dense", channels = 8, bias = false },
  { use = "project", unconditional = "none" },
]
""",
}
BLIND = {"packs and the minibatch's spread"}
"""Whose generator is given no labels."""


class Run:
    """A spec's networks under the engine, and what its steps measured."""

    def __init__(self, spec: Spec) -> None:
        self.gan, self.data = build(spec)
        self.engine = Engine(self.gan, self.data, spec.train, torch.device("cpu"))
        self.before = self.tensors()
        self.metrics: list[dict[str, float]] = []

    def step(self, count: int) -> Run:
        for step in range(len(self.metrics), len(self.metrics) + count):
            self.metrics.append({k: v.item() for k, v in self.engine.step(step).items()})
        return self

    def tensors(self) -> dict[str, Tensor]:
        networks = {"G": self.gan.generator, "D": self.gan.discriminator}
        return {
            f"{player} {key}": value.detach().clone()
            for player, network in networks.items()
            for key, value in network.state_dict().items()
        }


def spec_of(name: str, *overrides: str) -> Spec:
    return loads(HEAD + SPECS[name], overrides)


@cache
def trained(name: str) -> Run:
    return Run(spec_of(name)).step(STEPS)


def check_moved(run: Run) -> None:
    """Every weight has learned something; of a table the rows whose class was there."""
    after = run.tensors()
    for player, network in (("G", run.gan.generator), ("D", run.gan.discriminator)):
        for key, _ in network.named_parameters():
            if not key.endswith("bias"):
                name = f"{player} {key}"
                assert not torch.equal(after[name], run.before[name]), name


@pytest.mark.parametrize("name", SPECS)
def test_trains_all_it_has(name: str) -> None:
    run = trained(name)
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in run.metrics)
    check_moved(run)


def test_twin_a_head_that_nothing_teaches_is_found() -> None:
    run = Run(spec_of("an auxiliary classifier", "penalty.auxiliary_classifier=none")).step(2)
    with pytest.raises(AssertionError, match="classes"):
        check_moved(run)


@pytest.mark.parametrize("name", SPECS)
def test_continued_is_as_if_never_stopped(name: str) -> None:
    first, second = Run(spec_of(name)).step(STEPS // 2), Run(spec_of(name))
    for player, network in first.engine.networks.items():
        second.engine.networks[player].load_state_dict(network.state_dict())
    second.engine.load_state(first.engine.state())
    second.metrics = list(first.metrics)
    second.step(STEPS - STEPS // 2)
    assert second.metrics == trained(name).metrics
    whole, parts = trained(name).tensors(), second.tensors()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("name", [name for name in SPECS if name not in BLIND])
def test_the_label_alone_changes_the_image(name: str) -> None:
    run = trained(name)
    generator: Any = run.gan.generator.eval()
    z = torch.randn(1, run.gan.latent_width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = conditional(generator, "labels")(z.expand(10, -1), torch.arange(10))
    generator.train()
    apart = (images[:, None] - images[None]).abs().amax((2, 3, 4)) + torch.eye(10)
    assert apart.min() > 1e-5


@pytest.mark.parametrize("name", SPECS)
def test_shares_of_a_batch_see_their_own_labels(name: str) -> None:
    """In shares, what no batch statistics are in is the same; G is left out, which has them."""
    options = ("generator.norm=none", "generator.condition=none", "generator.input=latent")
    if 'use = "stack"' in SPECS[name]:
        options = ()
    if "last_norm" in SPECS[name]:
        options = (*options, "generator.last_norm=network")
    one, two = (
        Run(spec_of(name, *options, f"train.accumulate={count}")).step(1) for count in (1, 2)
    )
    for key, value in one.metrics[0].items():
        assert two.metrics[0][key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
