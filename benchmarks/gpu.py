"""Everything that is measured on a GPU, in one script of under 10 minutes.

    python benchmarks/gpu.py --peer-path PATH
    python benchmarks/gpu.py --device cpu --width 8 --size 32 --batches 2 --rounds 2   # a rehearsal

Training steps of both networks beside their peers, sampling, and what spectral norm costs, each in
a process of its own with its own JSON line; then what each step reaches of the GPU's ceilings,
which are measured first. All of it is written to `--out`, to be committed, with the GPU, its
driver and the commit. Without `--peer-path` there is nobody to compare the authors' network with,
and it is left out. Once the time is up nothing more is started, and what was not measured is named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ceilings import ceilings
from peers import DEFAULTS
from side_by_side import machine

HERE = Path(__file__).parent

Result = dict[str, Any]


def plan(chosen: argparse.Namespace) -> list[list[str]]:
    """The commands, the most wanted first."""
    shared = ["--device", chosen.device, "--size", str(chosen.size), "--width", str(chosen.width)]
    shared += ["--rounds", str(chosen.rounds), "--json"]
    path = ["--peer-path", str(chosen.peer_path)] if chosen.peer_path else []
    networks = [net for net, peer in DEFAULTS.items() if path or peer == "by-hand"]
    precise = ["--precision", chosen.precision]
    commands = []
    for net in networks:
        beside = ["--network", net, *path, *shared]
        for batch in map(str, chosen.batches):
            commands.append(["train_step", *beside, "--batch", batch, *precise, "--count"])
        batch = str(chosen.batches[0])
        commands.append(["sampling", *beside, "-n", str(chosen.images)])
        commands.append(["spectral", "--network", net, *shared, "--batch", batch, *precise])
        if chosen.device.startswith("cuda"):  # a rehearsal would take minutes for it
            compiled = ["--set", "train.compile=true"]
            commands.append(["train_step", *beside, "--batch", batch, *precise, *compiled])
    return sorted(commands, key=lambda command: (command[0] != "train_step", "--set" in command))


def outcome(command: Sequence[str], seconds: float) -> Result:
    """A benchmark's JSON line, or why there is none."""
    name, *arguments = command
    asked = {"benchmark": name, "arguments": arguments}
    if seconds <= 0:
        return asked | {"missing": "the time was up"}
    line = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return asked | {"missing": f"not done in {seconds:.0f} s"}
    if done.returncode:
        return asked | {"missing": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    result: Result = json.loads(done.stdout)
    return result


def reached(result: Mapping[str, Any], most: Mapping[str, float]) -> list[Result]:
    """Operations and bytes per second of both sides of a training step, as shares of ceilings."""
    rows = []
    for side in ("gankit", "peer"):
        # The peer computes in float32, with what a GPU makes of that in convolutions.
        kind = "bf16" if side == "gankit" and result["precision"] == "bf16" else "tf32"
        flops = result[f"{side}_flop"] / result[f"{side}_s"]
        traffic = result[f"{side}_traffic_bytes"] / result[f"{side}_s"]
        rows.append(
            {
                "network": result["network"],
                "batch": result["batch"],
                "side": result["peer"] if side == "peer" else side,
                "flop_s": flops,
                "of_ceiling": round(flops / most[f"{kind}_flop_s"], 4),
                "ceiling": kind,
                "bytes_s": traffic,
                "of_bandwidth": round(traffic / most["bytes_s"], 4),
            }
        )
    return rows


def driver() -> str | None:
    """The version of the GPU's driver."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.partition("\n")[0] or None


def table(rows: Sequence[Result]) -> str:
    """The shares of the ceilings, for a document."""
    lines = [
        "| network | batch | side | FLOP/s | of ceiling | bytes/s | of bandwidth |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} | {row['batch']} | {row['side']} | {row['flop_s']:.3g}"
        f" | {row['of_ceiling']:.1%} of {row['ceiling']} | {row['bytes_s']:.3g}"
        f" | {row['of_bandwidth']:.1%} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write what was measured after each benchmark."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--peer-path", type=Path, help="a checkout of ajbrock/BigGAN-PyTorch")
    options.add_argument("--out", type=Path, default=HERE / "gpu.json")
    options.add_argument("--device", default="cuda")
    options.add_argument("--precision", default="bf16", help="gankit's")
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    options.add_argument("--images", type=int, default=2048, help="that are sampled in a round")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seconds", type=float, default=540, help="for all of it")
    chosen = options.parse_args(arguments)
    end = time.monotonic() + chosen.seconds
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu: there is no CUDA GPU here, and nothing was measured; try --device cpu")
    report: Result = machine(device) | {"driver": driver(), "cuda": torch.version.cuda}
    report |= {"ceilings": ceilings(device), "results": [], "reached": []}
    for command in plan(chosen):
        found = outcome(command, end - time.monotonic())
        report["results"].append(found)
        if "gankit_flop" in found:
            report["reached"] += reached(found, report["ceilings"])
        chosen.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found), file=sys.stderr, flush=True)
    print(table(report["reached"]), file=sys.stderr)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
