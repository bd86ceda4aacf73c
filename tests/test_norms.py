"""Every registered norm: those between layers against numpy, those of weights against theory."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrizations, parametrize

from gankit import ops
from gankit.errors import OptionError
from gankit.norms import BatchNorm, GroupNorm, SpectralNorm, clip, spectral, weightnorm
from gankit.registry import handed, registry
from gankit.slots import Norm

Array = np.ndarray
OURS = [entry for entry in registry.find("norm") if entry.provider.name == "gankit"]
BETWEEN = {e.name: e for e in OURS if e.on == "activation" and handed(e.target) == 1}
"""Those that look at no condition; the others are tested in `test_norms_conditional.py`."""
OF_WEIGHTS = {entry.name: entry for entry in OURS if entry.on == "weight"}
SMALL: dict[str, dict[str, Any]] = {"groupnorm": {"groups": 2}}
"""Options under which a norm accepts four channels."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(*shape: int, seed: int = 0) -> Tensor:
    """Feature maps whose channels differ in mean and in deviation."""
    x = torch.randn(shape, generator=seeded(seed), dtype=torch.float64)
    return x * (1 + torch.arange(shape[1])[:, None, None]) + torch.arange(shape[1])[:, None, None]


# --- norms between layers


def standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)


def grouped(x: Array, groups: int, eps: float) -> Array:
    parts = np.split(x, groups, axis=1)
    return np.concatenate([standard(part, (1, 2, 3), eps) for part in parts], axis=1)


def by_pixel(x: Array, eps: float) -> Array:
    y = np.empty_like(x)
    for b, h, w in np.ndindex(x.shape[0], x.shape[2], x.shape[3]):
        feature = x[b, :, h, w]
        y[b, :, h, w] = feature / math.sqrt(np.dot(feature, feature) / len(feature) + eps)
    return y


FORMULAS: dict[str, Callable[[Array, float], Array]] = {
    "batchnorm": lambda x, eps: standard(x, (0, 2, 3), eps),
    "groupnorm": lambda x, eps: grouped(x, 2, eps),
    "instancenorm": lambda x, eps: standard(x, (2, 3), eps),
    "layernorm": lambda x, eps: standard(x, (1, 2, 3), eps),
    "pixelnorm": by_pixel,
}


def made(name: str, channels: int = 4, **options: Any) -> nn.Module:
    return BETWEEN[name].target(channels, **{**SMALL.get(name, {}), **options}).double()


def check_formula(module: nn.Module, name: str) -> None:
    x = maps(3, 4, 2, 5)
    np.testing.assert_allclose(module(x).detach(), FORMULAS[name](x.numpy(), 0.25), rtol=1e-9)


@pytest.mark.parametrize("name", BETWEEN)
def test_between_layers_is_its_formula(name: str) -> None:
    check_formula(made(name, eps=0.25), name)


