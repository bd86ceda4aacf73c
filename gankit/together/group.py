"""A group: engines whose steps are taken by one, for all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gankit.together.draws import GroupDraws
from gankit.together.networks import stacked
from gankit.together.optimizers import divided, gather_states, scatter_states
from gankit.together.rows import keep_order
from gankit.train.batches import Batch, Draws
from gankit.train.engine import Engine
from gankit.train.precision import Unscaled

__all__ = ["Group", "Summed"]


class Summed(Unscaled):
    """Makes of a loss that is the mean over all members the sum of theirs.

    The weights of each then get the gradients of its own loss.
    """

    def __init__(self, device: torch.device, members: int) -> None:
        super().__init__(device)
        self.members = members

    def __call__(self, loss: Tensor) -> Tensor:
        return loss * self.members


class Group(Engine):
    """An engine of networks that are stacked from those of its members.

    The batch is those of the members, end to end, each drawn from the member's own generators.

    Raises:
        Unstackable: a network has a layer of which several cannot be put side by side.
    """

    def __init__(self, members: Sequence[Engine]) -> None:
        first, count = members[0], len(members)
        gan = replace(
            first.gan,
            generator=stacked(first.gan.generator, count),
            discriminator=stacked(first.gan.discriminator, count),
        )
        for network in (gan.generator, gan.discriminator):
            keep_order(network, count, first.train.batch)
        super().__init__(gan, first.data, first.train, first.device)
        self.members = members
        own = gan.discriminator_optimizer or gan.optimizer
        for name, make in (("D", own), ("G", gan.optimizer)):
            player = self.players[name]
            player.scale = Summed(first.device, count)
            player.optimizer = divided([*player.parameters.values()], count, make)

    def draws(self, step: int, turn: int) -> GroupDraws:
        """The generators of a turn, those of each member."""
        each = tuple(member.draws(step, turn) for member in self.members)
        return GroupDraws(each[0].words, each)

    def batch(self, players: str, draws: Draws) -> Batch:
        """The batches of all members, end to end."""
        assert isinstance(draws, GroupDraws)
        pairs = zip(self.members, draws.each, strict=True)
        batches = [member.batch(players, own) for member, own in pairs]
        latent = torch.cat([batch.latent for batch in batches])
        return Batch(
            _together([b.real for b in batches]), _together([b.labels for b in batches]), latent
        )

    def advance(self, first: int, until: int, stopped: Sequence[object] = ()) -> int:
        """Take the members from one step to another, and say where they are.

        Once there is something in `stopped` no further step is begun. Where a number of any member
        is not finite all are left at `first`: each has to go on by itself, to see whose it is.
        """
        drawn = [member.batches_drawn for member in self.members]
        self.gather()
        for step in range(first, until):
            if stopped:
                until = step
                break
            self.step(step)
        if bool(self.faults.record):
            for member, before in zip(self.members, drawn, strict=True):
                member.batches_drawn = before
            return first
        self.scatter()
        return until

    def gather(self) -> None:
        """Take up the state of every member."""
        for mine, *theirs in self._tensors():
            mine.copy_(torch.stack(theirs))
        for name, player in self.players.items():
            players = [member.players[name] for member in self.members]
            player.turns_taken = players[0].turns_taken
            assert all(other.turns_taken == player.turns_taken for other in players)
            gather_states(player.optimizer, [other.optimizer for other in players])
        self.faults.clear()

    def scatter(self) -> None:
        """Give every member its state; what they have drawn by themselves they have counted."""
        for mine, *theirs in self._tensors():
            for tensor, value in zip(theirs, mine.unbind(), strict=True):
                tensor.copy_(value)
        for name, player in self.players.items():
            players = [member.players[name] for member in self.members]
            for other in players:
                other.turns_taken = player.turns_taken
            scatter_states(player.optimizer, [other.optimizer for other in players])

    def _tensors(self) -> Iterator[tuple[Tensor, ...]]:
        """Each tensor of the networks here, with those of the members that are in it."""
        engines = (self, *self.members)
        networks = [[e.gan.generator, e.gan.discriminator, e.ema.average] for e in engines]
        for same in zip(*networks, strict=True):
            mine, *theirs = (network.state_dict() for network in same)
            assert all(list(other) == list(mine) for other in theirs)
            for name, tensor in mine.items():
                yield tensor, *(other[name] for other in theirs)


def _together(rows: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in rows if tensor is not None]
    return torch.cat(there) if there else None
