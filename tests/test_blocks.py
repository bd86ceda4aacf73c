"""Every registered block: the shape it states, its gradients, and residual blocks by formula.

What heads compute is in `test_blocks_heads.py`, what R3GAN's blocks do in `test_blocks_resnext.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradgradcheck
from torch.nn.utils import parametrize

from gankit import blocks
from gankit.norms import BatchNorm, spectral
from gankit.registry import REQUIRED as REQUIRED_OPTION
from gankit.registry import Option, hand, registry
from gankit.slots import Norm, Shape

BLOCKS = {entry.name: entry for entry in registry.find("block") if entry.provider.name == "gankit"}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bias": st.booleans(),
    "channels": st.integers(1, 5),
    "classes": st.integers(1, 4),
    "depth": st.integers(1, 9),
    "expansion": st.integers(1, 3),
    "features": st.integers(1, 5),
    "group": st.sampled_from([1, 2]),
    "groups": st.sampled_from([1, 2]),
    "head": st.just("rotations"),
    "hidden": st.sampled_from(["in", "out"]),
    "kernel": st.integers(1, 5),
    "padding": st.sampled_from(["half", "none"]),
    "pieces": st.integers(1, 3),
    "rate": st.sampled_from([0.0, 0.5]),
    "shortcut": st.sampled_from(["input", "activated"]),
    "size": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "slope": st.floats(0, 0.5),
    "stride": st.integers(1, 3),
    "unconditional": st.sampled_from(["dense", "none"]),
    "upsampling": st.sampled_from(["bilinear", "nearest"]),
}
REQUIRED: dict[str, int] = {"channels": 4, "classes": 3, "depth": 2, "groups": 2}
"""A value for every option that has no default."""
MISFITS = ("nothing is left of the feature map", "divide", "divisible", "even kernel")
"""What a block may say of options and a shape that do not go together."""
UNEVEN = (BatchNorm, nn.Dropout)
"""What may give something else the second time."""
WIDTH = 3
"""Of the condition."""
NORMS = {
    "none": Norm(),
    "spectral": Norm(spectral),
    "batchnorm": Norm(activation=BatchNorm),
    "both": Norm(spectral, BatchNorm),
}


def options_of(name: str) -> dict[str, Option]:
    """A block's plain options; those that are slots keep their defaults."""
    return {key: option for key, option in BLOCKS[name].options.items() if not option.slot}


def made(name: str, shape: Shape, norm: Norm = Norm(), **options: Any) -> Any:
    return hand(partial(BLOCKS[name].target, **options), shape, norm.given(WIDTH)).double()


def example(name: str, shape: Shape, norm: Norm = Norm(), seed: int = 0, **options: Any) -> Any:
    """A block with every parameter drawn, also those that start at 0."""
    required = {k: v for k, v in REQUIRED.items() if _lacks_default(name, k)}
    options = {**required, **options}
    if name == "minibatch_std":
        options = {"group": 2, **options}
    stage = made(name, shape, norm, **options)
    random = torch.Generator().manual_seed(seed)
    for parameter in stage.parameters():
        nn.init.normal_(parameter, generator=random)
    return stage


def _lacks_default(name: str, option: str) -> bool:
    known = BLOCKS[name].options
    return option in known and known[option].default is REQUIRED_OPTION


def condition_of(stage: Any, rows: int) -> Tensor | None:
    """None where nothing looks at it, and where something does a vector for each row."""
    looks = any(getattr(module, "conditioned", False) for module in stage.modules())
    return maps(rows, WIDTH, seed=5) if looks else None


def maps(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_out(stage: Any, shape: Shape) -> None:
    """The stage states the shape it gives, for every condition that may be handed to it."""
    x = maps(2, *shape)
    condition = condition_of(stage, 2)
    y = stage(x, condition)
    assert y.shape == (2, *stage.out)
    assert min(stage.out) >= 1
    if condition is None and not any(isinstance(m, UNEVEN) for m in stage.modules()):
        assert torch.equal(stage(x), y)
        assert torch.equal(stage(x, torch.ones(2, 3)), y)


@pytest.mark.parametrize("name", BLOCKS)
@given(data=st.data())
def test_out_is_the_shape_that_comes_out(name: str, data: st.DataObject) -> None:
    shape = (
        data.draw(st.integers(8, 9)),
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 9)),
    )
    options = {key: data.draw(VALUES[key], key) for key in options_of(name)}
    try:
        stage = made(name, shape, **options)
    except ValueError as error:
        if not any(words in str(error) for words in MISFITS):
            raise
        assume(False)
    check_out(stage, shape)


class Lying(blocks.SumPositions):
    def __init__(self, shape: Shape, /) -> None:
        super().__init__(shape)
        self.out = shape


