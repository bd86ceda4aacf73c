"""The card beside an exported network: what it is, where it comes from, how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gankit import __version__
from gankit.errors import DataError
from gankit.evaluate import Scores, file_of, read
from gankit.export.live import Live
from gankit.export.tracing import ROWS, Call
from gankit.latents import uniform
from gankit.paths import resolved

if TYPE_CHECKING:
    from gankit.export.writing import Exported

__all__ = ["card", "loading", "scores"]

WHAT = {
    "ema": "The averaged generator",
    "generator": "The newest generator, not the average",
    "discriminator": "The discriminator",
}
NEEDS = {
    "safetensors": (
        "The file holds tensors, by the names they have in the network that the spec describes,"
        " and nothing that could run code. gankit makes that network again, an ordinary"
        " `nn.Module`:"
    ),
    "pt2": (
        "It needs torch and no gankit. `torch.export.load` is for files that you trust: compare the"
        " SHA-256 first. (`gankit sample` looks at such a file before it loads it.)"
    ),
    "onnx": "It needs onnxruntime and numpy, neither torch nor gankit.",
}
PLAIN = """\
Without gankit, for a network of your own; the tensors are listed at the end:

```python
from safetensors.torch import load_file

tensors = load_file("{name}")
```"""


def card(live: Live, made: Exported, call: Call, sha256: str, size: int, network: nn.Module) -> str:
    """The text, as Markdown."""
    to = made.file.suffix[1:]
    spec = resolved(live.spec)
    fence = "`" * (3 if "```" not in spec else 8)
    about = f"{WHAT[live.weights]} of a gankit run at step {live.step:,}"
    parts = [
        f"# {live.spec.name}",
        f"{about} of {live.spec.train.steps:,}.",
        _table(dict(_facts(live, made, call, sha256, size, network))),
        "## Loading it",
        NEEDS[to],
        f"```python\n{loading(live, call, made.file.name)}```",
        *([PLAIN.format(name=made.file.name)] if to == "safetensors" else []),
        "## Data",
        _data(live),
        "## Scores",
        _scored(live),
        "## Spec",
        f"{fence}toml\n{spec}{fence}",
    ]
    if to == "safetensors":
        parts += ["## Tensors", f"```text\n{_tensors(network)}```"]
    return "\n\n".join(parts) + "\n"


def _facts(
    live: Live, made: Exported, call: Call, sha256: str, size: int, network: nn.Module
) -> Iterator[tuple[str, str]]:
    yield "file", f"`{made.file.name}`, {size:,} bytes"
    yield "SHA-256", f"`{sha256}`"
    yield "parameters", f"{sum(p.numel() for p in network.parameters()):,}"
    for name, tensor in call.inputs.items():
        shape = ", ".join(["batch", *map(str, tensor.shape[1:])])
        yield f"in: `{name}`", f"{str(tensor.dtype)[6:]} ({shape}){_meaning(live, name)}"
    for name in call.outputs:
        yield f"out: `{name}`", _given(live)
    yield "weight norms", f"{made.weight_norms}, computed into the weights"
    folded = f"{len(made.folded)} of {made.batchnorms}"
    yield "batch norms", f"{folded} folded into the layers before them"
    yield (
        "against the live model",
        f"differs by at most {made.difference:.1e} of the range of values, over {ROWS} rows",
    )
    yield "made with", f"gankit {__version__}, torch {torch.__version__}"


def _meaning(live: Live, name: str) -> str:
    if name == "labels":
        return f", from 0 to {live.gan.image.classes - 1}"
    if name == "z":
        given = live.spec.latent.plain(full=True)
        options = ", ".join(f"{key} {value}" for key, value in given.items() if key != "use")
        return f", in training drawn by `{given['use']}`" + (f" ({options})" if options else "")
    return _range(live)


def _given(live: Live) -> str:
    """What comes out, in words."""
    if live.player == "discriminator":
        return "float32, logits: the higher, the more real"
    return f"float32 ({', '.join(['batch', *map(str, live.gan.image.shape)])}){_range(live)}"


def _range(live: Live) -> str:
    return ", in [-1, 1]" if live.gan.image.bounded and live.gan.image.size else ""


def loading(live: Live, call: Call, name: str) -> str:
    """Five lines that load a file and call the network in it."""
    to, player = name.rpartition(".")[2], live.player
    (first, tensor), *labels = call.inputs.items()
    shape = (ROWS, *tensor.shape[1:])
    out = "images" if player == "generator" else "logits"
    if to == "onnx":
        given = f'"{first}": {first}' + (', "labels": labels' if labels else "")
        lines = [
            "import numpy, onnxruntime",
            "",
            f'{player} = onnxruntime.InferenceSession("{name}")',
            f'{first} = {_numpy(live, shape)}.astype("float32")',
            *([f"labels = numpy.arange({ROWS}) % {live.gan.image.classes}"] if labels else []),
            f"{out}, *others = {player}.run(None, {{{given}}})",
        ]
        return "\n".join(lines) + "\n"
    plugins = [plugin.file for plugin in live.spec.plugins]
    beside = f", plugins={json.dumps(plugins)}" if plugins else ""
    load = f'torch.export.load("{name}").module()' if to == "pt2" else f'load("{name}"{beside})'
    labelled = f", torch.arange({ROWS}) % {live.gan.image.classes}" if labels else ""
    lines = [
        "import torch",
        *(["from gankit.export import load"] if to == "safetensors" else []),
        "",
        f"{player} = {load}",
        f"{first} = {_torch(live, shape)}",
        f"{out} = {player}({first}{labelled})",
    ]
    return "\n".join(lines) + "\n"


def _torch(live: Live, shape: tuple[int, ...]) -> str:
    """What draws a first input, in torch."""
    if live.player == "discriminator":
        return f"torch.rand{shape} * 2 - 1"
    bounds = _bounds(live)
    if bounds is not None:
        return f"torch.empty{shape}.uniform_({bounds[0]}, {bounds[1]})"
    return _spread(live, f"torch.randn{shape}")


def _numpy(live: Live, shape: tuple[int, ...]) -> str:
    """The same in numpy."""
    if live.player == "discriminator":
        return f"numpy.random.uniform(-1, 1, {shape})"
    bounds = _bounds(live)
    if bounds is not None:
        return f"numpy.random.uniform({bounds[0]}, {bounds[1]}, {shape})"
    return _spread(live, f"numpy.random.standard_normal({shape})")


def _options(live: Live) -> Mapping[str, Any]:
    latent = live.gan.latent
    return latent.keywords if isinstance(latent, partial) else {}


def _bounds(live: Live) -> tuple[float, float] | None:
    """Of uniform latents, between what they lie."""
    latent = live.gan.latent
    if (latent.func if isinstance(latent, partial) else latent) is not uniform:
        return None
    given = _options(live)
    return given.get("low", -1.0), given.get("high", 1.0)


def _spread(live: Live, drawn: str) -> str:
    std = _options(live).get("std", 1.0)
    return drawn if std == 1.0 else f"{std} * {drawn}"


def _data(live: Live) -> str:
    part = live.spec.data
    options = {name: value for name, value in part.plain(full=True).items() if name != "use"}
    listed = _table({f"`{name}`": f"`{json.dumps(value)}`" for name, value in options.items()})
    image = live.gan.image
    what = " x ".join(map(str, image.shape))
    classes = f", {image.classes} classes" if image.classes else ""
    return f"`{part.name}`: {part.entry.summary}\n\nIn training {what}{classes}.\n\n{listed}"


def _scored(live: Live) -> str:
    found = scores(live.run, live.step) if live.run else []
    if not found:
        return "None were taken at this step."
    return "\n\n".join(_scores(each) for each in found)


def _scores(one: Scores) -> str:
    """A table of scores, and under it the card of how they were made."""
    values = _table({f"`{name}`": f"{value:g}" for name, value in one.values.items()})
    made = _table({line: f"`{' '.join(text.split())}`" for line, text in one.card.lines.items()})
    return f"{values}\n\nMade so:\n\n{made}"


def scores(run: Path, step: int) -> list[Scores]:
    """What `gankit eval`, or training, has written down for a step; nothing of a damaged file."""
    try:
        return read(file_of(run, step))
    except DataError:
        return []


def _tensors(network: nn.Module) -> str:
    named = network.state_dict().items()
    wide = max(len(name) for name, _ in named)
    return "".join(f"{name:<{wide}}  {tuple(tensor.shape)}\n" for name, tensor in named)


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
