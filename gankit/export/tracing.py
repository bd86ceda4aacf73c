"""What a network is called with, and the graph that torch.export makes of it, for any batch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gankit.build import GAN
from gankit.errors import Problem, SpecError
from gankit.ops import plainly
from gankit.randomness import generator
from gankit.slots import heads_of
from gankit.train.sampling import draw, reads_labels

__all__ = ["ROWS", "Call", "call_of", "quiet", "traced"]

ROWS = 16
"""How many images are compared."""


@dataclass(frozen=True)
class Call:
    """What a network is called with and gives, by name, and rows to try it with."""

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]

    def rows(self, count: int) -> tuple[Tensor, ...]:
        """The first rows of every input."""
        return tuple(tensor[:count] for tensor in self.inputs.values())


@torch.no_grad()
def call_of(gan: GAN, network: nn.Module) -> Call:
    """How a generator or discriminator is called: z or images, and labels where it reads them."""
    judges = network is gan.discriminator
    if judges:
        inputs = {"images": draw(gan, gan.generator, ROWS, seed=0)}
    else:
        inputs = {"z": gan.latent(ROWS, gan.latent_width, generator(0, "export"))}
    (first,) = inputs.values()
    if gan.image.classes and (_wants_labels(network) or reads_labels(network, first)):
        inputs["labels"] = torch.arange(ROWS) % gan.image.classes
    if not judges:
        return Call(inputs, ("images",))
    made = network(*inputs.values())
    return Call(inputs, tuple(heads_of(made)))


def _wants_labels(network: nn.Module) -> bool:
    """Whether a network cannot be called without, read or not."""
    _, *others = inspect.signature(network.forward).parameters.values()
    return [p.name for p in others if p.default is inspect.Parameter.empty][:1] == ["labels"]


def traced(network: nn.Module, call: Call) -> ExportedProgram:
    """The network as a graph of tensor operations, for any number of rows from 1 on.

    Raises:
        SpecError: it does what no such graph can say, such as to branch on values.
    """
    batch = Dim("batch", min=1)
    example = call.rows(4)
    try:
        with quiet(), plainly(network), torch.no_grad():
            program = torch.export.export(
                network, example, dynamic_shapes=tuple({0: batch} for _ in example)
            )
    except Exception as error:
        # Whatever tracing stumbles over, it is the network that cannot be told as a graph.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise SpecError(
            Problem(
                f"torch.export cannot trace this network: {reason}",
                hint="--to safetensors needs no trace",
            )
        ) from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # names files of this machine
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say of themselves."""
    import logging

    logger = logging.getLogger("torch")
    level: Any = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