def test_twin_a_block_that_states_another_shape_fails() -> None:
    with pytest.raises(AssertionError):
        check_out(Lying((3, 4, 4)), (3, 4, 4))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_reach_the_input_and_every_parameter(name: str, norm: str) -> None:
    stage = example(name, (8, 4, 6), NORMS[norm])
    x = maps(4, 8, 4, 6).requires_grad_()
    y = stage(x, condition_of(stage, 4))
    named = [("x", x), *stage.named_parameters()]
    gradients = torch.autograd.grad((y * maps(*y.shape, seed=8)).sum(), [p for _, p in named])
    for (key, _), gradient in zip(named, gradients, strict=True):
        assert gradient.isfinite().all(), key
        assert "key.bias" in key or gradient.abs().sum() > 0, key


@pytest.mark.parametrize("name", BLOCKS)
def test_every_layer_gets_the_weight_norm(name: str) -> None:
    stage = example(name, (8, 4, 4), Norm(spectral))
    for key, layer in stage.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # One that starts at 0 has no direction to normalise.
            bare = (name, key) == ("inverted_bottleneck", "conv3")
            assert parametrize.is_parametrized(layer, "weight") != bare, key


@pytest.mark.parametrize("name", BLOCKS)
def test_has_a_second_derivative(name: str) -> None:
    slots = {"activation": nn.Softplus} if "activation" in BLOCKS[name].options else {}
    stage = example(name, (8, 2, 2), Norm(activation=BatchNorm), **slots)
    for module in stage.modules():
        module.train(not isinstance(module, nn.Dropout))
    forward = partial(stage, condition=condition_of(stage, 2))
    assert gradgradcheck(forward, (maps(2, 8, 2, 2).requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("name", BLOCKS)
def test_has_shapes_without_memory(name: str) -> None:
    with torch.device("meta"):
        stage = example(name, (8, 4, 6), NORMS["both"])
        condition = condition_of(stage, 2)
        given = None if condition is None else torch.empty(condition.shape).double()
        assert stage(torch.empty(2, 8, 4, 6).double(), given).shape == (2, *stage.out)


# --- layers by hand


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["half", "none"]), st.booleans())
def test_conv_and_transposed_are_torchs(kernel: int, stride: int, padding: str, bias: bool) -> None:
    options = {"kernel": kernel, "stride": stride, "padding": padding, "bias": bias}
    around = (kernel - 1) // 2 if padding == "half" else 0
    x = maps(2, 3, 5, 6)
    for name, function in (("conv", F.conv2d), ("transposed", F.conv_transpose2d)):
        stage = example(name, (3, 5, 6), **options)
        layer = stage.layer
        assert (layer.bias is not None) == bias
        expected = function(x, layer.weight, layer.bias, stride=stride, padding=around)
        if name == "transposed" and padding == "half" and stride + 2 * around > kernel:
            # Torch leaves off far rows and columns, with which a side is `stride` times as long.
            more = stride + 2 * around - kernel
            expected = function(x, layer.weight, layer.bias, stride, around, more)
            assert expected.shape[2:] == (stride * 5, stride * 6)
        torch.testing.assert_close(stage(x), expected)


def test_the_groups_of_a_convolution_are_each_by_itself() -> None:
    stage, x = example("conv", (4, 3, 5), channels=6, groups=2), maps(2, 4, 3, 5)
    weight, bias = stage.layer.weight, stage.layer.bias
    halves = [
        F.conv2d(x[:, 2 * i : 2 * i + 2], weight[3 * i : 3 * i + 3], bias[3 * i : 3 * i + 3], 1, 1)
        for i in range(2)
    ]
    torch.testing.assert_close(stage(x), torch.cat(halves, dim=1))


def test_dense_lays_its_channels_out_as_maps() -> None:
    stage = example("dense", (2, 3, 4), channels=5, size=(2, 3))
    (layer,) = [module for module in stage.modules() if isinstance(module, nn.Linear)]
    x = maps(2, 2, 3, 4)
    expected = torch.einsum("oi,bi->bo", layer.weight, x.reshape(2, 24)) + layer.bias
    torch.testing.assert_close(stage(x), expected.reshape(2, 5, 2, 3))


def test_sum_positions_adds_up_each_map() -> None:
    x = maps(2, 3, 4, 5)
    torch.testing.assert_close(
        blocks.SumPositions((3, 4, 5))(x), torch.einsum("bchw->bc", x)[:, :, None, None]
    )