@pytest.mark.parametrize("name", BETWEEN)
def test_twin_every_other_norm_and_another_eps_fail_the_formula(name: str) -> None:
    for twin in (*(made(other, eps=0.25) for other in BETWEEN if other != name), made(name)):
        with pytest.raises(AssertionError):
            check_formula(twin, name)


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shift", [True, False])
def test_scale_and_shift_are_parameters_only_where_wanted(
    name: str, scale: bool, shift: bool
) -> None:
    if not {"scale", "shift"} <= set(BETWEEN[name].options):
        assert not list(made(name).parameters())
        return
    module = made(name, scale=scale, shift=shift, eps=0.25)
    found = dict(module.named_parameters())
    assert set(found) == {key for key, on in (("weight", scale), ("bias", shift)) if on}
    check_formula(module, name)  # they start at one and at zero
    for parameter in found.values():
        assert parameter.shape == (4,)
        nn.init.normal_(parameter, generator=seeded(1))
    x = maps(3, 4, 2, 5)
    expected = FORMULAS[name](x.numpy(), 0.25)
    if scale:
        expected = expected * found["weight"].detach().numpy()[:, None, None]
    if shift:
        expected = expected + found["bias"].detach().numpy()[:, None, None]
    np.testing.assert_allclose(module(x).detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", BETWEEN)
@given(data=st.data())
def test_between_layers_keeps_the_shape_and_reaches_its_input(
    name: str, data: st.DataObject
) -> None:
    batch, half, height, width = (data.draw(st.integers(1, most)) for most in (3, 4, 6, 6))
    positions = height * width
    # A statistic of one value is its value: torch refuses to take it in training.
    assume(positions > 1 or "positions" not in BETWEEN[name].needs)
    assume(batch * positions > 1 or "batch_statistics" not in BETWEEN[name].needs)
    assume(half * positions > 1 or name != "groupnorm")
    x = maps(batch, 2 * half, height, width).requires_grad_()
    module = made(name, 2 * half)
    for mode in (True, False):
        y = module.train(mode)(x)
        assert y.shape == x.shape
        assert y.isfinite().all()
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", BETWEEN)
def test_between_layers_has_first_and_second_derivatives(name: str) -> None:
    module = made(name)
    parameters = dict(module.named_parameters())
    for parameter in parameters.values():
        nn.init.normal_(parameter, generator=seeded(1))

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    given = (maps(2, 4, 1, 2).requires_grad_(), *parameters.values())
    assert gradcheck(forward, given)
    assert gradgradcheck(forward, given)


@pytest.mark.parametrize("name", BETWEEN)
def test_between_layers_is_copied_and_restored_whole(name: str) -> None:
    module = made(name)
    x = maps(3, 4, 2, 5)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=seeded(2))
    module(x)
    copied = copy.deepcopy(module).eval()
    restored = made(name).eval()
    assert "batch_statistics" not in BETWEEN[name].needs or not torch.equal(restored(x), copied(x))
    restored.load_state_dict(module.state_dict())
    before = module.eval()(x)
    assert torch.equal(copied(x), before)
    assert torch.equal(restored(x), before)
    module.train()(maps(3, 4, 2, 5, seed=9))
    assert torch.equal(copied(x), before)


@pytest.mark.parametrize("name", BETWEEN)
def test_mixes_images_exactly_if_it_declares_batch_statistics(name: str) -> None:
    x = maps(2, 4, 2, 3)
    other = x.clone()
    other[1] = maps(1, 4, 2, 3, seed=5)[0]
    module = made(name)
    mixes = not torch.allclose(module(x)[0], module(other)[0])
    assert mixes == ("batch_statistics" in BETWEEN[name].needs)
    module.eval()
    assert torch.allclose(module(x)[0], module(other)[0])


@pytest.mark.parametrize("name", BETWEEN)
def test_works_on_one_position_unless_it_declares_that_it_needs_more(name: str) -> None:
    x = maps(3, 4, 1, 1)
    if "positions" in BETWEEN[name].needs:
        with pytest.raises(ValueError, match="more than 1"):
            made(name)(x)
    else:
        assert made(name)(x).abs().sum() > 0


