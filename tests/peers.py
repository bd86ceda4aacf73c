"""Small networks that save what other libraries save: their names, shapes and arithmetic.

Written from what those libraries do, in torch's own modules and plain formulas, to be what an
import is compared with. Images are 3 x 32 x 32 of 5 classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

CLASSES = 5
WIDTH = 8


def plain(layer: nn.Module) -> nn.Module:
    return layer


class Divided(nn.Module):
    """Spectral norm with one vector, whose step in evaluation mode is not kept."""

    def __init__(self, layer: Any, u: str, value: str) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = getattr(layer, "bias", None)
        self.names = u, value
        self.call = {nn.Conv2d: self._conv, nn.Linear: F.linear, nn.Embedding: self._rows}[
            type(layer)
        ]
        self.register_buffer(u, torch.randn(1, len(layer.weight)))
        self.register_buffer(value, torch.ones(1))

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[3] // 2)

    def _rows(self, labels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return weight[labels]

    def forward(self, x: Tensor) -> Tensor:
        matrix, u = self.weight.detach().flatten(1), getattr(self, self.names[0])
        v = matrix.T @ u[0]
        v = v / v.norm()
        new = matrix @ v
        sigma = new.norm()  # which is u . W v for u = W v / |W v|
        if self.training:
            u[0] = new / sigma
            getattr(self, self.names[1])[:] = sigma
        return self.call(x, self.weight / sigma, self.bias)


class Attention(nn.Module):
    """SAGAN's, under whatever names."""

    def __init__(self, norm: Callable[[Any], Any], names: list[str], gamma: Tensor) -> None:
        super().__init__()
        self.names = names
        widths = (WIDTH, WIDTH // 8), (WIDTH, WIDTH // 8), (WIDTH, WIDTH // 2), (WIDTH // 2, WIDTH)
        for name, (wide, out) in zip(names, widths, strict=False):
            setattr(self, name, norm(nn.Conv2d(wide, out, 1, bias=False)))
        self.register_parameter(names[4], nn.Parameter(gamma))

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g, out, gamma = (getattr(self, name) for name in self.names)
        keys, values = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (phi, g))
        scores = torch.einsum("bcq,bck->bqk", theta(x).flatten(2), keys)
        mixed = torch.einsum("bqk,bck->bcq", scores.softmax(2), values)
        return x + gamma * out(mixed.reshape(*mixed.shape[:2], *x.shape[2:]))


