"""Augments: against loops over single images, in shares, and ADA's controller against a twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gankit.augments import Adaptive, color, cutout, flip, translation
from gankit.build import build
from gankit.errors import SpecError
from gankit.randomness import ShareGenerator, drawn, generator
from gankit.registry import registry
from gankit.slots import Turn
from gankit.spec import loads

OURS = [entry.name for entry in registry.find("augment") if entry.provider.name == "gankit"]
OPTIONS: dict[str, dict[str, Any]] = {"adaptive": {"start": 0.7}, "translation": {"ratio": 0.3}}
"""So that on small images too there is something to see."""


def made(name: str) -> Any:
    return registry.get("augment", name).bind(**OPTIONS.get(name, {}))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(rows: int = 6, channels: int = 3, height: int = 4, width: int = 5) -> Tensor:
    return torch.randn(rows, channels, height, width, generator=seeded(7), dtype=torch.float64)


# --- what holds of all of them


@pytest.mark.parametrize("name", OURS)
def test_augment_draws_from_what_it_is_given_alone(name: str) -> None:
    change = made(name)
    images, state = pictures(32), torch.get_rng_state()
    before = images.clone()
    one, same, other = (change(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert (one.shape, one.dtype) == (images.shape, images.dtype)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", OURS)
def test_augment_lets_gradients_through(name: str) -> None:
    change = made(name)
    images = pictures(4, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: change(x, seeded(3)), (images,))
    assert torch.autograd.gradgradcheck(lambda x: change(x, seeded(3)).pow(3), (images,))


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=20)
@given(
    rows=st.integers(0, 3),
    channels=st.integers(1, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_augment_takes_every_size(
    name: str, rows: int, channels: int, size: tuple[int, int], dtype: torch.dtype
) -> None:
    images = pictures(rows, channels, *size).to(dtype)
    changed = made(name)(images, seeded())
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert changed.isfinite().all()


def check_shares(change: Any, count: int, times: int) -> None:
    """A batch in several shares is changed as in one; so are real and fake rows joined."""
    rows, images = 3, pictures(3 * count * times)
    whole = change(images, generator("words"))
    parts = []
    for index in range(count):
        share = images.unflatten(0, (times, count, rows))[:, index].flatten(0, 1)
        random = ShareGenerator.of("words", index=index, count=count, rows=rows)
        parts.append(change(share, random).unflatten(0, (times, rows)))
    torch.testing.assert_close(torch.stack(parts, 1).flatten(0, 2), whole, rtol=0, atol=0)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", OURS)
def test_shares_are_the_whole_batch(name: str, times: int) -> None:
    for count in (1, 2, 5):
        check_shares(made(name), count, times)


def test_an_augment_that_draws_by_itself_is_caught() -> None:
    def noise(images: Tensor, random: torch.Generator) -> Tensor:
        return images + torch.rand(len(images), 1, 1, 1, generator=random)

    with pytest.raises(AssertionError):
        check_shares(noise, 2, 1)


@pytest.mark.parametrize("name", ["flip", "color", "translation", "cutout"])
def test_augment_refuses_points(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: needs images"):
        made(name)(torch.zeros(4, 2), seeded())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flip", {"p": 1.5}, r"p must be in \[0, 1\]"),
        ("color", {"brightness": -0.1}, "brightness must be at least 0"),
        ("color", {"brightness": float("nan")}, "brightness must be at least 0"),
        ("color", {"saturation": 1.1}, r"saturation must be in \[0, 1\]"),
        ("color", {"contrast": -1.0}, r"contrast must be in \[0, 1\]"),
        ("translation", {"ratio": 1.1}, r"translation: ratio must be in \[0, 1\]"),
        ("cutout", {"ratio": -0.1}, r"cutout: ratio must be in \[0, 1\]"),
        ("adaptive", {"target": 1.1}, r"target must be in \[-1, 1\]"),
        ("adaptive", {"speed": 0}, "speed must be at least 1"),
        ("adaptive", {"every": 0}, "every must be at least 1"),
        ("adaptive", {"start": -0.1}, r"start must be in \[0, 1\]"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        registry.get("augment", name).bind(**options)(pictures(), seeded())
    assert [caught.value.option] == list(options)


# --- flip


def check_flip(change: Any, p: float) -> None:
    """Every image is itself or its mirror, the latter with a probability of p."""
    images = pictures(4000, 1, 2, 3)
    changed = change(images, seeded(5))
    kept = (changed == images).flatten(1).all(1)
    mirrored = (changed == torch.from_numpy(images.numpy()[..., ::-1].copy())).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert mirrored.double().mean().item() == pytest.approx(
        p, abs=5 * math.sqrt(p * (1 - p) / 4000)
    )


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_flip(p: float) -> None:
    check_flip(registry.get("augment", "flip").bind(p=p), p)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, g: torch.where(torch.rand(1, generator=g) < 0.5, x.flip(-1), x),
        lambda x, g: torch.where(torch.rand(len(x), 1, 1, 1, generator=g) < 0.5, x.flip(-2), x),
        lambda x, g: torch.where(torch.rand(len(x), 1, 1, 1, generator=g) < 0.4, x.flip(-1), x),
        lambda x, g: x.flip(-1),
    ],
    ids=["whole batch", "top to bottom", "too rare", "always"],
)
def test_broken_flips_are_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_flip(broken, 0.5)


def test_flip_draws_what_it_always_drew() -> None:
    """Runs that are continued see the same images."""
    images = pictures(64)
    chosen = torch.rand(64, generator=seeded(1)) < 0.5
    expected = torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)
    assert torch.equal(flip(images, seeded(1)), expected)


# --- DiffAugment, against what its released code does, image by image


def uniform(rows: int, numbers: int) -> np.ndarray:
    """What an augment draws from the generator of seed 3."""
    return torch.rand(rows, numbers, generator=seeded(3)).numpy()


def color_loop(
    images: np.ndarray, brightness: float = 0.5, saturation: float = 1.0, contrast: float = 0.5
) -> np.ndarray:
    out = []
    for x, (b, s, c) in zip(images, uniform(len(images), 3).astype(np.float64), strict=True):
        x = x + (b - 0.5) * 2 * brightness
        pixel = x.mean(axis=0)
        x = (x - pixel) * (1 - saturation + 2 * saturation * s) + pixel
        out.append((x - x.mean()) * (1 - contrast + 2 * contrast * c) + x.mean())
    return np.array(out).reshape(images.shape)


def translation_loop(images: np.ndarray, ratio: float = 0.125) -> np.ndarray:
    _, _, height, width = images.shape
    out = np.zeros_like(images)
    far = [math.floor(ratio * size + 0.5) for size in (height, width)]
    for x, y, numbers in zip(images, out, uniform(len(images), 2), strict=True):
        down, right = (int(u * (2 * f + 1)) - f for u, f in zip(numbers, far, strict=True))
        for i in range(height):
            for j in range(width):
                if 0 <= i - down < height and 0 <= j - right < width:
                    y[:, i, j] = x[:, i - down, j - right]
    return out


def cutout_loop(images: np.ndarray, ratio: float = 0.5) -> np.ndarray:
    """As released: the places to cut are clamped into the image."""
    _, _, height, width = images.shape
    side = [math.floor(ratio * size + 0.5) for size in (height, width)]
    out = images.copy()
    for y, (u, v) in zip(out, uniform(len(images), 2), strict=True):
        middle = int(u * (height + 1 - side[0] % 2)), int(v * (width + 1 - side[1] % 2))
        for i in range(side[0]):
            for j in range(side[1]):
                row = min(max(i + middle[0] - side[0] // 2, 0), height - 1)
                column = min(max(j + middle[1] - side[1] // 2, 0), width - 1)
                y[:, row, column] = 0
    return out


def check_loop(change: Any, loop: Callable[[np.ndarray], np.ndarray], images: Tensor) -> None:
    expected = torch.from_numpy(loop(images.numpy()))
    torch.testing.assert_close(change(images, seeded(3)), expected, rtol=1e-6, atol=1e-6)


SIZES = st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))


@given(size=SIZES, b=st.floats(0, 2), s=st.floats(0, 1), c=st.floats(0, 1))
def test_color_is_diffaugments(size: tuple[int, ...], b: float, s: float, c: float) -> None:
    check_loop(color, color_loop, pictures(*size))
    change = registry.get("augment", "color").bind(brightness=b, saturation=s, contrast=c)
    check_loop(change, lambda x: color_loop(x, b, s, c), pictures(*size))


@pytest.mark.parametrize(
    ("change", "loop"), [(translation, translation_loop), (cutout, cutout_loop)]
)
@given(size=SIZES, ratio=st.floats(0, 1))
def test_translation_and_cutout_are_diffaugments(
    change: Any, loop: Any, size: tuple[int, ...], ratio: float
) -> None:
    check_loop(change, loop, pictures(*size))
    check_loop(lambda x, g: change(x, g, ratio=ratio), lambda x: loop(x, ratio), pictures(*size))


def color_about_0(images: Tensor, random: torch.Generator) -> Tensor:
    b, s, c = drawn(random, len(images), 3).to(images).view(-1, 3, 1, 1, 1).unbind(1)
    grey = images.mean(1, keepdim=True)
    return (0.5 + c) * (grey + 2 * s * (images - grey) + b - 0.5)


def color_of_the_batch(images: Tensor, random: torch.Generator) -> Tensor:
    b, s, c = drawn(random, len(images), 3).to(images).view(-1, 3, 1, 1, 1).unbind(1)
    images = images + b - 0.5
    grey = images.mean(1, keepdim=True)
    images = grey + 2 * s * (images - grey)
    return images.mean() + (0.5 + c) * (images - images.mean())


def rolled(images: Tensor, random: torch.Generator) -> Tensor:
    """The right way, but round the edges."""
    far = [int(size * 0.125 + 0.5) for size in images.shape[2:]]
    numbers = drawn(random, len(images), 2) * torch.tensor([2 * f + 1 for f in far])
    moves = zip(images, (numbers.long() - torch.tensor(far)).tolist(), strict=True)
    return torch.stack([x.roll(move, (1, 2)) for x, move in moves])


@pytest.mark.parametrize(
    ("broken", "loop"),
    [
        (color_about_0, color_loop),
        (color_of_the_batch, color_loop),
        (rolled, translation_loop),
        (lambda x, g: translation(x, g).transpose(2, 3), translation_loop),
        (lambda x, g: translation(x, g, ratio=0.25), translation_loop),
        (lambda x, g: translation(x[:1], g).expand(x.shape), translation_loop),
        (lambda x, g: cutout(x, g, ratio=0.4), cutout_loop),
        (lambda x, g: x * (cutout(torch.ones_like(x), g) - 1), cutout_loop),
        (lambda x, g: torch.where(cutout(x, g) == 0, x.mean(), x), cutout_loop),
    ],
)
def test_broken_augments_are_caught(broken: Any, loop: Any) -> None:
    images = pictures(8, 3, 8, 8)
    with pytest.raises(AssertionError):
        check_loop(broken, loop, images)


def test_the_saturation_of_grey_images_is_left_alone() -> None:
    images = pictures(8, 1, 4, 4)
    changed = color(images, seeded(), brightness=0.0, contrast=0.0)
    torch.testing.assert_close(changed, images, rtol=0, atol=1e-15)
    coloured = pictures(8, 3, 4, 4)
    assert not torch.allclose(color(coloured, seeded(), brightness=0.0, contrast=0.0), coloured)


def test_places_are_drawn_evenly() -> None:
    """Every move is as likely, and so is every place of what is cut out."""
    point = torch.zeros(9000, 1, 8, 16)
    point[:, :, 4, 8] = 1.0
    where = translation(point, seeded(2)).mean(0)[0]
    reached = where[3:6, 6:11]
    assert float(where.sum()) == pytest.approx(float(reached.sum())) == pytest.approx(1.0)
    assert reached.flatten().tolist() == pytest.approx([1 / 15] * 15, abs=5 * 0.26 / 9000**0.5)
    kept = cutout(torch.ones(9000, 1, 4, 6), seeded(2)).mean(0)[0]
    # Of the middles 0 to 4, 2 cut each row; of 0 to 5, 3 cut a column, and 2 the first and last.
    expected = [1 - 2 / 5 * columns / 6 for columns in (2, 3, 3, 3, 3, 2)] * 4
    assert kept.flatten().tolist() == pytest.approx(expected, abs=5 * 0.5 / 9000**0.5)


def test_a_single_pixel() -> None:
    pixel = torch.full((4, 3, 1, 1), 0.25)
    assert torch.equal(translation(pixel, seeded()), pixel)
    assert torch.equal(cutout(pixel, seeded()), torch.zeros_like(pixel))
    assert torch.equal(cutout(pixel, seeded(), ratio=0.4), pixel)


# --- adaptive: what it applies


def test_at_a_probability_of_0_nothing_changes() -> None:
    images = pictures(64)
    assert torch.equal(Adaptive()(images, seeded()), images)


def test_at_a_probability_of_1_all_are_applied_in_order() -> None:
    images, random = pictures(64), seeded()
    changed = Adaptive(start=1.0)(images, random)
    again = seeded()
    drawn(again, 64, 4)
    expected = images
    for change in (flip, color, translation, cutout):
        expected = change(expected, again)
    assert torch.equal(changed, expected)
    assert torch.equal(random.get_state(), again.get_state())


def one_bit(bit: int) -> Any:
    """An augment that leaves a mark of its own on each image."""

    def change(images: Tensor, random: torch.Generator) -> Tensor:
        return images + 2.0**bit

    return change


def check_chosen(change: Any, p: float) -> None:
    """Each mark is on each image with the probability p, whatever other marks it has."""
    marks = change(torch.zeros(8000, 1, 1, 1), seeded(4)).flatten().long()
    counts = torch.bincount(marks, minlength=4) / 8000
    expected = [(1 - p) ** 2, p * (1 - p), p * (1 - p), p**2]
    assert counts.tolist() == pytest.approx(expected, abs=5 * 0.5 / 8000**0.5)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_each_augment_applies_to_each_image_on_its_own(p: float) -> None:
    check_chosen(Adaptive(augments=(one_bit(0), one_bit(1)), start=p), p)


def test_augments_chosen_together_are_caught() -> None:
    def together(images: Tensor, random: torch.Generator) -> Tensor:
        return torch.where(drawn(random, len(images), 1, 1, 1) < 0.5, images + 3, images)

    def whole_batch(images: Tensor, random: torch.Generator) -> Tensor:
        chosen = drawn(random, 2).lt(0.5).tolist()
        return images + chosen[0] + 2 * chosen[1]

    for broken in (together, whole_batch):
        with pytest.raises(AssertionError):
            check_chosen(broken, 0.5)


def test_the_probability_decides_no_draw() -> None:
    states = []
    for p in (0.0, 0.5, 1.0):
        random = seeded()
        Adaptive(start=p)(pictures(), random)
        states.append(random.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_it_takes_what_its_augments_take() -> None:
    points = torch.ones(5, 2)
    assert torch.equal(Adaptive(augments=(one_bit(0),), start=1.0)(points, seeded()), points + 1)
    assert torch.equal(Adaptive(augments=())(points, seeded()), points)


# --- adaptive: the controller


def turn_of(logits: Any) -> Turn:
    """A turn of D that gave these logits to the real images."""
    real = torch.as_tensor(logits, dtype=torch.float32).view(-1, 1, 1, 1)
    return Turn.of(nn.Flatten(), real=real, fake=real)


class Twin:
    """The controller in plain Python, with faults to choose from."""

    def __init__(
        self, target: float, speed: int, every: int, start: float, fault: str = ""
    ) -> None:
        self.target, self.speed, self.every, self.p = target, speed, every, start
        self.fault = fault
        self.seen: list[float] = []
        self.turns = 0

    def observe(self, turn: Turn) -> None:
        logits = turn.real_logits.flatten().tolist()
        self.turns += 1
        self.seen += logits
        if self.turns % (1 if self.fault == "moves at every turn" else self.every):
            return
        if self.fault == "asks the last turn alone":
            self.seen = logits
        signs = [
            x if self.fault == "means logits" else math.copysign(bool(x), x) for x in self.seen
        ]
        above = sum(signs) / len(signs) - self.target
        images = 1 if self.fault == "counts turns" else len(self.seen)
        self.p += math.copysign(bool(above), above) * images / self.speed
        if self.fault != "not clamped":
            self.p = min(max(self.p, 0.0), 1.0)
        if self.fault != "never forgets":
            self.seen = []


def check_controller(make: Any, options: dict[str, Any], bias: float, seed: int) -> None:
    """After every turn, p is the twin's."""
    one, twin = make(**options), Twin(**options)
    random = seeded(seed)
    for turn in range(40):
        logits = torch.randn(7, generator=random) + bias * math.cos(turn / 6)
        for watching in (one, twin):
            watching.observe(turn_of(logits))
        assert float(one.p) == pytest.approx(twin.p, abs=1e-5)


