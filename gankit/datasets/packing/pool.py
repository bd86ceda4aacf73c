"""Work divided over processes; what comes back is the same for any number of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, Protocol, TypeVar

from gankit.errors import SetupError

__all__ = ["Watch", "cores", "spread"]

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")

_state: Any = None
"""What all calls in this process share; sent once, when the process starts."""


class Watch(Protocol):
    """Called now and then while images are worked through."""

    def __call__(self, doing: str, done: int, total: int, bad: int, /) -> None:
        """What is done to images: `done` of `total` so far, `bad` of which cannot be used."""
        ...


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        return os.cpu_count() or 1


def spread(
    function: Callable[[State, Item], Result], state: State, items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """`function(state, item)` for every item, in the order in which they are done.

    One worker is this process itself.

    Raises:
        SetupError: a worker has ended on its own.
    """
    items = list(items)
    if min(workers, len(items)) <= 1:
        for item in items:
            yield function(state, item)
        return
    server = "forkserver" in multiprocessing.get_all_start_methods()
    # Never a plain fork: it copies threads' locks. A server imports torch once for all.
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        context.set_forkserver_preload([__name__, function.__module__])
    executor = ProcessPoolExecutor(
        min(workers, len(items)), mp_context=context, initializer=_start, initargs=(state,)
    )
    try:
        tasks = [executor.submit(_call, function, item) for item in items]
        for task in as_completed(tasks):
            yield task.result()
    except BrokenProcessPool as error:
        raise SetupError(
            "a worker process was ended, by the system perhaps for want of memory\n"
            "  the same command continues; fewer --workers need less memory"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start(state: object) -> None:
    global _state
    _state = state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers of a parent that was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _call(function: Callable[[Any, Item], Result], item: Item) -> Result:
    return function(_state, item)
