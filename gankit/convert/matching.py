"""Every tensor of a file into its place: each used once, each place filled once, or none of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from gankit.convert.originals import Original
from gankit.convert.ours import layout
from gankit.errors import CheckpointError

__all__ = ["matched"]

Read = Callable[[str], Mapping[str, Tensor]]

BUFFERS = re.compile(
    r".*\.(u|v|(?:weight_)?[uv]\d*|sv\d+|.*(mean|var)|num_batches_tracked|accumulation_counter)"
)
"""Tensors of either side that are no parameters."""

HINTS = (
    (r"head\.(embedding|classes) \D*", "{player}.head"),
    (r"stem .* 1", "{player}.latent, and how it enters: input, condition, chunk"),
    (r"stem .* 0", "{player}.width and width_max, or widths"),
    (r"(enter|middle) (scale|shift).* 1", "{player}.condition, embedding, chunk, or the classes"),
    (r"head.embedding .* 1", "the number of classes in [data]"),
    (r"head.classes .* 0", "how many classes the head tells apart"),
    (r"embedding .* 0", "the number of classes in [data]"),
    (r"embedding .* 1", "{player}.embedding"),
    (r"\S+ parametrizations\S* ?", '{player}.norm: "spectral" or not'),
    (r"(query|key|value|output|gamma) .*", "{player}.attention: reduction, bias, pool"),
    (r"norm .*", "{player}.last_norm, or norm"),
    (r"(enter|middle) (scale|shift|weight|bias|normal|running)\S* ?", "{player}.norm"),
    (r"conv1 \S+ 0", "{player}.widths, or hidden"),
    (r".*", "{player}.widths, or width and width_max"),
)
"""By role, name and axis of what does not fit: which key of the spec says so."""


@dataclass(frozen=True)
class _Row:
    """A layer of ours, the library's, and how that is read."""

    role: str
    ours: str
    theirs: str
    read: Read


