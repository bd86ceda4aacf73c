"""Both sides of a comparison: gankit's engine and the peer, on one network with the same weights.

Learning rates are 0 on both sides: weights stay what was compared, in every round, and Adam does
the same arithmetic. Gains of attention and biases are moved off the zeros that they start from,
where mistakes would not show. Spectral norm's vectors are those to which power iteration converges,
because the sides iterate at different times of a step: gankit once per turn of the network's
player, the others at each forward pass.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import peers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gankit.bench.noise import Noise
from gankit.build import GAN, build
from gankit.spec import Spec, Train, load
from gankit.train import Engine

__all__ = ["ROWS", "batch_of", "engine_of", "network_options", "networks", "peer_of", "spec_of"]

ROWS = 64
"""Different images that there are."""

EXAMPLES = Path(__file__).parent.parent / "examples"

SPECS = {
    "sagan-resnet": (
        "sagan_imagenet_128",
        "data.classes={classes}",
        "generator.width={width}",
        "optimizer.betas=[0.0, 0.999]",
    ),
    # Torch's own batchnorm has a scale, which the article's has not.
    "sagan-dcgan": (
        "sagan_celeba_128",
        "generator.width={half}",
        'generator.norm=["spectral", "batchnorm"]',
    ),
}
"""The example that a network is from, and what its peer has otherwise."""

SHARED = (
    "data.size={size}",
    "discriminator.width={width}",
    "generator.width_max={most}",
    "discriminator.width_max={most}",
    "generator.attention_at=[{attention_at}]",
    "discriminator.attention_at=[{attention_at}]",
    "optimizer.lr=0.0",
    "train.batch={batch}",
    "train.precision={precision}",
)


def network_options(parser: argparse.ArgumentParser) -> None:
    """Ask for a network and who else has it."""
    parser.add_argument("--network", choices=[*SPECS], default="sagan-dcgan")
    parser.add_argument("--width", type=int, default=32, help="channels of D's first stage")
    parser.add_argument("--batch", type=int, default=0, help="16 by default, 8 of sagan-resnet")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10, help="of sagan-resnet")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="gankit's")
    parser.add_argument("--peer", choices=[*peers.DEFAULTS.values()], help="who has the network")
    parser.add_argument("--peer-path", type=Path, help="the checkout of its code")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument(
        "--fast", action=argparse.BooleanOptionalAction, help="train.fast, where the spec has it"
    )


def spec_of(chosen: argparse.Namespace) -> Spec:
    """What gankit trains.

    Raises:
        ValueError: `--fast` is asked for, and the spec has no such key.
    """
    name, *own = SPECS[chosen.network]
    overrides = [
        text.format(
            classes=chosen.classes,
            width=chosen.width,
            half=chosen.width // 2,
            most=16 * chosen.width,
            size=chosen.size,
            attention_at=chosen.size // 4,
            batch=batch_of(chosen),
            precision=chosen.precision,
        )
        for text in (*SHARED, *own)
    ]
    if chosen.fast is not None:
        if not hasattr(Train, "fast"):
            raise ValueError("--fast: there is no train.fast in this version's spec")
        overrides.append(f"train.fast={str(chosen.fast).lower()}")
    return load(EXAMPLES / f"{name}.toml", [*overrides, *chosen.overrides])


def batch_of(chosen: argparse.Namespace) -> int:
    """The batch that is asked for, or the one that the targets are stated for."""
    return int(chosen.batch or (8 if chosen.network == "sagan-resnet" else 16))


def peer_of(
    chosen: argparse.Namespace, device: torch.device, dtype: torch.dtype = torch.float32
) -> peers.Peer:
    """The other side, with weights in which every mistake shows."""
    torch.manual_seed(0)
    peer = peers.make(
        chosen.network,
        chosen.peer or peers.DEFAULTS[chosen.network],
        chosen.peer_path,
        width=chosen.width,
        batch=batch_of(chosen),
        size=chosen.size,
        classes=chosen.classes,
        device=device,
    )
    with torch.no_grad():
        for network in peer.networks().values():
            network.to(dtype)
            for name, parameter in network.named_parameters():
                if name.endswith("gamma"):
                    parameter.fill_(0.5)
                else:
                    parameter.add_(0.02 * torch.randn(parameter.shape).to(device))
        for matrix, *vectors in peer.matrices():
            for vector, exact in zip(vectors, _top(matrix), strict=True):
                if vector is not None:
                    vector.copy_(exact.view_as(vector))
    return peer


def _top(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The first left and right singular vectors, exact but for rounding to float32."""
    wide = matrix.detach().double()
    narrow = wide.shape[0] <= wide.shape[1]
    small = wide if narrow else wide.t()
    first = torch.linalg.eigh(small @ small.t()).eigenvectors[:, -1]
    second = F.normalize(small.t() @ first, dim=0)
    return (first, second) if narrow else (second, first)


def engine_of(
    spec: Spec, peer: peers.Peer, device: torch.device, dtype: torch.dtype = torch.float32
) -> Engine:
    """Gankit's side, with the peer's weights."""
    gan, data = build(spec, device)
    for name, network in networks(gan).items():
        theirs = peer.networks()[name].state_dict()
        network.to(dtype).load_state_dict(peer.translated(name, network, theirs))
    return Engine(gan, Noise(data.image, ROWS), spec.train, device)


def networks(gan: GAN) -> dict[str, nn.Module]:
    """Both networks by name."""
    return {"generator": gan.generator, "discriminator": gan.discriminator}
