"""Between logs nobody waits for the device: no step asks a tensor for its value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from gankit.build import build
from gankit.slots import Turn
from gankit.spec import loads
from gankit.train import Engine, Trainer
from gankit.train.batches import Batch, Draws
from tests.specs import IMAGES, POINTS


class Questions(TorchDispatchMode):
    """Counts how often a tensor is asked for its value, or for what depends on values."""

    ASKED = (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.count += function in self.ASKED
        return function(*args, **(kwargs or {}))


SPECS: dict[str, tuple[str, tuple[str, ...]]] = {
    "points": (POINTS, ("penalty.r1={}", "schedule.n_critic={n=2}", "train.clip=1.0")),
    "images": (IMAGES, ("penalty.lecam={}", "augment.adaptive={}", "train.accumulate=2")),
    "half": (IMAGES, ("train.precision=fp16", "penalty.consistency={}", "train.top_k=0.5")),
    "sums": (POINTS, ("optimizer=rmsprop", "loss=wasserstein", "penalty.wgan_gp={}")),
}


def questions(engine: Engine, steps: int = 2) -> int:
    """How often steps ask; the batches are taken beforehand, from where data are: the host."""
    plain = engine.batch
    with Questions() as asked:

        def apart(players: str, draws: Draws) -> Batch:
            with _disable_current_modes():
                return plain(players, draws)

        engine.batch = apart  # type: ignore[method-assign]
        for step in range(steps):
            engine.step(step)
    return asked.count


@pytest.mark.parametrize("name", SPECS)
def test_a_step_asks_the_device_nothing(name: str) -> None:
    text, overrides = SPECS[name]
    spec = loads(text, overrides)
    assert questions(Trainer(*build(spec), spec.train).engine) == 0


class Curious:
    """A penalty that looks at a value."""

    players = "D"
    every = 1

    def __call__(self, turn: Turn, /) -> Tensor:
        return torch.zeros(()) if turn.fake.sum().item() > 0 else torch.ones(())


def test_twin_a_part_that_asks_is_noticed() -> None:
    spec = loads(POINTS)
    engine = Trainer(*build(spec), spec.train).engine
    engine.gan.penalties = {"curious": Curious()}
    assert questions(engine, steps=3) == 3
