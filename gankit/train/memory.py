"""How much memory a training step will take, found by running one without any data in it."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gankit.build import GAN, bind, build
from gankit.schedules import turns_of
from gankit.slots import Dataset
from gankit.spec import Spec, Train
from gankit.train.batches import Batch
from gankit.train.engine import Engine

__all__ = ["ROOM", "LiveBytes", "memory_of", "out_of_memory", "peak_bytes", "room_for"]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every tensor made while it is active, until the tensor is gone.

    What is counted is what the step itself asks for. What a library keeps beside it (workspaces
    of convolutions, blocks an allocator has not given back) is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        # One storage serves all views of a tensor, so each is counted once.
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def peak_bytes(make: Callable[[], tuple[GAN, Dataset]], train: Train, turns: Iterable[str]) -> int:
    """The most bytes alive at once while `make` builds the networks and each turn is played twice.

    `make` builds on the device `meta`. Twice, because the optimizers' state is there only from
    the second time on. Of a batch in many shares two are played: more of them take no more, but
    for the images that wait.
    """
    with warnings.catch_warnings():
        # The average is a deep copy, which asks even tensors of no content for their address.
        warnings.simplefilter("ignore", UserWarning)
        return _dry_run(*make(), train, tuple(turns))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; on the CPU torch has no type for it."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)


def room_for(spec: Spec, device: torch.device) -> str:
    """In words, what would fit into the memory of a device, by what dry runs take."""
    turns = turns_of([bind(part) for part in spec.schedule], 0, spec.train.steps)
    memory, train = memory_of(device), spec.train
    shares = train.accumulate
    for more in range(2 * shares, train.batch + 1):
        if train.batch % more or more < 2 * shares:
            continue
        shares = more
        try:
            needed = peak_bytes(
                partial(build, spec, "meta"), replace(train, accumulate=shares), turns
            )
        except Exception:
            return "a smaller train.batch needs less, and so does a larger train.accumulate"
        if needed < ROOM * memory:
            return (
                f"train.accumulate={shares} would fit, and keeps the batch of {train.batch}: "
                f"about {needed / 2**30:.1f} GiB of {memory / 2**30:.1f} GiB\n"
                f"  or train.batch={train.batch // shares * train.accumulate}, which is another"
                " experiment; either is another run, with a folder of its own"
            )
    return "not even one image at a time would fit: narrower networks need less"


def memory_of(device: torch.device) -> int:
    """The bytes a device has to give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


ROOM = 0.8
"""The share of a memory that may be planned with; the rest is for workspaces and the library."""


def _dry_run(gan: GAN, data: Dataset, train: Train, turns: tuple[str, ...]) -> int:
    image = gan.image
    share = train.batch // train.accumulate
    shares = min(train.accumulate, 2)
    rows = shares * share
    train, waiting = replace(train, batch=rows, accumulate=shares), train.batch - rows
    # Tensors that pretend to be on the CPU, because autocast leaves those on `meta` alone.
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        for module in (gan.generator, gan.discriminator, *gan.stateful().values()):
            module.to_empty(device="cpu")
        _waiting = (torch.empty(waiting, *image.shape), torch.empty(waiting, gan.latent_width))
        engine = Engine(gan, data, train, torch.device("cpu"))
        for players in (*turns, *turns):
            shown = "D" in players or "real_in_generator" in gan.needs
            batch = Batch(
                real=torch.empty(rows, *image.shape) if shown else None,
                labels=torch.empty(rows, dtype=torch.int64) if image.classes else None,
                latent=torch.empty(rows, gan.latent_width),
            )
            engine.turn(players, 0, 0, batch, engine.draws(0, 0))
            engine.ema.update(0)
            for player in engine.players.values():
                player.turns_taken = 0  # penalties that are due now and then are due now
    return live.peak
