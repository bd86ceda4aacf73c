"""BigGAN-PyTorch (ajbrock): BigGAN and its SAGAN, as `BigGAN.py` has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.convert.originals import Original, Stage, Table

__all__ = ["BigGanPytorch"]


class BigGanPytorch(Original):
    """Blocks and what follows them stand together, `blocks.K.0` and `blocks.K.1`."""

    blocks: ClassVar[Table] = {
        "enter": "bn1",
        "conv1": "conv1",
        "middle": "bn2",
        "conv2": "conv2",
        "shortcut": "conv_sc",
    }
    attentions: ClassVar[Table] = {
        "query": "theta",
        "key": "phi",
        "value": "g",
        "output": "o",
        "gamma": "gamma",
    }
    ends: ClassVar[Table] = {
        "stem": "linear",
        "embedding": "shared",
        "norm": "output_layer.0",
        "conv": "output_layer.2",
        "head.dense": "linear",
        "head.embedding": "embed",
    }
    own_u: ClassVar[str] = "u0"
    halvings: ClassVar = {32: 2, 64: 4, 128: 5, 256: 6}
    idle: ClassVar[str] = r".*\.(sv\d+|accumulation_counter|num_batches_tracked)"
    foreign: ClassVar = {r"blocks\..*\.conv[34]\..*": "BigGAN-deep, whose blocks are others"}
    unsaid: ClassVar = {
        "generator": 'nearest upsampling, condition = ["embedding", "chunk"] in this order, ReLU'
        " and tanh, batch norms with eps 1e-5",
        "discriminator": "sums over positions, ReLU",
    }

    def stages(self) -> list[Stage]:
        """A block, and the attention behind it if there is one."""
        places = {tuple(map(int, m.groups())) for m in map(_PLACE.match, self.tensors) if m}
        names = [f"blocks.{k}.{inner}" for k, inner in sorted(places)]
        return [Stage("attention" if self.has(f"{n}.gamma") else "block", n) for n in names]

    def norm(self, name: str) -> dict[str, Tensor]:
        """Gains and biases of their own, of a class, or of the shared embedding."""
        kept = {  # where several devices shared statistics, in a module of its own; counts are not
            "running_mean": ("bn.running_mean", "bn.stored_mean", "stored_mean"),
            "running_var": ("bn.running_var", "bn.stored_var", "stored_var"),
        }
        found = {key: self._one_of(name, *names) for key, names in kept.items()}
        found["num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
        if f"{name}.gain" in self.tensors:
            own = {"weight": self.tensor(f"{name}.gain"), "bias": self.tensor(f"{name}.bias")}
            return own | found
        read = self.layer if self._shared else self.table
        layers = {"scale": read(f"{name}.gain"), "shift": read(f"{name}.bias")}
        modulated = {f"{k}.{n}": t for k, parts in layers.items() for n, t in parts.items()}
        return modulated | {f"normal.{key}": tensor for key, tensor in found.items()}

    def _one_of(self, name: str, *choices: str) -> Tensor:
        there = [f"{name}.{choice}" for choice in choices if f"{name}.{choice}" in self.tensors]
        return self.tensor(there[0] if there else f"{name}.{choices[-1]}")

    @property
    def _shared(self) -> bool:
        return "shared.weight" in self.tensors

    def modulation(self, name: str, condition: Tensor) -> tuple[Tensor, Tensor]:
        """1 + gain, and bias."""
        names = f"{name}.gain", f"{name}.bias"
        if self._shared:
            gain, bias = (self.dense(condition, each) for each in names)
        else:
            gain, bias = (F.embedding(condition, self.value(each)) for each in names)
        return 1 + gain, bias

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Iterator[Tensor | None]]:
        """The shared embedding beside a chunk of z, or alone; without one, the labels."""
        if not self._shared or labels is None:
            return z, repeat(labels)
        shared = F.embedding(labels, self.value("shared"))
        first, *chunks = z.split(self.tensors["linear.weight"].shape[1], dim=1)
        beside = (torch.cat([shared, chunk], dim=1) for chunk in chunks)
        return first, beside if chunks else repeat(shared)


_PLACE = re.compile(r"blocks\.(\d+)\.(\d+)\.")
