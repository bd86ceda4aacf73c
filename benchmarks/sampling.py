"""How fast `gankit sample` draws images, beside somebody else's generator with the same weights.

    python benchmarks/sampling.py                         # the article's network, by hand
    python benchmarks/sampling.py --network sagan-resnet --peer-path PATH -n 256 --json
    python benchmarks/sampling.py --device cuda --width 64 -n 10000

Gankit's side is what the command does between reading the run and writing the file: a run folder
with the peer's weights is written and read first. The peer's is its generator in evaluation mode,
in batches of the same size. Both end with float32 images on the CPU, and those of the same latents
are compared before. Targets: 1.6 times as fast on a CPU, 3 times on a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from peers import Peer
from same_work import LIMIT, Different, apart
from side_by_side import machine, options, ratios, rounded, rounds, run, show
from sides import engine_of, network_options, peer_of, spec_of
from torch import Tensor

from gankit.export import Live, of_run
from gankit.spec import Spec, dumps
from gankit.train import Trainer, checkpoint
from gankit.train.folder import RunFolder
from gankit.views import Drawing

BATCH = 64
"""The command's own."""


def live(spec: Spec, peer: Peer, device: torch.device) -> Live:
    """The peer's generator as the command reads it from a run."""
    engine = engine_of(spec, peer, torch.device("cpu"))
    trainer = Trainer(
        engine.gan, engine.data, spec.train, torch.device("cpu"), spec=dumps(spec.resolved())
    )
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        with folder.locked(), folder.writing():
            folder.open_for(spec)
            checkpoint.save(folder.checkpoints, trainer.checkpoint(), keep=1)
        return of_run(folder.path, device=device)


@torch.no_grad()
def drawn(peer: Peer, z: Tensor, labels: Tensor | None, device: torch.device) -> Tensor:
    """The peer's images of latents, in batches."""
    made = []
    for i in range(0, len(z), BATCH):
        some = None if labels is None else labels[i : i + BATCH].to(device)
        made.append(peer.images(z[i : i + BATCH].to(device), some).float().cpu())
    return torch.cat(made)


def measure(chosen: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Compare both sides' images, then time them."""
    peer = peer_of(chosen, device)
    generator = peer.networks()["generator"].train()
    drawing = Drawing(live(spec_of(chosen), _warmed(peer, chosen, device), device))
    generator.eval()
    z = drawing.latents(chosen.count)
    labels = drawing.labels(chosen.count)
    few = None if labels is None else labels[:8]
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        theirs = drawn(peer, z[:8], few, device)
        error = apart({"": drawing.images(z[:8], few)}, {"": theirs})
    if not error <= LIMIT:
        raise Different(f"gankit and {peer.name} draw different images; relative error {error:.1e}")
    pairs = rounds(
        lambda: drawing.images(drawing.latents(chosen.count), labels),
        lambda: drawn(peer, torch.randn(z.shape), labels, device),
        chosen.rounds,
        device,
        warm=1,
    )
    if chosen.plot:
        title, names = f"{chosen.count:,} images, {chosen.network}", ("gankit", peer.name)
        show(pairs, [b / a for a, b in pairs], title, names, "times as fast", chosen.plot)
    found = ratios(pairs)
    return {
        "benchmark": "sampling",
        "network": chosen.network,
        "width": chosen.width,
        "size": chosen.size,
        "images": chosen.count,
        "peer": peer.name,
        **found,
        "gankit_images_s": rounded(chosen.count / float(str(found["gankit_s"]))),
        "relative_error": error,
        **machine(device),
    }


def _warmed(peer: Peer, chosen: argparse.Namespace, device: torch.device) -> Peer:
    """With running statistics other than the zeros and ones that they start from."""
    with torch.no_grad():
        for _ in range(3):
            peer.images(torch.randn(8, 128, device=device), torch.arange(8, device=device) % 2)
    return peer


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON line."""
    parser = options(__doc__ or "")
    network_options(parser)
    parser.add_argument("-n", type=int, default=64, dest="count", help="images in a round")
    run(measure, parser, arguments)


if __name__ == "__main__":
    main()
