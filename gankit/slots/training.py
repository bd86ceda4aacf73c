"""What the engine hands to parts and asks of them: a turn, and the parts that act in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gankit.slots.architecture import Image, conditional, slot

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = [
    "Augment",
    "Dataset",
    "Latent",
    "Logger",
    "Logits",
    "Loss",
    "Observer",
    "Penalty",
    "Rates",
    "ScalesKeys",
    "ScalesRates",
    "TakesTurns",
    "Turn",
    "features_of",
    "heads_of",
]

Logits = Tensor | Mapping[str, Tensor]
"""What a discriminator returns: logits of any shape (B, ...), or several named heads of them."""


class Loss(Protocol):
    """What each player minimises, on pairs of logits of the same shape (B, ...)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """A scalar for the discriminator."""
        ...

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        """A scalar for the generator; real is None unless the loss needs real_in_generator."""
        ...


def heads_of(logits: Logits) -> dict[str, Tensor]:
    """Every head by name; a discriminator of one output has one, called `logits`."""
    return {"logits": logits} if isinstance(logits, Tensor) else dict(logits)


def features_of(discriminator: nn.Module, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """What the discriminator's last stage, or its last child, is given when it sees images."""
    *_, last = getattr(discriminator, "stages", discriminator).children()
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        conditional(discriminator, "labels")(images, labels)
    finally:
        hook.remove()
    return seen[-1]


@dataclass(frozen=True)
class Turn:
    """All that a turn has when a penalty is asked for its share.

    In a generator's turn `real` and its heads are None unless a part needs real_in_generator.
    """

    step: int
    total: int
    player: str
    """`D` or `G`: whose loss is being made up."""
    real: Tensor | None
    fake: Tensor
    labels: Tensor | None
    """One label per row, of the real and of the fake batch alike; None without classes."""
    latent: Tensor
    real_heads: Mapping[str, Tensor] | None
    fake_heads: Mapping[str, Tensor]
    image: Image
    """What one row of real and fake looks like."""
    generator: nn.Module
    generate: Callable[[Tensor], Tensor]
    """The generator with the turn's labels in it: latents to images."""
    heads: Callable[[Tensor], dict[str, Tensor]]
    """The discriminator with the turn's labels and augments in it: images to every head.

    Rows are those of the batch, or several times over."""
    features: Callable[[Tensor], Tensor]
    """As `heads`, but what the discriminator's last stage is given, (B, ...).

    Of a network without `stages`, what its last child is given."""
    adversarial: Mapping[str, float]
    """Which heads the adversarial loss applies to, and their weights in it."""
    random: torch.Generator
    """What a penalty draws from, on the CPU; each penalty is given one of its own.

    Draw with `gankit.randomness.drawn`, and a batch in several shares is the batch in one."""

    @classmethod
    def of(cls, discriminator: nn.Module, *, real: Tensor, fake: Tensor) -> Turn:
        """A discriminator's turn in a loop of one's own: enough for penalties of images alone.

        What the loop does not have (labels, latents, a generator, a count of steps) is empty;
        draws come from torch's global generator, as all draws by hand do.
        """

        def heads(images: Tensor) -> dict[str, Tensor]:
            return heads_of(discriminator(images))

        return cls(
            step=0,
            total=1,
            player="D",
            real=real,
            fake=fake,
            labels=None,
            latent=fake.new_empty(len(fake), 0),
            real_heads=heads(real),
            fake_heads=heads(fake),
            image=Image(real.shape[1], tuple(real.shape[2:])),  # type: ignore[arg-type]
            generator=nn.Identity(),
            generate=nn.Identity(),
            heads=heads,
            features=partial(features_of, discriminator),
            adversarial=getattr(discriminator, "adversarial", {"logits": 1.0}),
            random=torch.default_generator,
        )

    def discriminator(self, images: Tensor) -> Tensor:
        """The adversarial logits of images, with the turn's labels and augments in them.

        Of several adversarial heads, all logits side by side, unweighted: (B, N).
        """
        return self._joined(self.heads(images))

    @property
    def real_logits(self) -> Tensor:
        """The adversarial logits of the real batch."""
        assert self.real_heads is not None, "this turn has no real batch"
        return self._joined(self.real_heads)

    @property
    def fake_logits(self) -> Tensor:
        """The adversarial logits of the fake batch."""
        return self._joined(self.fake_heads)

    def _joined(self, heads: Mapping[str, Tensor]) -> Tensor:
        """One head as it is; several side by side, (B, N)."""
        chosen = [heads[name] for name in self.adversarial]
        if len(chosen) == 1:
            return chosen[0]
        return torch.cat([head.reshape(len(head), -1) for head in chosen], 1)


class Penalty(Protocol):
    """A scalar added to a player's loss, at every `every`-th turn of that player.

    The engine multiplies by `every`, so the expected strength does not depend on it.
    """

    @property
    def players(self) -> str:
        """For whom: `D`, `G` or `DG`."""
        ...

    @property
    def every(self) -> int:
        """Applied once in so many turns of its player."""
        ...

    def __call__(self, turn: Turn, /) -> Tensor: ...


class Rates(NamedTuple):
    """Factors on the two learning rates."""

    generator: float = 1.0
    discriminator: float = 1.0


@runtime_checkable
class TakesTurns(Protocol):
    """A schedule that says who moves: ("D", "D", "G"), or ("DG",) for both at once."""

    def turns(self, step: int, total: int) -> Sequence[str]:
        """The turns of a step, in order."""
        ...


@runtime_checkable
class ScalesRates(Protocol):
    """A schedule that multiplies learning rates."""

    def rates(self, step: int, total: int) -> Rates:
        """Factors for a step."""
        ...


@runtime_checkable
class ScalesKeys(Protocol):
    """A schedule that multiplies other numbers of the spec, by path: `penalty.r1.weight`."""

    def factors(self, step: int, total: int) -> Mapping[str, float]:
        """Factors for a step, by path."""
        ...


@slot("augment")
class Augment(Protocol):
    """A differentiable change of images, drawn from `random`, applied to real and fake alike.

    Draw with `gankit.randomness.drawn`, and a batch in several shares is the batch in one.
    """

    def __call__(self, images: Tensor, random: torch.Generator, /) -> Tensor: ...


@runtime_checkable
class Observer(Protocol):
    """An augment or penalty that is shown every turn of D once its losses are made up.

    The heads in it are those of the whole batch, also where that is worked off in shares; images
    and latents are those of one share.
    """

    def observe(self, turn: Turn) -> None:
        """Take note; called without gradients, before D's weights move."""
        ...


class Latent(Protocol):
    """Draws (count, width) latents from `random`."""

    def __call__(self, count: int, width: int, random: torch.Generator, /) -> Tensor: ...


class Dataset(Protocol):
    """Real images by index. Making one touches no disk; asking for its length or images may."""

    @property
    def image(self) -> Image:
        """What one image looks like."""
        ...

    def __len__(self) -> int: ...

    def images(self, indices: Tensor) -> Tensor:
        """(B, C, H, W), uint8 or float in [-1, 1]; points are (B, C) float."""
        ...

    def labels(self, indices: Tensor) -> Tensor | None:
        """(B,) int64, or None without classes."""
        ...


class Logger(Protocol):
    """Takes what a run measures somewhere; made once per start, handed the run folder.

    A second thing it may be handed is the spec, as the tables of `resolved.toml`.
    """

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """The metrics of a step, called at every log."""
        ...

    def picture(self, step: int, picture: Picture) -> None:
        """A grid of samples."""
        ...

    def close(self) -> None:
        """The run has ended, in whichever way."""
        ...
