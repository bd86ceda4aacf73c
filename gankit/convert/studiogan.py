"""PyTorch-StudioGAN (POSTECH-CVLab): the backbones `big_resnet` and `resnet`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gankit.convert.originals import Original, Stage, Table

__all__ = ["StudioGan"]


class StudioGan(Original):
    """Blocks and attentions stand in one row, `blocks.N.0`."""

    blocks: ClassVar[Table] = {
        "enter": "bn1",
        "conv1": "conv2d1",
        "middle": "bn2",
        "conv2": "conv2d2",
        "shortcut": "conv2d0",
    }
    attentions: ClassVar[Table] = {
        "query": "conv1x1_theta",
        "key": "conv1x1_phi",
        "value": "conv1x1_g",
        "output": "conv1x1_attn",
        "gamma": "sigma",
    }
    ends: ClassVar[Table] = {
        "stem": "linear0",
        "embedding": "shared",
        "norm": "bn4",
        "conv": "conv2d5",
        "head.dense": "linear1",
        "head.embedding": "embedding",
    }
    halvings: ClassVar = {32: 2, 64: 4, 128: 5, 256: 6, 512: 7}
    idle: ClassVar[str] = r"(?!)"
    eps: ClassVar[float] = 1e-4
    in_place: ClassVar[bool] = True
    foreign: ClassVar = {
        r"blocks\..*\.conv2d[34]\..*": "BigGAN-deep, whose blocks are others",
        r"blocks\..*\.(deconv0|conv0)\..*": "the backbone deep_conv, which is not read",
        r"linear2\..*|\w+_mi\..*": "a D with other heads than a projection; --fresh starts a"
        " D of the spec's own",
        r"info_.*": "an InfoGAN, which has no counterpart",
    }
    unsaid: ClassVar = {
        "generator": 'nearest upsampling, condition = ["embedding", "chunk"] in this order, ReLU'
        " and tanh, eps = 1e-4 in every batch norm, the last one too",
        "discriminator": "sums over positions, ReLU, and in every block but the first an in-place"
        ' one, which rectifies what the shortcut sees too: shortcut = "activated"',
    }

    def stages(self) -> list[Stage]:
        """As they are numbered."""
        first = {int(m[1]): m[2] for m in map(_FIRST.match, self.tensors) if m}
        kinds = {"conv2d1": "block", "conv1x1_theta": "attention"}
        return [Stage(kinds[layer], f"blocks.{n}.0") for n, layer in sorted(first.items())]

    def norm(self, name: str) -> dict[str, Tensor]:
        """Torch's, or with two dense layers on the condition."""
        if not self.has(f"{name}.gain"):
            own = {key: self.tensor(f"{name}.{key}") for key in ("weight", "bias")}
            return own | self.statistics(name)
        layers = {"scale": self.layer(f"{name}.gain"), "shift": self.layer(f"{name}.bias")}
        found = {f"{k}.{n}": t for k, parts in layers.items() for n, t in parts.items()}
        return found | {f"normal.{k}": t for k, t in self.statistics(f"{name}.bn").items()}

    def modulation(self, name: str, condition: Tensor) -> tuple[Tensor, Tensor]:
        """1 + gain, and bias."""
        return 1 + self.dense(condition, f"{name}.gain"), self.dense(condition, f"{name}.bias")

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Iterator[Tensor | None]]:
        """`big_resnet`: the shared embedding beside a chunk of z. `resnet`: one-hot labels."""
        first, *chunks = z.split(self.weight("linear0")[0].shape[1], dim=1)
        if not self.has("blocks.0.0.bn1.gain"):
            return first, repeat(None)
        if chunks:
            shared = [F.embedding(labels, self.value("shared"))] if labels is not None else []
            return first, (torch.cat([*shared, chunk], dim=1) for chunk in chunks)
        if labels is None:
            return first, repeat(None)
        classes = self.weight("blocks.0.0.bn1.gain")[0].shape[1]
        return first, repeat(F.one_hot(labels, classes).to(z))


_FIRST = re.compile(r"blocks\.(\d+)\.0\.(conv2d1|conv1x1_theta)\.")