def test_normalise_activates_after_the_norm() -> None:
    x = maps(4, 3, 2, 2)
    norm = Norm(activation=BatchNorm)
    y = blocks.Normalise((3, 2, 2), norm).double()(x)
    assert torch.equal(blocks.NormaliseWith((3, 2, 2), Norm()).double()(x), y)
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
    torch.testing.assert_close(y, ((x - mean) / (variance + 1e-5).sqrt()).clamp(min=0))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv", {"stride": 0}, "stride must be at least 1, not 0"),
        ("conv", {"kernel": 0}, "kernel must be at least 1, not 0"),
        ("conv", {"kernel": 5, "padding": "none"}, r"it would be \(4, -1, -1\)"),
        ("transposed", {"stride": -2}, "stride must be at least 1, not -2"),
        ("dense", {"channels": 0}, "channels must be at least 1, not 0"),
        ("dense", {"size": (2, 0)}, "width must be at least 1, not 0"),
        ("residual", {"channels": -1}, "channels must be at least 1, not -1"),
        ("conv", {"groups": 0}, "groups must be at least 1, not 0"),
        ("basis", {"size": (0, 2)}, "height must be at least 1, not 0"),
        ("classify", {"classes": 0}, "classes must be at least 1, not 0"),
        ("classify", {"head": "logits"}, '"logits" is the head that tells real from fake'),
        ("dropout", {"rate": 1.0}, r"rate must be in \[0, 1\), not 1.0"),
        ("dropout", {"rate": -0.5}, r"rate must be in \[0, 1\), not -0.5"),
        ("infomax", {"features": 0}, "features must be at least 1, not 0"),
        ("maxout", {"pieces": 0}, "pieces must be at least 1, not 0"),
        ("minibatch_std", {"group": 0}, "group must be at least 1, not 0"),
        ("inverted_bottleneck", {"groups": 4}, "4 groups do not divide 6 channels"),
        ("inverted_bottleneck", {"kernel": 2}, "an even kernel, 2, would move the feature map"),
        ("inverted_bottleneck", {"depth": 0}, "depth must be at least 1, not 0"),
        ("interpolate_up", {"channels": 0}, "channels must be at least 1, not 0"),
    ],
)
def test_what_leaves_nothing_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(name, (3, 3, 3), **options)


@pytest.mark.parametrize("name", ["residual_down", "residual_stem", "interpolate_down"])
def test_a_single_position_cannot_be_halved(name: str) -> None:
    with pytest.raises(ValueError, match=r"it would be \(4, 0, 1\)"):
        example(name, (3, 1, 2))


@pytest.mark.parametrize("name", ["residual", "residual_down"])
@pytest.mark.parametrize("channels", [3, 5])
def test_an_activated_shortcut_carries_what_a_block_behind_a_relu_does(
    name: str, channels: int
) -> None:
    x = maps(2, 3, 4, 4)
    clean = example(name, (3, 4, 4), channels=channels)
    other = example(name, (3, 4, 4), channels=channels, shortcut="activated")
    torch.testing.assert_close(other(x), clean(x.relu()))
    assert not torch.allclose(other(x), clean(x))


# --- maxout and dropout


def test_a_maxout_unit_is_the_greatest_of_its_layers() -> None:
    stage, x = example("maxout", (2, 1, 3), channels=3, pieces=2), maps(4, 2, 1, 3)
    weight, bias = stage.dense.weight.detach(), stage.dense.bias.detach()
    for row in range(4):
        for unit in range(3):
            pieces = [weight[i] @ x[row].flatten() + bias[i] for i in (2 * unit, 2 * unit + 1)]
            torch.testing.assert_close(stage(x)[row, unit, 0, 0].detach(), max(pieces))


def test_dropout_keeps_the_mean_while_training_and_everything_afterwards() -> None:
    stage, x = blocks.dropout((8, 9, 9), rate=0.25), torch.ones(16, 8, 9, 9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = stage(x)
    values, counts = y.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0, 1 / 0.75]))
    assert abs(counts[0] / y.numel() - 0.25) < 0.02
    assert torch.equal(stage.eval()(x), x)


# --- infomax: its heads by hand


def test_infomax_projects_an_image_and_its_places_into_one_space() -> None:
    stage, x = example("infomax", (2, 2, 3), features=4), maps(5, 2, 2, 3)
    heads = stage(x).flatten(1).split([*stage.heads.values()], dim=1)
    logits, whole, places = heads
    assert list(stage.heads) == ["logits", "global", "local"]

    def critic(layers: Any, vector: Tensor) -> Tensor:
        def times(layer: Any, vector: Tensor) -> Tensor:
            return layer.weight.detach().flatten(1) @ vector + layer.bias.detach()

        inner = times(layers.leave, times(layers.enter, vector).clamp(min=0))
        return inner + times(layers.shortcut, vector)

    for row in range(5):
        summed = stage.block(x)[row].clamp(min=0).sum((1, 2)).detach()
        torch.testing.assert_close(logits[row], stage.dense(summed))
        torch.testing.assert_close(whole[row].detach(), critic(stage.globally, summed))
        mine = places[row].detach().view(4, 2, 3)
        for i in range(2):
            for j in range(3):
                torch.testing.assert_close(mine[:, i, j], critic(stage.locally, x[row, :, i, j]))


