"""The published weights of Inception: read from a file, checked, and laid into the network."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gankit.errors import SetupError
from gankit.extractors.inception_network import EPS, Convolution, Network

__all__ = ["PUBLISHED", "WHERE", "load", "names"]

PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of the file that torch-fidelity and pytorch-fid publish, each under a name of its own."""

WHERE = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)

NORM = ("weight", "bias", "running_mean", "running_var")
"""What a batchnorm keeps, in the order in which it is folded."""


def load(file: Path, sha256: str) -> Network:
    """The network with the weights of a file, ready to look.

    Raises:
        SetupError: a file that is missing, unreadable, another than is meant, or of other tensors.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise SetupError(f"{file}: {reason or error}\n{_advice()}") from error
    # Of the very bytes that are read on: the file may change meanwhile.
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        asked = "the published weights" if sha256 == PUBLISHED else "the weights asked for"
        raise SetupError(
            f"{file} is not {asked}: its SHA-256 is\n  {found}, not\n  {sha256}\n{_advice()}\n"
            f'  where this file is meant, say so: sha256 = "{found}"'
        )
    return _filled(_tensors(content, file), file)


def names(network: Network) -> Iterator[tuple[str, torch.Size]]:
    """What a file has to hold, by the names that torchvision gave: its shapes."""
    for called, layer in _convolutions(network):
        yield f"{called}.conv.weight", layer.weight.shape
        yield from ((f"{called}.bn.{kept}", layer.weight.shape[:1]) for kept in NORM)
    yield "fc.weight", network.fc.weight.shape
    yield "fc.bias", network.fc.weight.shape[:1]


def _convolutions(network: Network) -> Iterator[tuple[str, Convolution]]:
    """Each with its name in a file, where branches and rows are not counted."""
    for name, layer in network.body.named_modules():
        if isinstance(layer, Convolution):
            yield ".".join(word for word in name.split(".") if not word.isdigit()), layer


def _tensors(content: bytes, file: Path) -> Mapping[str, Tensor]:
    """What is in a file, never run."""
    held: Any
    try:
        if file.suffix == ".safetensors":
            held = safetensors.torch.load(content)
        else:
            held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # Whatever such a file provokes in the readers, it means one thing here.
    except Exception as error:
        raise SetupError(f"{file} is no file of tensors\n{_advice()}") from error
    if not isinstance(held, Mapping) or not all(isinstance(t, Tensor) for t in held.values()):
        raise SetupError(f"{file} does not hold tensors by name\n{_advice()}")
    # How many batches training saw decides nothing.
    return {name: t for name, t in held.items() if not str(name).endswith(".num_batches_tracked")}


def _filled(held: Mapping[str, Tensor], file: Path) -> Network:
    """The network with these weights, its batchnorms folded in."""
    # On meta, so that no time goes into initial weights and nothing is drawn for them.
    with torch.device("meta"):
        network = Network()
    wanted = dict(names(network))
    wrong = [name for name in wanted if name not in held or held[name].shape != wanted[name]]
    wrong += [str(name) for name in held if name not in wanted]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise SetupError(
            f"{file} is not of this network: missing, misshapen or too many are "
            f"{', '.join(wrong[:3])}{more}\n{_advice()}"
        )
    state = {"fc.weight": held["fc.weight"].float()}
    places = {layer: name for name, layer in network.named_modules()}
    for called, layer in _convolutions(network):
        weight, bias = _folded(held, called)
        state[f"{places[layer]}.weight"], state[f"{places[layer]}.bias"] = weight, bias
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _folded(held: Mapping[str, Tensor], called: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution and the batchnorm behind it, as one."""
    scale, shift, mean, variance = (held[f"{called}.bn.{kept}"].double() for kept in NORM)
    scale = scale / (variance + EPS).sqrt()
    weight = held[f"{called}.conv.weight"].double() * scale.view(-1, 1, 1, 1)
    return weight.float(), (shift - mean * scale).float()


def _advice() -> str:
    return f"  the weights of 2015 are at {WHERE}"
