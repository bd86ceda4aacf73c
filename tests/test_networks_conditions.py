"""Labels and latents in networks: inputs, conditions, chunks, projections, heads, packs."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradgradcheck

from gankit import blocks
from gankit.build import build
from gankit.errors import OptionError, SpecError
from gankit.networks import (
    Condition,
    PacGAN,
    StackDiscriminator,
    StackGenerator,
    dcgan_discriminator,
    dcgan_generator,
    mlp_discriminator,
    mlp_generator,
    resnet_discriminator,
    resnet_generator,
)
from gankit.norms import BatchNorm, ConditionalBatchNorm, SelfModulatedBatchNorm, spectral
from gankit.slots import Image, Norm, Shape, features_of, heads_of
from gankit.spec import dumps, loads
from gankit.train.plan import expand

CLASSES = 4
LABELLED = Image(1, (16, 16), classes=CLASSES)
POINTS = Image(2, (), classes=CLASSES, bounded=False)
SMALL: dict[str, Any] = {"width": 4, "width_max": 16}
GENERATORS: dict[str, Any] = {
    "dcgan": partial(dcgan_generator, **SMALL),
    "mlp": partial(mlp_generator, width=8, layers=3),
    "resnet": partial(resnet_generator, **SMALL),
}
DISCRIMINATORS: dict[str, Any] = {
    "dcgan": partial(dcgan_discriminator, **SMALL),
    "mlp": partial(mlp_discriminator, width=8, layers=1),
    "resnet": partial(resnet_discriminator, **SMALL),
}
TABLES = Norm(activation=ConditionalBatchNorm)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(network: nn.Module) -> Any:
    """Every parameter drawn, also those that start at 0."""
    random = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=random)
    return network


# --- what the first stage is given

KINDS = ["latent", "label", "embedding"]


def beside(network: Any, kinds: tuple[str, ...], z: Tensor, labels: Tensor) -> Tensor:
    """The pieces of an input or a condition, by hand."""
    pieces = {
        "latent": z,
        "chunk": z,
        "label": torch.eye(CLASSES)[labels],
        "embedding": getattr(network.condition, "embedding", nn.Embedding(CLASSES, 1)).weight[
            labels
        ],
    }
    return torch.cat([pieces[kind] for kind in kinds], dim=1)


@pytest.mark.parametrize("name", GENERATORS)
@given(st.permutations(KINDS), st.integers(1, 3))
def test_the_input_is_what_is_named_in_that_order(name: str, kinds: list[str], count: int) -> None:
    chosen = tuple(kinds[:count])
    network = GENERATORS[name](LABELLED, latent=6, input=chosen, embedding=5)
    z, labels = drawn(3, 6), torch.tensor([0, 2, 3])
    given = beside(network, chosen, z, labels)
    first = next(iter(network.stages.values()))
    seen: list[Tensor] = []
    first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = network(z, labels)
    assert images.shape == (3, 1, 16, 16)
    assert torch.equal(seen[0][:, :, 0, 0], given)


def test_one_kind_needs_no_list() -> None:
    one = mlp_generator(POINTS, latent=6, input="label", condition="latent", norm=TABLES)
    other = mlp_generator(POINTS, latent=6, input=("label",), condition=("latent",), norm=TABLES)
    other.load_state_dict(one.state_dict())
    z, labels = drawn(5, 6), torch.arange(5) % CLASSES
    assert torch.equal(one(z, labels), other(z, labels))


@pytest.mark.parametrize("name", GENERATORS)
def test_input_and_condition_share_one_embedding(name: str) -> None:
    options = {"norm": TABLES, "input": ("latent", "embedding"), "condition": "embedding"}
    network = filled(GENERATORS[name](LABELLED, latent=6, embedding=5, **options))
    found = [key for key, _ in network.named_parameters() if "embedding" in key]
    assert found == ["condition.embedding.weight"]
    assert [key for key in network.state_dict() if "embedding" in key] == found
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.condition.embedding.weight[1] += 1
    z, labels = drawn(4, 6).expand(4, 6), torch.tensor([0, 1, 2, 3])
    network.eval()
    other.eval()
    same = (network(z, labels) == other(z, labels)).flatten(1).all(1)
    assert same.tolist() == [True, False, True, True]


def test_labels_are_in_the_latents_own_type() -> None:
    network = mlp_generator(POINTS, latent=6, input=("latent", "label"), condition="label").double()
    assert network(drawn(3, 6).double(), torch.arange(3)).dtype == torch.float64
    judge = filled(mlp_discriminator(POINTS, head="projection", condition="label")).double()
    assert judge(drawn(3, 2).double(), torch.arange(3)).dtype == torch.float64


# --- chunks of z: Brock et al. (2019), appendix B


class Recorder(nn.Module):
    """A stage that looks at the condition, and notes which it was given."""

    conditioned = True

    def __init__(self, shape: Shape, norm: Norm, /) -> None:
        super().__init__()
        self.out = shape
        self.width = norm.condition
        self.layer = nn.Linear(1, 1)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        self.seen = condition
        return x


def stack(looking: list[bool], latent: int, chunk: int, condition: Any, **more: Any) -> Any:
    """A stack of stages some of which look at the condition."""
    middle = [Recorder if looks else blocks.activate for looks in looking]
    head = partial(blocks.dense, channels=2)
    options = {"latent": latent, "chunk": chunk, "condition": condition, "embedding": 5, **more}
    return StackGenerator(POINTS, stages=(head, *middle, head), **options)


def check_chunks(network: Any, looking: list[bool], chunk: int, kinds: tuple[str, ...]) -> None:
    """The first enters; each stage that looks is given the next, beside the label."""
    z, labels = drawn(3, network.latent), torch.tensor([0, 2, 3])
    seen: list[Tensor] = []
    first = next(iter(network.stages.values()))
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(z, labels)
    handle.remove()
    pieces = z.split(chunk, dim=1)
    assert len(pieces) == 1 + sum(looking)
    assert torch.equal(seen[0][:, :, 0, 0], pieces[0])
    recorders = [stage for stage in network.stages.values() if isinstance(stage, Recorder)]
    for piece, recorder in zip(pieces[1:], recorders, strict=True):
        assert recorder.seen is not None
        assert torch.equal(recorder.seen, beside(network, kinds, piece, labels))
        assert recorder.seen.shape[1] == recorder.width


ORDERS: list[tuple[str, ...]] = [("chunk",), ("embedding", "chunk"), ("chunk", "label")]


@given(
    st.lists(st.booleans(), min_size=1, max_size=6).filter(any),
    st.integers(1, 4),
    st.sampled_from(ORDERS),
)
def test_each_stage_that_looks_is_given_a_chunk_of_its_own(
    looking: list[bool], chunk: int, kinds: tuple[str, ...]
) -> None:
    latent = chunk * (1 + sum(looking))
    check_chunks(stack(looking, latent, chunk, kinds), looking, chunk, kinds)


class Same(StackGenerator):
    """All stages are given the same chunk."""

    def run(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        return super().run(x, conditions[0])


class Backwards(StackGenerator):
    """The last stage is given the first chunk."""

    def run(self, x: Tensor, *conditions: Tensor | None) -> Tensor:
        return super().run(x, *reversed(conditions))


@pytest.mark.parametrize("twin", [Same, Backwards])
def test_twin_chunks_that_go_elsewhere_fail(twin: Any) -> None:
    network = stack([True, False, True], 6, 2, "chunk")
    check_chunks(network, [True, False, True], 2, ("chunk",))
    network.__class__ = twin
    with pytest.raises(AssertionError):
        check_chunks(network, [True, False, True], 2, ("chunk",))


@pytest.mark.parametrize("name", ["dcgan", "resnet", "mlp"])
@pytest.mark.parametrize("make", [ConditionalBatchNorm, SelfModulatedBatchNorm])
def test_every_chunk_reaches_the_image_from_its_stage_on(name: str, make: Any) -> None:
    probe = GENERATORS[name](
        LABELLED, latent=8, norm=Norm(activation=make), condition=("latent", "embedding")
    )
    looking = probe.looking
    network = filled(
        GENERATORS[name](
            LABELLED,
            latent=3 * (1 + looking),
            chunk=3,
            norm=Norm(spectral, make),
            condition=("embedding", "chunk"),
            embedding=5,
        )
    ).eval()
    places = [i for i, s in enumerate(network.stages.values()) if has_norm(s, make)]
    assert len(places) == looking
    outputs: list[Tensor] = []
    for stage in network.stages.values():
        stage.register_forward_hook(lambda module, args, out: outputs.append(out))
    z, labels = drawn(2, network.latent), torch.tensor([1, 3])
    network(z, labels)
    plain = list(outputs)
    for index, place in enumerate([0, *places]):
        outputs.clear()
        changed = z.clone()
        changed[:, 3 * index : 3 * index + 3] += 1
        network(changed, labels)
        differ = [not torch.equal(a, b) for a, b in zip(outputs, plain, strict=True)]
        assert differ == [at >= place for at in range(len(plain))]


def has_norm(stage: nn.Module, make: Any) -> bool:
    return any(isinstance(module, make) for module in stage.modules())


def test_chunks_that_do_not_make_up_z_are_refused() -> None:
    with pytest.raises(OptionError) as caught:
        stack([True, False, True], 8, 3, "chunk")
    assert caught.value.option == "latent"
    assert str(caught.value) == "the input and 2 stages are given 3 values of z each: 9, not 8"


def test_an_unconditional_last_norm_takes_no_chunk() -> None:
    options = {"norm": TABLES, "condition": "chunk", "chunk": 4}
    network = resnet_generator(LABELLED, latent=12, last_norm="batchnorm", **options, **SMALL)
    assert network.looking == 2
    assert sum(isinstance(m, ConditionalBatchNorm) for m in network.modules()) == 4
    (last,) = [s for s in network.stages.values() if type(s) is blocks.NormaliseWith]
    assert isinstance(last.norm.module, BatchNorm)
    plain = resnet_generator(LABELLED, latent=16, **options, **SMALL)
    assert plain.looking == 3


def test_the_condition_stands_alone() -> None:
    made = Condition(("label", "latent"), LABELLED, 3, 0)
    assert made.width == CLASSES + 3
    z = drawn(2, 3)
    expected = torch.cat([torch.eye(CLASSES)[:2], z], dim=1)
    assert torch.equal(made(z, torch.arange(2)), expected)
    assert Condition("none", LABELLED, 3, 0)(z, None) is None
    assert Condition(("none", "label"), LABELLED, 3, 0).width == CLASSES
    with pytest.raises(ValueError, match='a network with condition "label" is called with labels'):
        made(z, None)


# --- what a discriminator ends with


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_projection_adds_the_product_of_features_and_label(name: str) -> None:
    network = filled(DISCRIMINATORS[name](LABELLED, head="projection", condition="label")).eval()
    images, labels = drawn(3, 1, 16, 16), torch.tensor([0, 2, 3])
    logits = network(images, labels)
    assert logits.shape == (3, 1)
    features = features_of(network, images, labels).flatten(1)
    (head,) = [stage for stage in network.stages.values() if isinstance(stage, blocks.Project)]
    table = head.embedding.weight.t()[labels]
    expected = F.linear(features, head.dense.weight, head.dense.bias)
    torch.testing.assert_close(logits, expected + (table * features).sum(1, keepdim=True))
    assert not torch.allclose(network(images, labels.flip(0)), logits)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_projection_onto_an_embedding(name: str) -> None:
    options = {"head": "projection", "condition": "embedding", "embedding": 5}
    network = filled(DISCRIMINATORS[name](LABELLED, **options))
    (head,) = [stage for stage in network.stages.values() if isinstance(stage, blocks.Project)]
    assert head.embedding.in_features == 5
    network(drawn(2, 1, 16, 16), torch.arange(2)).sum().backward()
    assert network.condition.embedding.weight.grad[:2].abs().sum() > 0


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_an_auxiliary_classifier_is_a_second_head_on_the_same_features(name: str) -> None:
    network = filled(DISCRIMINATORS[name](LABELLED, head="auxiliary"))
    images = drawn(3, 1, 16, 16)
    heads = heads_of(network(images))
    assert {key: tuple(head.shape) for key, head in heads.items()} == {
        "logits": (3, 1),
        "classes": (3, CLASSES),
    }
    features = features_of(network, images).flatten(1)
    *_, last = network.stages.values()
    torch.testing.assert_close(heads["logits"], last.logits(features))
    torch.testing.assert_close(heads["classes"], last.classes(features))
    assert not hasattr(network, "adversarial"), "so the adversarial loss is about `logits` alone"


@pytest.mark.parametrize("head", ["projection", "auxiliary"])
def test_heads_have_second_derivatives(head: Any) -> None:
    network = filled(
        mlp_discriminator(
            POINTS, width=3, layers=1, head=head, condition="label", activation=nn.Softplus
        )
    ).double()
    labels = torch.tensor([0, 2])

    def judged(points: Tensor) -> Tensor:
        return torch.cat([*heads_of(network(points, labels)).values()], dim=1)

    assert gradgradcheck(judged, (drawn(2, 2).double().requires_grad_(),))


@pytest.mark.parametrize("head", ["projection", "auxiliary"])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_heads_have_shapes_without_memory(name: str, head: Any) -> None:
    with torch.device("meta"):
        network = DISCRIMINATORS[name](LABELLED, head=head, condition="label", norm=Norm(spectral))
        labels = torch.zeros(2, dtype=torch.int64)
        heads = heads_of(network(torch.empty(2, 1, 16, 16), labels))
        assert heads["logits"].shape == (2, 1)


# --- PacGAN: Lin et al. (2018), section 3


def check_pack(make: Any, pack: int, packs: int) -> None:
    """What the inner network makes of images side by side in channels."""
    network = filled(make(LABELLED, pack=pack, network=partial(dcgan_discriminator, **SMALL)))
    images = drawn(pack * packs, 1, 16, 16)
    logits = network(images)
    assert logits.shape == (packs, 1)
    for index in range(packs):
        beside = torch.cat([images[index * pack + i] for i in range(pack)], dim=0)
        torch.testing.assert_close(logits[index : index + 1], network.network(beside[None]))


@given(st.integers(1, 3), st.integers(1, 3))
def test_pacgan_judges_images_side_by_side(pack: int, packs: int) -> None:
    check_pack(PacGAN, pack, packs)


class Strided(PacGAN):
    """Packs of images that are far from each other in the batch."""

    def forward(self, images: Tensor) -> Any:
        return self.network(images.unflatten(0, (self.pack, -1)).transpose(0, 1).flatten(1, 2))


def test_twin_other_packs_fail() -> None:
    with pytest.raises(AssertionError):
        check_pack(Strided, 2, 2)


def test_pacgan_takes_points_and_every_head_of_its_network() -> None:
    network = filled(PacGAN(POINTS, pack=2))
    assert network(drawn(6, 2)).shape == (3, 1)

    class Two(nn.Module):
        adversarial = {"one": 1.0, "two": 0.5}  # noqa: RUF012

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"one": images.sum(1), "two": images.mean(1)}

    two = PacGAN(POINTS, network=lambda image: Two())
    assert two.adversarial == {"one": 1.0, "two": 0.5}
    assert two(drawn(6, 2))["two"].shape == (3,)


def test_the_features_of_pacgan_are_those_of_its_network() -> None:
    network = filled(PacGAN(LABELLED, pack=2, network=partial(dcgan_discriminator, **SMALL)))
    images = drawn(4, 1, 16, 16)
    inner = features_of(network.network, images.unflatten(0, (2, 2)).flatten(1, 2))
    assert torch.equal(features_of(network, images), inner)
    assert list(dict(network.stages.named_children())) == list(network.network.stages)


def test_pacgan_refuses_what_it_cannot_pack() -> None:
    with pytest.raises(OptionError, match="a pack of 0 images shows nothing"):
        PacGAN(LABELLED, pack=0)
    with pytest.raises(ValueError, match=r"^pacgan: packs of 4 do not divide a batch of 6$"):
        PacGAN(POINTS, pack=4)(drawn(6, 2))
    labelled = partial(mlp_discriminator, head="projection", condition="label")
    with pytest.raises(OptionError, match="the data has none"):
        PacGAN(LABELLED, network=labelled)


# --- in a spec

SPEC = """
gankit = 1
name = "conditions"
loss = "hinge"
train = { steps = 1, batch = 8 }

