"""How long a person waits for the first commands, as whole processes.

    python benchmarks/startup.py [--rounds 9]

Targets on 2 cores: `gankit --help` under 0.5 s, `gankit build` of the flagship under 6 s. Prints
one JSON line per command: the median of the rounds, the fastest and the slowest, in seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "gankit --help": ["--help"],
    "gankit build sagan_celeba_128": ["build", "sagan_celeba_128"],
}


def seconds(arguments: list[str]) -> float:
    """Wall-clock time of one command."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "gankit", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def main() -> None:
    """Time every command, interleaved, after one warm-up of each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    rounds = options.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for index in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            taken = seconds(arguments)
            if index:
                times[name].append(taken)
    for name, taken_times in times.items():
        print(
            json.dumps(
                {
                    "command": name,
                    "median_s": round(statistics.median(taken_times), 3),
                    "min_s": round(min(taken_times), 3),
                    "max_s": round(max(taken_times), 3),
                    "rounds": rounds,
                }
            )
        )


if __name__ == "__main__":
    main()
