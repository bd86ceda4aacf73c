"""Where a network of gankit's has what residual networks of other libraries have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from gankit.blocks import Attend, Classify, InfoMax, Normalise, Plain, Project, Residual
from gankit.convert.originals import Stage
from gankit.errors import UsageError
from gankit.networks import StackDiscriminator, StackGenerator

__all__ = ["Layout", "layout"]


@dataclass(frozen=True)
class Layout:
    """The paths of a network's layers by what they are for."""

    stages: tuple[Stage, ...]
    """Residual blocks and attentions, in order."""
    ends: dict[str, str]
    """`stem`, `embedding`, `norm` and `conv`; `head.dense` and what else is a head."""

    def parts(self, stage: Stage, network: nn.Module) -> dict[str, str]:
        """The paths of a stage's layers."""
        module = network.get_submodule(stage.name)
        if stage.kind == "attention":
            names = ("query", "key", "value", "output", "gamma")
            return {name: f"{stage.name}.{name}" for name in names}
        found = {name: f"{stage.name}.{name}" for name in ("conv1", "conv2", "shortcut")}
        for name in ("enter", "middle"):
            inner = getattr(module, name)
            if isinstance(inner, Normalise):
                found[name] = _norm(f"{stage.name}.{name}", inner)
        return found


def layout(network: nn.Module) -> Layout:
    """Go through a network's stages.

    Raises:
        UsageError: it is no residual network of the form that the libraries have.
    """
    if not isinstance(network, StackGenerator | StackDiscriminator):
        raise UsageError(f"{type(network).__name__} is no list of stages; use resnet or stack")
    stages: list[Stage] = []
    ends = {"embedding": "condition.embedding"} if hasattr(network.condition, "embedding") else {}
    for name, module in network.stages.items():
        path = f"stages.{name}"
        if isinstance(module, Residual):
            stages.append(Stage("block", path))
        elif isinstance(module, Attend):
            # Attention that looks at no condition is wrapped.
            wrapped = hasattr(module.attention, "module")
            stages.append(Stage("attention", f"{path}.attention{'.module' * wrapped}"))
        elif isinstance(module, InfoMax):
            stages.append(Stage("block", f"{path}.block"))
            ends["head.dense"] = f"{path}.dense"
            for part, ours in (("global", "globally"), ("local", "locally")):
                for layer in ("enter", "leave", "shortcut"):
                    ends[f"head.{part}.{layer}"] = f"{path}.{ours}.{layer}"
        else:
            for role, place in _end(path, module, stem=not stages):
                if role in ends:
                    raise UsageError(f"{name} is one {role} more than the library's network has")
                ends[role] = place
    return Layout(tuple(stages), ends)


def _end(path: str, module: nn.Module, *, stem: bool) -> Iterator[tuple[str, str]]:
    """What a stage that is no block is for; without tensors, for nothing."""
    if isinstance(module, Project):
        yield "head.dense", f"{path}.dense"
        yield "head.embedding", f"{path}.embedding"
    elif isinstance(module, Classify):
        yield "head.dense", f"{path}.logits"
        yield "head.classes", f"{path}.classes"
    elif isinstance(module, Normalise):
        yield "norm", _norm(path, module)
    elif isinstance(module, Plain) and isinstance(module.layer, nn.Conv2d):
        yield "conv", f"{path}.layer"
    elif isinstance(module, Plain) and isinstance(module.layer, nn.Sequential):
        yield "stem" if stem else "head.dense", f"{path}.layer.1"
    elif module.state_dict():
        raise UsageError(f"{path}: no {type(module).__name__} is in the library's networks")


def _norm(path: str, module: Normalise) -> str:
    """A norm that looks at no condition is wrapped."""
    return f"{path}.norm.module" if hasattr(module.norm, "module") else f"{path}.norm"