def normalised(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    return (x - mean[:, None, None]) / (variance + eps).sqrt()[:, None, None]


# --- BigGAN-PyTorch


big = partial(Divided, u="u0", value="sv0")


class BigNorm(nn.Module):
    """Gain and bias: numbers of its own, or layers on the condition."""

    def __init__(self, make: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        self.gain: Any = make() if make else nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.bias: Any = make() if make else nn.Parameter(torch.randn(WIDTH))
        self.register_buffer("stored_mean", torch.zeros(WIDTH))
        self.register_buffer("stored_var", torch.ones(WIDTH))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = normalised(x, self.stored_mean, self.stored_var, 1e-5)  # type: ignore[arg-type]
        conditional = isinstance(self.gain, nn.Module)
        gain = 1 + self.gain(y) if conditional else self.gain[None]
        bias = self.bias(y) if conditional else self.bias[None]
        return x * gain[:, :, None, None] + bias[:, :, None, None]


class BigUp(nn.Module):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.conv2 = (big(nn.Conv2d(WIDTH, WIDTH, 3)) for _ in range(2))
        self.conv_sc = big(nn.Conv2d(WIDTH, WIDTH, 1))
        self.bn1, self.bn2 = BigNorm(make), BigNorm(make)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        twice = nn.Upsample(scale_factor=2)
        h = self.conv1(twice(self.bn1(x, y).relu()))
        return self.conv2(self.bn2(h, y).relu()) + self.conv_sc(twice(x))


class BigGenerator(nn.Module):
    """BigGAN, a shared embedding of 6 beside chunks of 4; or SAGAN, a table for each norm."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.latent = 16
        if shared:
            self.shared = nn.Embedding(CLASSES, 6)
        self.linear = big(nn.Linear(4 if shared else 16, WIDTH * 16))
        make: Callable[[], nn.Module] = partial(nn.Embedding, CLASSES, WIDTH)
        if shared:

            def make() -> nn.Module:
                return big(nn.Linear(10, WIDTH, bias=False))

        self.blocks = nn.ModuleList(nn.ModuleList([BigUp(make)]) for _ in range(3))
        names = ["theta", "phi", "g", "o", "gamma"]
        self.blocks[1].append(Attention(big, names, torch.tensor(0.8)))  # type: ignore[operator]
        self.output_layer = nn.Sequential(BigNorm(), nn.ReLU(), big(nn.Conv2d(WIDTH, 3, 3)))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        first, conditions = z, [labels] * 3
        if hasattr(self, "shared"):
            first, *chunks = z.split(4, 1)
            conditions = [torch.cat([self.shared(labels), chunk], 1) for chunk in chunks]
        h = self.linear(first).reshape(-1, WIDTH, 4, 4)
        for (block, *attention), y in zip(self.blocks, conditions, strict=True):  # type: ignore[misc]
            h = block(h, y)
            for layer in attention:
                h = layer(h)
        return self.output_layer(h).tanh()


class BigDown(nn.Module):
    def __init__(self, wide: int, halves: bool) -> None:
        super().__init__()
        self.first, self.halves = wide == 3, halves
        self.conv1, self.conv2 = big(nn.Conv2d(wide, WIDTH, 3)), big(nn.Conv2d(WIDTH, WIDTH, 3))
        if halves:
            self.conv_sc = big(nn.Conv2d(wide, WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        return F.avg_pool2d(h + self.conv_sc(x), 2) if self.halves else h + x


class BigDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shapes = (3, True), (WIDTH, True), (WIDTH, False), (WIDTH, False)
        self.blocks = nn.ModuleList(nn.ModuleList([BigDown(*shape)]) for shape in shapes)
        names = ["theta", "phi", "g", "o", "gamma"]
        self.blocks[0].append(Attention(big, names, torch.tensor(-0.6)))  # type: ignore[operator]
        self.linear = big(nn.Linear(WIDTH, 1))
        self.embed = big(nn.Embedding(CLASSES, WIDTH))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        for layers in self.blocks:
            for layer in layers:  # type: ignore[union-attr]
                x = layer(x)
        h = x.relu().sum((2, 3))
        return self.linear(h) + (self.embed(labels) * h).sum(1, keepdim=True)


# --- mimicry


class MimicNorm(nn.Module):
    """A table with a row of scales and shifts for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(WIDTH, affine=False)
        self.embed = nn.Embedding(CLASSES, 2 * WIDTH)
        nn.init.normal_(self.embed.weight, 1, 0.5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        row = self.embed(y)[:, :, None, None]
        return row[:, :WIDTH] * self.bn(x) + row[:, WIDTH:]


class MimicUp(nn.Module):
    def __init__(self, classes: bool, norm: Callable[[Any], Any]) -> None:
        super().__init__()
        self.classes = classes
        self.c1, self.c2 = (norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)) for _ in range(2))
        self.b1, self.b2 = (MimicNorm() if classes else nn.BatchNorm2d(WIDTH) for _ in range(2))
        self.c_sc = norm(nn.Conv2d(WIDTH, WIDTH, 1))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        given = (y,) if self.classes else ()
        twice = nn.Upsample(scale_factor=2, mode="bilinear")
        h = self.c1(twice(self.b1(x, *given).relu()))
        return self.c2(self.b2(h, *given).relu()) + self.c_sc(twice(x))


class MimicGenerator(nn.Module):
    def __init__(self, classes: bool = False, attends: bool = False) -> None:
        super().__init__()
        norm = spectral_norm if attends else plain
        self.latent = 16
        self.l1 = norm(nn.Linear(16, WIDTH * 16))
        self.block2, self.block3, self.block4 = (MimicUp(classes, norm) for _ in range(3))
        self.b5, self.c5 = nn.BatchNorm2d(WIDTH), norm(nn.Conv2d(WIDTH, 3, 3, padding=1))
        if attends:
            self.attn_block = Attention(
                norm, ["theta", "phi", "g", "o", "gamma"], torch.tensor(0.9)
            )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.block3(self.block2(self.l1(z).reshape(-1, WIDTH, 4, 4), y), y)
        h = self.attn_block(h) if hasattr(self, "attn_block") else h
        return self.c5(self.b5(self.block4(h, y)).relu()).tanh()


class MimicDown(nn.Module):
    """Its ReLU is in place, so the shortcut adds what it has left of what came in."""

    def __init__(self, wide: int, halves: bool, norm: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.halves, self.activation = wide == 3, halves, nn.ReLU(inplace=True)
        self.c1 = norm(nn.Conv2d(wide, WIDTH, 3, padding=1))
        self.c2 = norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        if halves:
            self.c_sc = norm(nn.Conv2d(wide, WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else self.activation(x)
        h = self.c2(self.activation(self.c1(h)))
        return F.avg_pool2d(h, 2) + F.avg_pool2d(self.c_sc(x), 2) if self.halves else h + x


class MimicDiscriminator(nn.Module):
    """With a head for nothing, for classes (a projection), or for rotations."""

    def __init__(
        self, norm: Callable[[Any], Any] = spectral_norm, head: str = "", mean: bool = False
    ) -> None:
        super().__init__()
        self.head, self.mean = head, mean
        self.block1 = MimicDown(3, True, norm)
        self.block2 = MimicDown(WIDTH, True, norm)
        self.block3, self.block4 = (MimicDown(WIDTH, False, norm) for _ in range(2))
        self.l5 = norm(nn.Linear(WIDTH, 1))
        if head == "projection":
            own = partial(Divided, u="sn_u", value="sn_sigma")
            self.l5, self.l_y = own(nn.Linear(WIDTH, 1)), own(nn.Embedding(CLASSES, WIDTH))
            self.attn_block = Attention(
                norm, ["theta", "phi", "g", "o", "gamma"], torch.tensor(0.7)
            )
        if head == "rotation":
            self.l_y = norm(nn.Linear(WIDTH, 4))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        h = self.block2(self.block1(x))
        h = self.attn_block(h) if self.head == "projection" else h
        h = self.block4(self.block3(h)).relu()
        h = h.mean((2, 3)) if self.mean else h.sum((2, 3))
        if self.head == "projection":
            return self.l5(h) + (self.l_y(y) * h).sum(1, keepdim=True)
        return (self.l5(h), self.l_y(h)) if self.head == "rotation" else self.l5(h)


class MimicInfoMax(nn.Module):
    """Its last block rectifies, in place, what its critic of places sees afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.local_feat_blocks = nn.Sequential(
            MimicDown(3, True, spectral_norm),
            MimicDown(WIDTH, True, spectral_norm),
            MimicDown(WIDTH, False, spectral_norm),
        )
        self.global_feat_blocks = nn.Sequential(MimicDown(WIDTH, False, spectral_norm))
        self.linear = spectral_norm(nn.Linear(WIDTH, 1))
        self.local_nrkhs_a = spectral_norm(nn.Conv2d(WIDTH, WIDTH, 1))
        self.local_nrkhs_b, self.local_nrkhs_sc = (
            spectral_norm(nn.Conv2d(WIDTH, 6, 1)) for _ in range(2)
        )
        self.global_nrkhs_a = spectral_norm(nn.Linear(WIDTH, WIDTH))
        self.global_nrkhs_b, self.global_nrkhs_sc = (
            spectral_norm(nn.Linear(WIDTH, 6)) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        places = self.local_feat_blocks(x)
        whole = self.global_feat_blocks(places).relu().sum((2, 3))
        projected = self.global_nrkhs_b(self.global_nrkhs_a(whole).relu())
        local = self.local_nrkhs_b(self.local_nrkhs_a(places).relu())
        return (
            self.linear(whole),
            projected + self.global_nrkhs_sc(whole),
            (local + self.local_nrkhs_sc(places)).flatten(1),
        )


# --- StudioGAN


class StudioNorm(nn.Module):
    def __init__(self, condition: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(WIDTH, eps=1e-4, affine=False)
        self.gain, self.bias = (
            spectral_norm(nn.Linear(condition, WIDTH, bias=False)) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = normalised(x, self.bn.running_mean, self.bn.running_var, self.bn.eps)  # type: ignore[arg-type]
        return x * (1 + self.gain(y))[:, :, None, None] + self.bias(y)[:, :, None, None]


class StudioUp(nn.Module):
    def __init__(self, condition: int) -> None:
        super().__init__()
        self.condition = condition
        self.bn1, self.bn2 = (
            StudioNorm(condition) if condition else nn.BatchNorm2d(WIDTH, eps=1e-4)
            for _ in range(2)
        )
        self.conv2d0 = spectral_norm(nn.Conv2d(WIDTH, WIDTH, 1))
        self.conv2d1, self.conv2d2 = (
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        given, twice = (y,) if self.condition else (), nn.Upsample(scale_factor=2)
        h = self.conv2d1(twice(self.bn1(x, *given).relu()))
        return self.conv2d2(self.bn2(h, *given).relu()) + self.conv2d0(twice(x))


STUDIO = ["conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn", "sigma"]


class StudioGenerator(nn.Module):
    """`big_resnet` with chunks, `resnet` with one-hot labels, or without classes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.latent = kind, 16
        width = {"big_resnet": 10, "resnet": CLASSES, "": 0}[kind]
        self.linear0 = spectral_norm(nn.Linear(4 if kind == "big_resnet" else 16, WIDTH * 16))
        if kind == "big_resnet":
            self.shared = nn.Embedding(CLASSES, 6)
        layers: list[nn.Module] = [StudioUp(width) for _ in range(3)]
        layers.insert(2, Attention(spectral_norm, STUDIO, torch.tensor([0.8])))
        self.blocks = nn.ModuleList(nn.ModuleList([layer]) for layer in layers)
        self.bn4 = nn.BatchNorm2d(WIDTH, eps=1e-4)
        self.conv2d5 = spectral_norm(nn.Conv2d(WIDTH, 3, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        first, *rest = z.split(4, 1) if self.kind == "big_resnet" else [z]
        conditions: list[Any] = [None] * 3
        if self.kind == "resnet":
            conditions = [F.one_hot(labels, CLASSES).float()] * 3
        elif self.kind:
            conditions = [torch.cat([self.shared(labels), chunk], 1) for chunk in rest]
        h = self.linear0(first).reshape(-1, WIDTH, 4, 4)
        for (layer,) in self.blocks:  # type: ignore[misc]
            h = layer(h, conditions.pop(0)) if isinstance(layer, StudioUp) else layer(h)
        return self.conv2d5(self.bn4(h).relu()).tanh()


class StudioDown(nn.Module):
    def __init__(self, wide: int, halves: bool) -> None:
        super().__init__()
        self.first, self.halves, self.activation = wide == 3, halves, nn.ReLU(inplace=True)
        self.conv2d1 = spectral_norm(nn.Conv2d(wide, WIDTH, 3, padding=1))
        self.conv2d2 = spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        if halves:
            self.conv2d0 = spectral_norm(nn.Conv2d(wide, WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else self.activation(x)
        h = self.conv2d2(self.activation(self.conv2d1(h)))
        return F.avg_pool2d(h, 2) + F.avg_pool2d(self.conv2d0(x), 2) if self.halves else h + x


class StudioDiscriminator(nn.Module):
    def __init__(self, classes: bool) -> None:
        super().__init__()
        shapes = (3, True), (WIDTH, True), (WIDTH, False), (WIDTH, False)
        layers: list[nn.Module] = [StudioDown(*shape) for shape in shapes]
        layers.insert(1, Attention(spectral_norm, STUDIO, torch.tensor([-0.5])))
        self.blocks = nn.ModuleList(nn.ModuleList([layer]) for layer in layers)
        self.linear1 = spectral_norm(nn.Linear(WIDTH, 1))
        if classes:
            self.embedding = spectral_norm(nn.Embedding(CLASSES, WIDTH))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        for (layer,) in self.blocks:  # type: ignore[misc]
            x = layer(x)
        h = x.relu().sum((2, 3))
        logits = self.linear1(h)
        if hasattr(self, "embedding"):
            logits = logits + (self.embedding(labels) * h).sum(1, keepdim=True)
        return logits


@torch.no_grad()
def lived_in(network: nn.Module, seed: int) -> nn.Module:
    """As training leaves it: nothing at its start, vectors moved once, evaluation mode."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    labels = torch.tensor([0, 3])
    given = (
        torch.randn(2, network.latent) if hasattr(network, "latent") else torch.rand(2, 3, 32, 32)
    )  # type: ignore[arg-type]
    network.train()(given, labels)
    for name, buffer in network.named_buffers():
        if name.endswith("mean"):
            buffer.normal_(std=0.3)
        elif name.endswith("var"):
            buffer.uniform_(0.05, 2)
    return network.eval()
