"""A residual network of another library, computed from the tensors in its file.

What a spec's network is compared with before it is let go. A library is a subclass: tables of what
it calls what gankit calls otherwise, and the few places where its arithmetic is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Judge", "Original", "Stage", "Table"]

Table = Mapping[str, str]
"""What gankit calls a layer, and what the library calls it."""

Judge = Callable[[Tensor, Tensor | None], Mapping[str, Tensor]]
"""Images (B, C, H, W) and labels to logits by head."""


class Stage(NamedTuple):
    """A `block` or an `attention`, and by what name it is found."""

    kind: str
    name: str


class Original:
    """One network of another library: its tensors by name, and what they amount to.

    Layers come as the tensors that gankit's has, by the names these have there. What is missing is
    a KeyError with the name.
    """

    blocks: ClassVar[Table]
    attentions: ClassVar[Table]
    ends: ClassVar[Table]
    """What stands before and after the blocks."""
    halvings: ClassVar[Mapping[int, int]]
    """By the height of images, how many blocks of D halve it; those behind them keep the size."""
    idle: ClassVar[str]
    """A pattern of tensors that no output depends on."""
    own_u: ClassVar[str] = "weight_u"
    """What the vector is called that spectral norm keeps, where it keeps no second one.

    Such a norm of a library's own iterates in evaluation mode too, without keeping what it finds:
    it amounts to what its vectors are after one more iteration.
    """
    eps: ClassVar[float] = 1e-5
    """Of all batch norms."""
    upsampling: ClassVar[str] = "nearest"
    in_place: ClassVar[bool] = False
    """Whether a block of D rectifies what comes in for its shortcut too, by an in-place ReLU."""
    foreign: ClassVar[Mapping[str, str]] = {}
    """By a pattern of tensors, what a network is that gankit has no counterpart of, in words."""
    unsaid: ClassVar[Mapping[str, str]]
    """By player, what no tensor tells and a spec has to say, in words."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.taken: Counter[str] = Counter()
        """How often each tensor was asked for."""

    # What is there

    def stages(self) -> list[Stage]:
        """Blocks and attentions in the order in which they are run."""
        raise NotImplementedError

    def end(self, role: str) -> str:
        """The name of what stands before or behind the blocks."""
        return self.ends[role]

    def has(self, name: str) -> bool:
        """Whether there is a tensor, or a layer, of that name."""
        return any(key == name or key.startswith(f"{name}.") for key in self.tensors)

    def tensor(self, name: str) -> Tensor:
        """A tensor, as float32 or wider."""
        self.taken[name] += 1
        found = self.tensors[name]
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found

    def wide(self) -> Original:
        """The same network in float64, where rounding is no matter."""
        floating = {k: t.double() for k, t in self.tensors.items() if t.is_floating_point()}
        return type(self)({**self.tensors, **floating})

    # Layers, as gankit has them

    def weight(self, name: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The weight of a layer; the singular vectors u and v by which its network divides it."""
        # Torch's own: in evaluation mode both stand still.
        if f"{name}.weight_orig" in self.tensors:
            weight, u, v = (self.tensor(f"{name}.weight_{part}") for part in ("orig", "u", "v"))
            return weight, u, v
        weight = self.tensor(f"{name}.weight")
        if f"{name}.{self.own_u}" not in self.tensors:
            return weight, None, None
        matrix = weight.flatten(1)
        v = F.normalize(self.tensor(f"{name}.{self.own_u}")[0] @ matrix, dim=0)
        return weight, F.normalize(matrix @ v, dim=0), v

    def layer(self, name: str) -> dict[str, Tensor]:
        """A convolution, a dense layer or an embedding."""
        return self._named(name, *self.weight(name))

    def table(self, name: str) -> dict[str, Tensor]:
        """An embedding, as the dense layer on one-hot labels that it is."""
        weight, u, v = self.weight(name)
        return self._named(name, weight.t(), v, u)

    def _named(
        self, name: str, weight: Tensor, u: Tensor | None, v: Tensor | None
    ) -> dict[str, Tensor]:
        found = {"weight": weight}
        if u is not None and v is not None:
            place = "parametrizations.weight"
            found = {f"{place}.original": weight, f"{place}.0.u": u, f"{place}.0.v": v}
        if f"{name}.bias" in self.tensors:
            found["bias"] = self.tensor(f"{name}.bias")
        return found

    def norm(self, name: str) -> dict[str, Tensor]:
        """A batch norm, conditional or not."""
        raise NotImplementedError

    def statistics(self, name: str) -> dict[str, Tensor]:
        """The running statistics of a batch norm of torch's."""
        names = ("running_mean", "running_var", "num_batches_tracked")
        return {key: self.tensor(f"{name}.{key}") for key in names}

    # What they do

    def value(self, name: str) -> Tensor:
        """The weight that a layer works with."""
        weight, u, v = self.weight(name)
        return weight if u is None or v is None else weight / (u @ weight.flatten(1) @ v)

    def bias(self, name: str) -> Tensor | None:
        """A layer's bias, if it has one."""
        return self.tensor(f"{name}.bias") if f"{name}.bias" in self.tensors else None

    def conv(self, x: Tensor, name: str) -> Tensor:
        """A convolution that keeps the size."""
        weight = self.value(name)
        return F.conv2d(x, weight, self.bias(name), padding=weight.shape[2] // 2)

    def dense(self, x: Tensor, name: str) -> Tensor:
        """A dense layer."""
        return F.linear(x, self.value(name), self.bias(name))

    def normal(self, x: Tensor, name: str, condition: Tensor | None = None) -> Tensor:
        """A batch norm in evaluation mode, as `norm` has its tensors."""
        found = self.norm(name)
        where = "normal." if "normal.running_mean" in found else ""
        mean, variance = (found[f"{where}running_{key}"].to(x) for key in ("mean", "var"))
        x = F.batch_norm(x, mean, variance, found.get("weight"), found.get("bias"), eps=self.eps)
        if not where:
            return x
        if condition is None:
            raise ValueError(f"{name} is given no condition")
        scale, shift = self.modulation(name, condition)
        return scale[:, :, None, None] * x + shift[:, :, None, None]

    def modulation(self, name: str, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the shift of a conditional batch norm, (B, C) each."""
        raise NotImplementedError

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Iterator[Tensor | None]]:
        """What enters the first layer, and what the norms of each block in turn are given."""
        return z, repeat(labels)

    def attend(self, x: Tensor, name: str) -> Tensor:
        """Self-attention of SAGAN's released code."""
        query, key, value = (
            self.conv(x, f"{name}.{self.attentions[part]}") for part in ("query", "key", "value")
        )
        key, value = (F.max_pool2d(part, 2).flatten(2) for part in (key, value))
        shares = F.softmax(query.flatten(2).transpose(1, 2) @ key, dim=-1)
        attended = (value @ shares.transpose(1, 2)).unflatten(2, x.shape[2:])
        gamma = self.tensor(f"{name}.{self.attentions['gamma']}")
        return x + gamma * self.conv(attended, f"{name}.{self.attentions['output']}")

    # The networks

    def generate(self, z: Tensor, labels: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Images of a size from latents."""
        stages = self.stages()
        count = sum(stage.kind == "block" for stage in stages)
        first, conditions = self.conditions(z, labels)
        x = self.dense(first, self.end("stem"))
        x = x.view(len(x), -1, *(side // 2**count for side in size))
        for kind, name in stages:
            x = self.attend(x, name) if kind == "attention" else self._up(x, name, next(conditions))
        x = self.normal(x, self.end("norm")).relu()
        return self.conv(x, self.end("conv")).tanh()

    def _up(self, x: Tensor, name: str, condition: Tensor | None) -> Tensor:
        part = {ours: f"{name}.{theirs}" for ours, theirs in self.blocks.items()}
        h = self.normal(x, part["enter"], condition).relu()
        h = self.conv(self._larger(h), part["conv1"])
        h = self.normal(h, part["middle"], condition).relu()
        return self.conv(h, part["conv2"]) + self.conv(self._larger(x), part["shortcut"])

    def _larger(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode=self.upsampling)

    def judges(self) -> Mapping[str, Judge]:
        """What a discriminator may be, where its tensors leave that open, by what it is called."""
        return {"": self.judge}

    def judge(
        self, images: Tensor, labels: Tensor | None, mean: bool = False
    ) -> Mapping[str, Tensor]:
        """Logits by head, from features that are summed over positions, or averaged."""
        x, seen, halvings, before = images, 0, self.halvings[images.shape[2]], images
        for kind, name in self.stages():
            if kind == "attention":
                x = self.attend(x, name)
                continue
            before, x = x, self._down(x, name, first=seen == 0, halves=seen < halvings)
            seen += 1
        features = x.relu().mean((2, 3)) if mean else x.relu().sum((2, 3))
        heads = {"logits": self.dense(features, self.end("head.dense"))}
        if "head.embedding" in self.ends and self.has(self.end("head.embedding")):
            if labels is None:
                raise ValueError("the projection is given no labels")
            rows = F.embedding(labels, self.value(self.end("head.embedding")))
            heads["logits"] = heads["logits"] + (rows * features).sum(1, keepdim=True)
        if "head.classes" in self.ends and self.has(self.end("head.classes")):
            heads["classes"] = self.dense(features, self.end("head.classes"))
        # What an in-place activation has left of it.
        return {**heads, **self.heads(features, before.relu() if self.in_place else before)}

    def heads(self, features: Tensor, before: Tensor) -> Mapping[str, Tensor]:
        """Heads of a library's own, from the features and from what the last block is given."""
        return {}

    def _down(self, x: Tensor, name: str, *, first: bool, halves: bool) -> Tensor:
        part = {ours: f"{name}.{theirs}" for ours, theirs in self.blocks.items()}
        h = x if first else x.relu()
        # Afterwards the shortcut finds the rectified values where its own were.
        x = h if self.in_place else x
        h = self.conv(self.conv(h, part["conv1"]).relu(), part["conv2"])
        if self.has(part["shortcut"]):
            x = self.conv(x, part["shortcut"])
        return F.avg_pool2d(h, 2) + F.avg_pool2d(x, 2) if halves else h + x
