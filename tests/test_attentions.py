"""Every registered attention, and self-attention against a reference that loops over positions.

The formulas of the others are in `test_attentions_others.py`.
"""

from __future__ import annotations

import copy
import math
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

from gankit.attentions import NoAttention, SelfAttention2d
from gankit.errors import OptionError
from gankit.norms import spectral
from gankit.registry import hand, registry
from gankit.slots import Norm

Array = np.ndarray
OURS = [entry.name for entry in registry.find("attention") if entry.provider.name == "gankit"]
ARTICLE: dict[str, Any] = {}
RELEASED: dict[str, Any] = {"value_reduction": 2, "pool": 2, "bias": False}
FORMS = {"article": ARTICLE, "released": RELEASED}
ALIVE: dict[str, Any] = {"cbam": {"reduction": 2}}
"""So many hidden values that not all of them can be below 0."""
UNSEEN = {"key.bias"}
"""A bias of the keys adds the same to all scores of a query, and softmax does not see it."""


def drawn(module: nn.Module, seed: int = 0) -> Any:
    """The module in float64, every parameter drawn: gamma is not 0."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, generator=random)
    return module


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


# --- what every attention does


@pytest.mark.parametrize("name", OURS)
@given(st.integers(1, 3), st.integers(16, 25), st.integers(1, 6), st.integers(1, 6))
def test_starts_as_the_identity(
    name: str, batch: int, channels: int, height: int, width: int
) -> None:
    x = maps(batch, channels, height, width).float()
    assert torch.equal(hand(registry.get("attention", name).target, channels, Norm())(x), x)


@pytest.mark.parametrize("name", OURS)
@given(st.integers(1, 3), st.integers(16, 25), st.integers(2, 6), st.integers(2, 6))
def test_keeps_the_shape_and_reaches_all_it_has(
    name: str, batch: int, channels: int, height: int, width: int
) -> None:
    make = partial(registry.get("attention", name).target, **ALIVE.get(name, {}))
    module = drawn(hand(make, channels, Norm()))
    x = maps(batch, channels, height, width).requires_grad_()
    y = module(x)
    assert y.shape == x.shape
    gradients = torch.autograd.grad((y * maps(*y.shape)).sum(), (x, *module.parameters()))
    for (key, _), gradient in zip([("x", x), *module.named_parameters()], gradients, strict=True):
        assert key in UNSEEN or gradient.abs().sum() > 0, key


@pytest.mark.parametrize("name", OURS)
def test_is_copied_and_restored_whole(name: str) -> None:
    make = registry.get("attention", name).target
    module, restored, x = drawn(make(16)), drawn(make(16), seed=1), maps(2, 16, 3, 4)
    copied = copy.deepcopy(module)
    restored.load_state_dict(module.state_dict())
    assert torch.equal(copied(x), module(x))
    assert torch.equal(restored(x), module(x))


# --- self-attention


def pooled(maps: Array, factor: int) -> Array:
    channels, height, width = maps.shape
    out = np.empty((channels, height // factor, width // factor))
    for c, h, w in np.ndindex(*out.shape):
        window = maps[c, h * factor : (h + 1) * factor, w * factor : (w + 1) * factor]
        out[c, h, w] = window.max()
    return out


def reference(module: Any, x: Array, pool: int) -> Array:
    """Section 3 of the paper, one image and one position after the other."""
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}

    def convolved(name: str, maps: Array) -> Array:
        out = np.einsum("oi,ihw->ohw", state[f"{name}.weight"][:, :, 0, 0], maps)
        return out + state.get(f"{name}.bias", np.zeros(len(out)))[:, None, None]

    y = np.empty_like(x)
    for b, image in enumerate(x):
        query = convolved("query", image)
        key, value = (pooled(convolved(name, image), pool) for name in ("key", "value"))
        attended = np.empty((len(value), *image.shape[1:]))
        for h, w in np.ndindex(*image.shape[1:]):
            scores = {
                place: math.exp(sum(query[:, h, w] * key[(slice(None), *place)]))
                for place in np.ndindex(*key.shape[1:])
            }
            total = sum(scores.values())
            attended[:, h, w] = sum(
                score / total * value[(slice(None), *place)] for place, score in scores.items()
            )
        if "output.weight" in state:
            attended = convolved("output", attended)
        y[b] = image + state["gamma"] * attended
    return y


def check_reference(module: Any, pool: int, height: int = 4, width: int = 6) -> None:
    x = maps(2, 16, height, width)
    expected = reference(module, x.numpy(), pool)
    np.testing.assert_allclose(drawn(module)(x).detach(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(4, 6), (6, 2), (5, 3)])
def test_self_attention_is_the_papers(form: str, height: int, width: int) -> None:
    module = drawn(SelfAttention2d(16, **FORMS[form]))
    check_reference(module, FORMS[form].get("pool", 1), height, width)


class OverQueries(SelfAttention2d):
    """Softmax over the wrong axis."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        beta = F.softmax(torch.bmm(q.transpose(1, 2), k), dim=1)
        return x + self.gamma * torch.bmm(v, beta.transpose(1, 2)).unflatten(2, x.shape[2:])


