"""The proof that both sides do the same work, which comes before any timing.

The peer's weights are loaded into gankit's network, and both take a whole training step, each by
its own loop, on the same images, latents and labels. Gradients of both turns and, afterwards,
images and logits in evaluation mode must agree.

Outputs are held to float32's rounding, gradients to float64's. In float32 a unit that is within
rounding of its activation's kink falls on either side of it: about one in a million or ten million
does, and a gradient differs by the root of that share, some 1e-3, between any two orders of the
same sums. That error is told, and held to less.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import torch
from peers import Peer
from sides import batch_of, engine_of, networks, peer_of, spec_of
from torch import Tensor

from gankit.slots import conditional
from gankit.train import Engine

__all__ = ["LIMIT", "Different", "apart", "compared", "worst"]

LIMIT = 1e-4
"""The largest relative error of outputs in float32, and of gradients in float64."""

COARSE = 5e-2
"""The largest relative error of gradients in float32."""

LOOSE = "gradients_float32"
"""What that is called among the errors."""

COMPARED = 2
"""Images of a batch that are compared; float64 is slow."""


class Different(ValueError):
    """The two sides do not do the same work."""


def compared(chosen: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """The relative errors between both sides, of outputs and of gradients.

    Raises:
        Different: one is larger than it may be.
    """
    few = {"batch": min(batch_of(chosen), COMPARED), "precision": "fp32"}
    asked = argparse.Namespace(**vars(chosen) | few)
    errors: dict[str, float] = {}
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for dtype in (torch.float32, torch.float64):
            peer = peer_of(asked, device, dtype)
            found = _errors(engine_of(spec_of(asked), peer, device, dtype), peer)
            errors |= {f"{name}_{str(dtype)[6:]}": error for name, error in found.items()}
    limits = {name: COARSE if name == LOOSE else LIMIT for name in errors}
    if not all(error <= limits[name] for name, error in errors.items()):
        told = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        raise Different(f"gankit and {peer.name} do different work; relative errors: {told}")
    return errors


def worst(errors: Mapping[str, float]) -> float:
    """The largest of those that are held to `LIMIT`."""
    return max(error for name, error in errors.items() if name != LOOSE)


def _errors(engine: Engine, peer: Peer) -> dict[str, float]:
    batches = [engine.batch(player, engine.draws(0, turn)) for turn, player in enumerate("DG")]
    engine.batches_drawn = 0
    theirs = peer.replay(batches)
    engine.step(0)
    gradients = []
    for name, network in networks(engine.gan).items():
        # Translating takes a whole network's tensors: what does not learn is handed over as it is.
        other = peer.networks()[name]
        none = {key: torch.zeros_like(p) for key, p in other.named_parameters()}
        wanted = peer.translated(name, network, {**other.state_dict(), **none, **theirs[name]})
        made = {
            key: torch.zeros_like(p) if p.grad is None else p.grad
            for key, p in network.named_parameters()
        }
        gradients.append(apart(made, {key: wanted[key] for key in made}))
    for network in (*networks(engine.gan).values(), *peer.networks().values()):
        network.eval()
    z, labels = batches[1].latent, batches[1].labels
    with torch.no_grad():
        images = peer.images(z, labels)
        outputs = {
            "images": (conditional(engine.gan.generator, "labels")(z, labels), images),
            "logits": (
                conditional(engine.gan.discriminator, "labels")(images, labels),
                peer.logits(images, labels),
            ),
        }
    errors = {name: apart({"": a}, {"": b}) for name, (a, b) in outputs.items()}
    return {"gradients": float(torch.tensor(gradients).max()), **errors}


def apart(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest distance between two tensors, relative to the length of theirs.

    A gradient that would be 0 but for rounding, such as a bias's before a batchnorm, is measured
    against a thousandth of the longest one.
    """
    pairs = [(ours[key].double(), tensor.to(ours[key]).double()) for key, tensor in theirs.items()]
    lengths = torch.stack([torch.linalg.vector_norm(b) for _, b in pairs])
    distances = torch.stack([torch.linalg.vector_norm(a - b) for a, b in pairs])
    if not lengths.any():
        raise Different("there is nothing to compare: all gradients are 0")
    # Torch's maximum is not a number where one of them is not.
    return float((distances / lengths.clamp_min(1e-3 * lengths.max())).max())
