"""Efficient attention, CBAM and the residual block: against loops, and against their papers."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from gankit.attentions import CBAM, EfficientAttention2d, ResidualBlock, SelfAttention2d
from gankit.errors import OptionError

Array = np.ndarray
SMALL: dict[str, Any] = {"reduction": 2}
MAKERS: dict[str, Any] = {
    "cbam": partial(CBAM, reduction=2, kernel=3),
    "efficient": partial(EfficientAttention2d, reduction=2, heads=2),
    "residual": partial(ResidualBlock, reduction=2, kernel=3),
}


def drawn(module: nn.Module, seed: int = 0) -> Any:
    """The module in float64, every parameter drawn: gamma is not 0."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, generator=random)
    return module


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def state_of(module: nn.Module) -> dict[str, Array]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- efficient attention: Shen et al. (2021), section 3.2


def softmax(values: Array) -> Array:
    exponents = np.array([math.exp(value) for value in values])
    return exponents / sum(exponents)


def efficient(module: Any, x: Array, heads: int) -> Array:
    """Summaries of the values by each key channel, mixed at each position by its query."""
    state = state_of(module)

    def convolved(name: str, image: Array) -> Array:
        weight = state[f"{name}.weight"][:, :, 0, 0]
        out = np.einsum("oi,in->on", weight, image)
        return out + state.get(f"{name}.bias", np.zeros(len(out)))[:, None]

    y = np.empty_like(x)
    for b, image in enumerate(x.reshape(*x.shape[:2], -1)):
        parts = [np.split(convolved(name, image), heads) for name in ("query", "key", "value")]
        attended = []
        for query, key, value in zip(*parts, strict=True):
            summaries = [value @ softmax(channel) for channel in key]
            for_each = [
                sum(share * s for share, s in zip(softmax(query[:, n]), summaries, strict=True))
                for n in range(image.shape[1])
            ]
            attended.append(np.stack(for_each, axis=1))
        output = convolved("output", np.concatenate(attended))
        y[b] = x[b] + state["gamma"] * output.reshape(x.shape[1:])
    return y


