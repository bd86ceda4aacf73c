"""Norms that look at a condition, against numpy and against what their papers' code does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrize

from gankit.build import build, make_network
from gankit.errors import OptionError, SpecError
from gankit.initializers import normal, orthogonal
from gankit.norms import (
    BatchNorm,
    ConditionalBatchNorm,
    SelfModulatedBatchNorm,
    spectral,
    weightnorm,
)
from gankit.registry import handed, registry
from gankit.slots import Image, Norm, unchanged
from gankit.spec import Part, loads

Array = np.ndarray
OURS = {
    entry.name: entry.target
    for entry in registry.find("norm")
    if entry.provider.name == "gankit" and entry.on == "activation" and handed(entry.target) != 1
}
CHANNELS, WIDTH, CLASSES = 4, 3, 5
BIGGAN: dict[str, Any] = {"weight_norm": "network", "initializer": orthogonal}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def maps(batch: int = 6, seed: int = 0) -> Tensor:
    """Feature maps whose channels differ in mean and in deviation."""
    ramp = torch.arange(CHANNELS)[:, None, None]
    return drawn(batch, CHANNELS, 2, 3, seed=seed) * (1 + ramp) + ramp


def made(name: str, width: int = WIDTH, weight: Any = unchanged, **options: Any) -> Any:
    return OURS[name](CHANNELS, width, weight, **options).double()


def filled(name: str, seed: int = 1, **how: Any) -> Any:
    """A norm with every parameter drawn, also those that start at 0."""
    module = made(name, **how)
    for index, parameter in enumerate(module.parameters()):
        nn.init.normal_(parameter, generator=seeded(seed + index))
    return module


def test_these_are_there() -> None:
    assert set(OURS) == {"conditional_batchnorm", "self_modulated_batchnorm"}
    for name in OURS:
        needs = registry.get("norm", name).needs
        assert needs == {"batch_statistics"}, "which data it needs, the network's condition says"


# --- as the papers have them, one image and one channel after the other


def normalised(x: Array, eps: float) -> Array:
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].ravel()
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        y[:, c] = (x[:, c] - mean) / np.sqrt(variance + eps)
    return y


def layer_of(module: nn.Module, name: str) -> Callable[[Array], Array]:
    """A dense layer of a module, from its state."""
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    weight = state[f"{name}.weight"]
    bias = state.get(f"{name}.bias", np.zeros(len(weight)))
    return lambda c: np.array([np.dot(row, c) for row in weight]) + bias


def tables(module: nn.Module, x: Array, condition: Array) -> Array:
    scale, shift = layer_of(module, "scale"), layer_of(module, "shift")
    rows = [
        y * (1 + scale(c))[:, None, None] + shift(c)[:, None, None]
        for y, c in zip(normalised(x, 0.25), condition, strict=True)
    ]
    return np.stack(rows)


def perceptron(module: nn.Module, x: Array, condition: Array) -> Array:
    hidden = layer_of(module, "hidden")
    return tables(module, x, np.stack([np.maximum(hidden(c), 0) for c in condition]))


FORMULAS = {"conditional_batchnorm": tables, "self_modulated_batchnorm": perceptron}


def check_formula(module: nn.Module, name: str) -> None:
    x, condition = maps(), drawn(6, WIDTH, seed=3)
    expected = FORMULAS[name](module, x.numpy(), condition.numpy())
    np.testing.assert_allclose(module(x, condition).detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OURS)
def test_is_its_formula(name: str) -> None:
    check_formula(filled(name, eps=0.25), name)


class Unscaled(ConditionalBatchNorm):
    """The scale itself, and not what is added to 1."""

    def modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = (part(condition)[:, :, None, None] for part in (self.scale, self.shift))
        return scale * self.normal(x) + shift


class Before(ConditionalBatchNorm):
    """Scaled and shifted before it is normalised."""

    def modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = (part(condition)[:, :, None, None] for part in (self.scale, self.shift))
        return self.normal((1 + scale) * x + shift)


class Linear(SelfModulatedBatchNorm):
    """An MLP without its nonlinearity."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.modulated(x, self.hidden(condition))


@pytest.mark.parametrize("twin", [Unscaled, Before, Linear])
def test_twin_other_norms_fail_the_formula(twin: Any) -> None:
    name = "self_modulated_batchnorm" if twin is Linear else "conditional_batchnorm"
    module = twin(CHANNELS, WIDTH, unchanged, eps=0.25).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=seeded(1))
    with pytest.raises(AssertionError):
        check_formula(module, name)


@pytest.mark.parametrize("name", OURS)
def test_twin_another_eps_fails_the_formula(name: str) -> None:
    with pytest.raises(AssertionError):
        check_formula(filled(name), name)


