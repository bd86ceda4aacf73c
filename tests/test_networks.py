"""Every registered network: its counts, its sizes, its initial weights, and what it refuses.

What labels do in them is in `test_networks_conditions.py`, the counts of published systems in
`test_networks_counts.py`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gankit import blocks, ops
from gankit.attentions import SelfAttention2d
from gankit.build import make_network
from gankit.errors import OptionError
from gankit.initializers import default, normal, xavier
from gankit.networks import (
    StackDiscriminator,
    StackGenerator,
    dcgan_discriminator,
    dcgan_generator,
    initialize,
    mlp_discriminator,
    mlp_generator,
    resnet_discriminator,
    resnet_generator,
)
from gankit.norms import BatchNorm, GroupNorm, clip, spectral, weightnorm
from gankit.registry import Entry, registry
from gankit.slots import Image, Norm, keep
from gankit.spec import Part

OURS = {
    kind: [e.name for e in registry.find(kind) if e.provider.name == "gankit"]
    for kind in ("generator", "discriminator")
}
MAKERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "dcgan": (dcgan_generator, dcgan_discriminator),
    "mlp": (mlp_generator, mlp_discriminator),
    "resnet": (resnet_generator, resnet_discriminator),
    "stack": (StackGenerator, StackDiscriminator),
}
PRESETS = [name for name in MAKERS if name != "stack"]
CONVOLUTIONAL = ["dcgan", "resnet"]
BOTH = Norm(spectral, BatchNorm)
SMALL: dict[str, dict[str, Any]] = {
    "dcgan": {"width": 4, "width_max": 16},
    "resnet": {"width": 4, "width_max": 16},
    "mlp": {"width": 16, "layers": 2},
}
FACES = Image(3, (16, 16))
LABELLED = Image(1, (16, 16), classes=4)
POINTS = Image(2, (), classes=4, bounded=False)


class NarrowAttention(SelfAttention2d):
    """Self-attention that four channels are enough for."""

    def __init__(self, channels: int, norm: Norm = Norm(), /) -> None:
        super().__init__(channels, norm, reduction=2)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(name: str, image: Image, **options: Any) -> tuple[Any, Any]:
    return tuple(make(image, **{**SMALL[name], **options}) for make in MAKERS[name])  # type: ignore


def test_every_registered_network_is_tested_here() -> None:
    assert set(OURS["generator"]) == set(MAKERS)
    assert set(OURS["discriminator"]) == {*MAKERS, "pacgan"}
    for name, makers in MAKERS.items():
        for kind, make in zip(OURS, makers, strict=True):
            assert registry.get(kind, name).target is make


# --- parameter counts

ARTICLE = {"attention": SelfAttention2d, "attention_at": (32,)}
RELEASED = {
    "attention": partial(SelfAttention2d, value_reduction=2, pool=2, bias=False),
    "attention_at": (32,),
}
SHIFT = Norm(spectral, partial(BatchNorm, scale=False))
PLAIN = Norm(activation=BatchNorm)
COUNTS: list[tuple[Callable[..., Any], int, dict[str, Any], int]] = [
    (dcgan_generator, 128, {"width": 16, "norm": SHIFT, **ARTICLE}, 3_856_372),
    (dcgan_generator, 128, {"width": 16, "norm": BOTH, **ARTICLE}, 3_856_868),
    (dcgan_discriminator, 128, {"width": 32, "norm": Norm(spectral), **ARTICLE}, 2_801_202),
    (resnet_generator, 128, {"norm": BOTH, **RELEASED}, 32_232_708),
    (resnet_discriminator, 128, {"norm": Norm(spectral), **RELEASED}, 38_439_618),
    (
        dcgan_generator,
        64,
        {"latent": 100, "norm": PLAIN, "stem": "transposed", "head": "transposed"},
        3_576_704,
    ),
    (dcgan_discriminator, 64, {"norm": PLAIN, "head": "conv", "bias": False}, 2_765_568),
]


@pytest.mark.parametrize(("make", "side", "options", "expected"), COUNTS)
def test_counts_are_those_of_the_papers_code(
    make: Callable[..., Any], side: int, options: dict[str, Any], expected: int
) -> None:
    with torch.device("meta"):
        assert count(make(Image(3, (side, side)), **options)) == expected


def test_every_layer_of_the_articles_network_gets_spectral_norm() -> None:
    """Dense layers and attention included; the article's code leaves some out."""
    with torch.device("meta"):
        for make in (dcgan_generator, dcgan_discriminator):
            network = make(
                Image(3, (32, 32)), norm=Norm(spectral), **ARTICLE | {"attention_at": [8]}
            )
            layers = [
                module
                for module in network.modules()
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            ]
            assert len(layers) > 5
            assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)


