"""What a player minimises in a turn: the adversarial loss, and the penalties that are due."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from gankit.build import GAN
from gankit.registry import registry
from gankit.slots import Turn, conditional, features_of, heads_of
from gankit.spec import Train
from gankit.train.batches import Draws, Share
from gankit.train.compiled import Compiled
from gankit.train.precision import Precision
from gankit.train.scaling import scaled

__all__ = ["Objective"]

Heads = Mapping[str, Tensor]


class Objective:
    """The loss of each player, from the parts of a GAN."""

    def __init__(self, gan: GAN, train: Train, precision: Precision) -> None:
        self.gan = self.parts = gan
        self.train = train
        self.precision = precision
        self.factors: Mapping[str, float] = {}
        self._plain = [conditional(each, "labels") for each in (gan.generator, gan.discriminator)]
        self.generate, self.discriminate = (
            Compiled(getattr(gan, name)) if name in gan.compiled else plain
            for name, plain in zip(("generator", "discriminator"), self._plain, strict=True)
        )
        entries = {n: registry.entry_of("penalty", each) for n, each in gan.penalties.items()}
        self._twice = {n for n, entry in entries.items() if entry and "second_order" in entry.needs}

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiply numbers of the parts, as schedules have it for a step."""
        self.factors = factors
        self.parts = scaled(self.gan, factors)

    @property
    def compilations(self) -> int:
        """How many functions were compiled so far."""
        networks = (self.generate, self.discriminate)
        return sum(each.compilations for each in networks if isinstance(each, Compiled))

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Within, the networks are called as they are, layer by layer."""
        compiled = self.generate, self.discriminate
        self.generate, self.discriminate = self._plain
        try:
            yield
        finally:
            self.generate, self.discriminate = compiled

    def fakes(self, share: Share) -> Tensor:
        """What G makes of a share's latents."""
        with self.precision.networks():
            return _full(self.generate(share.latent, share.labels))

    def play(
        self, player: str, step: int, share: Share, fake: Tensor, draws: Draws, taken: int
    ) -> tuple[Turn, Tensor, dict[str, Tensor]]:
        """A turn of a player on a share of the batch: its record, its loss, and what to tell of it.

        The losses are told last, because faults are looked for from behind.
        """
        turn = self.turn(player, step, share, fake, draws)
        adversarial = self._adversarial(turn)
        penalties = self._penalties(turn, share, draws, taken)
        told = {f"{name}_{player}": value.detach() for name, value in penalties.items()}
        told[f"loss_{player}"] = adversarial.detach()
        if player == "D":
            told = {
                "D_real": turn.real_logits.detach().mean(),
                "D_fake": turn.fake_logits.detach().mean(),
            } | told
        return turn, sum(penalties.values(), adversarial), told

    def turn(self, player: str, step: int, share: Share, fake: Tensor, draws: Draws) -> Turn:
        """The record of a player's turn, with D's opinion of both batches in it."""
        shown = fake.detach() if player == "D" else fake
        # Where both move at once there is a real batch, which G need not see.
        wanted = player == "D" or "real_in_generator" in self.gan.needs
        real = share.real if wanted else None
        random = draws.of(share, f"augment {player}")

        def augmented(images: Tensor) -> tuple[Tensor, Tensor | None]:
            for augment in self.parts.augments.values():
                images = augment(images, random)
            return images, _repeated(share.labels, len(images))

        def heads(images: Tensor) -> dict[str, Tensor]:
            return judged(*augmented(images))

        def judged(images: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
            each = heads_of(self.discriminate(images, labels))
            return {name: _full(head) for name, head in each.items()}

        def features(images: Tensor) -> Tensor:
            return _full(features_of(self.gan.discriminator, *augmented(images)))

        real_heads: Heads | None
        fake_heads: Heads
        with self.precision.networks():
            if real is None:
                real_heads, fake_heads = None, heads(shown)
            elif self.train.batches == "joint":
                real_heads, fake_heads = _halves(heads(torch.cat([real, shown])))
            elif self.gan.joint:
                # The draws of each batch are those that it has alone.
                both = [augmented(real)[0], augmented(shown)[0]]
                images = torch.cat(both)
                real_heads, fake_heads = _halves(
                    judged(images, _repeated(share.labels, len(images)))
                )
            else:
                real_heads, fake_heads = heads(real), heads(shown)
        return Turn(
            step=step,
            total=self.train.steps,
            player=player,
            real=real,
            fake=shown,
            labels=share.labels,
            latent=share.latent,
            real_heads=real_heads,
            fake_heads=fake_heads,
            image=self.gan.image,
            generator=self.gan.generator,
            generate=lambda latent: self.generate(latent, _repeated(share.labels, len(latent))),
            heads=heads,
            features=features,
            adversarial=self.gan.adversarial,
            random=draws.of(share, f"turn {player}"),
        )

    def _adversarial(self, turn: Turn) -> Tensor:
        """The loss of the turn's player, over all heads."""
        terms: list[Tensor] = []
        rows = self._top(turn)
        for name, weight in turn.adversarial.items():
            fake = turn.fake_heads[name][rows]
            real = None if turn.real_heads is None else turn.real_heads[name][rows]
            if turn.player == "D":
                assert real is not None
                loss = self.parts.loss.discriminator(real, fake)
            else:
                loss = self.parts.loss.generator(real, fake)
            terms.append(weight * _scalar("loss", loss))
        return sum(terms[1:], terms[0])

    def _top(self, turn: Turn) -> slice | Tensor:
        """The rows that count: in a turn of G those whose fakes D thinks the most of.

        Sinha et al., "Top-k Training of GANs" (2020), arXiv:2002.06224, section 3.
        """
        logits = turn.fake_logits
        share = self.train.top_k * self.factors.get("train.top_k", 1.0)
        # But for rounding, by which 0.07 of 100 would be 8.
        count = max(1, math.ceil(share * len(logits) - 1e-9))
        if turn.player == "D" or count >= len(logits):
            return slice(None)
        return logits.detach().reshape(len(logits), -1).mean(1).topk(count).indices

    def _penalties(self, turn: Turn, share: Share, draws: Draws, taken: int) -> dict[str, Tensor]:
        """Every penalty of the turn's player, at a strength that does not depend on how often.

        One that is not due is 0.
        """
        values: dict[str, Tensor] = {}
        for name, penalty in self.parts.penalties.items():
            if turn.player not in penalty.players:
                continue
            values[name] = turn.fake_logits.new_zeros(())
            if taken % penalty.every == 0:
                precision = self.precision
                around = precision.second_order if name in self._twice else precision.networks
                random = draws.of(share, f"penalty {name} {turn.player}")
                with around():
                    value = _scalar(f'penalty "{name}"', penalty(replace(turn, random=random)))
                strength = penalty.every * self.factors.get(f"penalty.{name}.weight", 1.0)
                values[name] = strength * value
        return values

    def undue(self, player: str, taken: int) -> set[str]:
        """The penalties of a player that are not due, as they are told."""
        return {
            f"{name}_{player}"
            for name, penalty in self.gan.penalties.items()
            if player in penalty.players and taken % penalty.every
        }


def _halves(heads: Heads) -> tuple[Heads, Heads]:
    """The heads of the first and of the second half of the rows."""
    both = {name: head.chunk(2) for name, head in heads.items()}
    return {name: h[0] for name, h in both.items()}, {name: h[1] for name, h in both.items()}


def _repeated(labels: Tensor | None, rows: int) -> Tensor | None:
    """Labels for as many rows: those of the batch, once for the real and once for the fake."""
    if labels is None:
        return None
    if rows % len(labels):
        raise ValueError(f"{rows} rows cannot be labelled: a batch here has {len(labels)}")
    return labels.repeat(rows // len(labels))


def _full(tensor: Tensor) -> Tensor:
    """Logits or images in float32 or wider; losses are not computed in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scalar(part: str, value: Tensor) -> Tensor:
    """A value that a gradient can be taken of."""
    if not isinstance(value, Tensor) or value.ndim:
        given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"a {part} gives a tensor with one number in it, not {given}")
    return value
