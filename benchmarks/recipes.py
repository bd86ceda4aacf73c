"""What a step of each recipe costs, at full width on noise of the right kind.

    python benchmarks/recipes.py                       # this machine's CPU, small batches
    python benchmarks/recipes.py --device cuda         # each recipe's own batch and precision
    python benchmarks/recipes.py ring sngan_32 --steps 5

On a CPU batches are of 8 images at most where they are large networks', in float32, unless
`--batch` says otherwise; lazy penalties are timed over whole rounds of theirs. Prints one JSON line
per recipe: images that D is shown a second (median over steps, with quartiles), and the most memory
the process held, of a GPU the most that was allocated.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from math import lcm

import torch

from gankit.bench.noise import Noise
from gankit.build import build
from gankit.recipes import names, recipe
from gankit.schedules import turns_of
from gankit.spec import load
from gankit.train import Engine

SMALL = {"gan_mlp", "grid", "quickstart_digits", "ring", "shapes_64", "stacked_digits"}
"""Recipes that are for CPUs, and keep their batches there."""


def cost(name: str, device: torch.device, batch: int, steps: int) -> dict[str, object]:
    overrides = []
    if device.type == "cpu":
        overrides = ["train.precision=fp32"]
        if batch or name not in SMALL:
            overrides += [f"train.batch={batch or 8}", "train.accumulate=1"]
    spec = load(recipe(name), overrides)
    gan, data = build(spec)
    every = lcm(*(part.every for part in gan.penalties.values()), 1)
    steps = max(1, steps // every) * every
    engine = Engine(gan, Noise(data.image, spec.train.batch), spec.train, device)
    turns = [turn for turn in turns_of(gan.schedules, 0, spec.train.steps) if "D" in turn]
    timed = []
    for step in range(every + steps):
        begun = time.perf_counter()
        engine.step(step)
        if device.type == "cuda":
            torch.cuda.synchronize()
        timed.append(time.perf_counter() - begun)
    rounds = [sum(timed[i : i + every]) / every for i in range(every, len(timed), every)]
    shown = spec.train.batch * len(turns)
    rates = sorted(shown / seconds for seconds in rounds)
    most = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "recipe": name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "batch": spec.train.batch,
        "precision": spec.train.precision,
        "images_s": round(statistics.median(rates), 2),
        "least": round(rates[0], 2),
        "greatest": round(rates[-1], 2),
        "rounds": len(rounds),
        "memory_mib": round(most / 2**20),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="NAME", help="all of them by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0, help="on a CPU, of every recipe")
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    if len(given.recipes) == 1:
        made = cost(given.recipes[0], torch.device(given.device), given.batch, given.steps)
        print(json.dumps(made), flush=True)
        return
    # Each in a process of its own: the most memory held is the process's.
    options = ["--device", given.device, "--batch", str(given.batch), "--steps", str(given.steps)]
    for name in given.recipes or names():
        subprocess.run([sys.executable, __file__, name, *options], check=False)


if __name__ == "__main__":
    main()