# --- sizes


def on_meta(name: str, image: Image, **options: Any) -> tuple[Any, Any]:
    with torch.device("meta"):
        made = pair(name, image, **options)
        fake = made[0](torch.empty(2, made[0].latent))
        assert fake.shape == (2, *image.shape)
        assert made[1](fake).shape == (2, 1)
    return made


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "size", [(16, 16), (32, 32), (48, 48), (64, 64), (128, 128), (256, 256), (32, 64), (96, 40)]
)
def test_sizes(name: str, channels: int, size: tuple[int, int]) -> None:
    on_meta(name, Image(channels, size), norm=BOTH)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@settings(max_examples=12)
@given(st.integers(4, 7), st.integers(4, 12), st.integers(1, 5), st.booleans())
def test_any_base_that_is_doubled(
    name: str, base: int, other: int, halvings: int, wide: bool
) -> None:
    sides = sorted((base * 2**halvings, max(base, other) * 2**halvings), reverse=not wide)
    generator, _ = on_meta(name, Image(1, (sides[0], sides[1])))
    heights = {height for _, height, _ in (stage.out for stage in generator.stages.values())}
    assert min(heights) == sides[0] // 2**halvings


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("norm", [Norm(), Norm(spectral), BOTH, Norm(weightnorm), Norm(clip)])
def test_trains_both_ways_with_every_norm(name: str, norm: Norm) -> None:
    """Images within range, gradients at every parameter, and second ones through D."""
    generator, discriminator = pair(name, FACES, norm=norm)
    fake = generator(drawn(3, generator.latent) * 10)
    assert fake.shape == (3, 3, 16, 16)
    assert fake.abs().max() <= 1
    logits = discriminator(fake)
    assert logits.shape == (3, 1)
    (slope,) = torch.autograd.grad(logits.sum(), fake, create_graph=True)
    (logits.square().sum() + slope.square().sum()).backward()
    for network in (generator, discriminator):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


def test_the_mlp_makes_points_that_know_no_bounds() -> None:
    generator, discriminator = pair("mlp", POINTS)
    points = generator(drawn(5, 2) * 1e6)
    assert points.shape == (5, 2)
    assert points.abs().max() > 1
    assert discriminator(points).shape == (5, 1)


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 1)])
def test_the_mlp_makes_small_images_of_any_size(size: tuple[int, int]) -> None:
    on_meta("mlp", Image(1, size), norm=BOTH)


def test_images_of_unbounded_data_are_not_squashed() -> None:
    generator = dcgan_generator(Image(1, (8, 8), bounded=False), **SMALL["dcgan"])
    assert generator(drawn(4, 128) * 1e3).abs().max() > 1


def accepted(height: int, width: int) -> bool:
    try:
        with torch.device("meta"):
            dcgan_discriminator(Image(1, (height, width)), **SMALL["dcgan"])
    except OptionError:
        return False
    return True