def check_efficient(module: Any, heads: int = 1) -> None:
    x = maps(2, 8, 3, 4)
    expected = efficient(module, x.numpy(), heads)
    np.testing.assert_allclose(module(x).detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_efficient_attention_is_the_papers(heads: int, bias: bool) -> None:
    check_efficient(drawn(EfficientAttention2d(8, heads=heads, bias=bias, **SMALL)), heads)


class KeysOverChannels(EfficientAttention2d):
    """Keys normalised as queries are."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        attended = (value @ key.softmax(dim=1).mT) @ query.softmax(dim=1)
        return x + self.gamma * self.output(attended.unflatten(2, x.shape[2:]))


class Dot(EfficientAttention2d):
    """The softmax of the products, as in dot-product attention."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        attended = value @ (query.mT @ key).softmax(dim=-1).mT
        return x + self.gamma * self.output(attended.unflatten(2, x.shape[2:]))


@pytest.mark.parametrize("twin", [KeysOverChannels, Dot])
def test_twin_other_normalisations_fail(twin: type[EfficientAttention2d]) -> None:
    with pytest.raises(AssertionError):
        check_efficient(drawn(twin(8, **SMALL)))


def test_twin_one_head_for_two_fails() -> None:
    with pytest.raises(AssertionError):
        check_efficient(drawn(EfficientAttention2d(8, **SMALL)), heads=2)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_map_says_what_each_position_takes_of_each(heads: int) -> None:
    module, x = drawn(EfficientAttention2d(8, heads=heads, **SMALL)), maps(2, 8, 3, 4)
    shares = module.attention_map(x)
    torch.testing.assert_close(shares.sum(2), torch.ones(2, 12).double())
    assert (shares > 0).all()
    if heads == 1:
        attended = (shares @ module.value(x).flatten(2).mT).mT.unflatten(2, (3, 4))
        torch.testing.assert_close(module(x), x + module.gamma * module.output(attended))


def test_efficient_attention_has_the_parameters_of_the_released_self_attention() -> None:
    released = SelfAttention2d(64, value_reduction=2, pool=2, bias=False)
    assert count(EfficientAttention2d(64, bias=False)) == count(released) == 5_121


# --- CBAM: Woo et al. (2018), section 3


def cbam(module: Any, x: Array) -> Array:
    """Equation 2, then equation 3; between x and that, gamma of the way."""
    state = state_of(module)
    kernel = state["conv.weight"][0]
    around = kernel.shape[1] // 2

    def perceptron(found: Array) -> Array:
        hidden = np.maximum(state["mlp.0.weight"] @ found + state["mlp.0.bias"], 0)
        return state["mlp.2.weight"] @ hidden + state["mlp.2.bias"]

    y = np.empty_like(x)
    for b, image in enumerate(x):
        flat = image.reshape(len(image), -1)
        scores = perceptron(flat.mean(1)) + perceptron(flat.max(1))
        weighed = image / (1 + np.exp(-scores))[:, None, None]
        found = np.pad(np.stack([weighed.mean(0), weighed.max(0)]), [(0, 0)] + [(around,) * 2] * 2)
        factors = np.empty(image.shape[1:])
        for h, w in np.ndindex(*factors.shape):
            window = found[:, h : h + 2 * around + 1, w : w + 2 * around + 1]
            factors[h, w] = 1 / (1 + math.exp(-(window * kernel).sum() - state["conv.bias"][0]))
        y[b] = image + state["gamma"] * (weighed * factors - image)
    return y


def check_cbam(module: Any) -> None:
    x = maps(2, 8, 4, 5)
    expected = cbam(module, x.numpy())
    np.testing.assert_allclose(module(x).detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_cbam_is_the_papers(kernel: int) -> None:
    check_cbam(drawn(CBAM(8, reduction=2, kernel=kernel)))


class MeansAlone(CBAM):
    """Without the largest values."""

    def forward(self, x: Tensor) -> Tensor:
        weighed = x * (2 * self.mlp(x.mean(dim=(2, 3)))).sigmoid()[:, :, None, None]
        found = weighed.mean(1, keepdim=True).expand(-1, 2, -1, -1)
        return x + self.gamma * (weighed * self.conv(found).sigmoid() - x)


class SideBySide(CBAM):
    """Positions are weighed by what comes in, and not by what the channels left of it."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        found = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        weighed = x * scores.sigmoid()[:, :, None, None] * self.conv(found).sigmoid()
        return x + self.gamma * (weighed - x)


@pytest.mark.parametrize("twin", [MeansAlone, SideBySide])
def test_twin_other_weighings_fail(twin: type[CBAM]) -> None:
    with pytest.raises(AssertionError):
        check_cbam(drawn(twin(8, reduction=2, kernel=3)))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_at_a_gain_of_one_cbam_takes_from_every_value(height: int, width: int, seed: int) -> None:
    """The factors lie between 0 and 1, so nothing grows and nothing changes its sign."""
    module, x = drawn(CBAM(4, reduction=2, kernel=3), seed), maps(2, 4, height, width)
    nn.init.ones_(module.gamma)
    share = module(x) / x
    assert (share >= 0).all()
    assert (share <= 1).all()


def test_cbams_parameters_are_two_small_layers_and_a_gain() -> None:
    assert count(CBAM(64)) == (64 * 4 + 4) + (4 * 64 + 64) + (2 * 7 * 7 + 1) + 1


# --- the residual block that attention is compared with


@given(st.integers(1, 40), st.integers(1, 8), st.integers(2, 8))
def test_the_residual_block_has_exactly_the_parameters_of_the_attention(
    channels: int, reduction: int, value_reduction: int
) -> None:
    reductions = {
        "reduction": min(reduction, channels),
        "value_reduction": min(value_reduction, channels),
    }
    if reductions["value_reduction"] == 1:
        return  # one channel is its own half; the attention leaves its output convolution out
    attention = SelfAttention2d(channels, bias=False, pool=2, **reductions)
    assert count(ResidualBlock(channels, **reductions)) == count(attention)


@pytest.mark.parametrize("channels", [64, 128, 256])
def test_a_wider_kernel_comes_near_in_fewer_channels(channels: int) -> None:
    released = count(SelfAttention2d(channels, value_reduction=2, pool=2, bias=False))
    assert count(ResidualBlock(channels)) == released
    wide = ResidualBlock(channels, kernel=3)
    assert count(wide) == pytest.approx(released, rel=0.12)
    assert wide.conv1.kernel_size == wide.conv2.kernel_size == (3, 3)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_residual_block_is_two_convolutions_beside_the_identity(kernel: int) -> None:
    module, x = drawn(ResidualBlock(8, kernel=kernel, **SMALL)), maps(2, 8, 4, 3)
    around = kernel // 2
    hidden = torch.conv2d(x.clamp(min=0), module.conv1.weight, padding=around)
    added = torch.conv2d(hidden.clamp(min=0), module.conv2.weight, padding=around)
    torch.testing.assert_close(module(x), x + module.gamma * added)
    assert [key for key, _ in module.named_parameters() if "bias" in key] == []


def reaches(module: nn.Module) -> bool:
    """Whether a position's output depends on the opposite corner's input."""
    x = maps(1, 8, 6, 6).requires_grad_()
    (slope,) = torch.autograd.grad(module(x)[0, :, 0, 0].sum(), x)
    return bool(slope[0, :, 5, 5].abs().max() > 0)


def test_attention_looks_far_and_the_residual_block_does_not() -> None:
    """Which is what the comparison is about."""
    assert reaches(drawn(EfficientAttention2d(8, **SMALL)))
    assert reaches(drawn(CBAM(8, reduction=2)))
    assert not reaches(drawn(ResidualBlock(8, kernel=3, **SMALL)))


# --- all of them


@pytest.mark.parametrize("name", MAKERS)
def test_has_first_and_second_derivatives(name: str) -> None:
    module = drawn(MAKERS[name](4))
    parameters = dict(module.named_parameters())

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    inputs = (maps(1, 4, 3, 2).requires_grad_(), *parameters.values())
    assert gradcheck(forward, inputs, fast_mode=True)
    assert gradgradcheck(forward, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("make", "channels", "options", "name", "message"),
    [
        (CBAM, 8, {}, "reduction", "reduction 16 of 8 channels leaves none"),
        (CBAM, 16, {"kernel": 4}, "kernel", "a kernel is odd, not 4"),
        (ResidualBlock, 16, {"kernel": 0}, "kernel", "a kernel is odd, not 0"),
        (ResidualBlock, 4, {}, "reduction", "reduction 8 of 4 channels leaves none"),
        (
            EfficientAttention2d,
            16,
            {"value_reduction": 0},
            "value_reduction",
            "value_reduction 0 of 16 channels leaves none",
        ),
        (
            EfficientAttention2d,
            24,
            {"heads": 2},
            "heads",
            "2 heads do not divide 3 channels of keys and 12 of values",
        ),
        (
            EfficientAttention2d,
            16,
            {"heads": 0},
            "heads",
            "0 heads do not divide 2 channels of keys and 8 of values",
        ),
    ],
)
def test_what_leaves_nothing_is_refused(
    make: Any, channels: int, options: dict[str, int], name: str, message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        make(channels, **options)
    assert (caught.value.option, str(caught.value)) == (name, message)
