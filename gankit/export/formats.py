"""The three kinds of file that a network leaves in: how each is written and read again.

In each is a record of what it holds (`Facts`), with the resolved spec. None of them is a pickle.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import ExportedProgram

from gankit.errors import CheckpointError, MissingExtra
from gankit.export.archive import FACTS, facts_in, harmless
from gankit.export.folding import restructured
from gankit.export.tracing import Call, quiet, traced

__all__ = ["FORMATS", "Facts", "Foreign", "Format", "Onnx", "Pt2", "Safetensors"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is written into every file about what it holds."""

    spec: str
    """The resolved spec, as TOML."""
    weights: str
    step: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    folded: tuple[str, ...] = ()
    """The batch norms that are in the layers before them, by their names in the network."""
    version: int = 1

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Facts:
        """Out of JSON.

        Raises:
            ValueError: it is none of ours.
        """
        told = json.loads(text)
        if not isinstance(told, dict) or told.get("version") != 1:
            raise ValueError("written by another version of gankit")
        try:
            return cls(
                spec=str(told["spec"]),
                weights=str(told["weights"]),
                step=int(told["step"]),
                inputs=tuple(map(str, told["inputs"])),
                outputs=tuple(map(str, told["outputs"])),
                folded=tuple(map(str, told["folded"])),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a record without {error}") from error


class Foreign(nn.Module):
    """A network that runs outside of modules, on the CPU, called like one of ours."""

    place: Tensor

    def __init__(self, run: Callable[..., Any], inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        # In a list, so that it is not taken for a module: an exported program has no modes.
        self.held = [run]
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        given = (x,) if "labels" not in self.inputs else (x, labels)
        return self.held[0](*given)


class Format(Protocol):
    """How one kind of file is written and read."""

    def write(self, path: Path, network: nn.Module, call: Call, facts: Facts) -> None:
        """Write a folded network.

        Raises:
            SpecError: this format cannot say what the network does.
            MissingExtra: it needs a package that is not there.
        """
        ...

    def facts(self, path: Path) -> Facts:
        """What is in a file, without its weights.

        Raises:
            ValueError: it is no file of this format, or none of ours.
        """
        ...

    def read(self, path: Path, network: nn.Module, facts: Facts) -> nn.Module:
        """The network in a file, given one that was built from its spec.

        Raises:
            CheckpointError: it does not fit the spec, or holds what no export of ours does.
        """
        ...


class Safetensors:
    """Tensors by name, for gankit or a network of one's own."""

    def write(self, path: Path, network: nn.Module, call: Call, facts: Facts) -> None:
        # Clones, because safetensors takes no memory that two tensors share.
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in network.state_dict().items()
        }
        # Not `save_file`, whose files nobody but their owner may read.
        path.write_bytes(save(tensors, metadata={"format": "pt", "gankit": facts.text()}))

    def facts(self, path: Path) -> Facts:
        try:
            with safe_open(path, framework="pt") as file:
                return Facts.of((file.metadata() or {})["gankit"])
        except (KeyError, SafetensorError) as error:
            raise ValueError(f"no export of gankit: {error}") from error

    def read(self, path: Path, network: nn.Module, facts: Facts) -> nn.Module:
        try:
            device = next(network.parameters()).device
            with safe_open(path, framework="pt", device=str(device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            plain = restructured(network, facts.folded, tensors)
            plain.load_state_dict(tensors)
        except (AttributeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{path} does not fit the spec in it: {error}") from error
        return plain


class Pt2:
    """A program of torch.export, which runs without gankit."""

    def write(self, path: Path, network: nn.Module, call: Call, facts: Facts) -> None:
        program = traced(network, call)
        program._example_inputs = None  # they would be pickled
        with quiet():
            torch.export.save(program, path, extra_files={FACTS: facts.text()})

    def facts(self, path: Path) -> Facts:
        return Facts.of(facts_in(path))

    def read(self, path: Path, network: nn.Module, facts: Facts) -> nn.Module:
        data = harmless(path)
        try:
            with quiet():
                program: ExportedProgram = torch.export.load(data)
            return Foreign(program.module(check_guards=False), facts.inputs)
        except Exception as error:
            # Whatever a damaged file provokes in torch, it means one thing here.
            raise CheckpointError(f"{path} cannot be read: {error}") from error


class Onnx:
    """A graph of ONNX, for ONNX Runtime and others."""

    def write(self, path: Path, network: nn.Module, call: Call, facts: Facts) -> None:
        _need_onnx("onnx", "onnxscript", "onnxruntime")
        import onnx

        program = traced(network, call)
        names = list(call.inputs), list(call.outputs)
        with quiet():
            made = torch.onnx.export(
                program, dynamo=True, input_names=names[0], output_names=names[1], verbose=False
            )
        assert made is not None
        model = made.model_proto
        onnx.helper.set_model_props(model, {"gankit": facts.text()})
        _without_traces(model.graph)
        onnx.save(model, str(path))

    def facts(self, path: Path) -> Facts:
        told = _session(path).get_modelmeta().custom_metadata_map
        if "gankit" not in told:
            raise ValueError("no export of gankit")
        return Facts.of(told["gankit"])

    def read(self, path: Path, network: nn.Module, facts: Facts) -> nn.Module:
        session = _session(path)

        def run(*given: Tensor) -> Any:
            named = dict(zip(facts.inputs, (t.detach().cpu().numpy() for t in given), strict=True))
            made = [torch.from_numpy(array) for array in session.run(None, named)]
            heads = dict(zip(facts.outputs, made, strict=True))
            return heads if facts.weights == "discriminator" else made[0]

        return Foreign(run, facts.inputs)


def _need_onnx(*packages: str) -> None:
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise MissingExtra("ONNX", "onnx")


def _session(path: Path) -> Any:
    _need_onnx("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _without_traces(graph: Any) -> None:
    """Drop what names files of this machine; say `batch` where torch says s68."""
    for node in graph.node:
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        del value.metadata_props[:]
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "batch" if size.dim_param.isalnum() else size.dim_param
    for tensor in graph.initializer:
        del tensor.metadata_props[:]


FORMATS: Mapping[str, Format] = {"safetensors": Safetensors(), "pt2": Pt2(), "onnx": Onnx()}
"""By the suffix of their files."""
