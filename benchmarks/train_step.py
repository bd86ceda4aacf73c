"""How fast a training step is beside somebody else's of the same networks.

    python benchmarks/train_step.py                       # the article's network, by hand
    python benchmarks/train_step.py --network sagan-resnet --width 32 --batch 8 \\
        --peer biggan-pytorch --peer-path PATH --rounds 9 --json
    python benchmarks/train_step.py --device cuda --precision bf16 --width 64 --batch 64

Before the timing both take a step on the same draws, and what comes out is compared
(`same_work.py`). Targets: 1.8 times as fast as BigGAN-PyTorch on 2 CPU cores (width 32, batch 8;
1.4 without compiling), 1.4 times as the plain loop (batch 16), 4 times on a GPU with 0.6 of its
peak memory. The peer runs as it is written, in float32; `--precision` is gankit's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from same_work import compared, worst
from side_by_side import machine, options, ratios, rounds, run, show, synchronize
from sides import batch_of, engine_of, network_options, peer_of, spec_of
from work import counted


def measure(chosen: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Compare both sides, then time them."""
    spec, memory = spec_of(chosen), {}
    errors = compared(chosen, device)
    start = _allocated(device)
    peer = peer_of(chosen, device)
    noise = torch.rand(batch_of(chosen), 3, chosen.size, chosen.size) * 2 - 1
    labels = torch.arange(len(noise)) % chosen.classes

    def theirs() -> None:
        for _ in range(chosen.steps):
            peer.step(noise.to(device), labels.to(device))

    memory["peer_bytes"] = _peak(theirs, start, device)
    start = _allocated(device)
    engine, taken = engine_of(spec, peer, device), 0

    def ours() -> None:
        nonlocal taken
        for _ in range(chosen.steps):
            engine.step(taken)
            taken += 1

    memory["gankit_bytes"] = _peak(ours, start, device)
    pairs = rounds(ours, theirs, chosen.rounds, device)
    pairs = [(a / chosen.steps, b / chosen.steps) for a, b in pairs]
    if chosen.plot:
        title, names = f"training step, {chosen.network}", ("gankit", peer.name)
        show(pairs, [b / a for a, b in pairs], title, names, "times as fast", chosen.plot)
    result: dict[str, object] = {
        "benchmark": "train_step",
        "network": chosen.network,
        "width": chosen.width,
        "batch": batch_of(chosen),
        "size": chosen.size,
        "precision": chosen.precision,
        "peer": peer.name,
        **ratios(pairs),
        "relative_error": worst(errors),
        "errors": errors,
    }
    if device.type == "cuda":
        result |= memory
        result["memory_ratio"] = round(memory["gankit_bytes"] / memory["peer_bytes"], 3)
    if chosen.count:
        for name, side in (("gankit", ours), ("peer", theirs)):
            result |= {f"{name}_{key}": n // chosen.steps for key, n in counted(side).items()}
    return result | machine(device)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak(side: Callable[[], None], before: int, device: torch.device) -> int:
    """The most bytes a side holds during its steps, after a first that made what stays."""
    side()
    if device.type != "cuda":
        return 0
    synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    side()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON line."""
    parser = options(__doc__ or "")
    network_options(parser)
    parser.add_argument("--steps", type=int, default=1, help="in a round")
    parser.add_argument("--count", action="store_true", help="also what work a step is")
    run(measure, parser, arguments)


if __name__ == "__main__":
    main()
