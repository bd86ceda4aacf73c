"""Heads: the projection, the auxiliary classifier's, sums and means, and the minibatch's spread."""

from __future__ import annotations

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

from gankit import blocks
from gankit.errors import OptionError
from gankit.norms import BatchNorm, ConditionalBatchNorm, GroupNorm, LayerNorm, spectral
from gankit.slots import Norm, Shape

Array = np.ndarray
CLASSES = 5
LABELLED = Norm().given(CLASSES)


def drawn(module: nn.Module, seed: int = 0) -> Any:
    random = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, generator=random)
    return module


def maps(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(labels: list[int]) -> Tensor:
    return F.one_hot(torch.tensor(labels), CLASSES).double()


# --- the projection: Miyato and Koyama (2018), equation 4


def check_projection(stage: Any, labels: list[int], dense: bool = True) -> None:
    """psi(phi(x)) + y^T V phi(x), one image after the other; V y is row y of a table."""
    x = maps(len(labels), 3, 2, 2)
    table = stage.embedding.weight.detach().numpy().T
    state = {key: value.numpy() for key, value in stage.state_dict().items()}
    for image, label, logit in zip(x.numpy(), labels, stage(x, one_hot(labels)), strict=True):
        features = image.ravel()
        expected = sum(table[label] * features)
        if dense:
            expected += sum(state["dense.weight"][0] * features) + state["dense.bias"][0]
        assert logit.shape == (1, 1, 1)
        assert logit.item() == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=6))
def test_projection_is_the_papers(labels: list[int]) -> None:
    check_projection(drawn(blocks.Project((3, 2, 2), LABELLED)), labels)
    alone = drawn(blocks.Project((3, 2, 2), LABELLED, unconditional="none"))
    check_projection(alone, labels, dense=False)
    assert [key for key, _ in alone.named_parameters()] == ["embedding.weight"]


class Concatenated(blocks.Project):
    """The label beside the features, whose logit is then a sum of both and no product."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        features = x.flatten(1)
        beside = self.embedding(condition).sum(1, keepdim=True)
        return (self.dense(features) + beside)[:, :, None, None]


def test_twin_a_label_that_is_only_added_fails() -> None:
    with pytest.raises(AssertionError):
        check_projection(drawn(Concatenated((3, 2, 2), LABELLED)), [0, 1])


def test_twin_another_row_of_the_table_fails() -> None:
    stage = drawn(blocks.Project((3, 2, 2), LABELLED))
    with torch.no_grad():
        mixed = torch.cat([stage.embedding.weight[:, 1:], stage.embedding.weight[:, :1]], dim=1)
        shifted = drawn(blocks.Project((3, 2, 2), LABELLED))
        shifted.embedding.weight.copy_(mixed)
    x, label = maps(1, 3, 2, 2), one_hot([2])
    assert not torch.allclose(stage(x, label), shifted(x, label))


def test_the_weight_norm_is_that_of_an_embedding() -> None:
    """Of a table of classes x features the largest singular value is its transpose's too."""
    norm = Norm(spectral).given(CLASSES)
    stage = blocks.Project((6, 1, 1), norm)
    table = nn.Embedding(CLASSES, 6)
    stage.embedding.weight = table.weight.detach().t().clone()
    spectral(table)
    rows = torch.arange(CLASSES)
    torch.testing.assert_close(
        stage.eval().embedding(F.one_hot(rows, CLASSES).float()), table.eval()(rows)
    )


def test_a_projection_without_a_condition_is_refused() -> None:
    with pytest.raises(OptionError, match="a projection needs a label") as caught:
        blocks.Project((3, 2, 2), Norm())
    assert caught.value.option == "condition"


def test_projection_has_first_and_second_derivatives() -> None:
    stage = drawn(blocks.Project((2, 1, 2), LABELLED))
    inputs = (maps(2, 2, 1, 2).requires_grad_(), maps(2, CLASSES).requires_grad_())
    assert gradcheck(stage, inputs)
    assert gradgradcheck(stage, inputs)


# --- the auxiliary classifier


def test_classify_is_two_dense_layers_on_the_same_features() -> None:
    stage, x = drawn(blocks.Classify((3, 2, 2), classes=4)), maps(2, 3, 2, 2)
    y = stage(x)
    assert stage.out == y.shape[1:] == (5, 1, 1)
    assert stage.heads == {"logits": 1, "classes": 4}
    torch.testing.assert_close(y[:, :1, 0, 0], F.linear(x.flatten(1), *stage.logits.parameters()))
    torch.testing.assert_close(y[:, 1:, 0, 0], F.linear(x.flatten(1), *stage.classes.parameters()))


def test_each_head_of_classify_has_a_spectral_norm_of_its_own() -> None:
    stage = blocks.Classify((3, 2, 2), Norm(spectral), classes=4).eval()
    for layer in (stage.logits, stage.classes):
        largest = torch.linalg.matrix_norm(layer.weight.detach(), ord=2)  # type: ignore[arg-type]
        assert largest.item() == pytest.approx(1, abs=1e-5)


# --- the spread of a minibatch: Karras et al. (2018), section 3


def spread(x: Array, group: int) -> Array:
    """The standard deviation of each value over the images of a group, averaged."""
    maps = []
    for first in range(0, len(x), group):
        images = x[first : first + group]
        deviations = []
        for place in np.ndindex(*x.shape[1:]):
            values = [image[place] for image in images]
            mean = sum(values) / group
            variance = sum((value - mean) ** 2 for value in values) / group
            deviations.append(math.sqrt(variance + 1e-8))
        maps += [np.full((1, *x.shape[2:]), sum(deviations) / len(deviations))] * group
    return np.concatenate([x, np.stack(maps)], axis=1)