# --- residual blocks: Miyato et al. (2018), figure 8, with the shortcut that SNGAN's code has


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(x: Tensor) -> Tensor:
    return sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4


def kept(x: Tensor) -> Tensor:
    return x


def interpolated(x: Tensor) -> Tensor:
    """Bilinear, along each axis: three quarters of a position and a quarter of its neighbour."""
    for axis in (2, 3):
        ends = (x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1))
        padded = torch.cat([ends[0], x, ends[1]], dim=axis)
        before, after = (padded.narrow(axis, start, x.shape[axis]) for start in (0, 2))
        x = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = x.flatten(axis, axis + 1)
    return x


RESIZED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "residual": (kept, kept),
    "residual_down": (kept, halved),
    "residual_stem": (kept, halved),
    "residual_up": (doubled, kept),
}


def normalised(x: Tensor, stage: nn.Module, prefix: str) -> Tensor:
    """Batch norm in training, where the block has one, and ReLU."""
    state = stage.state_dict()
    if f"{prefix}.weight" in state:
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        scale, shift = (state[f"{prefix}.{part}"][:, None, None] for part in ("weight", "bias"))
        x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
    return x.clamp(min=0)


def residual_by_formula(name: str, stage: Any, x: Tensor, up: Any = None) -> Tensor:
    up, down = up or RESIZED[name][0], RESIZED[name][1]
    state = stage.state_dict()

    def convolved(layer: str, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=padding)

    h = x if name == "residual_stem" else normalised(x, stage, "enter.norm.module")
    h = convolved("conv1", up(h), 1)
    h = convolved("conv2", normalised(h, stage, "middle.norm.module"), 1)
    # A 1x1 convolution and either resizing commute, so the small side does as well.
    short = convolved("shortcut", x, 0) if "shortcut.weight" in state else x
    return down(h) + down(up(short))


def check_residual(name: str, stage: Any, channels: int, up: Any = None) -> None:
    x = maps(3, channels, 4, 6)
    expected = residual_by_formula(name, stage, x.clone(), up)
    torch.testing.assert_close(stage(x, None), expected)


@pytest.mark.parametrize("norm", ["none", "batchnorm"])
def test_upsampling_may_be_bilinear(norm: str) -> None:
    stage = example("residual_up", (3, 4, 6), NORMS[norm], upsampling="bilinear")
    check_residual("residual_up", stage, 3, interpolated)
    with pytest.raises(AssertionError):
        check_residual("residual_up", stage, 3)


@pytest.mark.parametrize("norm", ["none", "batchnorm"])
def test_a_halving_block_may_be_as_wide_within_as_what_comes_in(norm: str) -> None:
    stage = example("residual_down", (3, 4, 6), NORMS[norm], hidden="in")
    assert (stage.conv1.out_channels, stage.conv2.out_channels) == (3, 4)
    check_residual("residual_down", stage, 3)
    wide = example("residual_down", (3, 4, 6), NORMS[norm])
    assert (wide.conv1.out_channels, wide.conv2.out_channels) == (4, 4)


@pytest.mark.parametrize("name", RESIZED)
@pytest.mark.parametrize("norm", ["none", "batchnorm"])
@pytest.mark.parametrize("channels", [3, 4])
def test_residual_is_its_formula(name: str, norm: str, channels: int) -> None:
    stage = example(name, (channels, 4, 6), NORMS[norm])
    check_residual(name, stage, channels)
    # The identity where nothing changes, a 1x1 convolution elsewhere.
    assert isinstance(stage.shortcut, nn.Identity) == (name == "residual" and channels == 4)


@pytest.mark.parametrize("name", ["residual", "residual_down", "residual_up"])
def test_twin_an_activation_in_place_corrupts_the_shortcut(name: str) -> None:
    stage = example(name, (3, 4, 6), activation=partial(nn.ReLU, inplace=True))
    with pytest.raises(AssertionError):
        check_residual(name, stage, 3)


@pytest.mark.parametrize("name", RESIZED)
def test_twin_every_other_residual_block_fails_the_formula(name: str) -> None:
    for other in set(RESIZED) - {name}:
        with pytest.raises(AssertionError):
            check_residual(name, example(other, (3, 4, 6)), 3)


def test_attend_hands_on_channels_and_norm() -> None:
    handed = []

    class Spy(nn.Identity):
        def __init__(self, channels: int, norm: Norm, /) -> None:
            super().__init__()
            handed.append((channels, norm))

    stage = blocks.Attend((5, 2, 3), NORMS["both"], attention=Spy)
    assert handed == [(5, NORMS["both"])]
    assert stage.out == (5, 2, 3)
