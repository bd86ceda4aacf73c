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

from gankit.errors import GankitError

__all__ = [
    "Pair",
    "machine",
    "options",
    "ratios",
    "rounded",
    "rounds",
    "run",
    "show",
    "spread",
    "synchronize",
]

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


def ratios(pairs: Sequence[Pair]) -> dict[str, object]:
    """How many times as fast ours is, paired round by round, and the seconds of both."""
    return {
        "gankit_s": rounded(statistics.median(ours for ours, _ in pairs)),
        "peer_s": rounded(statistics.median(other for _, other in pairs)),
        **spread("ratio", [other / ours for ours, other in pairs]),
    }


def spread(name: str, values: Sequence[float]) -> dict[str, object]:
    """The median of rounds under its name, and their quartiles."""
    values = list(values)
    low, middle, high = statistics.quantiles(
        values * 2 if len(values) == 1 else values, n=4, method="inclusive"
    )
    return {
        name: rounded(middle),
        "quartiles": [rounded(low), rounded(high)],
        "rounds": len(values),
    }


def machine(device: torch.device) -> dict[str, object]:
    """What was measured on, and when."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "load": rounded(os.getloadavg()[0]),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the code, marked if there are changes; None where there is no repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def rounded(number: float) -> float:
    """To four digits."""
    return float(f"{number:.4g}")


def run(
    measure: Callable[[argparse.Namespace, torch.device], Mapping[str, object]],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    key: str = "ratio",
    words: str = "times as fast",
) -> None:
    """Measure what is asked for and print one JSON line; what counts in words too, unless not."""
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    try:
        result = measure(chosen, torch.device(chosen.device))
    except (GankitError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
    if not chosen.json:
        print(f"{result[key]} {words}, quartiles {result['quartiles']}", file=sys.stderr)
    print(json.dumps(result), flush=True)


def show(
    pairs: Sequence[Pair],
    values: Sequence[float],
    title: str,
    names: tuple[str, str],
    unit: str,
    file: Path,
) -> None:
    """Draw the seconds of both sides, and what is made of them, round by round."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    most = max(max(pair) for pair in pairs)
    numbers = range(1, len(pairs) + 1)
    for side, (name, colour) in enumerate(zip(names, ("#1f77b4", "#888888"), strict=True)):
        left.plot(numbers, [pair[side] for pair in pairs], "o-", color=colour, label=name)
    left.set(title=title, xlabel="round", ylabel="seconds", ylim=(0, 1.1 * most))
    left.legend()
    right.plot(numbers, values, "o", color="#1f77b4")
    right.axhline(statistics.median(values), color="#1f77b4", linewidth=1)
    right.set(title=f"{unit}, and median", xlabel="round", ylim=(0, 1.1 * max(values)))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(file, dpi=120)
