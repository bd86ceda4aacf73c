"""The Frechet distance of given statistics, beside the published formula with scipy's sqrtm.

    python benchmarks/frechet.py                          # of 2048 dimensions, as Inception's are
    python benchmarks/frechet.py --count 1000 --rounds 3  # singular covariances
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/frechet.py

From the means and covariances of both sets to the score, on the CPU, in float64. `--threads` is
torch's alone; the two variables are scipy's too. Target: 5 times as fast.
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy  # type: ignore[import-untyped]
import torch
from scipy import linalg
from side_by_side import machine, options, ratios, rounded, rounds, run, show

from gankit.metrics import Moments, frechet_distance
from gankit.randomness import generator
from gankit.slots import Seen


def statistics(seed: int, count: int, width: int) -> Moments:
    """Of features that are positive and correlated, with variances over six decades."""
    random = generator("benchmark", seed)
    mixing = torch.randn(width, width, generator=random) / width**0.5
    scales = 10 ** -torch.linspace(0, 3, width)
    moments = Moments()
    for start in range(0, count, 1024):
        rows = min(1024, count - start)
        values = torch.randn(rows, width, generator=random) * scales @ mixing
        moments.add(Seen(values.relu() + 0.1 * scales * values))
    return moments


def published(real: Moments, fake: Moments) -> float:
    """What most of the public code computes."""
    one, other = real.covariance.numpy(), fake.covariance.numpy()
    apart = (real.mean - fake.mean).numpy()
    root = linalg.sqrtm(one @ other)
    return float(apart @ apart + np.trace(one) + np.trace(other) - 2 * np.trace(root).real)


def measure(chosen: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Time both, of equal scores."""
    real, fake = (statistics(seed, chosen.count, chosen.width) for seed in (0, 1))
    ours, other = frechet_distance(real, fake), published(real, fake)
    error = abs(ours - other) / abs(other)
    if not error < chosen.tolerance:
        raise ValueError(f"{ours} is not the same score as {other}")
    pairs = rounds(
        lambda: frechet_distance(real, fake),
        lambda: published(real, fake),
        chosen.rounds,
        device,
        1,
    )
    told = ratios(pairs)
    if chosen.plot:
        values = [other / ours for ours, other in pairs]
        title, names = f"Frechet distance, {chosen.width} wide", ("gankit", "scipy")
        show(pairs, values, title, names, "times as fast", chosen.plot)
    return {
        "benchmark": "frechet",
        "width": chosen.width,
        "count": chosen.count,
        "peer": f"scipy {scipy.__version__} sqrtm",
        "score": rounded(ours),
        "relative_error": rounded(error),
        **told,
        **machine(device),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON line."""
    parser = options(__doc__ or "")
    parser.add_argument("--width", type=int, default=2048, help="of the features")
    parser.add_argument("--count", type=int, default=10_000, help="images of each set")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the relative error")
    run(measure, parser, arguments)


if __name__ == "__main__":
    main()
