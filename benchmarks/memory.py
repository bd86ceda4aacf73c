"""The plan's estimate of peak training memory beside what a training step really takes.

    python benchmarks/memory.py                      # three recipes
    python benchmarks/memory.py SPEC --set K=V ...   # one spec of your own

Each spec trains two steps in a process of its own. `measured_bytes` is the peak that torch's own
allocator counted: from the profiler's record on the CPU, from the caching allocator on CUDA.
`resident_bytes`, on the CPU, is by how much the process grew, libraries' workspaces and all.
Prints one JSON line per spec.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gankit.spec import Spec

EXAMPLES = Path(__file__).parent.parent / "examples"

# Stand-in data of the recipe's image size: CelebA is not here, and its content does not matter.
RECIPES = {
    "quickstart_digits": (),
    "sagan_celeba_128": ('data={use="shapes", size=128}',),
    "sagan_resnet_celeba_128": ('data={use="shapes", size=128}', "train.batch=8"),
}


def measure(spec: str, overrides: list[str], device: str) -> dict[str, object]:
    """Plan a spec, train it for two steps, and compare."""
    import torch

    from gankit.spec import load
    from gankit.train.plan import plan

    checked = load(spec, [*overrides, "train.steps=2"])
    estimate = plan(checked).memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resident = None
    if device == "cpu":
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            train(checked, device)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        events = profile.profiler.kineto_results.events()
        changes = [e for e in events if e.name() == "[memory]"]
        changes.sort(key=lambda event: event.start_ns())
        peak = max(itertools.accumulate(event.nbytes() for event in changes))
    else:
        train(checked, device)
        peak = torch.cuda.max_memory_allocated()
    return {
        "spec": Path(spec).stem,
        "batch": checked.train.batch,
        "device": device,
        "estimate_bytes": estimate,
        "measured_bytes": peak,
        "resident_bytes": resident,
        "ratio": round((estimate or 0) / peak, 3),
    }


def train(spec: Spec, device: str) -> None:
    """Build the spec's networks and train them to the end."""
    from gankit.build import build
    from gankit.train import Trainer

    for record in Trainer(*build(spec, device), spec.train, device):
        record.numbers()


def main() -> None:
    """Measure each spec in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("spec", nargs="?")
    options.add_argument("--set", action="append", default=[], dest="overrides")
    options.add_argument("--device", default="cpu")
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.here:
        print(json.dumps(measure(chosen.spec, chosen.overrides, chosen.device)))
        return
    specs = {str(EXAMPLES / f"{name}.toml"): sets for name, sets in RECIPES.items()}
    for spec, sets in {chosen.spec: chosen.overrides}.items() if chosen.spec else specs.items():
        arguments = [spec, "--device", chosen.device, "--here"]
        arguments += [word for value in sets for word in ("--set", value)]
        subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    main()