@given(st.lists(st.integers(0, CLASSES - 1), min_size=2, max_size=8))
def test_of_a_one_hot_label_it_is_a_table(labels: list[int]) -> None:
    """As public code has it: batch norm, then a row of an embedding of factors, one of offsets."""
    module = filled("conditional_batchnorm", width=CLASSES)
    x = maps(len(labels))
    rows = torch.tensor(labels)
    gains, biases = 1 + module.scale.weight.t(), module.shift.weight.t()
    plain = F.batch_norm(x, None, None, training=True)
    expected = F.embedding(rows, gains)[:, :, None, None] * plain
    expected = expected + F.embedding(rows, biases)[:, :, None, None]
    torch.testing.assert_close(module(x, F.one_hot(rows, CLASSES).double()), expected)


# --- how they start


@pytest.mark.parametrize("name", OURS)
def test_starts_as_batch_norm_or_near_it(name: str) -> None:
    module, x = made(name), maps()
    y = module(x, drawn(6, WIDTH, seed=3))
    plain = BatchNorm(CHANNELS, scale=False, shift=False).double()(x)
    if name == "conditional_batchnorm":
        assert torch.equal(y, plain)
    else:
        torch.testing.assert_close(y, plain, rtol=0.05, atol=0.05)
        assert not torch.equal(y, plain)


def test_layers_start_as_the_initializer_says() -> None:
    module = made("conditional_batchnorm", width=9, **BIGGAN)
    for layer in (module.scale, module.shift):
        weight = layer.weight.detach()
        product = weight @ weight.t()
        torch.testing.assert_close(product, torch.eye(CHANNELS).double(), atol=1e-6, rtol=0)
    assert not torch.equal(module.scale.weight, module.shift.weight)
    wide = made("self_modulated_batchnorm", width=200, hidden=100)
    assert wide.hidden.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(not getattr(wide, part).bias.any() for part in ("hidden", "scale", "shift"))


@pytest.mark.parametrize("weight", [spectral, weightnorm])
def test_no_weight_norm_on_layers_of_zeros(weight: Any) -> None:
    message = '^a weight norm needs layers that do not start at 0; try initializer = "orthogonal"$'
    with pytest.raises(OptionError, match=message) as caught:
        made("conditional_batchnorm", weight=weight, weight_norm="network")
    assert caught.value.option == "weight_norm"
    with torch.device("meta"), pytest.raises(OptionError, match=message):
        OURS["conditional_batchnorm"](CHANNELS, WIDTH, weight, weight_norm="network")


@pytest.mark.parametrize(
    ("name", "options", "normed"),
    [
        ("conditional_batchnorm", {}, []),
        ("conditional_batchnorm", BIGGAN, ["scale", "shift"]),
        ("self_modulated_batchnorm", {}, ["hidden", "scale", "shift"]),
    ],
)
def test_the_networks_weight_norm_acts_where_it_is_asked_to(
    name: str, options: dict[str, Any], normed: list[str]
) -> None:
    module = Norm(spectral, partial(OURS[name], **options)).given(7).activation(CHANNELS)
    layers = [key for key, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    found = [key for key in layers if parametrize.is_parametrized(module.get_submodule(key))]
    assert found == normed
    for key in normed:
        largest = torch.linalg.matrix_norm(module.get_submodule(key).weight, ord=2)
        assert largest.item() == pytest.approx(1, abs=1e-5)
    assert module.conditioned


def test_a_hidden_layer_of_nothing_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"^a hidden layer of width 0 has nothing in it$"
    ) as caught:
        made("self_modulated_batchnorm", hidden=0)
    assert caught.value.option == "hidden"


# --- what every norm keeps


@pytest.mark.parametrize("name", OURS)
def test_gradients_reach_everything(name: str) -> None:
    module = filled(name)
    x, condition = maps().requires_grad_(), drawn(6, WIDTH, seed=3).requires_grad_()
    y = module(x, condition)
    wanted = (x, condition, *module.parameters())
    for gradient in torch.autograd.grad((y * maps(seed=9)).sum(), wanted):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", OURS)