@dataclass
class _Match:
    """What has found its place so far, and what has not."""

    wanted: Mapping[str, Tensor]
    player: str
    filled: dict[str, Tensor] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    refused: list[_Row] = field(default_factory=list)
    """The layers that the problems are about."""
    hint: str = ""

    def row(self, row: _Row) -> None:
        """Fill the places of one layer, or note the first thing that is in the way."""
        try:
            given = dict(row.read(row.theirs))
        except KeyError as error:
            self._note(row, f"{row.ours}: the file has no {error.args[0]}", str(error.args[0]))
            return
        except (RuntimeError, ValueError, IndexError):
            self._note(row, f"{row.ours}: the tensors of {row.theirs} do not fit each other", "")
            return
        wanted = {
            key.removeprefix(row.ours).removeprefix("."): tensor
            for key, tensor in self.wanted.items()
            if key == row.ours or key.startswith(f"{row.ours}.")
        }
        if given.keys() != wanted.keys():
            there, here = (", ".join(map(_readable, side)) or "nothing" for side in (given, wanted))
            apart = next(key for key in (*given, *wanted) if (key in given) != (key in wanted))
            self._note(
                row, f"{row.ours}: {there} in the file ({row.theirs}), {here} in the spec", apart
            )
            return
        for name, tensor in given.items():
            if tensor.shape != wanted[name].shape:
                self._shape(row, name, tuple(tensor.shape), tuple(wanted[name].shape))
                return
        for name, tensor in given.items():
            key = f"{row.ours}.{name}" if name else row.ours
            assert key not in self.filled, f"{key} is filled twice"
            self.filled[key] = tensor.to(wanted[name].dtype).clone()

    def _shape(self, row: _Row, name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        apart = [i for i, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b]
        place = f"{row.ours}.{_readable(name)}"
        text = f"{place}: {given} in the file ({row.theirs}), {wanted} in the spec"
        self._note(row, text, f"{name} {apart[0] if apart else ''}")

    def _note(self, row: _Row, problem: str, where: str) -> None:
        if not self.problems:
            self.suspect(f"{row.role} {where}")
        self.problems.append(problem)
        self.refused.append(row)

    def suspect(self, what: str) -> None:
        """Say which key of the spec the first problem points at."""
        key = next(key for pattern, key in HINTS if re.fullmatch(pattern, what))
        self.hint = key.format(player=self.player)


def matched(network: nn.Module, original: Original, player: str, file: str) -> dict[str, Tensor]:
    """The state of a network, filled from the file's tensors.

    Raises:
        CheckpointError: a tensor of either side is left over, or does not fit the other's.
    """
    for pattern, what in original.foreign.items():
        if found := next((name for name in original.tensors if re.fullmatch(pattern, name)), None):
            raise CheckpointError(f"{file} holds {what}: {found}")
    wanted = {k: t for k, t in network.state_dict().items() if isinstance(t, Tensor)}
    match = _Match(wanted, player)
    uneven = _uneven(network, original, player)
    if uneven is None:
        for row in _rows(network, original):
            match.row(row)
        _leftovers(match, original)
        assert max(original.taken.values(), default=0) < 2, "a tensor was used twice"
    else:
        match.problems, match.hint = [uneven[0]], uneven[1]
    if not match.problems:
        return match.filled
    counts = [_parameters(tensors) for tensors in (original.tensors, wanted)]
    lines = [
        f"{file} does not hold the spec's {player}: {counts[0]:,} parameters in the file,"
        f" {counts[1]:,} in the spec",
        *match.problems[:4],
    ]
    if len(match.problems) > 4:
        lines.append(f"and {len(match.problems) - 4} more")
    if match.hint:
        lines.append(f"likely {match.hint}")
    raise CheckpointError("\n  ".join(lines))


def _rows(network: nn.Module, original: Original) -> Iterator[_Row]:
    """All layers that either side has, in the order of the network."""
    found = layout(network)
    reads: dict[str, Read] = {"enter": original.norm, "middle": original.norm}
    reads |= {"norm": original.norm, "head.embedding": original.table}
    reads["gamma"] = lambda name: {"": original.tensor(name).reshape(())}

    def row(role: str, ours: str, theirs: str) -> Iterator[_Row]:
        if original.has(theirs) or any(k.startswith(ours) for k in network.state_dict()):
            yield _Row(role, ours, theirs, reads.get(role, original.layer))

    for role in ("stem", "embedding"):
        if role in found.ends:
            yield from row(role, found.ends[role], original.end(role))
    for ours, theirs in zip(found.stages, original.stages(), strict=True):
        table = original.blocks if ours.kind == "block" else original.attentions
        for role, path in found.parts(ours, network).items():
            yield from row(role, path, f"{theirs.name}.{table[role]}")
    for role, path in found.ends.items():
        if role not in ("stem", "embedding") and role in original.ends:
            yield from row(role, path, original.end(role))


def _leftovers(match: _Match, original: Original) -> None:
    """Note what is left on either side, apart from layers that have been told of."""
    for key in match.wanted:
        told = any(key == row.ours or key.startswith(f"{row.ours}.") for row in match.refused)
        if key not in match.filled and not told:
            match.problems.append(f"{_readable(key)}: nothing in the file is for it")
    for name in original.tensors:
        told = any(name == row.theirs or name.startswith(f"{row.theirs}.") for row in match.refused)
        if name not in original.taken and not told and not re.fullmatch(original.idle, name):
            if not match.problems:
                roles = (r for r in original.ends if name.startswith(f"{original.end(r)}."))
                match.suspect(f"{next(roles, '')} {name}")
            match.problems.append(f"{name}: left over in the file")


def _readable(name: str) -> str:
    """`weight`, and `u` and `v` of its spectral norm, without what parametrizations put before."""
    return re.sub(r"parametrizations\.weight\.(original|0\.)", _shortened, name)


def _shortened(found: re.Match[str]) -> str:
    return "weight" if found[1] == "original" else ""


def _uneven(network: nn.Module, original: Original, player: str) -> tuple[str, str] | None:
    """Where blocks and attentions do not stand in the same order, and what says so."""
    ours = [stage.kind for stage in layout(network).stages]
    theirs = [stage.kind for stage in original.stages()]
    if ours == theirs:
        return None
    counts = [kinds.count("block") for kinds in (theirs, ours)]
    if counts[0] != counts[1]:
        problem = f"{counts[0]} residual blocks in the file, {counts[1]} in the spec"
        return problem, f"data.size, or {player}.widths"
    places = [_attended(kinds) for kinds in (theirs, ours)]
    problem = f"attention after {places[0]} in the file, after {places[1]} in the spec"
    return problem, f"{player}.attention_at"


def _attended(kinds: list[str]) -> str:
    """After which blocks, counted from 1, there is attention."""
    after = [kinds[:i].count("block") for i, kind in enumerate(kinds) if kind == "attention"]
    return f"block {', '.join(map(str, after))}" if after else "no block"


def _parameters(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for name, t in tensors.items() if not BUFFERS.fullmatch(name))
