"""The step: who moves, on what, and how the losses become updates.

Loss, penalty, schedule, augment, EMA, precision and optimizer are separate parts that meet here
and nowhere else; each has an identity, so nothing here asks whether one is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gankit.build import GAN
from gankit.datasets import to_float
from gankit.ops import estimates, held
from gankit.randomness import seeded, sent
from gankit.schedules import factors_of, rates_of, turns_of
from gankit.slots import Dataset, Observer, Turn
from gankit.spec import Train
from gankit.train.batches import Batch, Draws, check_shares
from gankit.train.ema import Ema
from gankit.train.epochs import Epochs
from gankit.train.faults import Fault, Faults, first_layer, readable
from gankit.train.objective import Objective
from gankit.train.player import Player
from gankit.train.precision import Precision
from gankit.train.processes import Processes

__all__ = ["ALONE", "Engine"]

ALONE = Processes()


class Engine:
    """Two players, and everything that a step moves.

    Raises:
        ValueError: the batch cannot be divided as it should be.
    """

    def __init__(
        self,
        gan: GAN,
        data: Dataset,
        train: Train,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        self.gan = gan
        self.data = data
        self.train = train
        self.device = device = _indexed(device)
        self.processes = processes
        check_shares(train, processes)
        precision = Precision(train.precision, device)
        own = gan.discriminator_optimizer
        section = "discriminator_optimizer" if own else "optimizer"
        self.players = {
            name: Player(name, _on(network, device), make, precision.scale(), table)
            for name, network, make, table in (
                ("D", gan.discriminator, own or gan.optimizer, section),
                ("G", gan.generator, gan.optimizer, "optimizer"),
            )
        }
        self.objective = Objective(gan, train, precision)
        self.ema = Ema(gan.generator, train.ema, train.batch)
        self.faults = Faults(device)
        for part in gan.stateful().values():
            part.to(device)
        self.epochs = Epochs(data, train.batch, gan.seed)
        self.dtype = next(gan.generator.parameters()).dtype
        self.batches_drawn = 0
        self.rollbacks = 0
        self.shown: tuple[Tensor | None, Tensor] | None = None
        """The real and fake images of the last share that was played on in a step."""
        self._statistics = [*_statistics(gan)]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks of the players."""
        return {name: player.network for name, player in self.players.items()}

    def step(self, step: int) -> dict[str, Tensor]:
        """All turns of a step; what was measured in them, on the device and not yet read."""
        schedules, total = self.gan.schedules, self.train.steps
        factors = factors_of(schedules, step, total)
        rates = rates_of(schedules, step, total)
        self.objective.scale(factors)
        self.players["D"].set_rate(rates.discriminator, factors)
        self.players["G"].set_rate(rates.generator, factors)
        measured: dict[str, Tensor] = {}
        self.shown = None  # what an earlier step has shown is not there in a run that continues
        words = (self.gan.seed, "step", step, self.rollbacks, self.processes.rank)
        with seeded(*words, device=self.device):
            for index, players in enumerate(turns_of(schedules, step, total)):
                draws = self.draws(step, index)
                measured |= self.turn(players, step, index, self.batch(players, draws), draws)
        self.processes.average([getattr(module, name) for module, name in self._statistics])
        self.ema.update(step, factors.get("train.ema", 1.0))
        return measured

    def turn(
        self, players: str, step: int, index: int, batch: Batch, draws: Draws
    ) -> dict[str, Tensor]:
        """One turn of D, of G, or of both at once from where the other stands."""
        told: dict[str, list[dict[str, Tensor]]] = {name: [] for name in players}
        turns: list[Turn] = []
        with ExitStack() as stack:
            weights = {
                name: stack.enter_context(
                    player.playing() if name in players else player.watching()
                )
                for name, player in self.players.items()
            }
            for share in batch.shares(self.train.accumulate, self.processes):
                with torch.set_grad_enabled("G" in players):
                    fake = self.objective.fakes(share)
                for name in players:
                    player, opponent = self.players[name], "G" if name == "D" else "D"
                    # An opponent that only watches is frozen already.
                    frozen = self.players[opponent].frozen if opponent in players else nullcontext
                    with frozen(weights[opponent]):
                        turn, loss, values = self.objective.play(
                            name, step, share, fake, draws, player.turns_taken
                        )
                        (player.scale(loss) / self.train.accumulate).backward()
                    told[name].append(values)
                    if name == "D":
                        turns.append(turn)
                real = self.shown[0] if share.real is None and self.shown else share.real
                self.shown = real, fake.detach()
            self._observe(turns)
        measured: dict[str, Tensor] = {}
        for name in players:
            player = self.players[name]
            undue = self.objective.undue(name, player.turns_taken)
            values = {key: _mean([t[key] for t in told[name]]) for key in told[name][0]}
            moved = player.update(
                values, self.train.clip, self.processes, self.faults, (step, index)
            )
            measured |= {key: value for key, value in moved.items() if key not in undue}
        return measured

    def batch(self, players: str, draws: Draws) -> Batch:
        """Real images in order of the epochs, their labels, and latents: this process's rows.

        A turn of G alone sees real images only where a part needs them, and labels of their own.
        """
        count, width = self.train.batch, self.gan.latent_width
        rows = count // self.processes.count
        mine = slice(self.processes.rank * rows, (self.processes.rank + 1) * rows)
        latent = self.objective.parts.latent(count, width, draws("latent"))[mine]
        real = None
        if "D" in players or "real_in_generator" in self.gan.needs:
            indices = self.epochs.batch(self.batches_drawn)[mine]
            self.batches_drawn += 1
            real = to_float(sent(self.data.images(indices), self.device)).to(self.dtype)
        else:
            indices = torch.randint(len(self.data), (count,), generator=draws("labels"))[mine]
        labels = self.data.labels(indices) if self.gan.image.classes else None
        if labels is not None:
            labels = sent(labels, self.device)
        return Batch(real, labels, sent(latent.to(self.dtype), self.device))

    def draws(self, step: int, turn: int) -> Draws:
        """The generators of a turn."""
        return Draws((self.gan.seed, self.rollbacks, step, turn))

    def fault(self) -> Fault | None:
        """The first update that was not finite, and where that came from; waits for the device."""
        fault = self.faults.read({name: player.noted for name, player in self.players.items()})
        if fault is None:
            return None
        if fault.what == "gradient":
            network = "discriminator" if fault.player == "D" else "generator"
            return replace(fault, layer=f"{network}.{readable(fault.layer)}")
        what = fault.what.removesuffix(f"_{fault.player}")
        return replace(fault, what=what, layer=self._first_layer(fault))

    def _first_layer(self, fault: Fault) -> str:
        """Where the forward pass of a turn leaves the finite numbers, if it still does."""
        draws, drawn = self.draws(fault.step, fault.turn), self.batches_drawn
        share = next(self.batch("D", draws).shares(self.train.accumulate, self.processes))
        self.batches_drawn = drawn
        networks = {"generator": self.gan.generator, "discriminator": self.gan.discriminator}

        def run() -> None:
            fake = self.objective.fakes(share)
            self.objective.turn(fault.player, fault.step, share, fake, draws)

        with held(*networks.values()), self.objective.plainly():
            return first_layer(networks, run)

    def state(self) -> dict[str, Any]:
        """What the engine adds to the networks' weights, in plain containers."""
        return {
            "players": {name: player.state() for name, player in self.players.items()},
            "parts": {name: part.state_dict() for name, part in self.gan.stateful().items()},
            "batches_drawn": self.batches_drawn,
            "rollbacks": self.rollbacks,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a state; hyper-parameters stay those of the spec."""
        for name, player in self.players.items():
            player.load_state(state["players"][name])
        for name, part in self.gan.stateful().items():
            part.load_state_dict(state["parts"][name])
        self.batches_drawn = int(state["batches_drawn"])
        self.rollbacks = int(state["rollbacks"])
        self.faults.clear()

    def _observe(self, turns: Sequence[Turn]) -> None:
        """Show a turn of D, with the logits of the whole batch, to the parts that steer by it."""
        parts = (*self.gan.augments.values(), *self.gan.penalties.values())
        observers = [part for part in parts if isinstance(part, Observer)]
        if not turns or not observers:
            return
        whole = replace(
            turns[-1],
            real_heads=self._whole([turn.real_heads or {} for turn in turns]),
            fake_heads=self._whole([turn.fake_heads for turn in turns]),
        )
        with torch.no_grad(), self.objective.precision.networks():
            for part in observers:
                part.observe(whole)

    def _whole(self, heads: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The heads of all shares, those of other processes too, row by row."""
        return {
            name: self.processes.gathered(torch.cat([each[name].detach() for each in heads]))
            for name in heads[0]
        }


def _mean(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean()


def _statistics(gan: GAN) -> Iterator[tuple[nn.Module, str]]:
    """Where the running statistics and the state of parts are, which processes have in common."""
    modules: tuple[nn.Module, ...] = (gan.discriminator, gan.generator, *gan.stateful().values())
    for network in modules:
        own = {id(b) for estimate, _ in estimates(network) for b in estimate.buffers()}
        for module in network.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_floating_point() and id(buffer) not in own:
                    yield module, name


def _on(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, where it usually is already."""
    there = all(parameter.device == device for parameter in network.parameters())
    return network if there else network.to(device)


def _indexed(device: torch.device) -> torch.device:
    """`cuda` alone means the current GPU, whichever that will be later on."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