class Swapped(SelfAttention2d):
    """Each position handed the attention of another: the map is not transposed."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        beta = F.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
        return x + self.gamma * torch.bmm(v, beta).unflatten(2, x.shape[2:])


class Scaled(SelfAttention2d):
    """Scores divided by sqrt(d), as in transformers."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.gamma * attended.unflatten(2, x.shape[2:])


@pytest.mark.parametrize("twin", [OverQueries, Swapped, Scaled])
def test_twin_other_attentions_fail_the_reference(twin: type[SelfAttention2d]) -> None:
    with pytest.raises(AssertionError):
        check_reference(drawn(twin(16)), 1)


def test_twin_pooling_that_was_left_out_fails_the_reference() -> None:
    module = drawn(SelfAttention2d(16, **RELEASED))
    module.pool = nn.Identity()
    with pytest.raises(AssertionError):
        check_reference(module, 2)


@pytest.mark.parametrize(
    ("form", "channels", "count"),
    [("article", 64, 5_201), ("released", 64, 5_121), ("released", 256, 81_921)],
)
def test_parameter_counts(form: str, channels: int, count: int) -> None:
    module = SelfAttention2d(channels, **FORMS[form])
    assert sum(p.numel() for p in module.parameters()) == count


@pytest.mark.parametrize("form", FORMS)
def test_has_first_and_second_derivatives(form: str) -> None:
    module = drawn(SelfAttention2d(8, **FORMS[form]))
    parameters = dict(module.named_parameters())

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    given = (maps(1, 8, 2, 3).requires_grad_(), *parameters.values())
    assert gradcheck(forward, given, fast_mode=True)
    assert gradgradcheck(forward, given, fast_mode=True)


def test_values_as_wide_as_the_input_need_no_output_convolution() -> None:
    assert isinstance(SelfAttention2d(16).output, nn.Identity)
    released = SelfAttention2d(16, **RELEASED)
    assert released.value.out_channels == 8
    assert (released.output.in_channels, released.output.out_channels) == (8, 16)
    assert [key for key, _ in released.named_parameters() if "bias" in key] == []


@pytest.mark.parametrize("form", FORMS)
def test_self_attention_has_no_layers_but_these(form: str) -> None:
    module = SelfAttention2d(16, **FORMS[form])
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == {"article": 3, "released": 4}[form]


@pytest.mark.parametrize("name", OURS)
def test_every_layer_gets_the_weight_norm(name: str) -> None:
    module = hand(registry.get("attention", name).target, 16, Norm(spectral))
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 2 or name == "none"
    assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)


@pytest.mark.parametrize("name", OURS)
def test_has_shapes_without_memory(name: str) -> None:
    with torch.device("meta"):
        module = hand(registry.get("attention", name).target, 16, Norm(spectral))
        assert module(torch.empty(2, 16, 6, 4)).shape == (2, 16, 6, 4)


@pytest.mark.parametrize("name", OURS)
def test_images_do_not_see_each_other(name: str) -> None:
    module, x = drawn(hand(registry.get("attention", name).target, 16, Norm())), maps(3, 16, 4, 2)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


@pytest.mark.parametrize(
    ("channels", "options", "name", "message"),
    [
        (4, {}, "reduction", "reduction 8 of 4 channels leaves none"),
        (16, {"reduction": 0}, "reduction", "reduction 0 of 16 channels leaves none"),
        (16, {"value_reduction": 17}, "value_reduction", "value_reduction 17 of 16 channels"),
        (16, {"pool": 0}, "pool", "pool must be at least 1, not 0"),
    ],
)
def test_what_leaves_nothing_is_refused(
    channels: int, options: dict[str, int], name: str, message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        SelfAttention2d(channels, **options)
    assert caught.value.option == name


def test_no_attention_has_no_parameters() -> None:
    assert list(NoAttention(4).parameters()) == []
