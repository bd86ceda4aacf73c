"""Which of several exact forms a GAN computes in: decided from the spec alone, before it is built.

A fast path gives what its plain twin gives, but for rounding. Which of them run is part of what a
run is, so that it continues to the bit: `fast` in [train] turns them off, all or some, and
`resolved.toml` has on record which ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from gankit.spec import Fast, Part, Spec, dumps

__all__ = ["Path", "differentiated_twice", "paths", "resolved"]

MIXES = {"batch_statistics", "separate_batches"}
"""What parts declare that look at more than one row of a batch."""


@dataclass(frozen=True)
class Path:
    """One fast path: whether it is taken, and why or why not, in words."""

    name: str
    taken: bool
    why: str


def paths(spec: Spec) -> tuple[Path, ...]:
    """Every fast path there is, for a spec."""
    return tuple(_paths(spec))


def resolved(spec: Spec) -> str:
    """The text of `resolved.toml`: the spec with every default, and on record which paths ran."""
    record = {path.name: "taken" if path.taken else path.why for path in paths(spec)}
    return dumps(spec.resolved() | {"paths": record})


def differentiated_twice(spec: Spec, discriminator: bool) -> list[str]:
    """The penalties that take the gradient of a network's gradient; D's, in whoever's turn."""
    return [
        part.called
        for part in spec.penalty
        if "second_order" in part.entry.needs
        and (discriminator or "G" in getattr(part.entry.target, "players", "DG"))
    ]


def _paths(spec: Spec) -> Iterator[Path]:
    fast = spec.train.fast
    wanted = get_args(Fast) if fast is True else fast or ()
    off = {"joint": _not_joint, "attention": _not_fused}
    on = {
        "folded": "convolutions next to a change of size are one with it",
        "joint": "D judges real and fake images in one pass: no part of it mixes rows",
        "attention": "queries, keys and values are one convolution, scores and softmax one kernel, "
        f"where that is faster{_but_for(spec)}",
        "channels_last": "channels of a position lie side by side, on CPUs and in half precision",
    }
    for name in get_args(Fast):
        check = off.get(name, lambda spec: "")
        reason = check(spec) if name in wanted else "train.fast leaves it out"
        yield Path(name, not reason, reason or on[name])
    yield _compiled(spec)


def _compiled(spec: Spec) -> Path:
    """Whether the networks' passes are compiled; what is compiled has no second derivative."""
    if not spec.train.compile:
        return Path("compiled", False, "train.compile is off: it costs minutes at the start")
    left = [network for network in (True, False) if differentiated_twice(spec, network)]
    if len(left) == 2:
        twice = _listed(differentiated_twice(spec, discriminator=False))
        return Path("compiled", False, f"{twice} second derivatives of both networks")
    names = _listed(differentiated_twice(spec, discriminator=True)) if left else ""
    but = f"; not the discriminator's, of which {names} second derivatives" if left else ""
    return Path("compiled", True, f"the networks' passes are compiled at the start{but}")


def _but_for(spec: Spec) -> str:
    """In which network attention is written out all the same."""
    names = differentiated_twice(spec, discriminator=True)
    if not names or not _attends(spec.discriminator):
        return ""
    return f"; not in the discriminator, of which {_listed(names)} second derivatives"


def _listed(names: list[str]) -> str:
    return f"{' and '.join(names)} {'takes' if len(names) == 1 else 'take'}"


def _not_fused(spec: Spec) -> str:
    """Why self-attention is written out; torch's kernels have no second derivative."""
    attending = [network for network in (spec.generator, spec.discriminator) if _attends(network)]
    if not attending:
        return "neither network has self-attention"
    if any(not differentiated_twice(spec, part is spec.discriminator) for part in attending):
        return ""
    return f"{_listed(differentiated_twice(spec, discriminator=True))} second derivatives"


def _attends(network: Part) -> bool:
    return any(
        getattr(part.entry.target, "fast_path", "") == "attention" for part in network.inner()
    )


def _not_joint(spec: Spec) -> str:
    """Why D cannot, or need not, judge real and fake images in one pass."""
    if spec.train.batches == "joint":
        return 'train.batches = "joint" is one pass as it is'
    for part in spec.discriminator.inner():
        if mixes := _mixes(part):
            return mixes
    return ""


def _mixes(part: Part) -> str:
    if part.entry.needs & MIXES:
        return f"{part.name} mixes the rows of a batch"
    if part.entry.provider.name != "gankit":
        return f"{part.name} is not gankit's, and may mix the rows of a batch"
    # What is drawn for a batch of twice as many rows is not what is drawn for two.
    return f"{part.name} draws at random" if part.name == "dropout" else ""
