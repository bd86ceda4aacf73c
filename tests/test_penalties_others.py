"""Penalties on logits, weights and features, each against its formula written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.augments import Adaptive, flip, translation
from gankit.errors import OptionError
from gankit.networks import dcgan_discriminator, dcgan_generator
from gankit.norms import BatchNorm, spectral, weightnorm
from gankit.ops import settle
from gankit.penalties import Consistency, FeatureMatching, LeCam, Orthogonal
from gankit.slots import Image, Norm, Turn
from tests.turns import Net, Quadratic, batches, check_derivatives, seeded, turn_of

SEEDS = st.integers(0, 2**32 - 1)
IMAGES = (3, 4, 4)


# --- lecam


def logits_of(turn: Turn) -> tuple[np.ndarray, np.ndarray]:
    return turn.real_logits.detach().numpy(), turn.fake_logits.detach().numpy()


def average(values: list[float], decay: float) -> float:
    """The mean of what was seen, each value counting `decay` times what the next one does."""
    weights = decay ** np.arange(len(values))[::-1]
    return float((weights * values).sum() / weights.sum())


def lecam_turn(seed: int, step: int = 0) -> Turn:
    return turn_of(Net((3,), logits=2), *batches(seed), step=step)


def check_lecam(
    penalty: Any, seed: int, turns: int, decay: float, weight: float, one_sided: bool = True
) -> None:
    """Held to the averages of the turns before, of which there may be none."""
    real, fake = [], []
    for index in range(turns + 1):
        turn = lecam_turn(seed + index, step=index)
        r, f = logits_of(turn)
        expected = 0.0
        if index:
            above, below = r - average(fake, decay), average(real, decay) - f
            if one_sided:
                above, below = np.maximum(above, 0), np.maximum(below, 0)
            expected = weight * float((above**2).mean() + (below**2).mean())
        assert penalty(turn).item() == pytest.approx(expected, rel=1e-5, abs=1e-9)
        penalty.observe(turn)
        real.append(r.mean())
        fake.append(f.mean())


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    turns=st.integers(0, 6),
    decay=st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.999999]),
    weight=st.floats(0, 10),
    one_sided=st.booleans(),
)
def test_lecam_is_its_formula(
    seed: int, turns: int, decay: float, weight: float, one_sided: bool
) -> None:
    penalty = LeCam(weight=weight, decay=decay, one_sided=one_sided)
    check_lecam(penalty, seed, turns, decay, weight, one_sided)


def test_lecam_by_numbers() -> None:
    def turn(real: float, fake: float) -> Turn:
        given = torch.tensor([[real]]), torch.tensor([[fake]])
        return turn_of(lambda x: x, *given)

    penalty = LeCam(weight=2.0, decay=0.5)
    penalty.observe(turn(3.0, -1.0))
    assert penalty.averages.tolist() == [3.0, -1.0]
    assert penalty(turn(1.0, 2.0)).item() == 2 * (2.0**2 + 1.0**2)
    assert penalty(turn(-2.0, 4.0)).item() == 0
    assert LeCam().eval()(turn(1.0, 2.0)).item() == 0
    penalty.observe(turn(0.0, 2.0))
    assert penalty.averages.tolist() == pytest.approx([1.0, 1.0])


def test_lecam_is_sound_before_it_has_seen_anything() -> None:
    net = Net((3,))
    value = LeCam(weight=5.0)(turn_of(net, *batches(0)))
    value.backward()
    assert value.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_lecam_starts_when_it_is_told_to_and_watches_before() -> None:
    penalty = LeCam(start=2)
    values = []
    for step in range(4):
        turn = lecam_turn(step, step=step)
        values.append(penalty(turn).item())
        penalty.observe(turn)
    assert values[:2] == [0, 0]
    assert min(values[2:]) > 0
    assert penalty.seen.item() == 4


def test_lecam_leaves_out_what_is_not_finite() -> None:
    penalty, turn = LeCam(), lecam_turn(0)
    assert turn.real_heads is not None
    broken = replace(turn, real_heads={"logits": turn.real_logits / 0})
    penalty.observe(broken)
    assert penalty.state_dict()["seen"] == 0
    penalty.observe(turn)
    before = penalty.averages.clone()
    penalty.observe(broken)
    assert torch.equal(penalty.averages, before)
    assert penalty.seen == 1
    torch.testing.assert_close(before[0], turn.real_logits.mean().float())


def test_lecam_keeps_its_state_and_no_graph() -> None:
    penalty = LeCam()
    for seed in range(3):
        turn = lecam_turn(seed)
        value = penalty(turn)
        penalty.observe(turn)  # before anyone goes backward
        value.backward()
    assert not any(buffer.requires_grad for buffer in penalty.buffers())
    assert not list(penalty.parameters())
    other = LeCam()
    other.load_state_dict(penalty.state_dict())
    assert set(penalty.state_dict()) == {"averages", "seen"}
    assert other(lecam_turn(9)).item() == penalty(lecam_turn(9)).item()


def test_lecam_holds_down_d_by_its_gradient() -> None:
    penalty = LeCam()
    penalty.observe(turn_of(Net(IMAGES), *batches(1, shape=IMAGES)))
    check_derivatives(penalty, Net(IMAGES), IMAGES)


class BrokenLeCam(LeCam):
    """Ours, but for what `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__(weight=1.0, decay=0.9, one_sided=how != "two-sided")
        self.how = how

    def forward(self, turn: Turn, /) -> Tensor:
        if self.how == "sees itself":
            self.observe(turn)
        if self.how == "own side":
            turned = LeCam(weight=1.0, decay=0.9)
            turned.seen.copy_(self.seen)
            turned.averages.copy_(self.averages.flip(0))
            return turned(turn)
        return super().forward(turn)

    def observe(self, turn: Turn) -> None:
        if self.how == "biased towards 0":
            means = torch.stack([turn.real_logits.mean(), turn.fake_logits.mean()]).detach()
            self.averages.lerp_(means.float(), 0.1)
            self.seen += 1
        elif self.how != "never looks":
            super().observe(turn)


def test_broken_lecam_is_caught() -> None:
    check_lecam(BrokenLeCam("nothing"), 0, 4, 0.9, 1.0)
    for how in ("two-sided", "sees itself", "own side", "biased towards 0", "never looks"):
        with pytest.raises(AssertionError):
            check_lecam(BrokenLeCam(how), 0, 4, 0.9, 1.0)


# --- consistency


def check_consistency(penalty: Any, seed: int, weight: float, fake_weight: float) -> None:
    """weight x (mean (D(x) - D(mirrored x))^2 + fake x the same of fakes), mirrored or not."""
    real, fake = batches(seed, shape=IMAGES)
    discriminator = Quadratic(seed, math.prod(IMAGES))
    random = seeded(seed)
    expected = 0.0
    for images, counts in ((real, 1.0), (fake, fake_weight)):
        mirrored = (torch.rand(5, generator=random) < 0.5).numpy()
        changed = np.where(mirrored[:, None, None, None], images.numpy()[..., ::-1], images)
        with torch.no_grad():
            change = discriminator(images) - discriminator(torch.from_numpy(changed.copy()))
        expected += counts * (change.numpy() ** 2).mean()
    got = penalty(turn_of(discriminator, real, fake, seed)).item()
    assert got == pytest.approx(weight * expected, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, weight=st.floats(0, 100), fake=st.sampled_from([0.0, 0.5, 1.0]))
def test_consistency_is_its_formula(seed: int, weight: float, fake: float) -> None:
    penalty = Consistency(weight=weight, fake=fake, augments=(flip,))
    check_consistency(penalty, seed, weight, fake)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_discriminator_that_the_augments_do_not_change_is_consistent(seed: int) -> None:
    real, fake = batches(seed, shape=IMAGES)

    def symmetric(images: Tensor) -> Tensor:
        return (images + images.flip(-1)).pow(3).flatten(1).sum(1)

    turn = turn_of(symmetric, real, fake)
    torch.testing.assert_close(
        Consistency(fake=1.0, augments=(flip,))(turn), torch.zeros((), dtype=torch.float64)
    )
    assert Consistency(augments=(translation,))(turn) >= 0


def test_consistency_applies_its_augments_in_order() -> None:
    def double(images: Tensor, random: torch.Generator, /) -> Tensor:
        return 2 * images

    def more(images: Tensor, random: torch.Generator, /) -> Tensor:
        return images + 1

    real, fake = torch.ones(2, 1), torch.zeros(2, 1)
    turn = turn_of(lambda x: x, real, fake)
    assert Consistency(weight=1.0, augments=(double, more))(turn).item() == 2.0**2
    assert Consistency(weight=1.0, augments=(more, double))(turn).item() == 3.0**2
    both = Consistency(weight=1.0, fake=2.0, augments=(double, more))
    assert both(turn).item() == 2.0**2 + 2 * 1.0**2


def test_consistency_looks_once_at_each_batch() -> None:
    seen: list[Tensor] = []

    def discriminator(images: Tensor) -> Tensor:
        seen.append(images)
        return images.flatten(1).sum(1)

    turn = turn_of(discriminator, *batches(0, shape=IMAGES))
    for penalty, passes in ((Consistency(), 1), (Consistency(fake=1.0), 2)):
        seen.clear()
        penalty(turn)
        assert len(seen) == passes
        assert all(images.shape == turn.fake.shape for images in seen)


@pytest.mark.parametrize("logits", [1, 6])
def test_both_sides_of_a_consistency_move_d(logits: int) -> None:
    for fake in (0.0, 1.0):
        penalty = Consistency(fake=fake, augments=(translation,))
        check_derivatives(penalty, Net((2, 8, 8), logits), (2, 8, 8), fast=True)


def test_an_augment_with_a_state_is_refused() -> None:
    with pytest.raises(OptionError, match="consistency: Adaptive has a state") as told:
        Consistency(augments=(flip, Adaptive()))
    assert told.value.option == "augments"


def consistent(
    how: Callable[[Tensor, Tensor], Tensor], augments: bool = True, fake: float = 0.0
) -> Callable[[Turn], Tensor]:
    """A penalty like ours, but for what is given."""

    def penalty(turn: Turn) -> Tensor:
        assert turn.real is not None
        random = turn.random if augments else seeded(99)
        value = 10 * how(turn.real_logits, turn.discriminator(flip(turn.real, random)))
        changed = turn.discriminator(flip(turn.fake, random))
        return value + 10 * fake * how(turn.fake_logits, changed)

    return penalty


def test_broken_consistency_is_caught() -> None:
    check_consistency(consistent(F.mse_loss), 0, 10.0, 0.0)
    check_consistency(consistent(F.mse_loss, fake=1.0), 0, 10.0, 1.0)
    broken = [
        consistent(F.l1_loss),
        consistent(lambda a, b: F.mse_loss(a, b, reduction="sum")),
        consistent(lambda a, b: (a.mean() - b.mean()).square()),
        consistent(F.mse_loss, fake=1.0),
        consistent(F.mse_loss, augments=False),
    ]
    for penalty in broken:
        with pytest.raises(AssertionError):
            check_consistency(penalty, 0, 10.0, 0.0)
    # Of the right value, but with one side held still.
    still = consistent(lambda a, b: F.mse_loss(a.detach(), b))
    check_consistency(still, 0, 10.0, 0.0)
    with pytest.raises((AssertionError, RuntimeError)):
        check_derivatives(still, Net(IMAGES), IMAGES)


# --- orthogonal

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Linear(6, 4),
    "tall dense": lambda: nn.Linear(3, 40),
    "conv": lambda: nn.Conv2d(3, 5, 3),
    "conv in groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv1d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(3, 5, 4),
    "tall transposed": lambda: nn.ConvTranspose2d(1, 30, 2),
    "transposed in groups": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
}


def filters_of(layer: Any) -> list[list[np.ndarray]]:
    """What makes each output channel, group by group."""
    weight = layer.weight.detach().double().numpy()
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, nn.ConvTranspose2d):
        share = weight.shape[0] // groups
        return [
            [weight[g * share : (g + 1) * share, o].ravel() for o in range(weight.shape[1])]
            for g in range(groups)
        ]
    share = len(weight) // groups
    return [[w.ravel() for w in weight[g * share : (g + 1) * share]] for g in range(groups)]


def by_pairs(layer: Any) -> float:
    """Every filter with every other one of its group."""
    return sum(
        float(one @ other) ** 2
        for group in filters_of(layer)
        for i, one in enumerate(group)
        for j, other in enumerate(group)
        if i != j
    )


def overlap_of(generator: nn.Module, penalty: Any = None) -> Tensor:
    """The penalty, of weight 1 where it is ours."""
    turn = turn_of(lambda x: x.sum(1), torch.zeros(2, 3), torch.zeros(2, 3), generator=generator)
    return (penalty or Orthogonal(weight=1.0))(turn)


def check_orthogonal(penalty: Any, name: str) -> None:
    layer = LAYERS[name]().double()
    expected = by_pairs(layer)
    assert overlap_of(layer, penalty).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_orthogonal_compares_every_two_filters(name: str) -> None:
    check_orthogonal(Orthogonal(weight=1.0), name)


def test_orthogonal_adds_layers_up_and_leaves_other_weights_alone() -> None:
    layers = [make() for make in LAYERS.values()]
    others = [nn.Embedding(5, 4), nn.BatchNorm2d(4), nn.PReLU(3)]
    generator = nn.Sequential(nn.ModuleList(layers), *others).double()
    expected = sum(by_pairs(layer) for layer in layers)
    assert overlap_of(generator).item() == pytest.approx(expected, rel=1e-9)
    overlap_of(generator).backward()
    for other in others:
        assert all(parameter.grad is None for parameter in other.parameters())
    for layer in layers:
        assert isinstance(layer.weight, nn.Parameter)
        assert layer.weight.grad is not None
        assert layer.bias.grad is None


@pytest.mark.parametrize("name", ["dense", "tall dense", "conv"])
def test_the_released_code_has_half_the_gradient(name: str) -> None:
    """`utils.ortho` of ajbrock/BigGAN-PyTorch: 2 ((W W^T) * (1 - I)) W, times its strength."""
    layer: Any = LAYERS[name]().double()
    overlap_of(layer, Orthogonal(weight=1e-4)).backward()
    w = layer.weight.detach().flatten(1)
    code = 2 * ((w @ w.T) * (1 - torch.eye(len(w)))) @ w
    torch.testing.assert_close(layer.weight.grad.flatten(1), 2 * 1e-4 * code)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 5), scale=st.floats(0.1, 10))
def test_lengths_are_free_and_angles_are_not(seed: int, rows: int, scale: float) -> None:
    layer: Any = nn.Linear(5, rows).double()
    random = seeded(seed)
    nn.init.orthogonal_(layer.weight, generator=random)
    with torch.no_grad():
        layer.weight.mul_(scale * torch.rand(rows, 1, generator=random))
    assert overlap_of(layer).item() == pytest.approx(0, abs=1e-20 * scale**4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(rows, 5, generator=random))
        before = overlap_of(layer).item()
        signs = torch.randint(2, (rows, 1), generator=random) * 2 - 1
        layer.weight.copy_((signs * layer.weight)[torch.randperm(rows, generator=random)])
        assert overlap_of(layer).item() == pytest.approx(before, rel=1e-9, abs=1e-15)
        layer.weight.mul_(scale)
    assert overlap_of(layer).item() == pytest.approx(before * scale**4, rel=1e-9, abs=1e-15)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, rows=st.integers(2, 40), columns=st.integers(1, 6))
def test_tall_layers_are_accurate_in_float32(seed: int, rows: int, columns: int) -> None:
    layer: Any = nn.Linear(columns, rows)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(rows, columns, generator=seeded(seed)))
    total = float(layer.weight.detach().double().norm()) ** 4
    assert overlap_of(layer).item() == pytest.approx(by_pairs(layer), abs=1e-6 * total)


def check_small(penalty: Any, layer: nn.Linear) -> None:
    """Nothing that is kept for the way back is larger than the weight."""
    sizes = []

    def noted(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        overlap_of(layer, penalty)
    assert max(sizes) <= layer.weight.numel()


def test_a_layer_with_many_outputs_needs_little_memory() -> None:
    layer = nn.Linear(4, 100)
    check_small(Orthogonal(), layer)
    with pytest.raises(AssertionError):
        check_small(lambda turn: gram(turn.generator, first_axis), layer)


def test_orthogonal_acts_on_the_weight_before_spectral_norm() -> None:
    plain, normal = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)
    with torch.no_grad():
        plain.weight.mul_(7)
    normal.load_state_dict(plain.state_dict())
    spectral(normal)
    before = {name: buffer.clone() for name, buffer in normal.named_buffers()}
    value = overlap_of(normal)
    torch.testing.assert_close(value, overlap_of(plain))
    value.backward()
    assert normal.parametrizations["weight"].original.grad is not None  # type: ignore[index]
    assert all(torch.equal(b, before[name]) for name, b in normal.named_buffers())


def test_orthogonal_acts_on_what_weightnorm_makes() -> None:
    lengthened: Any = weightnorm(nn.Linear(3, 4).double())
    with torch.no_grad():
        lengthened.parametrizations.weight.original0.mul_(2)
    assert overlap_of(lengthened).item() == pytest.approx(by_pairs(lengthened))


def test_orthogonal_of_a_whole_generator_in_float32_under_autocast() -> None:
    norm = Norm(spectral, BatchNorm)
    generator = dcgan_generator(Image(3, (16, 16)), latent=8, width=4, norm=norm)
    settle(generator)
    value = overlap_of(generator)
    with torch.autocast("cpu", torch.bfloat16):
        assert overlap_of(generator).item() == value.item()
    assert value.item() > 0
    assert overlap_of(generator.half()).dtype == torch.float32
    assert overlap_of(generator.to("meta")).is_meta


def test_a_generator_without_such_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="orthogonal: Identity has no dense layer"):
        overlap_of(nn.Identity())


def gram(layer: Any, rows: Callable[[Tensor], Tensor], off: bool = True) -> Tensor:
    w = rows(layer.weight)
    product = w @ w.T
    return (product * (1 - torch.eye(len(w))) if off else product).square().sum()


def first_axis(weight: Tensor) -> Tensor:
    return weight.flatten(1)


def test_broken_orthogonal_is_caught() -> None:
    broken: dict[str, Callable[[Turn], Tensor]] = {
        "conv": lambda t: gram(t.generator, first_axis, off=False),
        "dense": lambda t: gram(t.generator, lambda w: w.T),
        "transposed": lambda t: gram(t.generator, first_axis),
        "conv in groups": lambda t: gram(t.generator, first_axis),
    }
    check_orthogonal(lambda t: gram(t.generator, first_axis), "dense")
    for name, penalty in broken.items():
        with pytest.raises(AssertionError):
            check_orthogonal(penalty, name)


# --- feature matching


def check_feature_matching(penalty: Any, seed: int, weight: float) -> None:
    """weight x |mean f(real) - mean f(fake)|^2, f being what Net's last layer is given."""
    net, (real, fake) = Net(IMAGES), batches(seed, shape=IMAGES)
    w, b = net[1].weight.detach().numpy(), net[1].bias.detach().numpy()  # type: ignore[union-attr]
    means = [np.logaddexp(0, x.flatten(1).numpy() @ w.T + b).mean(0) for x in (real, fake)]
    got = penalty(turn_of(net, real, fake, player="G")).item()
    assert got == pytest.approx(weight * ((means[0] - means[1]) ** 2).sum(), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, weight=st.floats(0, 100))
def test_feature_matching_is_its_formula(seed: int, weight: float) -> None:
    check_feature_matching(FeatureMatching(weight=weight), seed, weight)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_feature_matching_compares_means_alone(seed: int) -> None:
    real, _ = batches(seed, shape=IMAGES)
    order = torch.randperm(5, generator=seeded(seed))
    turn = turn_of(Net(IMAGES), real, real[order], player="G")
    assert FeatureMatching()(turn).item() == pytest.approx(0, abs=1e-25)


def test_feature_matching_moves_g_to_the_means() -> None:
    """The gradient in the images is that of finite differences; real images have none."""
    real, fake = batches(0, shape=IMAGES)
    net = Net(IMAGES)

    def of_fake(fake: Tensor) -> Tensor:
        return FeatureMatching()(turn_of(net, real, fake, player="G"))

    fake.requires_grad_()
    assert torch.autograd.gradcheck(of_fake, (fake,))
    real.requires_grad_()
    of_fake(fake).backward()
    assert real.grad is None
    assert fake.grad is not None


@pytest.mark.parametrize("norm", [Norm(), Norm(spectral)])
def test_feature_matching_of_a_real_pair(norm: Norm) -> None:
    image = Image(3, (16, 16))
    generator = dcgan_generator(image, latent=8, width=4, norm=norm)
    discriminator = dcgan_discriminator(image, width=4, norm=norm)
    fake = generator(torch.randn(4, 8, generator=seeded(0)))
    real = torch.rand(4, 3, 16, 16, generator=seeded(1)) * 2 - 1
    value = FeatureMatching()(turn_of(discriminator, real, fake, player="G"))
    value.backward()
    assert value.item() > 0
    assert all(p.grad is not None for p in generator.parameters())


def matched(value: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Turn], Tensor]:
    def penalty(turn: Turn) -> Tensor:
        assert turn.real is not None
        return value(turn.features(turn.real), turn.features(turn.fake))

    return penalty


def test_broken_feature_matching_is_caught() -> None:
    check_feature_matching(matched(lambda r, f: (r.mean(0) - f.mean(0)).square().sum()), 0, 1.0)
    broken = [
        matched(lambda r, f: (r.mean(0) - f.mean(0)).square().mean()),
        matched(lambda r, f: (r.mean(0) - f.mean(0)).abs().mean()),
        matched(lambda r, f: (r - f).square().sum(1).mean()),
        matched(lambda r, f: (r.mean() - f.mean()).square()),
        lambda turn: (turn.real_logits.mean(0) - turn.fake_logits.mean(0)).square().sum(),
    ]
    for penalty in broken:
        with pytest.raises(AssertionError):
            check_feature_matching(penalty, 0, 1.0)
