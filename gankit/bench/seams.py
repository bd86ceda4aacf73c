"""Where the parts of the engine meet, each with a clock laid around it.

Nothing that is computed changes: what is laid around a call calls it with what it was given and
gives what it gave, and hooks on gradients look at nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from gankit.bench.clock import REST, Clock
from gankit.train.engine import Engine
from gankit.train.objective import Objective

__all__ = [
    "AVERAGE",
    "DATA",
    "DISCRIMINATOR",
    "GENERATOR",
    "OPTIMIZER",
    "PENALTY",
    "WEIGHTS",
    "attributed",
]

DATA = "data"
GENERATOR = "generator"
DISCRIMINATOR = "discriminator"
PENALTY = "penalty "
"""What the names of penalties' parts begin with."""
WEIGHTS = "weight norms"
OPTIMIZER = "optimizer"
AVERAGE = "average"

Call = Callable[..., Any]


@contextmanager
def attributed(engine: Engine, clock: Clock) -> Iterator[None]:
    """Within, the steps of an engine say by the clock which part they are in.

    A forward pass is told by where it is called. A backward pass is one call for all of a player's
    turn: autograd goes through it from what was computed last to what was computed first, so it
    has come to a penalty, to D and to G when it has the gradient of what each of them gave. That
    order holds in one thread, so backward passes stay in the thread that asks for them.
    """
    objective = engine.objective
    with ExitStack() as seams:

        def lay(owner: object, name: str, around: Callable[[Call], Call]) -> None:
            setattr(owner, name, around(getattr(owner, name)))
            seams.callback(delattr, owner, name)

        seams.enter_context(torch.autograd.set_multithreading_enabled(False))
        lay(engine, "step", _timed(clock, REST))
        lay(engine, "batch", _timed(clock, DATA))
        lay(engine.ema, "update", _timed(clock, AVERAGE))
        lay(objective, "fakes", _passed(clock, GENERATOR))
        lay(objective, "turn", _timed(clock, DISCRIMINATOR))
        lay(objective, "_adversarial", _passed(clock, DISCRIMINATOR))
        lay(objective, "_penalties", _penalties(clock, objective))
        for player in engine.players.values():
            lay(player, "playing", _weights(clock))
            lay(player, "watching", _weights(clock))
            lay(player, "update", _timed(clock, OPTIMIZER))
        yield


def _timed(clock: Clock, part: str) -> Callable[[Call], Call]:
    """A call that is a part from beginning to end."""

    def around(call: Call) -> Call:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with clock.part(part):
                return call(*args, **kwargs)

        return timed

    return around


def _passed(clock: Clock, part: str) -> Callable[[Call], Call]:
    """A call that is a part, and so is the backward pass from the tensor that it gives."""

    def around(call: Call) -> Call:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with clock.part(part):
                given = call(*args, **kwargs)
            _mark(clock, part, given)
            return given

        return timed

    return around


def _penalties(clock: Clock, objective: Objective) -> Callable[[Call], Call]:
    """Each penalty is a part of its own, so they are asked for one by one."""

    def around(call: Call) -> Call:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            parts, values = objective.parts, dict[str, Tensor]()
            try:
                for name, penalty in parts.penalties.items():
                    objective.parts = replace(parts, penalties={name: penalty})
                    with clock.part(PENALTY + name):
                        given = call(*args, **kwargs)
                    for value in given.values():
                        _mark(clock, PENALTY + name, value)
                    values |= given
            finally:
                objective.parts = parts
            return values

        return timed

    return around


def _weights(clock: Clock) -> Callable[[Call], Call]:
    """The two ends of a turn of a player's, where weights are computed and gradients carried on."""

    def around(call: Callable[[], AbstractContextManager[Any]]) -> Call:
        @contextmanager
        def timed() -> Iterator[Any]:
            with ExitStack() as turn:
                with clock.part(WEIGHTS):
                    weights = turn.enter_context(call())
                yield weights
                with clock.part(WEIGHTS):
                    turn.close()

        return timed

    return around


def _mark(clock: Clock, part: str, value: Tensor) -> None:
    if value.requires_grad:
        value.register_hook(lambda gradient: clock.passes(part))
