"""Whether a network gives what the library's gave: the same inputs to both, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gankit.convert.originals import Original
from gankit.errors import CheckpointError
from gankit.randomness import generator as seeded_generator
from gankit.slots import Image, conditional, heads_of

__all__ = ["LIMIT", "compared"]

LIMIT = 1e-4
"""The largest difference that is let go, as a share of the largest value."""

ROWS = 2


@torch.no_grad()
def compared(
    network: nn.Module, original: Original, player: str, image: Image, file: str
) -> tuple[float, str]:
    """The difference between both networks' outputs, and which of several forms the file's has.

    The network is in float64 and evaluation mode afterwards.

    Raises:
        CheckpointError: it is larger than `LIMIT`; or the library has no networks of that size.
    """
    assert image.size
    if player == "discriminator" and image.size[0] not in original.halvings:
        sizes = ", ".join(map(str, original.halvings))
        message = f"the library's discriminators are for {sizes}; the data has {image.size[0]}"
        raise CheckpointError(message)
    random = seeded_generator(0, "import", player)
    labels = torch.randint(max(image.classes, 1), (ROWS,), generator=random)
    shown = labels if image.classes else None
    network.double().eval()
    ours, wide = conditional(network, "labels"), original.wide()
    shape = image.shape if player == "discriminator" else (int(network.latent),)  # type: ignore[arg-type]
    x = torch.randn(ROWS, *shape, generator=random, dtype=torch.float64)
    made = heads_of(ours(x, shown))
    forms: dict[str, Mapping[str, Tensor]] = {}
    try:
        if player == "generator":
            forms[""] = heads_of(wide.generate(x, shown, image.size))
        else:
            forms |= {name: judge(x, shown) for name, judge in wide.judges().items()}
    except (ValueError, RuntimeError, IndexError) as error:
        message = f"{file} has a {player} that cannot be run on what the spec's is given: {error}"
        raise CheckpointError(message) from error
    apart = {name: _apart(made, theirs) for name, theirs in forms.items()}
    nearest = min(apart, key=lambda name: apart[name])
    if not apart[nearest] <= LIMIT:
        raise CheckpointError(
            f"{file} has the tensors of the spec's {player} and is another function: outputs are"
            f" {apart[nearest]:.1e} of their largest value apart, at most {LIMIT:.0e} is let go\n"
            f"  the file's has: {original.unsaid[player]}"
        )
    return apart[nearest], nearest


def _apart(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest difference, as a share of the largest value; heads go by their places."""
    pairs = zip(ours.values(), theirs.values(), strict=True)
    shares = ((a - b).abs().amax() / b.abs().amax().clamp_min(1e-30) for a, b in pairs)
    return max(float(share.nan_to_num(math.inf)) for share in shares)
