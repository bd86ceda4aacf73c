"""What gankit is timed beside, behind one face: `by_hand.py`, or a public library's checkout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import by_hand
import torch
from biggan_pytorch import Biggan
from torch import Tensor, nn

from gankit.train.batches import Batch

__all__ = ["DEFAULTS", "ByHand", "Gradients", "Peer", "make"]

DEFAULTS = {"sagan-resnet": "biggan-pytorch", "sagan-dcgan": "by-hand"}
"""The networks, and who has each: the authors' released one, and the article's."""

Gradients = Mapping[str, Mapping[str, Tensor]]
"""By network, and by the name that a parameter has there."""


class Peer(Protocol):
    """The other side. Its networks are called `generator` and `discriminator`, as gankit's are."""

    name: str

    def networks(self) -> Mapping[str, nn.Module]:
        """Both, by gankit's names."""
        ...

    def matrices(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Weights that spectral norm divides, as matrices, and the vectors u and v kept of each."""
        ...

    def translated(
        self, name: str, network: nn.Module, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Tensors of one of its networks, by the names that gankit's network has for them."""
        ...

    def step(self, real: Tensor, labels: Tensor | None) -> None:
        """One training step, with draws of its own."""
        ...

    def replay(self, batches: Sequence[Batch]) -> Gradients:
        """The gradients of one step on given draws: a turn of D's and one of G's."""
        ...

    def images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """What G makes of latents in the mode it is in."""
        ...

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """What D makes of images."""
        ...


class ByHand:
    """The plain networks and their loop."""

    name = "by-hand"

    def __init__(self, *, width: int, size: int, attention_at: int, device: torch.device) -> None:
        self.generator = by_hand.Generator(size, width // 2, attention_at).to(device)
        self.discriminator = by_hand.Discriminator(size, width, attention_at).to(device)
        self.loop = by_hand.Loop(self.generator, self.discriminator, rates=(0.0, 0.0))

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def matrices(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        for network in self.networks().values():
            for layer in network.modules():
                if isinstance(weight := getattr(layer, "weight_orig", None), Tensor):
                    transposed = isinstance(layer, nn.ConvTranspose2d)
                    matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
                    yield matrix, layer.weight_u, layer.weight_v  # type: ignore[misc]

    def translated(
        self, name: str, network: nn.Module, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Layers stand in the same order on both sides."""
        ours, theirs = _layers(network), _layers(self.networks()[name])
        made = {}
        for (our, layer), (their, _) in zip(ours, theirs, strict=True):
            for key, tensor in layer.state_dict().items():
                if key in NAMES or "." not in key:
                    place = f"{our}.{key}"
                    given = tensors[f"{their}.{NAMES.get(key, key)}"]
                    made[place] = given.detach().reshape(tensor.shape)
        return made

    def step(self, real: Tensor, labels: Tensor | None) -> None:
        self.loop.step(real)

    def replay(self, batches: Sequence[Batch]) -> Gradients:
        """D's are taken before G's turn, in which the plain loop adds to them."""
        of_d, of_g = batches
        assert of_d.real is not None
        self.generator.train()
        self.discriminator.train()
        self.loop.turn_d(of_d.real, of_d.latent)
        found = {"discriminator": _gradients(self.discriminator)}
        self.loop.turn_g(of_g.latent)
        return found | {"generator": _gradients(self.generator)}

    def images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(z)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.discriminator(images)


NAMES = {
    "parametrizations.weight.original": "weight_orig",
    "parametrizations.weight.0.u": "weight_u",
    "parametrizations.weight.0.v": "weight_v",
}
"""What gankit calls the tensors of a layer with spectral norm, and what torch's hook calls them."""


def _layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """What has tensors of its own, the gain of attention included, in the order of the network."""
    kinds = nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, kinds) or hasattr(module, "gamma")
    ]


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    named = network.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def make(
    network: str,
    name: str,
    path: Path | None,
    *,
    width: int,
    batch: int,
    size: int,
    classes: int,
    device: torch.device,
) -> Peer:
    """The other side of a network.

    Raises:
        ValueError: nobody of that name has that network, or there is no path to it.
    """
    if DEFAULTS.get(network) != name:
        having = ", ".join(f"{net} of {peer}" for net, peer in DEFAULTS.items())
        raise ValueError(f"{name} has no {network}; there are {having}")
    if size < 32 or size & (size - 1):
        raise ValueError(f"images are 32, 64 or 128 pixels high here, not {size}")
    if name == "by-hand":
        return ByHand(width=width, size=size, attention_at=size // 4, device=device)
    if path is None or not (path / "train_fns.py").is_file():
        raise ValueError(f"--peer-path names a checkout of {name}, not {path}")
    return Biggan(
        path,
        width=width,
        batch=batch,
        size=size,
        classes=classes,
        attention_at=size // 4,
        device=device,
    )
