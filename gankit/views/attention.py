"""Where a generator looks: the attention maps of some positions, beside the image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from PIL import ImageDraw
from PIL.Image import Image as Picture
from torch import Tensor, nn

from gankit.attentions import SelfAttention2d
from gankit.errors import UsageError
from gankit.views.making import Drawing
from gankit.views.places import DETAILED, positions, positions_of
from gankit.views.sheet import enlarged, sheet

__all__ = ["map_of", "mapped", "show_attention"]

COLOURS = [(230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0)]
"""Of the marks: the palette of Okabe and Ito, which the colour-blind can tell apart."""
LEAST = 128
BRIGHT = 4
"""So many even shares are bright, or the noise of an even map would look like a choice."""


def show_attention(drawing: Drawing, count: int) -> Picture:
    """Each image with marked positions, and beside it where each of them looks.

    As figure 5 of Zhang et al. (2019), arXiv:1805.08318, of the attention on the largest feature
    map. An attention is shown if `map_of` knows its map.

    Raises:
        UsageError: the network has none.
    """
    drawing.refuse_points("attention")
    name, module = _largest(drawing)
    labels = drawing.labels(count)
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    try:
        images = drawing.images(drawing.latents(count), labels)
    finally:
        hook.remove()
    features = torch.cat(seen)
    grid = features.shape[2], features.shape[3]
    rows, captions, keys = [], [], 1
    for image, picture, x in zip(images, enlarged(images, LEAST), features, strict=True):
        places = positions_of(drawing.at, image, *grid) or positions(image, *grid)
        asked = list(zip(places, COLOURS, strict=False))
        weights = _weights(module, x[None])
        keys = weights[0].numel()
        looks = [weights[y * grid[1] + x_] for (y, x_), _ in asked]
        marked = [picture.copy(), *(_heat(picture, weight) for weight in looks)]
        for place, colour in asked:
            _mark(marked[0], place, grid, colour)
        for drawn, (place, colour) in zip(marked[1:], asked, strict=True):
            _mark(drawn, place, grid, colour)
        rows.append(marked)
        captions.append(["", *(f"{float(w.amin()):.1%} to {float(w.amax()):.1%}" for w in looks)])
    numbered = map(str, range(1, DETAILED + 1))
    columns = [f"at {y}, {x}" for y, x in drawing.at] or [*numbered, "least detail"]
    stage = name.removesuffix(".module").removesuffix(".attention")
    size = f"{grid[0]} x {grid[1]} positions look at {keys}; evenly, each would get {1 / keys:.1%}"
    gain = getattr(module, "gamma", None)
    known = isinstance(gain, Tensor) and gain.numel() == 1
    return sheet(
        rows,
        title="Where the marked positions look",
        notes=[
            f"{stage}: {size}" + (f"; the gain is {float(gain.detach()):.3f}" if known else ""),  # type: ignore[union-attr]
            f"dark is 0, bright a map's largest weight, or {BRIGHT} even shares if they are more",
            "under each map: its least and its largest weight",
            drawing.signature,
        ],
        columns=["image", *columns],
        names=drawing.names(labels),
        captions=captions,
        colours=[(110, 110, 110), *COLOURS],
        apart=1,
    )


def map_of(module: nn.Module, x: Tensor) -> Tensor | None:
    """How much each position looks at each other one; None for a module that cannot say.

    A module says so by a method `attention_map(x)`; SAGAN's self-attention is known here: the
    softmax over keys, beta in the paper.

    Shape: x (B, C, H, W) -> (B, H W, keys), each row adding up to 1.
    """
    own = getattr(module, "attention_map", None)
    if callable(own):
        return own(x)
    if not isinstance(module, SelfAttention2d):
        return None
    query = module.query(x).flatten(2)
    key = module.pool(module.key(x)).flatten(2)
    return F.softmax(query.transpose(1, 2) @ key, dim=-1)


def mapped(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The attentions of a network that can give their map, by name."""
    for name, module in network.named_modules():
        if isinstance(module, SelfAttention2d) or callable(getattr(module, "attention_map", None)):
            yield name, module


def _largest(drawing: Drawing) -> tuple[str, nn.Module]:
    """The attention on the largest feature map; of equal ones the last."""
    exported, found = drawing.live.exported, list(mapped(drawing.live.network))
    if exported in ("pt2", "onnx"):
        raise UsageError(f"--as attention asks modules, and {exported} files have none")
    if not found:
        raise UsageError("--as attention: this generator has no attention that can give its map")
    sizes: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: sizes.__setitem__(name, math.prod(args[0].shape[2:]))
        )
        for name, module in found
    ]
    try:
        drawing.images(drawing.latents(1), drawing.labels(1))
    finally:
        for hook in hooks:
            hook.remove()
    return max(reversed(found), key=lambda pair: sizes.get(pair[0], 0))


@torch.no_grad()
def _weights(module: nn.Module, x: Tensor) -> Tensor:
    """One image's map: (H W, height of keys, width of keys)."""
    made = map_of(module, x)
    assert made is not None
    height, width = x.shape[2:]
    share = math.sqrt(made.shape[2] / (height * width))
    return made[0].float().cpu().unflatten(1, (round(height * share), round(width * share)))


def _heat(picture: Picture, looks: Tensor) -> Picture:
    """A map over the darkened grey image."""
    import matplotlib
    import numpy

    brightest = max(float(looks.amax()), BRIGHT / looks.numel())
    # By the root, or one large weight would leave all others dark.
    share = (looks / brightest).sqrt()
    size = picture.size
    small = Pillow.fromarray((share * 255).round().to(torch.uint8).numpy())
    levels = small.resize(size, Pillow.Resampling.NEAREST)
    table = matplotlib.colormaps["inferno"](range(256), bytes=True)[:, :3]
    coloured = Pillow.fromarray(table[numpy.asarray(levels)])
    dark = picture.convert("L").convert("RGB").point(lambda value: value * 0.45)
    return Pillow.composite(coloured, dark, levels.point(lambda value: 40 + value * 0.84))


def _mark(
    picture: Picture, place: tuple[int, int], grid: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """A ring around a position of a feature map."""
    draw = ImageDraw.Draw(picture)
    cell = picture.width / grid[1], picture.height / grid[0]
    x, y = (place[1] + 0.5) * cell[0], (place[0] + 0.5) * cell[1]
    radius = max(5.0, min(cell) / 2)
    for wider, ink, line in ((1.5, (255, 255, 255), 5), (0, colour, 3)):
        reach = radius + wider
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ink, width=line)
