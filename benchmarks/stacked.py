"""How fast seeds of a small spec train together, beside as many that train by themselves.

    python benchmarks/stacked.py --threads 1                # five seeds of ring
    python benchmarks/stacked.py --threads 1 --seeds 10 --rounds 5

A round takes as many steps as there are from log to log (`--steps` has fewer): together as
`train_together` takes them, all but the last with stacked weights, and each seed by itself. What is
written to the disk in a run, and drawn, is left out on both sides. `minutes` is what ten seeds of
50,000 steps then take where each of two cores has half of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import machine, options, ratios, rounded, rounds, run, show

from gankit.build import build
from gankit.spec import load
from gankit.together import Group
from gankit.train import Engine

EXAMPLES = Path(__file__).parent.parent / "examples"
SEEDS, STEPS, CORES = 10, 50_000, 2
"""Of the tables of mode collapse, and of the machine they are to be made on."""


def engines(recipe: str, seeds: int, device: torch.device) -> list[Engine]:
    """An engine for each seed of a recipe."""
    specs = [load(EXAMPLES / f"{recipe}.toml", [f"seed={seed}"]) for seed in range(seeds)]
    return [Engine(*build(spec, device), spec.train, device) for spec in specs]


def measure(chosen: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Time both, a round each in turn."""
    alone, members = (engines(chosen.recipe, chosen.seeds, device) for _ in range(2))
    group = Group(members)
    steps = chosen.steps or members[0].train.log

    def by_themselves(first: int) -> None:
        for engine in alone:
            for step in range(first, first + steps):
                engine.step(step)

    def together(first: int) -> None:
        reached = group.advance(first, first + steps - 1)
        assert reached == first + steps - 1, "a number was not finite"
        for engine in members:
            engine.step(reached)

    pairs = rounds(_counted(together, steps), _counted(by_themselves, steps), chosen.rounds, device)
    pairs = [(ours / steps, other / steps) for ours, other in pairs]
    result = ratios(pairs)
    if chosen.plot:
        values = [other / ours for ours, other in pairs]
        title = f"a step of {chosen.seeds} seeds of {chosen.recipe}"
        show(pairs, values, title, ("together", "one by one"), "times as fast", chosen.plot)
    step_s = float(str(result["gankit_s"]))
    minutes = step_s * STEPS * SEEDS / (chosen.seeds * CORES) / 60
    return {
        "benchmark": "stacked",
        "recipe": chosen.recipe,
        "seeds": chosen.seeds,
        "batch": members[0].train.batch,
        "steps": steps,
        **result,
        "minutes": rounded(minutes),
        **machine(device),
    }


def _counted(take: Callable[[int], None], steps: int) -> Callable[[], None]:
    """Take so many steps from where the last call has ended."""
    first = 0

    def call() -> None:
        nonlocal first
        take(first)
        first += steps

    return call


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON line."""
    parser = options(__doc__ or "")
    parser.add_argument("--recipe", default="ring", help="a recipe of dense networks")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="in a round; from log to log if 0")
    run(measure, parser, arguments)


if __name__ == "__main__":
    main()
