"""Precisions: in which floating type the networks compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["precision"]


def precision(name: str, device: torch.device) -> AbstractContextManager[object]:
    """What to compute inside: nothing for `fp32`, autocast to bfloat16 for `bf16`.

    Raises:
        ValueError: another name.
    """
    if name == "fp32":
        return nullcontext()
    if name == "bf16":
        kind = "cpu" if device.type == "meta" else device.type
        return torch.autocast(kind, torch.bfloat16)
    raise ValueError(f"unknown precision {name!r}; there are fp32 and bf16")