CONTROL = {"target": 0.6, "speed": 280, "every": 4, "start": 0.3}


# No target is the mean sign of any number of sevens, so none is missed by a rounding error alone.
@given(
    target=st.sampled_from([0.6, -0.3, 0.05, 0.95]),
    speed=st.integers(1, 1000),
    every=st.integers(1, 6),
    start=st.floats(0, 1, width=32),
    bias=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_p_is_the_twins(
    target: float, speed: int, every: int, start: float, bias: float, seed: int
) -> None:
    options = {"target": target, "speed": speed, "every": every, "start": start}
    check_controller(Adaptive, options, bias, seed)


@pytest.mark.parametrize(
    "fault",
    [
        *("moves at every turn", "asks the last turn alone", "means logits", "counts turns"),
        *("not clamped", "never forgets"),
    ],
)
def test_broken_controllers_are_caught(fault: str) -> None:
    check_controller(Adaptive, CONTROL, 3.0, 1)
    with pytest.raises(AssertionError):  # noqa: PT012
        for bias in (3.0, 0.7):
            check_controller(lambda **options: Twin(**options, fault=fault), CONTROL, bias, 1)


def test_by_hand() -> None:
    one = Adaptive(target=0.5, speed=100, every=2)
    seen = []
    for logits in ([1, 1, 1, -1], [2, 3, 1, 1], [1, 1, 0, 0], [1, 1, 1, -1], [-1] * 4, [9] * 4):
        one.observe(turn_of(logits))
        seen.append(round(float(one.p), 6))
    # The means of two turns are 0.75, then 0.5, which is the target, then 0.
    assert seen == [0, 0.08, 0.08, 0.08, 0.08, 0.0]


def test_in_a_closed_loop_the_mean_sign_comes_to_the_target() -> None:
    """A D that is the less sure, the more is augmented: its mean sign is 1 - 2p."""
    one, twin = (made(target=0.6, speed=4000, every=4, start=0.0) for made in (Adaptive, Twin))
    random, history = seeded(8), []
    for _ in range(400):
        p = float(one.p)
        logits = torch.where(torch.rand(32, generator=random) < p, -1.0, 1.0)
        one.observe(turn_of(logits))
        twin.observe(turn_of(logits))
        history.append(float(one.p))
    assert history[-1] == pytest.approx(twin.p, abs=1e-5)
    assert max(history[:100]) > 0.15
    assert np.mean(history[-200:]) == pytest.approx(0.2, abs=0.03)


def test_a_loop_that_is_closed_the_wrong_way_round_is_noticed() -> None:
    one = Adaptive(target=0.6, speed=4000, every=4)
    for _ in range(400):
        p = float(one.p)
        one.observe(turn_of(torch.where(torch.rand(32, generator=seeded(8)) < p, 1.0, -1.0)))
    assert float(one.p) == 0.0


def test_logits_of_all_adversarial_heads_count_and_no_others() -> None:
    one = Adaptive(target=0.0, speed=8, every=1)
    heads = {"a": torch.ones(2, 1), "b": -torch.ones(2, 3), "other": torch.ones(2, 9)}
    turn = replace(turn_of([1, 1]), real_heads=heads, adversarial={"a": 1.0, "b": 1.0})
    one.p.fill_(0.5)
    one.observe(turn)
    assert float(one.p) == 0.25


def test_logits_that_are_not_finite_do_not_stay() -> None:
    one = Adaptive(target=0.0, speed=8, every=1)
    one.observe(turn_of([float("nan"), 1.0]))
    assert float(one.p) == 0.25
    one.observe(turn_of([float("inf"), 1.0]))
    assert float(one.p) == 0.5


def check_resumes(saved: set[str]) -> None:
    """A controller that is made anew from its state in the middle of a count goes on as before."""
    options = {"target": 0.1, "speed": 500, "every": 3}
    unbroken, stopped = Adaptive(**options), Adaptive(**options)
    random = seeded(6)
    for turn in range(20):
        seen = turn_of(torch.randn(7, generator=random) + 0.5)
        unbroken.observe(seen)
        stopped.observe(seen)
        if turn == 10:
            state = {name: value.clone() for name, value in stopped.state_dict().items()}
            stopped = Adaptive(**options)
            stopped.load_state_dict({**stopped.state_dict(), **{k: state[k] for k in saved}})
        assert torch.equal(stopped.p, unbroken.p)
    assert 0 < float(unbroken.p) < 1


def test_the_state_is_whole() -> None:
    everything = set(Adaptive().state_dict())
    check_resumes(everything)
    for name in everything:
        with pytest.raises(AssertionError):
            check_resumes(everything - {name})


def test_nothing_waits_for_the_device() -> None:
    """On `meta` there is no value that anyone could wait for."""
    one = Adaptive(start=0.5).to("meta")
    one.observe(turn_of(torch.zeros(4, device="meta")))
    images = torch.zeros(4, 3, 8, 8, device="meta")
    assert one(images, seeded()).shape == images.shape
    with pytest.raises(RuntimeError):
        float(one.p)


def test_parts_inside_keep_their_state_and_their_view() -> None:
    inner = Adaptive(augments=(one_bit(0),), speed=8, every=1)
    outer = Adaptive(augments=(flip, inner), every=4)
    outer.observe(turn_of([1.0, 1.0]))
    assert float(inner.p) == 0.25
    assert outer.state_dict()["inner.0.p"] == 0.25
    assert list(outer.parameters()) == []


# --- adaptive: in a spec

SPEC = """
gankit = 1
train = { steps = 1 }
data = "DATA"
loss = "hinge"
generator = { use = "mlp" }
discriminator = { use = "mlp" }

[[augment]]
use = "adaptive"
target = 0.5
"""
INSIDE = 'augments = ["flip", { use = "cutout", ratio = 0.25 }]'


def test_augments_are_a_slot() -> None:
    spec = loads(SPEC.replace("DATA", "digits") + INSIDE)
    gan, _ = build(spec, "meta")
    part: Any = gan.augments["adaptive"]
    assert (part.target, part.speed) == (0.5, 500_000)
    assert part.augments[0] is flip
    images = pictures()
    expected = cutout(images, seeded(1), ratio=0.25)
    assert torch.equal(part.augments[1](images, seeded(1)), expected)
    assert gan.stateful() == {"augment.adaptive": part}
    table = spec.plain(full=True)["augment"][0]
    assert table["augments"] == [
        {"use": "flip", "p": 0.5},
        {"use": "cutout", "ratio": 0.25},
    ]


def test_points_are_refused_because_of_what_is_inside() -> None:
    spec = SPEC.replace("DATA", "ring")
    for inside, name in [(INSIDE, "cutout"), ("", "color")]:
        with pytest.raises(SpecError, match=f'augment "{name}" needs positions'):
            build(loads(spec + inside), "meta")
