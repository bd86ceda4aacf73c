"""mimicry (kwotsin): SNGAN, SSGAN, InfoMax-GAN, WGAN-GP, DCGAN, cGAN-PD and SAGAN.

All are one pair of residual networks, with or without spectral norm, labels and attention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gankit.convert.originals import Judge, Original, Stage, Table

__all__ = ["Mimicry"]

ATTENDED = {"generator": {3: 2, 5: 3}, "discriminator": {4: 2, 6: 2}}
"""Of how many blocks, after how many SAGAN attends; the file does not tell."""


class Mimicry(Original):
    """Layers are numbered through: `l1`, `block2`, ..., `b6`, `c6`."""

    blocks: ClassVar[Table] = {
        "enter": "b1",
        "conv1": "c1",
        "middle": "b2",
        "conv2": "c2",
        "shortcut": "c_sc",
    }
    attentions: ClassVar[Table] = {
        "query": "theta",
        "key": "phi",
        "value": "g",
        "output": "o",
        "gamma": "gamma",
    }
    ends: ClassVar[Table] = {
        "stem": r"l1",
        "norm": r"b\d+",
        "conv": r"c\d+",
        "head.dense": r"l\d+|linear",
        "head.embedding": r"l_y",
        "head.classes": r"l_y",
        "head.global.enter": "global_nrkhs_a",
        "head.global.leave": "global_nrkhs_b",
        "head.global.shortcut": "global_nrkhs_sc",
        "head.local.enter": "local_nrkhs_a",
        "head.local.leave": "local_nrkhs_b",
        "head.local.shortcut": "local_nrkhs_sc",
    }
    halvings: ClassVar = {32: 2, 48: 4, 64: 5, 128: 5}
    idle: ClassVar[str] = r".*\.sn_sigma"
    own_u: ClassVar[str] = "sn_u"
    upsampling: ClassVar[str] = "bilinear"
    in_place: ClassVar[bool] = True
    unsaid: ClassVar = {
        "generator": 'upsampling = "bilinear", ReLU and tanh, batch norms with eps 1e-5',
        "discriminator": "means over positions in WGAN-GP, sums in the others; ReLU, and in every"
        " block but the first an in-place one, which rectifies what the shortcut sees too:"
        ' shortcut = "activated"',
    }

    def end(self, role: str) -> str:
        """The layer whose name fits the pattern of a role, or the pattern where there is none.

        `l_y` is an embedding, or with a bias the dense layer that tells rotations apart.
        """
        if role == ("head.embedding" if "l_y.bias" in self.tensors else "head.classes"):
            return ""
        layers = dict.fromkeys(key.partition(".")[0] for key in self.tensors)
        return next((n for n in layers if re.fullmatch(self.ends[role], n)), self.ends[role])

    def stages(self) -> list[Stage]:
        """`block2` and so on; of InfoMax-GAN's D, those of the local and of the global features."""
        names = dict.fromkeys(m[1] for m in map(_BLOCK.match, self.tensors) if m)
        stages = [Stage("block", name) for name in sorted(names, key=_order)]
        if "attn_block.gamma" in self.tensors:
            player = "generator" if self.has("l1") else "discriminator"
            after = ATTENDED[player].get(len(stages), len(stages))
            stages.insert(after, Stage("attention", "attn_block"))
        return stages

    def norm(self, name: str) -> dict[str, Tensor]:
        """Torch's, or with a table of scales and shifts; gankit's scales are what is added to 1."""
        if not self.has(f"{name}.embed"):
            own = {key: self.tensor(f"{name}.{key}") for key in ("weight", "bias")}
            return own | self.statistics(name)
        scale, shift = self.tensor(f"{name}.embed.weight").t().chunk(2)
        found = {f"normal.{k}": t for k, t in self.statistics(f"{name}.bn").items()}
        return {"scale.weight": scale - 1, "shift.weight": shift} | found

    def modulation(self, name: str, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Both halves of a row of the table."""
        rows = F.embedding(condition, self.tensor(f"{name}.embed.weight"))
        scale, shift = rows.chunk(2, dim=1)
        return scale, shift

    def layer(self, name: str) -> dict[str, Tensor]:
        """Those of InfoMax-GAN's `global` head as 1x1 convolutions, which they amount to."""
        found = super().layer(name)
        if name.startswith("global_nrkhs"):
            weight = {key for key, tensor in found.items() if tensor.ndim == 2}
            found |= {key: found[key][:, :, None, None] for key in weight}
        return found

    def heads(self, features: Tensor, before: Tensor) -> Mapping[str, Tensor]:
        """InfoMax-GAN's too: critics of the features, and of what the last block is given."""
        if not self.has("global_nrkhs_a"):
            return {}
        whole = self.dense(self.dense(features, "global_nrkhs_a").relu(), "global_nrkhs_b")
        places = self.conv(self.conv(before, "local_nrkhs_a").relu(), "local_nrkhs_b")
        return {
            "global": whole + self.dense(features, "global_nrkhs_sc"),
            "local": (places + self.conv(before, "local_nrkhs_sc")).flatten(1),
        }

    def judges(self) -> Mapping[str, Judge]:
        """WGAN-GP averages over positions where DCGAN sums, and their tensors are alike."""
        sums: Judge = self.judge
        if any(name.endswith(("weight_orig", "sn_u")) for name in self.tensors):
            return {"": sums}
        return {"DCGAN's, summing": sums, "WGAN-GP's, averaging": partial(self.judge, mean=True)}


_BLOCK = re.compile(r"(block\d+|(?:local|global)_feat_blocks\.\d+)\.c1\.")


def _order(name: str) -> tuple[bool, int]:
    return name.startswith("global"), int(re.findall(r"\d+", name)[0])
