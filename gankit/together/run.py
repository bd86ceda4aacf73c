"""Runs of several seeds: each in a folder of its own, most of their steps taken together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from gankit.spec import Spec
from gankit.together.fit import check_seeds, check_stackable, check_trial
from gankit.together.group import Group
from gankit.together.member import Member
from gankit.train.engine import ALONE
from gankit.train.folder import RunFolder
from gankit.train.run import Outcome, opened, refusal_of, trainer_of, unwritten
from gankit.train.signals import stop_signals

__all__ = ["train_together"]

Watch = Callable[[int, Mapping[str, float], float], None]


def train_together(
    specs: Sequence[Spec],
    folders: Sequence[Path],
    device: torch.device | str = "cpu",
    *,
    watch: Watch = lambda step, numbers, speed: None,
    tell: Callable[[str], object] = lambda message: None,
) -> list[Outcome]:
    """Train seeds of one spec, each in its run folder, from where that left off.

    What comes of it are ordinary runs, with checkpoints, metrics and samples of their own, marked
    as `packed` in `env.json` and `status.json`, with how many were trained together. A step after
    which anything is written, logged or drawn is taken by each seed's own trainer; those between
    are taken together, with weights that are stacked. Seeds that are behind, because a run was
    killed or went back to an earlier state, catch up before the others go on.

    `watch` is called as that of a run, for the first seed; `tell` with messages of all.

    Raises:
        UsageError: the specs differ in more than their seeds.
        SpecError: a part cannot be trained together; or the spec cannot be trained at all.
        SetupError: a folder is in use, the data or the disk is not there.
        CheckpointError: a folder belongs to another spec, or no checkpoint in it is sound.
        Diverged: a number of a seed is not finite; the others have been trained to the end.
    """
    check_seeds(specs)
    if refusal := refusal_of(specs[0]):
        raise refusal
    check_stackable(specs[0])
    if len(specs) > 1:
        check_trial(specs)
    device = torch.device(device)
    with ExitStack() as stack:
        caught = stack.enter_context(stop_signals())
        members: list[Member] = []
        for spec, path in zip(specs, folders, strict=True):
            say = partial(_of_seed, tell, spec.seed)
            folder = RunFolder(path)
            try:
                saved = opened(spec, folder, 1, device, stack, say, packed=len(specs))
            except OSError as error:
                raise unwritten(error) from error
            trainer = trainer_of(
                *(spec, folder, device, saved, stack, caught),
                processes=ALONE,
                watch=_silent if members else watch,
                tell=say,
            )
            members.append(Member(spec, folder, trainer, len(specs)))
        try:
            _train(members, caught)
        except BaseException as error:
            for member in members:
                member.fail(error)
            if isinstance(error, OSError):
                raise unwritten(error) from error
            raise
    if errors := [member.error for member in members if member.error is not None]:
        raise errors[0]
    return [member.outcome for member in members]


def _train(members: Sequence[Member], caught: Sequence[int]) -> None:
    """Take the seeds that are furthest behind to the next step at which anything is due."""
    group: Group | None = None
    for member in members:
        member.begin()
    while running := [member for member in members if member.running]:
        step = min(member.trainer.step for member in running)
        behind = [member for member in running if member.trainer.step == step]
        ahead = [member.trainer.step for member in running if member not in behind]
        until = min([_due(behind[0].spec, step), *ahead])
        if len(behind) > 1 and until - step > 1:
            engines = [member.trainer.engine for member in behind]
            if group is None or group.members != engines:
                group = Group(engines)
            reached = group.advance(step, until - 1, caught)
            for member in behind:
                member.trainer.step = reached
        for member in behind:
            member.take(until)


def _due(spec: Spec, step: int) -> int:
    """The first step after this one that a trainer has to take itself.

    Also the one that follows a checkpoint, because a run that goes on from there begins so too, and
    is to be the same to the last bit.
    """
    train = spec.train
    saves = [every for every in (train.checkpoint, spec.eval.every) if every]
    if any(step % every == 0 for every in saves):
        return step + 1
    others = [(step // every + 1) * every for every in (train.log, train.samples, *saves)]
    return min(train.steps, *others)


def _of_seed(tell: Callable[[str], object], seed: int, message: str) -> None:
    tell(f"seed {seed}: {message}")


def _silent(step: int, numbers: Mapping[str, float], speed: float) -> None:
    """What all seeds but the first have to show."""
