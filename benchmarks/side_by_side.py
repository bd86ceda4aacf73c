"""Timing two sides of the same work in one process, in turns.

A round times both, and they change who goes first; what else the machine does slows both alike, so
the ratio of a round says more than either time. What is told is the median of these ratios with
its quartiles. Each benchmark prints one JSON line, and a picture of its rounds with `--plot`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

__all__ = ["Pair", "machine", "options", "ratios", "rounds", "show", "synchronize", "tell"]

Pair = tuple[float, float]
"""Seconds of ours and of the other's, of one round."""


def options(description: str) -> argparse.ArgumentParser:
    """What all benchmarks that take turns are asked."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; torch's own choice")
    parser.add_argument("--plot", type=Path, metavar="x.png", help="a picture of the rounds")
    parser.add_argument("--json", action="store_true", help="the JSON line and no words beside it")
    return parser


def synchronize(device: torch.device) -> None:
    """Wait for all that a device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rounds(
    ours: Callable[[], object],
    other: Callable[[], object],
    count: int,
    device: torch.device,
    warm: int = 2,
) -> list[Pair]:
    """Seconds of both, round by round, after `warm` rounds that are not counted."""

    def seconds(side: Callable[[], object]) -> float:
        synchronize(device)
        start = time.perf_counter()
        side()
        synchronize(device)
        return time.perf_counter() - start

    pairs: list[Pair] = []
    for number in range(warm + count):
        if number % 2:
            second = seconds(other)
            pairs.append((seconds(ours), second))
        else:
            pairs.append((seconds(ours), seconds(other)))
    return pairs[warm:]


def ratios(pairs: Sequence[Pair], other_name: str = "peer") -> dict[str, object]:
    """How many times as fast ours is, paired round by round, and the seconds of both."""
    times = sorted(other / ours for ours, other in pairs)
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return {
        "gankit_s": _rounded(statistics.median(ours for ours, _ in pairs)),
        f"{other_name}_s": _rounded(statistics.median(other for _, other in pairs)),
        "ratio": _rounded(statistics.median(times)),
        "quartiles": [_rounded(low), _rounded(high)],
        "rounds": len(pairs),
    }


def machine(device: torch.device) -> dict[str, object]:
    """What was measured on, and when."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "load": _rounded(os.getloadavg()[0]),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the code, marked if there are changes; None where there is no repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def tell(result: Mapping[str, object], chosen: argparse.Namespace) -> None:
    """Print a result as one JSON line, and unless that is all that is wanted, in words before."""
    if not chosen.json and "ratio" in result:
        print(f"{result['ratio']} times as fast, quartiles {result['quartiles']}", file=sys.stderr)
    print(json.dumps(result), flush=True)


def show(pairs: Sequence[Pair], title: str, names: tuple[str, str], file: Path) -> None:
    """Draw the seconds of both sides and their ratio, round by round."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    seconds, times = figure.subplots(1, 2)
    numbers = range(1, len(pairs) + 1)
    for side, (name, colour) in enumerate(zip(names, ("#1f77b4", "#888888"), strict=True)):
        seconds.plot(numbers, [pair[side] for pair in pairs], "o-", color=colour, label=name)
    seconds.set(title=title, xlabel="round", ylabel="seconds", ylim=(0, None))
    seconds.legend()
    paired = [other / ours for ours, other in pairs]
    times.plot(numbers, paired, "o", color="#1f77b4")
    times.axhline(statistics.median(paired), color="#1f77b4", linewidth=1)
    times.axhline(1, color="#888888", linewidth=1, linestyle="--")
    times.set(title="times as fast, and median", xlabel="round", ylim=(0, None))
    figure.savefig(file, dpi=120)
