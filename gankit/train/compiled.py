"""A network's passes as compiled functions of its tensors.

A compiled module is compiled anew whenever training mode, gradients or a parametrization change. A
compiled function of everything that it reads is not: a network that is called in four ways (G with
and without gradients, D for its own weights and for G's images) is compiled four times in a run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gankit.ops import unparametrized
from gankit.slots import conditional

__all__ = ["Compiled", "has_compiler"]

BACKEND = "inductor"


def has_compiler(device: torch.device) -> bool:
    """Whether there is what compiling for a device takes: a C++ compiler, or Triton on a GPU."""
    if device.type != "cpu":
        return importlib.util.find_spec("triton") is not None
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    return any(shutil.which(name) for name in names if name)


class Compiled(nn.Module):
    """Called as the network with labels, and computes as it, but for rounding.

    The network's weights, running statistics and parametrizations stay where they are; what it
    computes its weights to is read at each call.
    """

    compilations: int = 0
    """How many times something was compiled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # A plain module, without values: all that it reads it is handed.
        called = conditional(unparametrized(network).to("meta"), "labels")
        own = conditional(network, "labels")
        self._places = [
            (f"{prefix}.{name}".lstrip("."), own.get_submodule(prefix), name)
            for prefix, module in called.named_modules()
            for name in (*module._parameters, *module._buffers)
            if getattr(module, name) is not None
        ]

        def forward(tensors: dict[str, Tensor], x: Tensor, labels: Tensor | None) -> Any:
            return functional_call(called, tensors, (x, labels))

        # What is compiled is remembered by its code, a few times at most for each: without a copy
        # of its own a second network, or a second GAN, would soon run as it is written.
        forward.__code__ = forward.__code__.replace()
        self._forward = torch.compile(forward, backend=self._backend, dynamic=False)

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.compilations += 1
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend(BACKEND)(graph, inputs)
        return compiled

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        tensors = {path: getattr(module, name) for path, module, name in self._places}
        return self._forward(tensors, x, labels)
