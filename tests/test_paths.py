"""Fast paths: each gives what its plain twin gives, is taken where it may be, can be turned off."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit import ops
from gankit.attentions.self_attention import SelfAttention2d, explicit, padded
from gankit.blocks import ConvPool2d, UpsampleConv2d
from gankit.build import build
from gankit.norms import spectral
from gankit.ops import conv_pool, folded_kernel, plainly, resampled, upsample_conv
from gankit.paths import paths, resolved
from gankit.slots import Norm
from gankit.spec import Spec, loads
from gankit.train.engine import Engine
from gankit.train.plan import plan

ATTENDING = (
    "generator.attention={ use = 'self_attention', reduction = 4 }",
    "generator.attention_at=[16]",
    "discriminator.attention=self_attention",
    "discriminator.attention_at=[16]",
)


# --- folded convolutions: as written, in double precision, to the second derivative

Form = Callable[..., Tensor]


def drawn(seed: int, *shape: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def check_form(
    form: Form, seed: int, rows: int, wide: int, channels: int, size: tuple[int, int], kernel: int,
    bias: bool,
) -> None:  # fmt: skip
    given = [drawn(seed, rows, wide, *size), drawn(seed + 1, channels, wide, kernel, kernel)]
    given += [drawn(seed + 2, channels)] * bias

    def through(fast: bool) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        y = form(leaves[0], leaves[1], leaves[2] if bias else None, fast=fast)
        first = torch.autograd.grad(y.pow(3).sum(), leaves, create_graph=True)
        squares = torch.stack([slope.square().sum() for slope in first]).sum()
        return [y, *first, *torch.autograd.grad(squares, leaves)]

    for one, other in zip(through(True), through(False), strict=True):
        scale = other.abs().amax().clamp_min(1e-300)
        assert ((one - other).abs().amax() / scale).item() < 1e-10


SIDES = st.tuples(st.integers(2, 7), st.integers(2, 7))


@pytest.mark.parametrize("form", [upsample_conv, conv_pool])
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 3),
    wide=st.integers(1, 4),
    channels=st.integers(1, 4),
    size=SIDES,
    kernel=st.sampled_from([1, 3, 5]),
    bias=st.booleans(),
)
def test_a_folded_form_is_the_plain_one(form: Form, **given: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampled, "LEAST", 0)
        check_form(form, **given)


def test_bilinear_upsampling_commutes_with_1x1_and_is_not_folded_otherwise() -> None:
    for kernel in (1, 3):
        form = lambda x, w, b, fast: upsample_conv(x, w, b, "bilinear", fast=fast)  # noqa: E731
        check_form(form, 3, 2, 3, 4, (3, 5), kernel, True)


def test_twins_another_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampled, "LEAST", 0)
    right = resampled.folded_kernel
    for wrong in (
        lambda w: right(w).flip(2),
        lambda w: F.pad(w, (0, 1, 0, 1)),
        lambda w: right(w).transpose(2, 3),
    ):
        monkeypatch.setattr(resampled, "folded_kernel", wrong)
        for form in (upsample_conv, conv_pool):
            with pytest.raises(AssertionError):
                check_form(form, 3, 2, 3, 2, (4, 4), 3, True)


def test_the_kernel_is_the_sum_over_its_shifts() -> None:
    weight = drawn(1, 2, 3, 3, 3)
    shifted = [F.pad(weight, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)]
    torch.testing.assert_close(folded_kernel(weight), torch.stack(shifted).sum(0))


def test_few_positions_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    right = resampled.folded_kernel
    monkeypatch.setattr(resampled, "folded_kernel", lambda w: counted.append(1) or right(w))
    weight = drawn(0, 2, 3, 3, 3)
    for rows, folds in ((15, 0), (16, 1)):
        counted.clear()
        upsample_conv(drawn(1, rows, 3, 4, 4), weight, None)
        conv_pool(drawn(1, rows, 3, 8, 8), weight, None)
        assert len(counted) == 2 * folds


@pytest.mark.parametrize("layer", [UpsampleConv2d(3, 4, 3), ConvPool2d(3, 4, 3)])
def test_spectral_norm_is_that_of_the_kernel_as_it_is(layer: nn.Conv2d) -> None:
    layer = layer.double()
    raw = layer.weight.detach().clone()
    normed: Any = spectral(layer)
    ops.settle(normed)
    sigma = torch.linalg.matrix_norm(raw.flatten(1), 2)
    x = drawn(2, 8, 3, 16, 16)
    with ops.held(normed):
        torch.testing.assert_close(normed.weight, raw / sigma, rtol=1e-6, atol=1e-9)
        fast = normed(x)
        with plainly(normed):
            torch.testing.assert_close(normed(x), fast)


def test_a_module_that_calls_something_else_fast_is_left_alone() -> None:
    class Own(nn.Module):
        fast = "a word of its own"

    own, layer = Own(), ConvPool2d(3, 4, 3)
    with plainly(nn.Sequential(own, layer)):
        assert (own.fast, layer.fast) == ("a word of its own", False)
    assert (own.fast, layer.fast) == ("a word of its own", True)


# --- attention as one kernel


def attention_of(
    form: Form, seed: int, rows: int, places: tuple[int, int], wide: int, values: int
) -> list[Tensor]:
    given = [drawn(seed, rows, places[0], wide), drawn(seed + 1, rows, places[1], wide)]
    leaves = [t.requires_grad_() for t in (*given, drawn(seed + 2, rows, places[1], values))]
    y = form(*leaves)
    return [y, *torch.autograd.grad(y.pow(3).sum(), leaves)]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 99), st.integers(1, 3), st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 5), st.integers(1, 5),
)  # fmt: skip
def test_padded_attention_is_the_one_that_is_written_out(
    seed: int, rows: int, places: tuple[int, int], wide: int, values: int
) -> None:
    forms = [attention_of(form, seed, rows, places, wide, values) for form in (padded, explicit)]
    for one, other in zip(*forms, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_twin_padding_with_anything_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pad = F.pad
    monkeypatch.setattr(F, "pad", lambda t, sides: pad(t, sides, mode="replicate"))
    one = attention_of(padded, 1, 2, (3, 4), 2, 5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(one, attention_of(explicit, 1, 2, (3, 4), 2, 5))


def check_projected(**options: Any) -> None:
    """Queries, keys and values of one convolution are those of three, and their gradients too."""
    attention = SelfAttention2d(8, Norm(spectral), reduction=2, **options).double().eval()
    nn.init.ones_(attention.gamma)
    found = []
    for attention.fast in (True, False):
        x = drawn(3, 2, 8, 6, 4).requires_grad_()
        made = attention(x)
        wanted = [x, *attention.parameters()]
        gradients = torch.autograd.grad((made * drawn(4, *made.shape)).sum(), wanted)
        found.append([made.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"value_reduction": 2, "pool": 2, "bias": False}])
def test_queries_keys_and_values_are_one_convolution(options: dict[str, Any]) -> None:
    check_projected(**options)


def test_twin_queries_for_keys_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("gankit.attentions.self_attention")
    right = SelfAttention2d._projected

    def swapped(self: SelfAttention2d, x: Tensor) -> Any:
        queries, keys, values = right(self, x)
        return (keys, queries, values) if self.fast else (queries, keys, values)

    monkeypatch.setattr(module.SelfAttention2d, "_projected", swapped)
    with pytest.raises(AssertionError):
        check_projected(pool=2)


def test_projections_that_are_no_convolutions_are_called() -> None:
    class Doubled(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)

    attention = SelfAttention2d(8, Norm(Doubled))
    queries, _, _ = attention._projected(drawn(0, 1, 8, 2, 2).float())
    torch.testing.assert_close(queries, attention.query(drawn(0, 1, 8, 2, 2).float()))


@pytest.mark.parametrize(
    ("side", "second_order", "fast", "form"),
    [
        (32, False, True, "padded"),
        (16, False, True, "explicit"),
        (32, True, True, "explicit"),
        (32, False, False, "explicit"),
    ],
)
def test_attention_is_padded_on_a_cpu_where_that_is_faster(
    side: int, second_order: bool, fast: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("gankit.attentions.self_attention")
    taken: list[str] = []
    for name in ("padded", "explicit"):
        monkeypatch.setattr(
            module, name, lambda q, k, v, n=name: taken.append(n) or explicit(q, k, v)
        )
    attention = SelfAttention2d(8)
    attention.second_order, attention.fast = second_order, fast
    attention(torch.randn(1, 8, side, side))
    assert taken == [form]


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ((), "neither network has self-attention"),
        ((*ATTENDING, "penalty.r1={}"), ""),
        (
            (*ATTENDING[2:], "penalty.r1={}"),
            "r1 takes second derivatives",
        ),
        ((*ATTENDING, "train.fast=['joint']"), "train.fast leaves it out"),
    ],
)
def test_attention_is_one_kernel_where_nothing_takes_second_derivatives(
    overrides: tuple[str, ...], why: str
) -> None:
    spec = spec_of(*overrides)
    path = next(path for path in paths(spec) if path.name == "attention")
    assert (path.taken, path.why) == (not why, why or path.why)
    assert ("not in the discriminator" in path.why) == ("penalty.r1={}" in overrides and not why)
    gan, _ = build(spec, "meta")
    flags = {
        (network is gan.discriminator, module.fast and not module.second_order)
        for network in (gan.generator, gan.discriminator)
        for module in network.modules()
        if isinstance(module, SelfAttention2d)
    }
    assert (
        flags
        == {
            (): set(),
            (*ATTENDING, "penalty.r1={}"): {(False, True), (True, False)},
            (*ATTENDING[2:], "penalty.r1={}"): {(True, False)},
            (*ATTENDING, "train.fast=['joint']"): {(False, False), (True, False)},
        }[overrides]
    )


# --- the layout of feature maps


def layouts(network: nn.Module, x: Tensor) -> set[bool]:
    """Whether what flows into each convolution has its channels last."""
    found: set[bool] = set()
    hooks = [
        module.register_forward_pre_hook(
            lambda module, given: found.add(given[0].is_contiguous(memory_format=LAST))
        )
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.in_channels > 1
    ]
    y = network(x)
    for hook in hooks:
        hook.remove()
    assert y.is_contiguous()
    return found


LAST = torch.channels_last


@pytest.mark.parametrize("use", ["resnet", "dcgan"])
def test_feature_maps_of_a_stack_have_their_channels_last(use: str) -> None:
    for fast, wanted in (("true", True), ("false", False)):
        gan, _ = build(
            spec_of(
                f"train.fast={fast}", f"generator={{ use = '{use}', width = 8 }}",
                f"discriminator={{ use = '{use}', width = 8 }}",
            )
        )  # fmt: skip
        assert layouts(gan.generator, torch.randn(2, 128)) == {wanted}
        assert layouts(gan.discriminator, torch.randn(2, 3, 32, 32)) == {wanted}


def test_what_has_one_position_or_is_on_meta_is_left_as_it_is() -> None:
    one = torch.randn(2, 3, 1, 1)
    assert ops.channels_last(one) is one
    meta = torch.empty(2, 3, 4, 4, device="meta")
    assert ops.channels_last(meta) is meta


# --- which are taken

SPEC = """
gankit = 1
loss = "hinge"
data = { use = "shapes", size = 32, length = 256 }
train = { steps = 4, batch = 16 }
[generator]
use = "resnet"
latent = 8
width = 8
norm = ["spectral", "batchnorm"]
[discriminator]
use = "resnet"
width = 8
norm = "spectral"
"""


def spec_of(*overrides: str) -> Spec:
    return loads(SPEC, overrides)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ((), ""),
        (("train.batches=joint",), 'train.batches = "joint" is one pass as it is'),
        (("discriminator.norm=batchnorm",), "batchnorm mixes the rows of a batch"),
        (
            ("discriminator.before_head=['minibatch_std']",),
            "minibatch_std mixes the rows of a batch",
        ),
        (("discriminator={ use = 'pacgan' }",), "pacgan mixes the rows of a batch"),
        (("discriminator.before_head=['dropout']",), "dropout draws at random"),
        (("train.fast=false",), "train.fast leaves it out"),
        (("train.fast=['folded']",), "train.fast leaves it out"),
        (("train.fast=['joint']",), ""),
    ],
)
def test_one_pass_is_taken_where_no_part_of_d_mixes_rows(
    overrides: tuple[str, ...], why: str
) -> None:
    spec = spec_of(*overrides)
    joint = next(path for path in paths(spec) if path.name == "joint")
    assert joint.taken == (not why)
    assert joint.why == why or not why
    gan, _ = build(spec, "meta")
    assert gan.joint == joint.taken
    assert any(line.startswith(f"joint is {'' if joint.taken else 'not '}taken: ")
               for line in plan(spec).choices)  # fmt: skip
    assert tomllib.loads(resolved(spec))["paths"]["joint"] == (why or "taken")


def test_a_foreign_part_of_d_is_judged_apart() -> None:
    import gankit

    @gankit.activation("of_somebody_else")
    def of_somebody_else() -> nn.Module:
        """Somebody's."""
        return nn.ReLU()

    joint = paths(spec_of("discriminator.activation=of_somebody_else"))[1]
    assert (joint.taken, joint.why) == (
        False, "of_somebody_else is not gankit's, and may mix the rows of a batch"
    )  # fmt: skip