[data]
use = "digits"
size = 16

[generator]
use = "resnet"
latent = 12
width = 4
chunk = 4
condition = ["embedding", "chunk"]
input = ["latent", "label"]
last_norm = "batchnorm"
norm = ["spectral", "conditional_batchnorm"]

[discriminator]
use = "resnet"
width = 4
norm = "spectral"
before_head = [{ use = "minibatch_std", group = 2 }]
head = "projection"
condition = "label"
"""


def test_a_spec_has_all_of_it_and_is_written_out_again() -> None:
    spec = loads(SPEC)
    gan, _ = build(spec, "meta")
    assert isinstance(gan.generator, StackGenerator)
    assert gan.generator.chunks == [4, 4, 4]
    assert isinstance(gan.discriminator, StackDiscriminator)
    assert loads(dumps(spec.resolved())).hash == spec.hash
    written = loads(dumps(expand(spec)))
    again, _ = build(written, "cpu")
    made, _ = build(spec, "cpu")
    for network in ("generator", "discriminator"):
        one, other = getattr(made, network).state_dict(), getattr(again, network).state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batches=joint"], '"minibatch_std" needs [train] batches = "separate"'),
        (["penalty.wgan_gp.weight=10"], 'the discriminator\'s "minibatch_std" mixes them'),
        (["data.use=folder", "data.root=x"], 'condition "embedding" needs labels; the data has no'),
        (["generator.latent=13"], "are given 4 values of z each: 12, not 13"),
        (["discriminator.condition=none"], 'head "projection" needs a label'),
        (["generator.condition=chunks"], 'generator.condition must be "none" | "label"'),
        (["train.batch=3"], "groups of 2 do not divide a batch of 3"),
        (['discriminator={use="pacgan"}', "train.batches=joint"], '"pacgan" needs [train] batches'),
        (['discriminator={use="pacgan", pack=3}'], "packs of 3 do not divide a batch of 8"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], message: str) -> None:
    from gankit.train.plan import plan

    with pytest.raises(SpecError) as caught:
        plan(loads(SPEC, overrides))
    assert message in str(caught.value)
