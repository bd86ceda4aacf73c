"""What torch-fidelity's network sees with weights drawn from a seed; `data/inception.npz` has it.

The weights are 95 MB and their outputs 60 kB, so the outputs are kept, and the weights drawn again
where they are needed. Run as a script, with the unpacked wheels of torch-fidelity 0.4.0 and
clean-fid 0.1.35 on the path, this writes the file anew:

    PYTHONPATH=.:TORCH_FIDELITY:CLEAN_FID python tests/inception_oracle.py
"""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT = Path(__file__).parent / "data" / "inception.npz"
EVERY = 8
"""Of the 2048 features one in so many is kept, and all logits, which are made of all features."""

SHAPES = {
    "small": (2, 3, 32, 32),
    "tall": (1, 3, 64, 48),
    "grey": (1, 1, 28, 28),
    "large": (1, 3, 350, 400),
    "exact": (1, 3, 299, 299),
}
"""Of the images by name; `exact` needs no resizing."""


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights under which activations neither vanish nor explode, the same on every machine."""
    random = torch.Generator().manual_seed(0)
    return {name: _drawn(name, shapes[name], random) for name in sorted(shapes)}


def _drawn(name: str, shape: Sequence[int], random: torch.Generator) -> Tensor:
    # Uniform numbers are multiples of 2^-24 everywhere; normal ones differ with the processor.
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    unit = torch.rand(tuple(shape), generator=random)
    if len(shape) > 1:
        return (unit - 0.5) * math.sqrt(12 * 2 / math.prod(shape[1:]))
    low = 0.5 if name.endswith(("bn.weight", "running_var")) else -0.5
    return low + unit


def images(name: str) -> Tensor:
    """Noise in blocks of 2 x 2 pixels, (B, C, H, W) uint8."""
    random = torch.Generator().manual_seed(1 + list(SHAPES).index(name))
    count, channels, height, width = SHAPES[name]
    size = (count, channels, (height + 1) // 2, (width + 1) // 2)
    blocks = torch.randint(256, size, generator=random, dtype=torch.uint8)
    fine = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return fine[..., :height, :width].contiguous()


def theirs() -> Any:
    """torch-fidelity's network, without the rest of its package and what that needs."""
    spec = importlib.util.find_spec("torch_fidelity")
    assert spec is not None, "torch-fidelity is to be on the path"
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["torch_fidelity"] = package
    import torch_fidelity.feature_extractor_inceptionv3 as source

    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in _bare(source).state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(weights(shapes), file)
        return source, source.FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file)
        )


def _bare(source: Any) -> Any:
    """The network before it has read weights."""
    network = source.FeatureExtractorInceptionV3
    load, network.load_state_dict = network.load_state_dict, lambda self, state: None
    read, source.torch.load = source.torch.load, lambda *_, **__: {}
    try:
        return network("inception", ["2048"], feature_extractor_weights_path="none")
    finally:
        network.load_state_dict, source.torch.load = load, read


def always(answer: Tensor) -> Callable[..., Tensor]:
    return lambda *_, **__: answer


def seen() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What it sees of all images, by filter, name and output."""
    from cleanfid.resize import build_resizer, make_resizer

    source, network = theirs()
    plain = source.interpolate_bilinear_2d_like_tensorflow1x
    by_hand = {
        "clean": build_resizer("clean"),
        "pillow": make_resizer("PIL", True, "bicubic", (299, 299)),
    }
    for how in ("tensorflow", *by_hand):
        for name, (_, channels, *_) in SHAPES.items():
            if name == "exact" and how != "tensorflow":
                continue
            batch = images(name).repeat(1, 3 // channels, 1, 1)
            if how != "tensorflow":
                rows = batch.permute(0, 2, 3, 1).numpy()
                done = np.stack([np.asarray(by_hand[how](row)) for row in rows])
                ready = torch.from_numpy(done).permute(0, 3, 1, 2).float()
                source.interpolate_bilinear_2d_like_tensorflow1x = always(ready)
            features, logits = network(batch)
            source.interpolate_bilinear_2d_like_tensorflow1x = plain
            yield f"{how}/{name}/features", features[:, ::EVERY].numpy()
            yield f"{how}/{name}/logits", logits.numpy()


if __name__ == "__main__":
    with torch.no_grad():
        found = dict(seen())
    KEPT.parent.mkdir(exist_ok=True)
    np.savez_compressed(KEPT, **found)
    for name, values in found.items():
        print(f"{name} {values.shape} {values.mean():.4f} {values.std():.4f}")
    print(KEPT.stat().st_size, "bytes")
