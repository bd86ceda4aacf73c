"""What spectral norm costs, as a share of the training step.

    python benchmarks/spectral.py                         # the article's network
    python benchmarks/spectral.py --network sagan-resnet --json
    python benchmarks/spectral.py --device cuda --precision bf16 --width 64 --batch 64

For all layers of both networks, per step: the power iterations, the divided weights of the player
who moves and of the one who watches, and the gradients' way back through the division, in a turn
of D and one of G, as the engine does it and with nothing else in between. Taken in turns with whole
steps. Targets: 4 % of the step on a CPU, 2 % on a GPU.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import torch
from side_by_side import machine, options, rounded, rounds, run, show, spread
from sides import ROWS, batch_of, network_options, spec_of

from gankit.bench.noise import Noise
from gankit.build import build
from gankit.norms import SpectralNorm
from gankit.ops import estimates
from gankit.train import Engine


def divide(engine: Engine) -> None:
    """What spectral norm does in one step."""
    for mover in "DG":
        with ExitStack() as stack:
            for name, player in engine.players.items():
                moves = name == mover
                weights = stack.enter_context(player.playing() if moves else player.watching())
                if moves:
                    # In the place of the gradients that a loss would leave here.
                    for weight in weights.weights:
                        weight.grad = weight.detach()


def measure(chosen: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Time both."""
    spec = spec_of(chosen)
    gan, data = build(spec, device)
    engine, taken = Engine(gan, Noise(data.image, ROWS), spec.train, device), 0
    layers = sum(
        isinstance(estimate, SpectralNorm)
        for network in engine.networks.values()
        for estimate, _ in estimates(network)
    )
    if not layers:
        raise ValueError("no layer has spectral norm")

    def step() -> None:
        nonlocal taken
        engine.step(taken)
        taken += 1

    step()
    pairs = rounds(lambda: divide(engine), step, chosen.rounds, device)
    shares = [ours / whole for ours, whole in pairs]
    if chosen.plot:
        title, names = f"spectral norm, {chosen.network}", ("spectral norm", "whole step")
        show(pairs, shares, title, names, "share of the step", chosen.plot)
    return {
        "benchmark": "spectral",
        "network": chosen.network,
        "width": chosen.width,
        "batch": batch_of(chosen),
        "size": chosen.size,
        "precision": chosen.precision,
        "layers": layers,
        "spectral_s": rounded(sorted(ours for ours, _ in pairs)[len(pairs) // 2]),
        "step_s": rounded(sorted(whole for _, whole in pairs)[len(pairs) // 2]),
        **spread("share", shares),
        **machine(device),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON line."""
    parser = options(__doc__ or "")
    network_options(parser)
    run(measure, parser, arguments, "share", "of the step")


if __name__ == "__main__":
    main()
