"""A network leaves: folded, written, read again, compared with the live one, and only then kept."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gankit.errors import Problem, SetupError, SpecError, UsageError, choices
from gankit.export.card import card
from gankit.export.folding import fold_batchnorms, fold_weights
from gankit.export.formats import FORMATS, Facts
from gankit.export.live import Live
from gankit.export.tracing import ROWS, Call, call_of, traced
from gankit.paths import resolved
from gankit.randomness import seeded
from gankit.slots import Image, conditional, heads_of

__all__ = ["LIMIT", "Exported", "difference", "expected", "export"]

LIMIT = 1e-4
"""The largest difference from the live model that is let go, as a share of the range of values."""


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    file: Path
    card: Path
    difference: float
    """The largest one from the live model, as a share of the range of values."""
    weight_norms: int
    """How many weights were parametrized."""
    folded: tuple[str, ...]
    """The batch norms that went into the layers before them."""
    batchnorms: int
    """How many there were."""


def export(
    live: Live,
    to: str,
    out: Path | None = None,
    *,
    tell: Callable[[str], object] = lambda message: None,
) -> Exported:
    """Write a live network as a file with a card beside it.

    `out` is the file; by default one in the run's folder `exports`. `tell` hears of what could not
    be folded. The file is read again and compared before it takes its name.

    Raises:
        UsageError: there is no such format.
        SpecError: the network cannot be written so, or comes out different.
        SetupError: the file cannot be written, or a package is missing.
    """
    if to not in FORMATS:
        raise UsageError(f'there is no format "{to}"; {choices(to, FORMATS)}')
    out = out or _default(live, to)
    if out.suffix != f".{to}":
        raise UsageError(f"a {to} file is called x.{to}, not {out.name}")
    network, count = fold_weights(live.network)
    call = call_of(live.gan, live.network)
    wanted = expected(live, call)
    folded: list[str] = []
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    try:
        folded, norms = fold_batchnorms(network, traced(network, call))
        rounding = difference(live, network, call, wanted)
        if not rounding <= LIMIT:
            # As exact as arithmetic allows, and that can be too little for a chaotic network.
            network, _ = fold_weights(live.network)
            folded = []
            apart = f"{rounding:.1e} of their range"
            tell(f"batch norms stay: folded, they would change values by {apart}")
    except SpecError as error:
        if to != "safetensors":
            raise
        tell(f"batch norms stay: {error.problems[0].message}")
    facts = Facts(
        spec=resolved(live.spec),
        weights=live.weights,
        step=live.step,
        inputs=tuple(call.inputs),
        outputs=call.outputs,
        folded=tuple(folded),
    )
    unfinished = out.with_name(f".unfinished_{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        FORMATS[to].write(unfinished, network, call, facts)
        again = FORMATS[to].read(unfinished, live.network, FORMATS[to].facts(unfinished))
        found = difference(live, again, call, wanted)
        if not found <= LIMIT:
            apart = f"by {found:.1e} of the range of its values; at most {LIMIT:.0e} is let go"
            if not math.isfinite(found):
                apart = "where numbers are not finite"
            message = f"{out.name} would differ from the live {live.player} {apart}"
            raise SpecError(Problem(message, hint="nothing is written"))
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
            total = hashlib.file_digest(stream, "sha256").hexdigest()
        made = Exported(out, out.with_name(f"{out.name}.md"), found, count, facts.folded, norms)
        text = card(live, made, call, total, unfinished.stat().st_size, network)
        unfinished.replace(out)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(made.card)
    except (OSError, SafetensorError) as error:
        problem = getattr(error, "strerror", None) or error
        raise SetupError(f"cannot write {out}: {problem}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return made


def _default(live: Live, to: str) -> Path:
    """`RUN/exports/NAME-ema-600.pt2`; the folder one is in, for a checkpoint without its run."""
    folder = live.run / "exports" if live.run else Path()
    return folder / f"{live.spec.name}-{live.weights}-{live.step}.{to}"


@torch.no_grad()
def expected(live: Live, call: Call) -> dict[int, dict[str, Tensor]]:
    """What the live network gives, by head, for one row, for a few and for many.

    Left out are numbers of rows that it does not take: some want several at once.
    """
    made = {}
    for count in (1, 3, ROWS):
        with suppress(ValueError, RuntimeError, AssertionError):
            made[count] = _made(live.network, call, count)
    return made or {ROWS: _made(live.network, call, ROWS)}


@torch.no_grad()
def difference(
    live: Live, other: nn.Module, call: Call, wanted: Mapping[int, Mapping[str, Tensor]]
) -> float:
    """The largest difference of a network from what is expected, as a share of the range of values.

    Images lie in a range of 2; of what has no bounds, the largest magnitude counts. What is not
    finite anywhere is an infinite difference.
    """
    worst = 0.0
    for count, ours in wanted.items():
        theirs = _made(other, call, count)
        if ours.keys() != theirs.keys():
            return math.inf
        for name, values in ours.items():
            span = _range(values, live.gan.image if live.player == "generator" else None)
            apart = (values - theirs[name]).abs().amax() / span
            worst = max(worst, float(apart.nan_to_num(math.inf, math.inf)))
    return worst


def _made(network: nn.Module, call: Call, count: int) -> dict[str, Tensor]:
    first, *labels = call.rows(count)
    device = next(network.parameters()).device
    given = [tensor.to(device) for tensor in (first, *labels)]
    with seeded("export", device=device):
        made = conditional(network, "labels")(given[0], given[1] if labels else None)
    return {name: values.float().cpu() for name, values in heads_of(made).items()}


def _range(values: Tensor, image: Image | None) -> Tensor:
    if image is not None and image.bounded and image.size:
        return torch.tensor(2.0)
    largest = values.abs().amax()
    return torch.where(largest > 0, largest, torch.ones(()))