def check_spread(stage: Any, group: int) -> None:
    x = maps(8, 3, 2, 3)
    np.testing.assert_allclose(stage(x), spread(x.numpy(), group), rtol=1e-9)


@pytest.mark.parametrize("group", [1, 2, 4, 8])
def test_minibatch_std_is_the_papers(group: int) -> None:
    check_spread(blocks.MinibatchStd((3, 2, 3), group=group), group)


class Sample(blocks.MinibatchStd):
    """Divided by one fewer, as torch does by default."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        each = x.unflatten(0, (-1, self.group)).std(1).mean((1, 2, 3))
        each = each.repeat_interleave(self.group)[:, None, None, None]
        return torch.cat([x, each.expand(-1, 1, *x.shape[2:])], dim=1)


class Whole(blocks.MinibatchStd):
    """Of all values at once: images that differ in place but not in what they have look alike."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        each = x.unflatten(0, (-1, self.group)).flatten(1).std(1, correction=0)
        each = each.repeat_interleave(self.group)[:, None, None, None]
        return torch.cat([x, each.expand(-1, 1, *x.shape[2:])], dim=1)


@pytest.mark.parametrize("twin", [Sample, Whole])
def test_twin_other_spreads_fail(twin: Any) -> None:
    with pytest.raises(AssertionError):
        check_spread(twin((3, 2, 3), group=4), 4)


def test_twin_another_group_fails() -> None:
    with pytest.raises(AssertionError):
        check_spread(blocks.MinibatchStd((3, 2, 3), group=2), 4)


@given(st.integers(1, 3), st.integers(1, 4), st.floats(-5, 5), st.floats(0.1, 5))
def test_the_spread_is_that_of_shifted_and_scaled_images(
    groups: int, group: int, offset: float, factor: float
) -> None:
    """Adding to all images changes nothing; scaling scales it; copies of one image have none."""
    stage, x = blocks.MinibatchStd((2, 2, 2), group=group), maps(groups * group, 2, 2, 2)
    plain = stage(x)[:, -1]
    torch.testing.assert_close(stage(x + offset)[:, -1], plain, rtol=1e-6, atol=1e-6)
    if group > 1:
        torch.testing.assert_close(stage(x * factor)[:, -1], factor * plain, rtol=1e-5, atol=1e-5)
    copies = x[:1].expand_as(x)
    torch.testing.assert_close(stage(copies)[:, -1], torch.full_like(plain, 1e-4))


def test_gradients_are_finite_where_all_images_are_one() -> None:
    x = maps(1, 3, 2, 2).expand(4, -1, -1, -1).clone().requires_grad_()
    (slope,) = torch.autograd.grad(blocks.MinibatchStd((3, 2, 2))(x)[:, -1].sum(), x)
    assert slope.isfinite().all()


def test_a_batch_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^minibatch_std: groups of 4 do not divide a batch of 6$"
    ):
        blocks.MinibatchStd((3, 2, 2))(maps(6, 3, 2, 2))


def test_a_batch_in_shares_has_the_same_groups() -> None:
    stage, x = blocks.MinibatchStd((3, 2, 2), group=2), maps(8, 3, 2, 2)
    shares = torch.cat([stage(share) for share in x.chunk(2)])
    assert torch.equal(shares, stage(x))


def test_half_precision_is_no_hindrance() -> None:
    x = 300 * maps(4, 3, 8, 8).half()
    y = blocks.MinibatchStd((3, 8, 8))(x)
    assert y.dtype == torch.float16
    exact = spread(x.double().numpy(), 4)[:, -1]
    np.testing.assert_allclose(y[:, -1].double(), exact, rtol=1e-3)


# --- sums and means


def test_means_are_sums_divided_by_the_positions() -> None:
    x = maps(2, 3, 4, 5)
    mean = blocks.MeanPositions((3, 4, 5))
    assert mean.out == (3, 1, 1)
    torch.testing.assert_close(mean(x), torch.einsum("bchw->bc", x)[:, :, None, None] / 20)


# --- a norm in place of the network's


def test_normalise_with_takes_its_own_norm_and_not_the_networks() -> None:
    shape: Shape = (4, 2, 3)
    network = Norm(spectral, ConditionalBatchNorm).given(CLASSES)
    stage = blocks.NormaliseWith(shape, network)
    (found,) = [module for module in stage.modules() if isinstance(module, BatchNorm)]
    assert not any(isinstance(module, ConditionalBatchNorm) for module in stage.modules())
    assert found.weight is not None
    assert torch.equal(stage(maps(2, *shape).float()), stage(maps(2, *shape).float(), one_hot([0])))
    other = blocks.NormaliseWith(shape, network, norm=Norm(activation=LayerNorm))
    assert any(isinstance(module, LayerNorm) for module in other.modules())
    conditional = Norm(activation=ConditionalBatchNorm)
    assert (
        blocks.NormaliseWith(shape, Norm().given(3), norm=conditional).norm.scale.in_features == 3
    )


def test_normalise_with_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match="norm acts on a weight, and this stage has none"):
        blocks.NormaliseWith((4, 2, 3), Norm(), norm=Norm(spectral))
    groups = Norm(activation=partial(GroupNorm, groups=3))
    with pytest.raises(OptionError, match="3 groups do not divide 4 channels"):
        blocks.NormaliseWith((4, 2, 3), Norm(), norm=groups)