@settings(max_examples=25)
@given(st.integers(1, 130), st.integers(1, 130), st.booleans())
def test_a_size_that_is_refused_names_two_that_are_not(
    height: int, width: int, square: bool
) -> None:
    width = height if square else width
    assume(not accepted(height, width))
    with pytest.raises(OptionError) as caught:
        resnet_generator(Image(3, (height, width)))
    assert caught.value.option == "size"
    one, other = re.findall(r"(\d+)x(\d+)", str(caught.value).split("nearest that can are")[1])
    assert one != other
    for near in (one, other):
        assert accepted(int(near[0]), int(near[1]))
        assert not square or near[0] == near[1]


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ((17, 17), "14x14 and 16x16"),
        ((100, 100), "96x96 and 112x112"),
        ((4, 4), "8x8 and 10x10"),
        ((64, 100), "56x96 and 64x96"),
        ((178, 218), "160x224 and 192x224"),
    ],
)
def test_nearest_sizes(size: tuple[int, int], near: str) -> None:
    with pytest.raises(OptionError) as caught:
        dcgan_generator(Image(3, size))
    assert str(caught.value) == (
        f'"dcgan" cannot make {size[0]}x{size[1]}: both sides must halve evenly until the smaller'
        f" one is 4 to 7; the nearest that can are {near}"
    )


@pytest.mark.parametrize("make", [*MAKERS["dcgan"], *MAKERS["resnet"]])
def test_points_are_left_to_the_mlp(make: Callable[..., Any]) -> None:
    with pytest.raises(OptionError, match='makes images; the data are points, use "mlp"'):
        make(POINTS)


# --- what presets refuse

REFUSED: list[tuple[Callable[..., Any], dict[str, Any], str, str]] = [
    (dcgan_generator, {"width": 0}, "width", "width 0 leaves no channels"),
    (resnet_generator, {"width_max": 8}, "width_max", "width_max 8 is below width 64"),
    (mlp_generator, {"layers": 0}, "layers", "an mlp needs at least one hidden layer"),
    (mlp_generator, {"latent": 0}, "latent", "a latent of width 0 has nothing in it"),
    (
        resnet_discriminator,
        {"attention_at": (7,)},
        "attention_at",
        "this network has no feature map of height 7; it has 4, 8",
    ),
    (
        dcgan_generator,
        {"attention_at": (8, 32)},
        "attention_at",
        "this network has no feature map of height 32; it has 4, 8, 16",
    ),
    (
        dcgan_generator,
        {"head": "transposed", "attention_at": (16,)},
        "attention_at",
        "this network has no feature map of height 16; it has 4, 8",
    ),
    (
        dcgan_generator,
        {"condition": "label"},
        "condition",
        'condition "label" needs labels; the data has none',
    ),
    (
        resnet_generator,
        {"norm": Norm(activation=partial(GroupNorm, groups=48))},
        "groups",
        "48 groups do not divide 256 channels",
    ),
    (resnet_generator, {"widths": (8, 0, 4)}, "widths", "width 0 leaves no channels"),
    (
        resnet_generator,
        {"widths": (8,)},
        "widths",
        "too few widths: no stage is left that changes the size",
    ),
    (
        resnet_generator,
        {"widths": (8,) * 6},
        "widths",
        "16x16 cannot be halved 5 times, as 6 widths ask",
    ),
    (
        resnet_discriminator,
        {"widths": (8, 8), "flat": 2},
        "widths",
        "too few widths: no stage is left that changes the size",
    ),
    (resnet_discriminator, {"flat": -1}, "flat", "flat counts blocks: -1 is below 0"),
    (
        resnet_discriminator,
        {"head": "projection"},
        "condition",
        'head "projection" needs a label: condition = "label", or an "embedding" of it',
    ),
    (
        dcgan_discriminator,
        {"head": "auxiliary"},
        "head",
        'head "auxiliary" tells classes apart; the data has none',
    ),
    (dcgan_generator, {"input": "label"}, "input", 'input "label" needs labels; the data has none'),
    (mlp_generator, {"input": ()}, "input", "the first stage is given nothing"),
    (mlp_generator, {"chunk": 0}, "chunk", "a chunk of width 0 has nothing in it"),
    (
        mlp_generator,
        {"condition": ("latent", "latent")},
        "condition",
        "condition names one thing twice",
    ),
    (
        mlp_generator,
        {"condition": ("latent", "chunk")},
        "condition",
        '"latent" is all of z, "chunk" a part: keep one of them',
    ),
    (
        resnet_generator,
        {"condition": "chunk"},
        "condition",
        "no stage looks at a condition, so chunks of z are lost",
    ),
    (StackGenerator, {"stages": ()}, "stages", "a network needs at least one stage"),
    (
        StackGenerator,
        {"stages": (partial(blocks.dense, channels=3, size=(8, 16)),)},
        "stages",
        "the stages give (3, 8, 16), the image is (3, 16, 16)",
    ),
    (
        StackDiscriminator,
        {"stages": (blocks.SumPositions, partial(blocks.conv, channels=1, padding="none"))},
        "stages",
        "stage 2: nothing is left of the feature map: it would be (1, -1, -1)",
    ),
]