def test_has_first_and_second_derivatives(name: str) -> None:
    module = filled(name, **({"hidden": 2} if name == "self_modulated_batchnorm" else {}))
    parameters = dict(module.named_parameters())

    def forward(x: Tensor, condition: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(module, named, (x, condition))

    inputs = (maps(3).requires_grad_(), drawn(3, WIDTH, seed=3).requires_grad_())
    assert gradcheck(forward, (*inputs, *parameters.values()), fast_mode=True)
    assert gradgradcheck(forward, (*inputs, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("name", OURS)
def test_evaluates_on_running_statistics(name: str) -> None:
    module, plain = filled(name, momentum=0.25), BatchNorm(CHANNELS, momentum=0.25).double()
    for seed in range(3):
        module(maps(seed=seed), drawn(6, WIDTH, seed=seed))
        plain(maps(seed=seed))
    for key, value in module.normal.named_buffers():
        torch.testing.assert_close(value, getattr(plain, key))
    module.eval()
    x, condition = maps(), drawn(6, WIDTH, seed=3)
    one = module(x[:1], condition[:1])
    torch.testing.assert_close(module(x, condition)[:1], one)


@pytest.mark.parametrize("name", OURS)
def test_is_copied_and_restored_whole(name: str) -> None:
    module, restored = filled(name), filled(name, seed=50)
    x, condition = maps(), drawn(6, WIDTH, seed=3)
    module(x, condition)
    copied = copy.deepcopy(module).eval()
    restored.load_state_dict(module.state_dict())
    before = module.eval()(x, condition)
    assert torch.equal(copied(x, condition), before)
    assert torch.equal(restored.eval()(x, condition), before)


@pytest.mark.parametrize("name", OURS)
def test_sync_is_handed_on(name: str) -> None:
    assert made(name, sync=True).normal.sync
    assert not made(name).normal.sync


class Rounded(ConditionalBatchNorm):
    """1 is added in the precision of the feature maps."""

    def modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        scale = 1 + self.scale(condition).to(x.dtype)
        return scale[:, :, None, None] * self.normal(x)


def check_half(make: Any) -> None:
    """A scale of 1.003, of which bfloat16 would leave 1, is not lost among many."""
    module = make(CHANNELS, 1, unchanged).float()
    nn.init.constant_(module.scale.weight, 0.003)
    x = 100 * torch.randn(64, CHANNELS, 8, 8, generator=seeded(0)).bfloat16()
    y = module(x, torch.ones(64, 1))
    assert y.dtype == torch.bfloat16
    plain = BatchNorm(CHANNELS, scale=False, shift=False)(x)
    assert (y / plain.double()).nanmean() > 1.002


def test_half_precision_does_not_reach_the_scale() -> None:
    check_half(ConditionalBatchNorm)


def test_twin_a_scale_in_half_precision_fails() -> None:
    with pytest.raises(AssertionError):
        check_half(Rounded)


# --- in a network


@pytest.mark.parametrize("name", OURS)
def test_initial_weights_follow_from_the_seed(name: str) -> None:
    options = {"initializer": Part(registry.get("initializer", "normal"), {})}
    part = Part(registry.get("norm", name), options)
    network = Part(
        registry.get("generator", "dcgan"),
        {"width": 4, "norm": (part,), "condition": "label", "latent": 5},
    )
    image = Image(1, (16, 16), classes=3)
    one, same, other = (make_network(network, image, seed).state_dict() for seed in (1, 1, 2))
    scales = [key for key in one if key.endswith("scale.weight")]
    assert len(scales) == 2
    for key in scales:
        assert torch.equal(one[key], same[key])
        assert not torch.equal(one[key], other[key])
        assert one[key].any()


SPEC = """
gankit = 1
data = { use = "digits", size = 16 }
generator = { use = "dcgan", width = 4, norm = %s, condition = "label" }
discriminator = { use = "dcgan", width = 4 }
loss = "hinge"
train = { steps = 1 }
"""


def test_a_spec_names_them_and_is_told_what_does_not_fit() -> None:
    biggan = (
        '{ use = "conditional_batchnorm", weight_norm = "network", initializer = "orthogonal" }'
    )
    spec = loads(SPEC % f'["spectral", {biggan}]')
    gan, _ = build(spec, "meta")
    assert any(isinstance(module, ConditionalBatchNorm) for module in gan.generator.modules())
    wrong = loads(SPEC % '["spectral", { use = "conditional_batchnorm", weight_norm = "network" }]')
    with pytest.raises(SpecError, match="do not start at 0") as caught:
        build(wrong, "meta")
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert problem.place.source[problem.place.column - 1 :].startswith('"network"')
    with pytest.raises(SpecError, match="needs a condition, and this network makes none"):
        build(loads(SPEC.replace(', condition = "label"', "") % '"conditional_batchnorm"'), "meta")


def test_a_default_that_is_written_out_is_the_default() -> None:
    entry = registry.get("norm", "conditional_batchnorm")
    assert entry.options["initializer"].default.keywords == {"std": 0.0}
    assert entry.options["initializer"].default.func is normal
