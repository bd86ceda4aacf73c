"""The processes that train one GAN together, each on its share of every batch.

Everything that must be equal is made equal in one place each: gradients before an update, running
statistics after a step, and what rank 0 alone has read. Without a launcher there is one process,
for which all of this is the identity.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gankit.errors import SetupError, Unanswered

__all__ = ["Processes", "Several", "joined", "launch", "launched", "started"]

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long one process waits for the others before it gives up."""

GRACE = 20.0
"""Seconds that the other processes have to end by themselves once one has failed."""


class Processes:
    """One process: nothing is shared, and nothing has to be waited for."""

    rank = 0
    count = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place."""

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in order of rank."""
        return rows

    def from_first(self, value: T) -> T:
        """What rank 0 has; the others' value is dropped."""
        return value

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Of each number the largest that any process has."""
        return list(numbers)

    def agree(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the tensors are the same to the bit everywhere, by a checksum."""
        return True


class Several(Processes):
    """Several processes of a `torch.distributed` group.

    What concerns the device goes over the group's backend; small numbers and objects go over
    gloo, so that no GPU is waited for.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self._words = (
            None
            if dist.get_backend() == "gloo"
            else dist.new_group(backend="gloo", timeout=TIMEOUT)
        )

    def average(self, tensors: Sequence[Tensor]) -> None:
        # One flat message: as fast as it gets, and the same layout on every rank.
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.flatten() for tensor in alike])
            with _others():
                dist.all_reduce(flat)
            flat /= self.count
            parts = flat.split([tensor.numel() for tensor in alike])
            torch._foreach_copy_(alike, [p.view_as(t) for p, t in zip(parts, alike, strict=True)])

    def gathered(self, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with _others():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def from_first(self, value: T) -> T:
        box = [value]
        with _others():
            dist.broadcast_object_list(box, src=0, group=self._words)
        return box[0]

    def largest(self, numbers: Sequence[int]) -> list[int]:
        largest = torch.tensor(numbers, dtype=torch.int64)
        with _others():
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._words)
        return largest.tolist()

    def agree(self, tensors: Sequence[Tensor]) -> bool:
        sums = torch.stack([_checksum(tensor) for tensor in tensors])
        everyone = self.gathered(sums[None])
        return bool((everyone == everyone[:1]).all())


@contextmanager
def _others() -> Iterator[None]:
    """What the backends say when a process is gone, in words."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise Unanswered(error) from error


def _checksum(tensor: Tensor) -> Tensor:
    """A sum of bits, weighed by where they stand: one flipped bit or two swapped values show."""
    # At most 32 bits each: their differences, times those of the weights, stay below 2^64.
    words = {1: torch.uint8, 2: torch.int16}.get(tensor.element_size(), torch.int32)
    bits = tensor.detach().contiguous().view(-1).view(words)
    weights = 2 * torch.arange(len(bits), device=tensor.device) + 1
    return (bits.to(torch.int64) * weights).sum()


def started() -> int:
    """How many processes a launcher such as torchrun has started together; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether this process is one of several."""
    return started() > 1


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that a launcher has started, this one among them; or this one alone.

    nccl between GPUs, gloo between CPUs.

    Raises:
        SetupError: the others cannot be reached.
    """
    if not launched():
        yield Processes()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise SetupError(f"the processes do not find each other: {error}") from error
    try:
        yield Several()
    finally:
        dist.destroy_process_group()


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `gankit` with these arguments in several processes of this machine; gives an exit code.

    As torchrun does, but signals and exit codes keep their meaning: those that arrive here are
    handed on, and the code is that of the first process to fail. Once one has failed, the others
    have a little time to notice, and are then ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Together they use the cores once, where nobody has said otherwise.
    shared["OMP_NUM_THREADS"] = os.environ.get(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))
    )
    command = [sys.executable, "-m", "gankit", *arguments]
    running: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: Any) -> None:
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    # Groups of their own: a terminal's Ctrl-C comes to this process alone, and is handed on once.
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # the terminal is closed; under nohup it may be
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment = {**os.environ, **shared, **own}
            running.append(subprocess.Popen(command, env=environment, process_group=0))
        return _waited_for(running)
    finally:
        for process in running:
            process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _waited_for(running: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit code of the first process to fail, or 0."""
    first: int | None = None
    deadline = float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in running]
        failed = [(rank, code) for rank, code in enumerate(codes) if code]
        if failed and first is None:
            rank, first = failed[0]
            deadline = time.monotonic() + GRACE
            if first < 0:
                name = signal.Signals(-first).name
                print(
                    f"error: process {rank} of {len(running)} was ended by {name}", file=sys.stderr
                )
                first = SetupError.exit_code
        if None not in codes:
            break
        time.sleep(0.05)
    return first or 0