@pytest.mark.parametrize(("make", "options", "name", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(
    make: Callable[..., Any], options: dict[str, Any], name: str, message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        make(FACES, **options)
    assert (caught.value.option, str(caught.value)) == (name, message)


@pytest.mark.parametrize(
    ("make", "options"),
    [(dcgan_generator, {"stem": "transposed"}), (dcgan_discriminator, {"head": "conv"})],
)
def test_square_ends_need_a_square_base(make: Callable[..., Any], options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="base"):
        make(Image(3, (16, 32)), **options)


# --- attention


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("size", [(16, 32), (32, 16)])
def test_attention_is_placed_by_height(name: str, size: tuple[int, int]) -> None:
    options = {"attention": NarrowAttention, "attention_at": (8,)}
    for network in pair(name, Image(3, size), **options):
        (found,) = (stage for stage in network.stages.values() if isinstance(stage, blocks.Attend))
        assert found.out[1:] == (8, 8 * size[1] // size[0])


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_attention_that_is_placed_nowhere_is_refused(name: str) -> None:
    """The other way round is fine: a variant without attention keeps its `attention_at`."""
    with pytest.raises(OptionError, match="where the attention goes: at which of 4, 8, 16"):
        pair(name, FACES, attention=NarrowAttention)
    assert pair(name, FACES, attention_at=(8,))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("at", [(4,), (8,), (4, 8)])
def test_attention_stands_after_the_last_stage_of_its_height(
    name: str, at: tuple[int, ...]
) -> None:
    for network in pair(name, FACES, attention=NarrowAttention, attention_at=at):
        stages = list(network.stages.values())
        found = [i for i, stage in enumerate(stages) if isinstance(stage, blocks.Attend)]
        assert sorted(stages[i].out[1] for i in found) == list(at)
        for i in found:
            behind = [
                stage.out[1] for stage in stages[i + 1 :] if isinstance(stage, blocks.Residual)
            ]
            assert stages[i].out[1] not in behind


# --- conditions


class Scaled(nn.Module):
    """A conditional norm of the smallest kind."""

    def __init__(self, channels: int, condition: int, /) -> None:
        super().__init__()
        self.scale = nn.Linear(condition, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x * (1 + self.scale(condition))[:, :, None, None]


CONDITIONED = Norm(activation=Scaled)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("condition", ["label", "embedding"])
def test_labels_reach_every_conditional_norm(name: str, condition: str) -> None:
    """Each row sees its own label; whatever the label, another one gives another row."""
    options = {"norm": CONDITIONED, "condition": condition, "embedding": 5, "initializer": xavier}
    generator, discriminator = pair(name, LABELLED, **options)
    width = {"label": 4, "embedding": 5}[condition]
    for network, x in (
        (generator, drawn(1, generator.latent)),
        (discriminator, drawn(1, 1, 16, 16)),
    ):
        norms = [module for module in network.modules() if isinstance(module, Scaled)]
        assert {module.scale.in_features for module in norms} == {width}
        each = network(x.expand(4, *x.shape[1:]), torch.arange(4))
        for row in range(4):
            torch.testing.assert_close(network(x, torch.tensor([row]))[0], each[row])
            assert not torch.allclose(each[row], each[row - 1])
        each.square().sum().backward()
        assert all(module.scale.weight.grad.abs().sum() > 0 for module in norms)
        with pytest.raises(ValueError, match=f'condition "{condition}" is called with labels'):
            network(x)


@pytest.mark.parametrize("name", PRESETS)
def test_the_latent_can_be_the_condition(name: str) -> None:
    make, _ = MAKERS[name]
    options = {**SMALL[name], "norm": CONDITIONED, "latent": 6}
    generator = make(FACES, **options, condition="latent")
    norms = [module for module in generator.modules() if isinstance(module, Scaled)]
    assert {module.scale.in_features for module in norms} == {6}
    generator(drawn(2, 6)).square().sum().backward()
    assert all(module.scale.weight.grad.abs().sum() > 0 for module in norms)


@pytest.mark.parametrize("name", PRESETS)
def test_a_conditional_norm_without_a_condition_is_refused(name: str) -> None:
    for make in MAKERS[name]:
        with pytest.raises(OptionError, match="Scaled needs a condition") as caught:
            make(LABELLED, **SMALL[name], norm=CONDITIONED)
        assert caught.value.option == "condition"


def test_labels_change_nothing_where_nothing_is_conditional() -> None:
    for network, x in zip(
        pair("dcgan", LABELLED), (drawn(2, 128), drawn(2, 1, 16, 16)), strict=True
    ):
        assert torch.equal(network(x, torch.tensor([0, 1])), network(x))


# --- initial weights


def part(kind: str, name: str, **options: Any) -> Part:
    return Part(registry.get(kind, name), {**SMALL.get(name, {}), **options})


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Every layer's weight as it is stored, by the layer's name."""
    found = {}
    for key, value in network.named_parameters():
        found[key.replace("parametrizations.", "").replace(".original", "")] = value.detach()
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", PRESETS)
def test_initial_weights_depend_on_the_seed_alone(kind: str, name: str) -> None:
    made = partial(make_network, part(kind, name), FACES)
    before = torch.get_rng_state()
    first = weights(made(1))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        assert same(weights(made(1)), first)
    second = weights(made(2))
    for key, weight in first.items():
        assert key.endswith("bias") or not torch.equal(weight, second[key]), key


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", PRESETS)
def test_no_two_layers_start_alike(kind: str, name: str) -> None:
    found = [w for w in weights(make_network(part(kind, name), FACES, 1)).values() if w.ndim > 1]
    assert len(found) == len({tuple(weight.flatten()[:8].tolist()) for weight in found})


def check_exchange(make: Callable[..., nn.Module]) -> None:
    """Layers that two networks share by name start from the same weights, bit by bit."""
    plain = weights(make())
    attention = Part(registry.get("attention", "self_attention"), {"reduction": 2})
    attended = weights(make(attention=attention, attention_at=(8,)))
    assert any("attend_8" in key for key in attended.keys() - plain.keys())
    assert same(plain, {key: value for key, value in attended.items() if key in plain})


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("initializer", ["xavier", "default"])
def test_exchanging_attention_leaves_the_other_layers_initial_weights(
    kind: str, name: str, initializer: str
) -> None:
    chosen = Part(registry.get("initializer", initializer), {})

    def make(**options: Any) -> nn.Module:
        return make_network(part(kind, name, initializer=chosen, **options), FACES, 1)

    check_exchange(make)
    assert same(weights(make()), weights(make(norm=(Part(registry.get("norm", "spectral"), {}),))))


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_exchanging_attention_leaves_what_norms_drew_for_themselves(kind: str, name: str) -> None:
    with recorded("norm", "scaled", Scaled, on="activation") as entry:
        options = {"norm": (Part(entry, {}),), "condition": "label"}
        check_exchange(
            lambda **more: make_network(part(kind, name, **options, **more), LABELLED, 1)
        )


class Zeroed(Scaled):
    """Marks nothing, and starts as the identity all the same."""

    def __init__(self, channels: int, condition: int, /) -> None:
        super().__init__(channels, condition)
        nn.init.zeros_(self.scale.weight)
        nn.init.ones_(self.scale.bias)


@pytest.mark.parametrize("name", PRESETS)
def test_the_initializer_leaves_the_layers_of_norms_and_what_is_kept(name: str) -> None:
    options = {"norm": Norm(spectral, Zeroed), "condition": "label"}
    for network in pair(name, LABELLED, **options):
        found = [module for module in network.modules() if isinstance(module, Zeroed)]
        assert found
        assert all(not module.scale.weight.any() for module in found)
        assert all(module.scale.bias.eq(1).all() for module in found)
    layer = keep(nn.Linear(2, 2))
    before = layer.weight.detach().clone()
    initialize(layer, xavier)
    assert torch.equal(layer.weight, before)


@contextmanager
def recorded(kind: str, name: str, target: Any, on: str | None) -> Iterator[Entry]:
    """The entry of a part that is on the plug board for as long as it takes."""
    registry.add(kind, name, target, on=on)
    entry = registry.get(kind, name)
    try:
        yield entry
    finally:
        registry.forget(entry.provider)


def test_twin_one_generator_for_all_layers_fails_the_exchange() -> None:
    def make(**options: Any) -> nn.Module:
        network = make_network(part("generator", "dcgan", **options), FACES, 1)
        random = torch.Generator().manual_seed(1)
        initialize(network, xavier, lambda name: random)
        return network

    with pytest.raises(AssertionError):
        check_exchange(make)


def test_the_players_of_a_seed_draw_apart() -> None:
    points, small = Image(3, (), bounded=False), {"width": 8, "layers": 1}
    generator = make_network(part("generator", "mlp", **small, latent=3), points, 1)
    discriminator = make_network(part("discriminator", "mlp", **small), points, 1)
    one, other = weights(generator), weights(discriminator)
    (key,) = (key for key in one.keys() & other.keys() if one[key].shape == (8, 3))
    assert not torch.equal(one[key], other[key])


@pytest.mark.parametrize("norm", [Norm(), Norm(spectral), Norm(weightnorm), Norm(clip)])
def test_initialize_fills_through_every_weight_norm(norm: Norm) -> None:
    layer = norm.weight(nn.Conv2d(3, 4, 3))
    with torch.random.fork_rng(devices=[]):
        initialize(layer, partial(normal, std=0.001), lambda name: torch.Generator().manual_seed(2))
    expected = torch.empty(4, 3, 3, 3).normal_(0, 0.001, generator=torch.Generator().manual_seed(2))
    if parametrize.is_parametrized(layer, "weight") and norm == Norm(spectral):
        expected = expected / torch.linalg.matrix_norm(expected.flatten(1), ord=2)
    torch.testing.assert_close(layer.weight, expected, rtol=1e-4, atol=1e-8)
    assert torch.equal(layer.bias, torch.zeros(4))


@pytest.mark.parametrize("norm", [Norm(), Norm(spectral)])
def test_the_default_initializer_leaves_what_was_drawn(norm: Norm) -> None:
    layer = nn.Linear(3, 4)
    before = layer.weight.detach().clone()
    norm.weight(layer)
    initialize(layer, default)
    assert torch.equal(weights(layer)["weight"], before)


@pytest.mark.parametrize("name", PRESETS)
def test_by_hand_spectral_estimates_are_exact_from_the_start(name: str) -> None:
    for network in pair(name, FACES, norm=Norm(spectral)):
        found = list(ops.estimates(network))
        assert found
        for estimate, weight in found:
            exact = torch.linalg.matrix_norm(estimate.matrix(weight), ord=2)
            torch.testing.assert_close(estimate.sigma(weight), exact)


# --- presets are stacks

STAGES: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (
        dcgan_generator,
        {"attention": NarrowAttention, "attention_at": (8,)},
        "dense_4 activate_4 transposed_8 normalise_8 attend_8 transposed_16 normalise_16"
        " conv_16 activate_16",
    ),
    (
        dcgan_generator,
        {"stem": "transposed", "head": "transposed"},
        "transposed_4 normalise_4 transposed_8 normalise_8 transposed_16 activate_16",
    ),
    (dcgan_discriminator, {}, "conv_8 activate_8 conv_4 normalise_4 dense_1"),
    (dcgan_discriminator, {"head": "conv"}, "conv_8 activate_8 conv_4 normalise_4 conv_1"),
    (
        resnet_generator,
        {},
        "dense_4 residual_up_8 residual_up_16 normalise_16 conv_16 activate_16",
    ),
    (
        resnet_discriminator,
        {"attention": NarrowAttention, "attention_at": (4,)},
        "residual_stem_8 residual_down_4 residual_4 attend_4 activate_4 sum_positions_1 dense_1",
    ),
    (
        resnet_generator,
        {"widths": (8, 8, 4, 4), "last_norm": "batchnorm"},
        "dense_2 residual_up_4 residual_up_8 residual_up_16 normalise_with_16 conv_16 activate_16",
    ),
    (
        resnet_discriminator,
        {"widths": (4, 8, 8, 8), "flat": 2, "pool": "mean"},
        "residual_stem_8 residual_down_4 residual_4 residual_4_2 activate_4 mean_positions_1"
        " dense_1",
    ),
    (
        resnet_discriminator,
        {"before_head": (blocks.MinibatchStd, partial(blocks.conv, channels=8)), "flat": 0},
        "residual_stem_8 residual_down_4 minibatch_std_4 conv_4 activate_4 sum_positions_1 dense_1",
    ),
    (
        dcgan_discriminator,
        {"before_head": (blocks.MinibatchStd,)},
        "conv_8 activate_8 conv_4 normalise_4 minibatch_std_4 dense_1",
    ),
    (
        mlp_generator,
        {"layers": 2},
        "dense_1 normalise_1 dense_1_2 normalise_1_2 dense_16 activate_16",
    ),
    (mlp_discriminator, {"layers": 1}, "dense_1 normalise_1 dense_1_2"),
]


@pytest.mark.parametrize(("make", "options", "stages"), STAGES)
def test_presets_write_these_stages(
    make: Callable[..., Any], options: dict[str, Any], stages: str
) -> None:
    small = {} if "layers" in options else SMALL["dcgan"]
    assert " ".join(make(FACES, **small, **options).stages) == stages


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("image", [FACES, LABELLED])
def test_a_preset_is_the_stack_of_its_arguments(name: str, image: Image) -> None:
    options: dict[str, Any] = {"norm": BOTH}
    if image.classes:
        options = {"norm": Norm(spectral, Scaled), "condition": "embedding", "embedding": 5}
    for stack, made in zip(MAKERS["stack"], pair(name, image, **options), strict=True):
        written = stack(image, **made.arguments)
        assert type(written) is type(made)
        assert written.state_dict().keys() == made.state_dict().keys()
        written.load_state_dict(made.state_dict())
        x = drawn(3, made.latent) if hasattr(made, "latent") else drawn(3, *image.shape)
        labels = torch.tensor([0, 1, 2]) if image.classes else None
        assert torch.equal(written.eval()(x, labels), made.eval()(x, labels))


@pytest.mark.parametrize("kind", OURS)
def test_a_presets_arguments_are_the_options_of_the_stack(kind: str) -> None:
    make = MAKERS["dcgan"][list(OURS).index(kind)]
    assert (
        make(FACES, **SMALL["dcgan"]).arguments.keys() == registry.get(kind, "stack").options.keys()
    )


def test_stages_of_one_name_are_numbered_and_none_is_lost() -> None:
    def conv_4(shape: Any, /) -> Any:
        return blocks.activate(shape)

    low, high = (partial(blocks.dense, channels=2, size=(side, side)) for side in (2, 4))
    conv = partial(blocks.conv, channels=2)
    network = StackDiscriminator(FACES, stages=(low, conv_4, high, conv, conv))
    assert list(network.stages) == ["dense_2", "conv_4_2", "dense_4", "conv_4", "conv_4_3"]


@pytest.mark.parametrize("name", PRESETS)
def test_networks_are_copied_whole(name: str) -> None:
    for network in pair(name, FACES, norm=BOTH):
        x = drawn(3, network.latent) if hasattr(network, "latent") else drawn(3, 3, 16, 16)
        network(x)
        copied = copy.deepcopy(network).eval()
        before = network.eval()(x).detach()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1)
        assert torch.equal(copied(x), before)