def check_running(module: nn.Module) -> None:
    """Evaluation uses means and unbiased variances, each batch weighing `momentum` = 0.25."""
    mean, variance = np.zeros(4), np.ones(4)
    for seed in range(3):
        x = maps(3, 4, 2, 5, seed=seed)
        module.train()(x)
        mean = 0.75 * mean + 0.25 * x.numpy().mean((0, 2, 3))
        variance = 0.75 * variance + 0.25 * x.numpy().var((0, 2, 3), ddof=1)
    x = maps(2, 4, 1, 2, seed=7)
    expected = (x.numpy() - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
    np.testing.assert_allclose(module.eval()(x).detach(), expected, rtol=1e-9)


def test_batchnorm_evaluates_on_running_statistics() -> None:
    check_running(made("batchnorm", momentum=0.25))


def test_twin_another_momentum_fails_the_running_statistics() -> None:
    with pytest.raises(AssertionError):
        check_running(made("batchnorm", momentum=0.3))


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_groups_that_do_not_divide_are_refused(groups: int) -> None:
    with pytest.raises(OptionError, match=f"^{groups} groups do not divide 4 channels$") as caught:
        GroupNorm(4, groups=groups)
    assert caught.value.option == "groups"


# --- the pair that a network is handed


class Scaled(nn.Module):
    """A conditional norm of the smallest kind."""

    def __init__(self, channels: int, condition: int, weight: Any, /) -> None:
        super().__init__()
        self.scale = weight(nn.Linear(condition, channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x * self.scale(condition)[:, :, None, None]


def test_no_norm_is_two_identities() -> None:
    layer, x = nn.Linear(2, 2), maps(2, 4, 2, 3)
    assert Norm().weight(layer) is layer
    module = Norm().activation(4)
    assert torch.equal(module(x, None), x)
    assert torch.equal(module(x, torch.ones(2, 3)), x)


def test_a_plain_norm_does_not_look_at_the_condition() -> None:
    x = maps(2, 4, 2, 3).float()
    module = Norm(activation=BatchNorm).given(3).activation(4)
    assert torch.equal(module(x, torch.ones(2, 3)), module(x, None))


def test_a_conditional_norm_is_handed_the_width_and_the_weight_norm() -> None:
    module = Norm(spectral, Scaled).given(3).activation(4)
    assert module.scale.in_features == 3
    assert parametrize.is_parametrized(module.scale, "weight")
    assert module(maps(2, 4, 2, 3).float(), torch.ones(2, 3)).shape == (2, 4, 2, 3)


def test_a_conditional_norm_without_a_condition_is_refused() -> None:
    message = "^Scaled needs a condition, and this network makes none$"
    with pytest.raises(OptionError, match=message) as caught:
        Norm(activation=Scaled).activation(4)
    assert caught.value.option == "condition"


# --- norms of weights

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(5, 3),
    "embedding": lambda: nn.Embedding(6, 4),
    "conv1d": lambda: nn.Conv1d(3, 4, 3),
    "conv2d": lambda: nn.Conv2d(3, 4, (2, 3)),
    "conv3d": lambda: nn.Conv3d(2, 3, 2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "transposed1d": lambda: nn.ConvTranspose1d(5, 2, 3),
    "transposed2d": lambda: nn.ConvTranspose2d(2, 5, (2, 3)),
    "transposed3d": lambda: nn.ConvTranspose3d(2, 3, 2),
    "grouped_transposed": lambda: nn.ConvTranspose2d(6, 4, 2, groups=2),
    "depthwise_transposed": lambda: nn.ConvTranspose2d(3, 3, 2, groups=3),
}
TRANSPOSED = [kind for kind in LAYERS if "transposed" in kind]


def layer_of(kind: str, seed: int = 0) -> Any:
    """A layer with seeded weights; nothing here draws from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LAYERS[kind]()


def example(layer: nn.Module, batch: int = 2) -> Tensor:
    if isinstance(layer, nn.Embedding):
        return torch.arange(batch)
    if isinstance(layer, nn.Linear):
        return torch.randn(batch, layer.in_features, generator=seeded(3))
    axes = len(layer.kernel_size)  # type: ignore[arg-type]
    return torch.randn(batch, layer.in_channels, *[4] * axes, generator=seeded(3))  # type: ignore


def matrix_of(layer: Any) -> Array:
    """Output channels x the rest, in float64: transposed layers by what they do to one position."""
    if not isinstance(layer, ops.TRANSPOSED):
        weight = layer.weight.detach().double().numpy()
        return np.stack([weight[row].ravel() for row in range(len(weight))])
    spread = []
    for channel in range(layer.in_channels):
        one = torch.zeros(1, layer.in_channels, *[1] * len(layer.kernel_size))
        one[0, channel] = 1
        bias, layer.bias = layer.bias, None
        spread.append(layer(one)[0].detach().double().numpy())  # (out, *kernel)
        layer.bias = bias
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    rows = []
    for out in range(layer.out_channels):
        first = out // per_out * per_in
        rows.append(np.concatenate([spread[first + i][out].ravel() for i in range(per_in)]))
    return np.stack(rows)


def raw(layer: Any) -> nn.Parameter:
    return layer.parametrizations.weight.original


def estimate(layer: Any) -> SpectralNorm:
    return layer.parametrizations.weight[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_as_matrix_is_output_channels_by_the_rest(kind: str) -> None:
    layer = layer_of(kind)
    np.testing.assert_array_equal(ops.as_matrix(layer)(layer.weight).detach(), matrix_of(layer))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", OF_WEIGHTS)
class TestEveryWeightNorm:
    def test_gives_the_layer_back_with_weights_of_its_shape(self, name: str, kind: str) -> None:
        layer = layer_of(kind)
        shape = layer.weight.shape
        assert OF_WEIGHTS[name].target(layer) is layer
        assert layer.weight.shape == shape

    def test_draws_nothing(self, name: str, kind: str) -> None:
        check_draws_nothing(OF_WEIGHTS[name].target, kind)

    def test_gradients_reach_every_parameter(self, name: str, kind: str) -> None:
        layer = OF_WEIGHTS[name].target(layer_of(kind))
        y = layer(example(layer))
        y.backward(torch.randn(y.shape, generator=seeded(4)))
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key

    def test_is_copied_and_restored_whole(self, name: str, kind: str) -> None:
        layer = OF_WEIGHTS[name].target(layer_of(kind))
        x = example(layer)
        layer(x)
        copied = copy.deepcopy(layer).eval()
        restored = OF_WEIGHTS[name].target(layer_of(kind, seed=1)).eval()
        assert not torch.equal(restored(x), copied(x))
        restored.load_state_dict(layer.state_dict())
        before = layer.eval()(x).detach()
        assert torch.equal(copied(x), before)
        assert torch.equal(restored(x), before)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(-1.5)
        layer.train()(x)
        assert torch.equal(copied(x), before)

    def test_two_forwards_then_one_backward(self, name: str, kind: str) -> None:
        check_two_forwards(OF_WEIGHTS[name].target(layer_of(kind)))


def check_draws_nothing(norm: Callable[[nn.Module], nn.Module], kind: str) -> None:
    layer = layer_of(kind)
    before = torch.get_rng_state()
    norm(layer)
    assert torch.equal(torch.get_rng_state(), before)


def test_twin_torchs_spectral_norm_draws() -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(AssertionError):
        check_draws_nothing(parametrizations.spectral_norm, "linear")


def check_two_forwards(layer: nn.Module) -> None:
    """The gradient of a sum is the sum of the gradients, however the estimate moves between."""
    x = example(layer)
    start = copy.deepcopy(layer)
    layer(x).square().sum().backward()
    layer(x).square().sum().backward()
    (start(x).square().sum() + start(x).square().sum()).backward()
    for one, other in zip(layer.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


# --- spectral norm


def check_sigma(layer: Any, tolerance: float = 1e-5) -> None:
    """The normalised matrix has a largest singular value of one."""
    sigma = torch.linalg.matrix_norm(torch.from_numpy(matrix_of(layer)), ord=2).item()
    assert sigma == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_norm_is_exact_when_made_and_when_assigned(kind: str) -> None:
    layer = spectral(layer_of(kind)).eval()
    check_sigma(layer)
    layer.weight = torch.randn(raw(layer).shape, generator=seeded(5))
    check_sigma(layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_norm_converges_on_the_exact_norm(kind: str) -> None:
    layer = spectral(layer_of(kind))
    with torch.no_grad():
        raw(layer).copy_(torch.randn(raw(layer).shape, generator=seeded(6)))
    x = example(layer)
    for _ in range(300):
        layer(x)
    check_sigma(layer.eval())
    exact = torch.linalg.matrix_norm(ops.as_matrix(layer)(raw(layer)), ord=2)
    torch.testing.assert_close(estimate(layer).sigma(raw(layer)), exact)


def spectral_by(matrix: Callable[[Tensor], Tensor], layer: Any, of: Any = SpectralNorm) -> Any:
    parametrize.register_parametrization(layer, "weight", of(layer.weight, matrix, 1, 1e-12))
    return layer


@pytest.mark.parametrize("kind", TRANSPOSED)
def test_twin_a_transposed_weight_read_along_its_first_axis_fails(kind: str) -> None:
    if kind == "depthwise_transposed":
        return  # one channel in, one out: both readings are the same matrix
    twin = spectral_by(lambda weight: weight.flatten(1), layer_of(kind)).eval()
    with pytest.raises(AssertionError):
        check_sigma(twin)


def test_twin_a_grouped_transposed_weight_read_without_its_groups_fails() -> None:
    layer = layer_of("grouped_transposed")
    twin = spectral_by(lambda weight: weight.transpose(0, 1).flatten(1), layer).eval()
    with pytest.raises(AssertionError):
        check_sigma(twin)


@pytest.mark.parametrize("kind", ["linear", "conv2d", "transposed2d"])
def test_spectral_norm_agrees_with_torchs(kind: str) -> None:
    ours, theirs = spectral(layer_of(kind)), layer_of(kind)
    with torch.random.fork_rng(devices=[]):
        parametrizations.spectral_norm(theirs)
    x = example(ours)
    for _ in range(300):
        theirs(x)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def iterated(matrix: Array, u: Array, times: int) -> tuple[Array, Array]:
    """Algorithm 1 of Miyato et al. (2018)."""
    for _ in range(times):
        v = matrix.T @ u
        v = v / math.sqrt(np.dot(v, v))
        u = matrix @ v
        u = u / math.sqrt(np.dot(u, u))
    return u, v


def moved(layer: Any) -> Any:
    """The layer after its weight has moved away from what its estimate has settled on."""
    with torch.no_grad():
        raw(layer).copy_(torch.randn(raw(layer).shape, generator=seeded(8)))
    return layer


def check_moves(layer: Any, act: Callable[[Any], object], times: int) -> None:
    """`act` moves the estimate by exactly so many power iterations."""
    kept = estimate(layer)
    u, v = kept.u.double().numpy().copy(), kept.v.double().numpy().copy()
    if times:
        u, v = iterated(ops.as_matrix(layer)(raw(layer)).detach().double().numpy(), u, times)
    act(layer)
    np.testing.assert_allclose(kept.u, u, atol=1e-5)
    np.testing.assert_allclose(kept.v, v, atol=1e-5)


def forward(layer: nn.Module) -> None:
    layer(example(layer))


def forward_held(layer: nn.Module) -> None:
    with ops.held(layer):
        with ops.held(layer):
            forward(layer)
        forward(layer)


def forward_in_eval(layer: nn.Module) -> None:
    layer.eval()
    forward(layer)


@pytest.mark.parametrize("kind", ["linear", "conv2d", "grouped_transposed"])
@pytest.mark.parametrize(
    ("act", "times"), [(forward, 1), (ops.move, 1), (forward_held, 0), (forward_in_eval, 0)]
)
def test_the_estimate_moves_once_per_forward_or_move(
    kind: str, act: Callable[[Any], object], times: int
) -> None:
    check_moves(moved(spectral(layer_of(kind))), act, times)
    check_moves(moved(spectral(layer_of(kind), iterations=3)), act, 3 * times)


def test_the_estimate_moves_again_once_no_longer_held() -> None:
    layer = moved(spectral(layer_of("linear")))
    forward_held(layer)
    check_moves(layer, forward, 1)


def test_twin_an_estimate_that_moves_twice_or_never_fails() -> None:
    for wrong in (0, 2):
        with pytest.raises(AssertionError):
            check_moves(moved(spectral(layer_of("conv2d"))), forward, wrong)


class Uncloned(SpectralNorm):
    def forward(self, weight: Tensor) -> Tensor:
        self.move(weight)
        return self.plain(weight, self.u, self.v)


def test_twin_buffers_that_are_not_cloned_fail_two_forwards() -> None:
    layer = layer_of("conv2d")
    check_two_forwards(moved(spectral_by(ops.as_matrix(layer), layer)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        check_two_forwards(moved(spectral_by(ops.as_matrix(layer), layer_of("conv2d"), Uncloned)))


def check_gradient(layer: Any) -> None:
    """The gradient through the norm, in closed form: (g - <g, W/sigma> u v^T) / sigma."""
    ops.move(layer.eval())
    w = raw(layer).detach().clone()
    g = torch.randn(w.shape, generator=seeded(9))
    (layer.weight * g).sum().backward()
    matrix = ops.as_matrix(layer)
    u, v = estimate(layer).u, estimate(layer).v
    sigma = u @ matrix(w) @ v
    expected = (matrix(g) - (g * w).sum() / sigma * torch.outer(u, v)) / sigma
    torch.testing.assert_close(matrix(raw(layer).grad), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_norms_gradient_is_the_closed_form(kind: str) -> None:
    check_gradient(moved(spectral(layer_of(kind))))


class Detached(SpectralNorm):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / self.sigma(weight).detach()


def test_twin_a_sigma_without_gradient_fails_the_closed_form() -> None:
    layer = layer_of("conv2d")
    with pytest.raises(AssertionError):
        check_gradient(moved(spectral_by(ops.as_matrix(layer), layer, Detached)))


@pytest.mark.parametrize("kind", ["linear", "grouped_transposed"])
def test_spectral_norm_has_a_second_derivative(kind: str) -> None:
    layer = spectral(layer_of(kind).double()).eval()
    assert estimate(layer).u.dtype == torch.float64
    weight = raw(layer).detach().requires_grad_()
    assert gradcheck(estimate(layer), (weight,))
    assert gradgradcheck(estimate(layer), (weight,))


def check_sigma_is_newest(layer: Any, change: Callable[[Tensor], object]) -> None:
    """What is divided by belongs to the weight as it is, also where it moved before."""
    with ops.held(layer):
        ops.move(layer)
        with torch.no_grad():
            change(raw(layer))
        found = layer.weight
    torch.testing.assert_close(found, raw(layer) / estimate(layer).sigma(raw(layer)))


def test_a_weight_that_changed_after_the_move_is_divided_by_a_sigma_of_its_own() -> None:
    for change in (lambda weight: weight, lambda weight: weight.mul_(3)):
        check_sigma_is_newest(moved(spectral(layer_of("conv2d"))), change)


def test_twin_a_change_that_nobody_is_told_of_is_found() -> None:
    with pytest.raises(AssertionError):
        check_sigma_is_newest(
            moved(spectral(layer_of("conv2d"))), lambda weight: weight.data.mul_(3)
        )


def check_together(move: Callable[[nn.Module], None]) -> None:
    """Estimates that move together come to what each comes to alone, whatever their kind."""
    layers = [spectral(layer_of(kind), iterations=1 + i % 2) for i, kind in enumerate(LAYERS)]
    layers.append(spectral(layer_of("linear").double()))
    together = nn.ModuleList(moved(layer) for layer in layers)
    alone = copy.deepcopy(together)
    move(together)
    for (one, _), (other, weight) in zip(
        ops.estimates(together), ops.estimates(alone), strict=True
    ):
        other.move(weight)
        torch.testing.assert_close(one.state_dict(), other.state_dict())


def test_estimates_move_together_as_they_do_alone() -> None:
    check_together(ops.move)


def test_twin_estimates_that_move_with_the_options_of_another_are_found() -> None:
    def alike(network: nn.Module) -> None:
        pairs = [pair for pair in ops.estimates(network) if pair[0].u.dtype == torch.float32]
        for estimate, _ in pairs:
            estimate.iterations = 1
        SpectralNorm.move_all(pairs)

    with pytest.raises(AssertionError):
        check_together(alike)


@pytest.mark.slow
def test_spectral_norm_compiles_to_one_graph() -> None:
    """By hand: moving and dividing are part of it, and nothing falls back on Python."""
    plain = nn.Sequential(
        moved(spectral(layer_of("conv2d"))), nn.Tanh(), moved(spectral(nn.Conv2d(4, 2, 1)))
    )
    net = copy.deepcopy(plain)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = example(plain[0])
    for _ in range(3):
        y, z = plain(x), compiled(x)
        torch.testing.assert_close(z, y)
        y.square().sum().backward()
        z.square().sum().backward()
    for one, other in zip(plain.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.state_dict(), plain.state_dict())


def check_zero(norm: Callable[[nn.Module], Any]) -> None:
    """A weight that passes through zero does no harm, and is followed again afterwards."""
    layer = norm(layer_of("conv2d"))
    x = example(layer)
    with torch.no_grad():
        raw(layer).zero_()
    for _ in range(2):
        y = layer(x)
        y.sum().backward()
        assert y.isfinite().all()
        assert raw(layer).grad.isfinite().all()
    moved(layer)
    for _ in range(300):
        layer(x)
    check_sigma(layer.eval())


def test_spectral_norm_survives_a_weight_of_zero() -> None:
    check_zero(spectral)
    made_of_zeros = layer_of("linear")
    nn.init.zeros_(made_of_zeros.weight)
    layer = spectral(made_of_zeros)
    assert layer.weight.abs().sum() == 0
    ops.settle(layer)
    moved(layer)
    ops.settle(layer)
    check_sigma(layer.eval())


def test_twin_torchs_spectral_norm_does_not_survive_zero() -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(AssertionError):
        check_zero(parametrizations.spectral_norm)


def test_a_weight_that_is_not_finite_leaves_the_estimate() -> None:
    layer = spectral(layer_of("linear"))
    u = estimate(layer).u.clone()
    with torch.no_grad():
        raw(layer)[0, 0] = math.nan
    ops.settle(layer)
    assert torch.equal(estimate(layer).u, u)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40), st.sampled_from([1e-8, 1, 1e8]))
def test_settling_is_exact_whatever_the_shape_rank_and_scale(
    rows: int, columns: int, rank: int, scale: float
) -> None:
    weight = torch.randn(rows, columns, generator=seeded(rows))
    if rank:
        left = torch.randn(rows, rank, generator=seeded(1))
        weight = left @ torch.randn(rank, columns, generator=seeded(2))
    layer = nn.Linear(columns, rows)
    spectral(layer)
    layer.weight = weight * scale
    exact = torch.linalg.matrix_norm(weight.double(), ord=2).item() * scale
    assert estimate(layer).sigma(raw(layer)).item() == pytest.approx(exact, rel=1e-5)


def test_settling_looks_at_the_weight_alone() -> None:
    """Also where the old singular vectors are exact ones of the new weight, though not the top."""
    layer = spectral(nn.Linear(4, 4, bias=False))
    layer.weight = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    layer.weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert estimate(layer).sigma(raw(layer)).item() == pytest.approx(4)
    layer.weight = torch.eye(4)
    assert estimate(layer).sigma(raw(layer)).item() == pytest.approx(1)


def check_autocast(layer: Any) -> None:
    layer.eval()
    plain = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = layer.weight
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)
    kept = copy.deepcopy(layer).train()
    ops.move(kept)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ops.move(layer)
    assert torch.equal(estimate(layer).u, estimate(kept).u)


def test_no_product_of_sigma_is_taken_under_autocast() -> None:
    """On CUDA autocast reaches products that it leaves alone on the CPU, so ask it, not them."""
    layer = spectral(layer_of("conv2d"))
    matrix, seen = estimate(layer).matrix, []

    def spy(weight: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return matrix(weight)

    estimate(layer).matrix = spy
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(example(layer))
        ops.move(layer)
        ops.settle(layer)
        layer.eval()(example(layer))
    assert seen == [False] * len(seen)
    assert len(seen) >= 4


class Cast(SpectralNorm):
    def _sigma(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u[None] @ self._wide(weight) @ v[:, None]).squeeze()


def test_autocast_does_not_reach_sigma() -> None:
    layer = layer_of("conv2d")
    check_autocast(spectral(layer))


def test_twin_products_that_autocast_reaches_fail() -> None:
    layer = layer_of("conv2d")
    with pytest.raises(AssertionError):
        check_autocast(spectral_by(ops.as_matrix(layer), layer, Cast))


def check_half(layer: Any, dtype: torch.dtype) -> None:
    layer.to(dtype)
    kept = estimate(layer)
    assert kept.u.dtype == kept.v.dtype == torch.float32
    exact = torch.linalg.matrix_norm(kept.matrix(raw(layer).float()), ord=2)
    sigma = kept.sigma(raw(layer))
    assert sigma.dtype == torch.float32
    torch.testing.assert_close(sigma, exact, rtol=1e-4, atol=0)
    assert layer.weight.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["linear", "grouped_transposed"])
def test_low_precision_does_not_reach_sigma(kind: str, dtype: torch.dtype) -> None:
    check_half(spectral(layer_of(kind)), dtype)


class Low(SpectralNorm):
    _apply = nn.Module._apply  # type: ignore[assignment]


def test_twin_vectors_that_follow_the_weights_type_fail() -> None:
    layer = layer_of("linear")
    with pytest.raises(AssertionError):
        check_half(spectral_by(ops.as_matrix(layer), layer, Low), torch.bfloat16)


def test_wider_types_and_back() -> None:
    layer = spectral(layer_of("linear"))
    u = estimate(layer).u.clone()
    assert estimate(layer.double()).u.dtype == torch.float64
    assert torch.equal(estimate(layer.float()).u, u)


def test_spectral_norm_on_meta_has_shapes_alone() -> None:
    with torch.device("meta"):
        layer = spectral(nn.ConvTranspose2d(4, 6, 3))
        ops.settle(layer)
        assert layer.weight.is_meta
    assert estimate(layer).u.shape == (6,)


def test_a_copys_estimate_moves_by_itself() -> None:
    layer = moved(spectral(layer_of("conv2d")))
    copied = copy.deepcopy(layer)
    u = estimate(layer).u.clone()
    copied(example(copied))
    assert not torch.equal(estimate(copied).u, u)
    assert torch.equal(estimate(layer).u, u)


def test_the_state_holds_the_singular_vectors() -> None:
    keys = set(spectral(nn.Linear(2, 3)).state_dict())
    assert {"parametrizations.weight.0.u", "parametrizations.weight.0.v"} < keys


def test_an_estimate_that_never_moves_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^iterations must be at least 1, not 0$") as caught:
        spectral(nn.Linear(2, 2), iterations=0)
    assert caught.value.option == "iterations"


# --- weight norm


def lengths_of(layer: Any) -> Array:
    return np.sqrt((matrix_of(layer) ** 2).sum(1))


def check_lengths(norm: Callable[[Any], Any], kind: str) -> None:
    """w = g v / |v|: the first length is that of the weight; then each is what was learned."""
    layer = layer_of(kind)
    before = layer.weight.detach().clone()
    norm(layer)
    torch.testing.assert_close(layer.weight, before)
    length, direction = layer.parametrizations.weight.parameters()
    assert length.numel() == len(matrix_of(layer))
    with torch.no_grad():
        direction.mul_(3)
        length.copy_(torch.arange(1.0, length.numel() + 1).reshape(length.shape))
    np.testing.assert_allclose(lengths_of(layer), np.arange(1, length.numel() + 1), rtol=1e-5)
    unit = before / torch.linalg.vector_norm(
        before, dim=[a for a in range(before.ndim) if length.shape[a] == 1], keepdim=True
    )
    torch.testing.assert_close(layer.weight, unit * length)


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if "_transposed" not in kind])
def test_weightnorm_learns_a_length_per_output_channel(kind: str) -> None:
    check_lengths(weightnorm, kind)


def test_weightnorm_shares_lengths_between_the_groups_of_a_transposed_layer() -> None:
    layer = weightnorm(layer_of("grouped_transposed"))
    length, _ = layer.parametrizations.weight.parameters()
    assert length.shape == (1, 2, 1, 1)


@pytest.mark.parametrize("kind", ["transposed1d", "transposed2d", "transposed3d"])
def test_twin_weight_norm_along_the_first_axis_fails_transposed_layers(kind: str) -> None:
    with pytest.raises(AssertionError):
        check_lengths(parametrizations.weight_norm, kind)


# --- clip


def apart(layer: Any) -> Any:
    """The layer after an update that left the bounds."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(3)))
    return layer


def check_clip(layer: Any) -> None:
    apart(layer)
    expected = {name: p.detach().clamp(-0.5, 0.5) for name, p in layer.named_parameters()}
    check_two_forwards(layer)
    for name, parameter in layer.named_parameters():
        assert parameter.abs().max() > 0.4, name
        assert torch.equal(parameter, expected[name]), name
    assert layer.weight.abs().max() <= 0.5


@pytest.mark.parametrize("kind", LAYERS)
def test_clip_keeps_weights_and_biases_themselves_within_the_bound(kind: str) -> None:
    check_clip(clip(layer_of(kind), bound=0.5))


class Moved(nn.Module):
    """Clips as autograd sees it, which invalidates the graph of an earlier forward."""

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            weight.clamp_(-0.5, 0.5)
        return weight.clamp(-0.5, 0.5)


class Shown(nn.Module):
    """Clips what is used, and lets the parameter itself wander off."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.clamp(-0.5, 0.5)


@pytest.mark.parametrize(
    ("twin", "error"), [(Moved, RuntimeError), (Shown, AssertionError)], ids=["Moved", "Shown"]
)
def test_twin_other_ways_to_clip_fail(twin: type[nn.Module], error: type[Exception]) -> None:
    layer = nn.Linear(5, 3, bias=False)
    parametrize.register_parametrization(layer, "weight", twin())
    with pytest.raises(error):
        check_clip(layer)


def test_clip_in_evaluation_clips_what_is_used_and_stores_nothing() -> None:
    layer = apart(clip(layer_of("linear"), bound=0.5)).eval()
    before = raw(layer).detach().clone()
    forward(layer)
    assert torch.equal(raw(layer), before)
    assert torch.equal(layer.weight, before.clamp(-0.5, 0.5))


def test_clip_reaches_a_layer_without_bias() -> None:
    layer = clip(nn.Linear(3, 2, bias=False), bound=0.5)
    assert layer.bias is None
    check_clip(layer)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_that_leaves_nothing_is_refused(bound: float) -> None:
    with pytest.raises(OptionError, match=r"^bound must be above 0") as caught:
        clip(nn.Linear(2, 2), bound=bound)
    assert caught.value.option == "bound"
