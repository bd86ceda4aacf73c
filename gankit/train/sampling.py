"""Drawing from a generator: latents and labels that follow from a seed, images in batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gankit.build import GAN
from gankit.datasets import to_uint8
from gankit.errors import OptionError
from gankit.latents import normal, truncated
from gankit.ops import held
from gankit.randomness import generator, seeded
from gankit.slots import Dataset, Latent, conditional

__all__ = [
    "COLUMNS",
    "SAMPLES",
    "draw",
    "generated",
    "grid_labels",
    "label_count",
    "reads_labels",
    "standing",
    "truncation",
]

SAMPLES = 64
"""Images in a grid; of classes, some less where as many of each do not come to it."""
CLASSES = 16
"""The most classes in a grid."""
COLUMNS = 8
"""The most images of a class side by side."""


@torch.no_grad()
def draw(
    gan: GAN,
    network: nn.Module,
    count: int,
    seed: int,
    batch: int = 64,
    latent: Latent | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """`count` images of a generator in evaluation mode, float32 on the CPU.

    Latents follow from the seed alone, drawn as in training or by `latent`; labels go round the
    classes unless they are given. The network is left in the mode it was in, and so are torch's
    global generators.

    Shape: (count, C, H, W), or (count, C) for points.
    """
    training = network.training
    network.eval()
    try:
        made = list(_made(gan, network, count, (seed, "sample"), batch, latent, labels))
    finally:
        network.train(training)
    return torch.cat(made).float().cpu()


def generated(
    gan: GAN,
    network: nn.Module,
    data: Dataset,
    count: int,
    seed: int,
    latent: Latent | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images to be scored, a batch at a time, and the labels that they were asked for with.

    As they would be in a PNG: bytes; points are float32. Labels are those of real images drawn at
    random, so that classes are as frequent as in the data; where the data has other classes than
    the generator, those go round, and are not told. A generator that looks at no labels has none.
    """
    labels = None
    if label_count(gan, network) and data.image.classes == gan.image.classes:
        random = generator(seed, "scored labels")
        labels = data.labels(torch.randint(len(data), (count,), generator=random))
    training = network.training
    network.eval()
    done = 0
    try:
        with torch.no_grad():
            for images in _made(gan, network, count, (seed, "sample"), 64, latent, labels):
                rows = slice(done, done := done + len(images))
                values = images.float().cpu()
                shown = to_uint8(values) if gan.image.size else values
                yield shown, None if labels is None else labels[rows]
    finally:
        network.train(training)


def grid_labels(classes: int, only: Sequence[int] = ()) -> Tensor | None:
    """The labels of a grid, round and round: as many of each class; None without classes.

    Of many classes some are shown, from the first to the last, unless `only` says which.

    Shape: (B,).
    """
    if not classes:
        return None
    some = torch.linspace(0, classes - 1, min(classes, CLASSES)).round().long()
    shown = torch.tensor(only) if only else some
    each = max(1, SAMPLES // len(shown))
    return shown.repeat(each - each % COLUMNS if each > COLUMNS else each)


def label_count(gan: GAN, network: nn.Module) -> int:
    """How many classes a generator can be asked for; 0 where it does not look at its labels."""
    if not gan.image.classes:
        return 0
    z = gan.latent(1, gan.latent_width, generator(0, "labels"))
    return gan.image.classes if reads_labels(network, z) else 0


@torch.no_grad()
def reads_labels(network: nn.Module, x: Tensor) -> bool:
    """Whether a network computes anything from labels, given with these latents or images."""
    place = next(network.parameters())
    labels = torch.zeros(len(x), dtype=torch.int64, device=place.device)
    training = network.training
    network.eval()
    try:
        with seeded("labels", device=place.device), _Watched(labels) as watched:
            conditional(network, "labels")(x.to(place), labels)
    finally:
        network.train(training)
    return watched.read


class _Watched(TorchFunctionMode):
    """Whether anything is computed from a tensor; what comes out need not differ for it yet."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor
        self.read = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = (*args, *(kwargs or {}).values())
        self.read |= any(value is self.tensor for value in given)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def standing(
    gan: GAN,
    network: nn.Module,
    batches: int,
    seed: int,
    batch: int = 64,
    latent: Latent | None = None,
) -> nn.Module:
    """A copy of a generator with running statistics of its own: plain means over fresh batches.

    "Standing statistics", Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity
    Natural Image Synthesis" (2019), arXiv:1809.11096, appendix E; for averaged or truncated
    generators, whose features those of training do not describe.
    """
    settled = copy.deepcopy(network).train()
    norms = [m for m in settled.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
    with held(settled):
        words = seed, "standing"
        for _ in _made(gan, settled, batches * batch, words, batch, latent):
            pass
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return settled.eval()


def truncation(gan: GAN, threshold: float) -> Latent:
    """The latents of a GAN without values further out than so many standard deviations.

    The truncation trick, Brock et al. (2019), section 3.1: less variety, better single images.

    Raises:
        OptionError: the latents are not normal, or the threshold is not above 0.
    """
    made = gan.latent.func if isinstance(gan.latent, partial) else gan.latent
    if made not in (normal, truncated):
        name = getattr(made, "__name__", "these")
        raise OptionError("threshold", f"{name} latents cannot be truncated; normal ones can")
    given = gan.latent.keywords if isinstance(gan.latent, partial) else {}
    return partial(truncated, std=given.get("std", 1.0), threshold=threshold)


def _made(
    gan: GAN,
    network: nn.Module,
    count: int,
    words: tuple[int, str],
    batch: int,
    latent: Latent | None,
    labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """The images in batches, on the network's device."""
    first = next(network.parameters())
    latents = (latent or gan.latent)(count, gan.latent_width, generator(*words)).to(first.dtype)
    if labels is None and gan.image.classes:
        labels = torch.arange(count) % gan.image.classes
    generate = conditional(network, "labels")
    with seeded(*words, "noise", device=first.device):
        for i in range(0, count, batch):
            rows = slice(i, i + batch)
            shown = None if labels is None else labels[rows].to(first.device)
            yield generate(latents[rows].to(first.device), shown)
