"""What a device can do at most, measured: large products, and copies of much memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from side_by_side import synchronize

__all__ = ["ceilings"]

TIMES = 10
"""How often each is run; the fastest counts."""


def ceilings(device: torch.device) -> dict[str, float]:
    """Operations per second in float32, TF32 and bf16, and bytes per second read and written."""
    side, length = (8192, 2**30) if device.type == "cuda" else (512, 2**24)
    made: dict[str, float] = {}
    matrix = torch.randn(side, side, device=device)
    before = torch.backends.cuda.matmul.allow_tf32
    for name, dtype in (("fp32", matrix.dtype), ("tf32", matrix.dtype), ("bf16", torch.bfloat16)):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        factor = matrix.to(dtype)
        out = torch.empty_like(factor)
        seconds = _fastest(lambda a=factor, b=out: torch.mm(a, a, out=b), device)  # type: ignore[misc]
        made[f"{name}_flop_s"] = 2 * side**3 / seconds
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.zeros(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    made["bytes_s"] = 2 * length / _fastest(lambda: target.copy_(source), device)
    return {name: float(f"{value:.4g}") for name, value in made.items()}


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    found = []
    for _ in range(TIMES):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)
