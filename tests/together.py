"""Two processes of one group, kept for many tests: what they play, and what came of it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist

from gankit.build import build
from gankit.spec import load, loads
from gankit.train.engine import ALONE, Engine
from gankit.train.processes import Processes, Several

T = TypeVar("T")

WAIT = 60.0
"""Seconds that a task may take; a hang is a failure, not a wait."""

CPU = torch.device("cpu")


class Together:
    """Processes of one gloo group that are given the same task at the same time."""

    def __init__(self, count: int = 2) -> None:
        # A server that has imported everything forks each of them in a moment.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.store = tempfile.NamedTemporaryFile()
        self.pipes: list[Connection] = []
        self.workers = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=_serve, args=(rank, count, self.store.name, theirs), daemon=True
            )
            worker.start()
            theirs.close()
            self.pipes.append(ours)
            self.workers.append(worker)

    def __call__(self, task: Callable[..., T], *arguments: Any, wait: float = WAIT) -> list[T]:
        """What the task gives, called with `Processes` and the arguments, rank by rank."""
        for pipe in self.pipes:
            pipe.send((task, arguments))
        given = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(wait), f"rank {rank} has not answered within {wait:.0f} s"
            good, value = pipe.recv()
            assert good, f"rank {rank}: {value}"
            given.append(value)
        return given

    def end(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self.workers:
            worker.kill()
            worker.join()
        self.store.close()


def _serve(rank: int, count: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, count),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=WAIT / 2),
    )
    processes = Several()
    while True:
        task, arguments = pipe.recv()
        try:
            answer = True, task(processes, *arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send(answer)


# --- what they do


def engine_of(
    processes: Processes, spec: str | Path, overrides: Sequence[str] = (), double: bool = False
) -> Engine:
    """The engine of a spec, as text or in a file; in float64 where that is asked for."""
    made = load(spec, overrides) if isinstance(spec, Path) else loads(spec, overrides)
    gan, data = build(made)
    if double:
        for module in (gan.generator, gan.discriminator, *gan.stateful().values()):
            module.double()
    return Engine(gan, data, made.train, CPU, processes)


def tensors_of(engine: Engine) -> dict[str, torch.Tensor]:
    """All that training moves: both networks, the average, the parts with a state."""
    modules = {**engine.networks, "average": engine.ema.average, **engine.gan.stateful()}
    return {
        f"{owner} {name}": tensor
        for owner, module in modules.items()
        for name, tensor in module.state_dict().items()
    }


def played(
    processes: Processes,
    spec: str | Path,
    overrides: Sequence[str] = (),
    steps: int = 10,
    double: bool = False,
    twin: str = "",
) -> tuple[list[dict[str, np.ndarray]], list[bool]]:
    """Every state that a run of some steps goes through, and whether the ranks agreed in it.

    What was measured is part of the state. A `twin` is a fault to be noticed.
    """
    states, agreed = [], []
    with TWINS[twin](processes):
        engine = engine_of(processes, spec, overrides, double)
        for step in range(steps):
            measured = engine.step(step)
            tensors = tensors_of(engine) | {f"told {k}": v for k, v in measured.items()}
            states.append({name: tensor.detach().numpy().copy() for name, tensor in tensors.items()})
            agreed.append(processes.agree(list(tensors.values())))
    return states, agreed


def alone(*arguments: Any, **options: Any) -> list[dict[str, np.ndarray]]:
    """The states that one process goes through."""
    return played(ALONE, *arguments, **options)[0]


def apart(
    one: Sequence[dict[str, np.ndarray]], other: Sequence[dict[str, np.ndarray]]
) -> tuple[float, str]:
    """The largest difference between two series of states, and what it is in."""
    assert [state.keys() for state in one] == [state.keys() for state in other]
    assert len(one)
    differences = [
        (float(np.max(np.abs(a[name] - b[name]), initial=0.0)), f"{name} at step {step}")
        for step, (a, b) in enumerate(zip(one, other, strict=True))
        for name in a
    ]
    return max(differences)


TWINS: dict[str, Any] = {"": lambda processes: ExitStack()}
