"""The libraries whose checkpoints are read: their networks, and how they call their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gankit.convert.biggan_pytorch import BigGanPytorch
from gankit.convert.files import Found, Naming, read
from gankit.convert.mimicry import Mimicry
from gankit.convert.originals import Original
from gankit.convert.studiogan import StudioGan

__all__ = ["LIBRARIES", "Library"]

Held = Mapping[str, Mapping[str, Any]]
"""What the files hold, by network."""


@dataclass(frozen=True)
class Library:
    """A library: its networks, its files, and where these say how long it was trained."""

    original: Callable[[Mapping[str, Tensor]], Original]
    naming: Naming
    step: Callable[[Found, Held], int]


def _counted(found: Found, held: Held) -> int:
    """What a file says, or its name."""
    for network, key in (("generator", "global_step"), ("discriminator", "step")):
        if isinstance(step := held.get(network, {}).get(key), int):
            return step
    number = re.search(r"\d+$", found.mark)
    return int(number[0]) if number else 0


def _updates(found: Found, held: Held) -> int:
    """How often Adam has moved G, once a step; the file with the step holds pickled classes."""
    file = found.files.get("optimizer")
    state = read(file).get("state", {}) if file else {}
    return max((int(each["step"]) for each in state.values() if "step" in each), default=0)


LIBRARIES: Mapping[str, Library] = {
    "biggan-pytorch": Library(
        BigGanPytorch,
        Naming(
            r"(?P<role>G_ema|G_optim|D_optim|G|D)(?:_(?P<mark>.+))?\.(?:pth|safetensors)",
            "G_MARK.pth, D_MARK.pth, G_ema_MARK.pth",
            {
                "G": "generator",
                "D": "discriminator",
                "G_ema": "ema",
                "G_optim": "optimizer",
                "D_optim": "D's optimizer",
            },
        ),
        _updates,
    ),
    "mimicry": Library(
        Mimicry,
        Naming(
            r"net(?P<role>[GD])_(?P<mark>\d+)_steps\.(?:pth|safetensors)",
            "netG_N_steps.pth, netD_N_steps.pth",
            {"G": "generator", "D": "discriminator"},
            folders=("netG", "netD", "../netG", "../netD"),
            key="model_state_dict",
        ),
        _counted,
    ),
    "studiogan": Library(
        StudioGan,
        Naming(
            r"model=(?P<role>G_ema|G|D)-(?P<mark>\w+-weights-step=\d+)\.(?:pth|safetensors)",
            "model=G-best-weights-step=N.pth, and D and G_ema in the place of G",
            {"G": "generator", "D": "discriminator", "G_ema": "ema"},
            key="state_dict",
        ),
        _counted,
    ),
}
