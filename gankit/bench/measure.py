"""A profile of a spec: its own training loop on its own data, for a few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from tempfile import TemporaryDirectory

import torch

from gankit.bench.between import NEVER, between
from gankit.bench.clock import LOOP, REST, Clock
from gankit.bench.machine import cores, half, title
from gankit.bench.memory import peak
from gankit.bench.noise import Noise
from gankit.bench.profile import Profile, Span
from gankit.bench.rounds import round_of
from gankit.bench.seams import (
    AVERAGE,
    DATA,
    DISCRIMINATOR,
    GENERATOR,
    OPTIMIZER,
    PENALTY,
    WEIGHTS,
    attributed,
)
from gankit.build import build
from gankit.datasets.resident import resident
from gankit.errors import DataError, SetupError
from gankit.slots import Dataset
from gankit.spec import Spec
from gankit.train import Trainer
from gankit.train.epochs import Epochs
from gankit.train.memory import memory_of, out_of_memory, room_for
from gankit.train.plan import plan

__all__ = ["measure"]

WARM = 2
"""Steps that are not measured: what is set up at first use, memory and optimizers' state."""
LEAST = 5
"""Rounds that are measured at least, so that there is a spread to tell."""
ENOUGH = 15.0
"""Seconds of measuring after which nothing more is learned."""
MOST = 5000
"""Steps that are measured at most, where their number is not given."""
LONG = 0.5
"""Seconds that a round takes at least, where steps are short."""
FAR = 100_000
"""A run of so many steps does not end before it is measured."""

Tell = Callable[[str], object]


def measure(
    spec: Spec,
    device: torch.device,
    *,
    steps: int = 0,
    noise: bool = False,
    tell: Tell = lambda message: None,
) -> Profile:
    """Train a spec for a while, and see where the time goes; nothing of it is kept.

    So many `steps` are measured, and as many more as make up whole rounds (`round_of`); 0 for
    as many as fit into some seconds. With `noise`, or where the data is not there, the images are
    noise.

    Raises:
        SpecError: the networks cannot be built or run as the spec asks.
        SetupError: the data or the memory does not suffice.
    """
    plan(spec)
    try:
        return _measured(spec, device, steps, noise, tell)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            advice = room_for(spec, device)
            raise SetupError(f"out of memory on {device}\n  {advice}") from error
        raise


def _measured(spec: Spec, device: torch.device, steps: int, noise: bool, tell: Tell) -> Profile:
    gan, data = build(spec, device)
    data, instead = _present(spec, data, noise)
    # No earlier end, and nothing beside the steps themselves but where it is asked for.
    total = max(spec.train.steps, steps + FAR)
    train = replace(spec.train, steps=total, log=NEVER, samples=NEVER, checkpoint=NEVER)
    train = replace(train, rollbacks=0, best="")
    clock = Clock.of(device)
    with TemporaryDirectory(prefix="gankit-bench-") as folder:
        trainer = Trainer(
            gan,
            resident(data, device, tell),
            train,
            device,
            folder=folder,
            tell=lambda message: None,
            signals=lambda: nullcontext([]),
        )
        with attributed(trainer.engine, clock):
            length = _length(trainer, clock, round_of(gan, total), steps)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            rounds = _rounds(trainer, clock, length, steps, tell)
        # First the peak: a GPU's is that of all that was done until it is read.
        memory = peak(trainer.engine, trainer.step, device)
        seldom = between(trainer, clock, spec.train)
    names = [name for name in _order(rounds[0]) if any(each.get(name) for each in rounds)]
    parts = {name: Span.of([each.get(name, 0.0) for each in rounds]) / length for name in names}
    whole = Span.of([sum(each.values()) for each in rounds]) / length
    return Profile(
        spec=spec,
        device=title(device),
        gpu=device.type == "cuda",
        threads=torch.get_num_threads(),
        cores=cores(),
        half=half(device),
        instead=instead,
        round=length,
        rounds=len(rounds),
        parts=parts | seldom,
        step=sum(seldom.values(), whole),
        memory=memory,
        capacity=memory_of(device),
    )


def _present(spec: Spec, data: Dataset, noise: bool) -> tuple[Dataset, str]:
    """The data, or noise in its place, and why."""
    why = "as asked for"
    if not noise:
        try:
            Epochs(data, spec.train.batch, spec.seed).batch(0)
        except DataError as error:
            why = str(error).splitlines()[0]
        else:
            return data, ""
    return Noise(data.image, spec.train.batch), why


def _length(trainer: Trainer, clock: Clock, repeat: int, wanted: int) -> int:
    """How many steps to measure together: whole repetitions, that take long enough to be alike.

    What else a machine does comes in between, now in this part and now in that; over single short
    steps the medians of parts would leave it out, and that of the step would not.
    """
    for steps in (WARM, repeat):
        with clock.round():
            _take(trainer, steps)
    *_, seconds = clock.read()
    times = math.ceil(LONG / sum(seconds.values()))
    if wanted:
        times = min(times, max(1, wanted // (repeat * LEAST)))
    return repeat * times


def _rounds(
    trainer: Trainer, clock: Clock, length: int, wanted: int, tell: Tell
) -> list[dict[str, float]]:
    """Seconds by part, of each round; what the loop itself takes is part of the rest."""
    least = -(-wanted // length) if wanted else LEAST
    done, began = 0, time.perf_counter()
    told = began
    while done < least or (not wanted and done * length < MOST and _since(began) < ENOUGH):
        with clock.round():
            _take(trainer, length)
        done += 1
        if _since(told) > ENOUGH / 3:
            tell(f"steps measured: {done * length:,}")
            told = time.perf_counter()
    rounds = clock.read()
    for seconds in rounds:
        seconds[REST] = seconds.get(REST, 0.0) + seconds.pop(LOOP)
    return rounds


def _take(trainer: Trainer, steps: int) -> None:
    for _ in islice(trainer, steps):
        pass


def _since(when: float) -> float:
    return time.perf_counter() - when


def _order(seconds: Mapping[str, float]) -> list[str]:
    """The parts in the order of a step, what is in none of them last."""
    penalties = sorted(part for part in seconds if part.startswith(PENALTY))
    networks = [DATA, GENERATOR, DISCRIMINATOR, *penalties]
    return [*networks, WEIGHTS, OPTIMIZER, AVERAGE, REST]
