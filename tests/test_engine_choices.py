"""What the build chooses: attention's form, by who takes second derivatives; what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import gankit.attentions as attentions
from gankit.attentions import SelfAttention2d, explicit, fused
from gankit.build import GAN, build
from gankit.errors import SpecError
from gankit.registry import Entry, Provider, registry
from gankit.slots import Turn
from gankit.spec import loads
from gankit.train.plan import plan
from tests.engines import engine_of

ATTENDED = """
gankit = 1
name = "attended"
data = { use = "digits", size = 8 }
[generator]
use = "dcgan"
latent = 4
width = 8
attention = "self_attention"
attention_at = [4, 8]
[discriminator]
use = "dcgan"
width = 8
norm = "spectral"
attention = "self_attention"
attention_at = [4]
[loss]
use = "hinge"
[train]
steps = 2
batch = 4
"""


# --- the two forms are one function

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def check_forms(attend: Attend, batch: int, queries: int, keys: int, d: int, e: int) -> None:
    """Values and gradients, to 1e-10 in float64."""
    shapes = ((batch, queries, d), (batch, keys, d), (batch, keys, e))
    given = [normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    cotangent = normal(batch, queries, e, seed=3)
    one, other = explicit(*given), attend(*given)
    torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)
    slopes = [torch.autograd.grad((y * cotangent).sum(), given) for y in (one, other)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-10, atol=1e-10)


@given(*[st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)], *[st.integers(1, 9)] * 2)
def test_fused_attention_is_the_explicit_one(
    batch: int, queries: int, keys: int, d: int, e: int
) -> None:
    check_forms(fused, batch, queries, keys, d, e)


def test_twin_scores_that_are_divided_are_caught() -> None:
    def scaled(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    with pytest.raises(AssertionError):
        check_forms(scaled, 2, 5, 3, 4, 4)


@given(
    st.integers(1, 2),
    st.integers(8, 17),
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
)
def test_a_whole_layer_is_the_same_with_either(
    batch: int, channels: int, size: tuple[int, int], pool: int, value_reduction: int, bias: bool
) -> None:
    layer = SelfAttention2d(channels, pool=pool, value_reduction=value_reduction, bias=bias)
    for index, parameter in enumerate(layer.double().parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=index))
    x = normal(batch, channels, *size, seed=99).requires_grad_()
    found = []
    for attend in (explicit, fused):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attentions, "explicit", attend)
            y = layer(x)
        wanted = (x, *layer.parameters())
        slopes = torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)
        # What the keys' bias adds to all scores of a query is not seen: rounding alone is left.
        names = ["x", *dict(layer.named_parameters())]
        kept = [s for name, s in zip(names, slopes, strict=True) if name != "key.bias"]
        found.append([y, *kept])
    for one, other in zip(*found, strict=True):
        size_of = max(1.0, float(one.detach().abs().max()))
        torch.testing.assert_close(other / size_of, one / size_of, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU has kernels of its own")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_a_layer_is_near_the_explicit_one(dtype: torch.dtype) -> None:
    layer = SelfAttention2d(64).cuda()
    nn.init.ones_(layer.gamma)
    x = torch.randn(2, 64, 16, 16, device="cuda")
    found = []
    for layer.second_order in (True, False):
        with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
            found.append(layer(x).float())
    within = 1e-4 if dtype is torch.float32 else 0.05
    torch.testing.assert_close(found[0], found[1], rtol=within, atol=within)


# --- the choice


def forms(gan: GAN) -> dict[str, set[bool]]:
    """Of each network, whether its attentions are made for second derivatives."""
    return {
        name: {m.second_order for m in network.modules() if isinstance(m, SelfAttention2d)}
        for name, network in (("G", gan.generator), ("D", gan.discriminator))
    }


NEEDED = {
    "r1": "D", "r2": "D", "wgan_gp": "D", "dragan": "D",
    "lecam": "", "consistency": "", "orthogonal": "", "feature_matching": "",
}  # fmt: skip
"""In which network a penalty takes second derivatives."""


def check_choice(overrides: list[str], wanted: str) -> None:
    spec = loads(ATTENDED, overrides)
    for device in ("cpu", "meta"):
        gan, _ = build(spec, device)
        assert forms(gan) == {name: {name in wanted} for name in "GD"}


@pytest.mark.parametrize("penalty", NEEDED)
def test_attention_is_explicit_where_second_derivatives_are_taken(penalty: str) -> None:
    check_choice([f"penalty.{penalty}={{}}"], NEEDED[penalty])


def test_the_choices_are_those_of_every_penalty() -> None:
    ours = [e for e in registry.find("penalty") if e.provider.name == "gankit"]
    assert {e.name for e in ours if "second_order" in e.needs} == {n for n in NEEDED if NEEDED[n]}
    check_choice([], "")
    check_choice(["penalty.lecam={}", "penalty.r2={}"], "D")


class Smooth:
    """A penalty on G's own slope."""

    players = "G"
    every = 1

    def __call__(self, turn: Turn, /) -> Tensor:
        latent = turn.latent.detach().requires_grad_()
        (slope,) = torch.autograd.grad(turn.generate(latent).sum(), latent, create_graph=True)
        return slope.square().mean() + turn.fake_logits.sum() * 0


