"""The step: who moves, on what, and how the losses become updates.

Loss, penalty, schedule, augment, EMA, precision and optimizer are separate parts that meet here
and nowhere else; each has an identity, so nothing here asks whether one is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gankit.build import GAN
from gankit.datasets import to_float
from gankit.ops import held, move
from gankit.randomness import generator, seeded
from gankit.schedules import factors_of, rates_of, turns_of
from gankit.slots import Dataset, Observer, Turn, conditional, features_of, heads_of
from gankit.spec import Train
from gankit.train.ema import Ema
from gankit.train.epochs import Epochs
from gankit.train.precision import precision

__all__ = ["Batch", "Engine"]

Draw = Callable[[str], torch.Generator]


@dataclass(frozen=True)
class Batch:
    """What a turn is played on."""

    real: Tensor | None
    labels: Tensor | None
    latent: Tensor


class Engine:
    """Two networks, their optimizers and everything that a step moves."""

    def __init__(self, gan: GAN, data: Dataset, train: Train, device: torch.device) -> None:
        self.gan = gan
        self.data = data
        self.train = train
        self.device = device = _indexed(device)
        self.networks = {"D": gan.discriminator, "G": gan.generator}
        makers = {"D": gan.discriminator_optimizer or gan.optimizer, "G": gan.optimizer}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            player: makers[player](network.parameters()) for player, network in self.networks.items()
        }
        self.needs = gan.needs
        self.base_rates = {p: _rate(optimizer) for p, optimizer in self.optimizers.items()}
        self.ema = Ema(gan.generator, train.ema, train.batch)
        self.precision = precision(train.precision, device)
        for part in gan.stateful().values():
            part.to(device)
        self.discriminate = conditional(gan.discriminator, "labels")
        self.generate = conditional(gan.generator, "labels")
        self.epochs = Epochs(data, train.batch, gan.seed)
        self.turns_taken = {"D": 0, "G": 0}
        self.batches_drawn = 0

    def step(self, step: int) -> dict[str, Tensor]:
        """All turns of a step; what was measured in them, on the device and not yet read."""
        schedules, total = self.gan.schedules, self.train.steps
        rates = rates_of(schedules, step, total)
        self._set_rate("D", rates.discriminator)
        self._set_rate("G", rates.generator)
        factors = factors_of(schedules, step, total)
        measured: dict[str, Tensor] = {}
        with seeded(self.gan.seed, "step", step, device=self.device):
            for index, players in enumerate(turns_of(schedules, step, total)):
                draw = self._draw(step, index)
                measured |= self.turn(players, step, self.batch(players, draw), draw, factors)
        self.ema.update(step, factors.get("train.ema", 1.0))
        return measured

    def turn(
        self, players: str, step: int, batch: Batch, draw: Draw, factors: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """One turn of D, of G, or of both at once from where the other stands."""
        measured: dict[str, Tensor] = {}
        with held(*self.networks.values()):
            for player in players:
                move(self.networks[player])
            with self.precision, torch.set_grad_enabled("G" in players):
                fake = _full(self.generate(batch.latent, batch.labels))
            for player in players:
                with self.frozen(player), self.precision:
                    turn = self._turn(player, step, batch, fake, draw)
                    loss = self._adversarial(turn)
                    measured[f"loss_{player}"] = loss.detach()
                    for name, value in self._penalties(turn, draw, factors):
                        measured[f"{name}_{player}"] = value.detach()
                        loss = loss + value
                self.optimizers[player].zero_grad(set_to_none=True)
                loss.backward()
                if player == "D":
                    measured["D_real"] = turn.real_logits.detach().mean()
                    measured["D_fake"] = turn.fake_logits.detach().mean()
                    self._observe(turn)
        for player in players:
            self.optimizers[player].step()
            self.turns_taken[player] += 1
        return measured

    def batch(self, players: str, draw: Draw) -> Batch:
        """Real images in order of the epochs, their labels, and latents.

        A turn of G alone sees real images only where a part needs them, and labels of their own.
        """
        count = self.train.batch
        latent = self.gan.latent(count, self.gan.latent_width, draw("latent"))
        real = None
        if "D" in players or "real_in_generator" in self.needs:
            indices = self.epochs.batch(self.batches_drawn)
            self.batches_drawn += 1
            real = to_float(self._sent(self.data.images(indices)))
        else:
            indices = torch.randint(len(self.data), (count,), generator=draw("labels"))
        labels = self.data.labels(indices) if self.gan.image.classes else None
        return Batch(real, None if labels is None else self._sent(labels), self._sent(latent))

    def _sent(self, tensor: Tensor) -> Tensor:
        """A tensor on the device; to a GPU from pinned memory, so that nobody waits for it."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    @contextmanager
    def frozen(self, player: str) -> Iterator[None]:
        """The opponent of `player` computes no gradients for its parameters."""
        opponent = self.networks["G" if player == "D" else "D"]
        trained = [p for p in opponent.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def state(self) -> dict[str, Any]:
        """What the engine adds to the networks' weights, in plain containers."""
        return {
            "optimizers": {player: o.state_dict() for player, o in self.optimizers.items()},
            "parts": {name: part.state_dict() for name, part in self.gan.stateful().items()},
            "turns_taken": dict(self.turns_taken),
            "batches_drawn": self.batches_drawn,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state; hyper-parameters stay those of the spec."""
        for player, optimizer in self.optimizers.items():
            kept = [
                {key: value for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ]
            optimizer.load_state_dict(state["optimizers"][player])
            for group, values in zip(optimizer.param_groups, kept, strict=True):
                group.update(values)
        for name, part in self.gan.stateful().items():
            part.load_state_dict(state["parts"][name])
        self.turns_taken = dict(state["turns_taken"])
        self.batches_drawn = int(state["batches_drawn"])

    def _turn(self, player: str, step: int, batch: Batch, fake: Tensor, draw: Draw) -> Turn:
        """The record of a player's turn, with D's opinion of both batches in it."""
        shown = fake.detach() if player == "D" else fake
        random = draw(f"augment {player}")

        def shown_to_d(images: Tensor) -> tuple[Tensor, Tensor | None]:
            for augment in self.gan.augments.values():
                images = augment(images, random)
            return images, _repeated(batch.labels, len(images))

        def heads(images: Tensor) -> dict[str, Tensor]:
            judged = heads_of(self.discriminate(*shown_to_d(images)))
            return {name: _full(head) for name, head in judged.items()}

        def features(images: Tensor) -> Tensor:
            return _full(features_of(self.gan.discriminator, *shown_to_d(images)))

        judged = self._judge(heads, batch.real, shown)
        return Turn(
            step=step,
            total=self.train.steps,
            player=player,
            real=batch.real,
            fake=shown,
            labels=batch.labels,
            latent=batch.latent,
            real_heads=judged[0],
            fake_heads=judged[1],
            image=self.gan.image,
            generator=self.gan.generator,
            generate=lambda latent: self.generate(latent, _repeated(batch.labels, len(latent))),
            heads=heads,
            features=features,
            adversarial=self.gan.adversarial,
            random=draw(f"turn {player}"),
        )

    def _judge(
        self, heads: Callable[[Tensor], dict[str, Tensor]], real: Tensor | None, fake: Tensor
    ) -> tuple[dict[str, Tensor] | None, dict[str, Tensor]]:
        """D's heads on the real batch, if there is one, and on the fake one."""
        if real is None:
            return None, heads(fake)
        if self.train.batches == "separate":
            return heads(real), heads(fake)
        both = {name: h.chunk(2) for name, h in heads(torch.cat([real, fake])).items()}
        return {name: h[0] for name, h in both.items()}, {name: h[1] for name, h in both.items()}

    def _adversarial(self, turn: Turn) -> Tensor:
        """The loss of the turn's player, over all heads."""
        total = torch.zeros((), device=self.device)
        for name, weight in turn.adversarial.items():
            fake = turn.fake_heads[name]
            real = None if turn.real_heads is None else turn.real_heads[name]
            if turn.player == "D":
                assert real is not None
                loss = self.gan.loss.discriminator(real, fake)
            else:
                loss = self.gan.loss.generator(real, fake)
            total = total + weight * _scalar("loss", loss)
        return total

    def _penalties(
        self, turn: Turn, draw: Draw, factors: Mapping[str, float]
    ) -> Iterator[tuple[str, Tensor]]:
        """Every penalty that is due, at a strength that does not depend on how often it is."""
        for name, penalty in self.gan.penalties.items():
            due = self.turns_taken[turn.player] % penalty.every == 0
            if turn.player in penalty.players and due:
                strength = penalty.every * factors.get(f"penalty.{name}.weight", 1.0)
                random = draw(f"penalty {name} {turn.player}")
                value = penalty(replace(turn, random=random))
                yield name, strength * _scalar(f'penalty "{name}"', value)

    def _observe(self, turn: Turn) -> None:
        """Show a turn of D to the parts that steer by it."""
        with torch.no_grad(), self.precision:
            for part in (*self.gan.augments.values(), *self.gan.penalties.values()):
                if isinstance(part, Observer):
                    part.observe(turn)

    def _draw(self, step: int, turn: int) -> Draw:
        return lambda purpose: generator(self.gan.seed, 0, step, turn, purpose)

    def _set_rate(self, player: str, factor: float) -> None:
        for group in self.optimizers[player].param_groups:
            group["lr"] = self.base_rates[player] * factor


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


def _indexed(device: torch.device) -> torch.device:
    """`cuda` alone means the current GPU, whichever that will be later on."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