def test_layers_are_folded_unless_the_spec_says_no() -> None:
    for overrides, folds in (((), True), (("train.fast=false",), False)):
        gan, _ = build(spec_of(*overrides), "meta")
        flags = [
            module.fast
            for network in (gan.generator, gan.discriminator)
            for module in network.modules()
            if isinstance(module, UpsampleConv2d | ConvPool2d)
        ]
        # Of three blocks each, a 3x3 convolution and a shortcut.
        assert flags == [folds] * 12


def test_a_resolved_spec_is_read_again_and_is_the_same_run() -> None:
    for overrides in ((), ("train.fast=['folded']",), ("train.fast=false",)):
        spec = spec_of(*overrides)
        assert loads(resolved(spec)).hash == spec.hash
    assert spec_of("train.fast=false").hash != spec_of().hash


# --- a whole step is the plain one


def stepped(spec: Spec, steps: int = 2, break_it: bool = False) -> tuple[Any, list[dict[str, Any]]]:
    gan, data = build(spec)
    if break_it:
        gan.joint = True
    for network in (gan.generator, gan.discriminator):
        network.double()
    engine = Engine(gan, data, spec.train, torch.device("cpu"))
    return gan, [engine.step(step) for step in range(steps)]


CONDITIONAL = (
    "generator.norm=['spectral', 'conditional_batchnorm']", "generator.condition=label",
    "generator.last_norm=batchnorm", "discriminator.head=projection",
    "discriminator.condition=label",
)  # fmt: skip
STEPS: dict[str, tuple[str, ...]] = {
    "plain SAGAN parts": (),
    "labels": CONDITIONAL,
    "augments": ("augment.color={}", "augment.translation={}"),
    "r1": ("penalty.r1.weight=1", "loss=nonsaturating"),
    "shares": ("train.accumulate=2", "augment.flip={}"),
    "both at once": ("schedule.simultaneous={}",),
    "relativistic": ("loss=relativistic",),
    "attention": (
        "data.size=64",
        "generator.attention=self_attention",
        "generator.attention_at=[32]",
        "discriminator.attention=self_attention",
        "discriminator.attention_at=[32]",
    ),
    "rotations": ("discriminator.head=rotation", "penalty.rotation={}"),
}


def check_step(*overrides: str, **how: Any) -> None:
    """In double precision, so that nothing but another function can be apart."""
    fast, told = stepped(spec_of(*overrides), **how)
    plain, by_hand = stepped(spec_of(*overrides, "train.fast=false"))
    for one, other in zip(told, by_hand, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=1e-6, atol=1e-9, msg=key)
    for name in ("generator", "discriminator"):
        states = [getattr(gan, name).state_dict() for gan in (fast, plain)]
        for key in states[0]:
            torch.testing.assert_close(states[0][key], states[1][key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "attention")) for n in STEPS]
)
def test_a_step_is_the_same_without_fast_paths(name: str) -> None:
    check_step(*STEPS[name])


def test_twin_one_pass_of_a_d_that_mixes_rows_is_another_function() -> None:
    with pytest.raises(AssertionError):
        check_step("discriminator.norm=batchnorm", break_it=True)


@pytest.mark.parametrize("name", ["folded", "joint", "attention", "channels_last"])
def test_every_path_alone_gives_the_same(name: str) -> None:
    check_step(f"train.fast=['{name}']")