class SmoothBoth(Smooth):
    players = "DG"


@pytest.mark.parametrize("made", [Smooth, SmoothBoth])
def test_one_of_gs_turn_may_differentiate_both(
    made: type[Smooth], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D may be in the way to what it looks at."""
    kind = registry.get("penalty", "r1").kind
    entry = Entry(kind, "smooth", made, Provider("test"), needs=frozenset({"second_order"}))
    monkeypatch.setitem(registry._entries, ("penalty", "smooth"), entry)
    check_choice(["penalty.smooth={}"], "GD")
    told = plan(loads(ATTENDED, ["penalty.smooth={}"])).choices
    assert "attention is not taken: smooth takes second derivatives" in told


TAKEN = (
    "taken: queries, keys and values are one convolution, scores and softmax one kernel, "
    "where that is faster"
)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [],
            TAKEN,
        ),
        (
            ["penalty.r1={}"],
            f"{TAKEN}; not in the discriminator, of which r1 takes second derivatives",
        ),
        (
            ["penalty.r1={}", "penalty.lecam={}", "penalty.r2={}"],
            f"{TAKEN}; not in the discriminator, of which r1 and r2 take second derivatives",
        ),
        (
            ["generator.attention=none"],
            TAKEN,
        ),
        (
            ["generator.attention=none", "penalty.r1={}"],
            "not taken: r1 takes second derivatives",
        ),
        (
            ["generator.attention=none", "discriminator.attention=none"],
            "not taken: neither network has self-attention",
        ),
    ],
)
def test_the_plan_says_which_and_why(overrides: list[str], said: str) -> None:
    made = plan(loads(ATTENDED, overrides))
    assert [c for c in made.choices if c.startswith("attention")] == [f"attention is {said}"]
    assert made.json()["choices"] == list(made.choices)


def test_the_command_prints_it(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from gankit.cli import main

    file = tmp_path / "attended.toml"
    file.write_text(ATTENDED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gankit", "build", str(file), "--set", "penalty.r1={}"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    shown = " ".join(capsys.readouterr().out.split())
    for choice in plan(loads(ATTENDED, ["penalty.r1={}"])).choices:
        assert choice in shown


@pytest.mark.parametrize("penalty", [name for name in NEEDED if NEEDED[name]])
def test_with_the_choice_made_second_derivatives_are_there(penalty: str) -> None:
    engine = engine_of(ATTENDED, f"penalty.{penalty}={{}}", "train.accumulate=2")
    told = engine.step(0)
    assert all(bool(value.isfinite()) for value in told.values())


def test_fused_kernels_have_none() -> None:
    """Why there is a choice to be made; where torch has them one day, there need be none."""
    x = torch.randn(2, 5, 4).requires_grad_()
    (slope,) = torch.autograd.grad(fused(x, x, x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative"):
        slope.square().sum().backward()


# --- what is refused


@pytest.mark.parametrize("penalty", ["wgan_gp", "dragan"])
def test_a_penalty_of_single_images_and_a_norm_that_mixes_them_are_refused(penalty: str) -> None:
    spec = loads(ATTENDED, [f"penalty.{penalty}={{}}", "discriminator.norm=batchnorm"])
    with pytest.raises(SpecError) as caught:
        build(spec, "meta")
    (problem,) = caught.value.problems
    assert problem.message == (
        f'penalty "{penalty}" treats each image by itself; '
        'the discriminator\'s "batchnorm" mixes them'
    )
    assert problem.hint == "layernorm or no norm in [discriminator] leaves images apart"
    assert problem.place is not None
    assert problem.place.source.startswith(f"penalty.{penalty}")


@pytest.mark.parametrize("override", ["generator.norm=batchnorm", "discriminator.norm=layernorm"])
def test_but_not_a_norm_of_gs_nor_one_of_single_images(override: str) -> None:
    build(loads(ATTENDED, ["penalty.wgan_gp={}", override]), "meta")
