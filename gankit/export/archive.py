"""Reading a pt2 file as data: what could run code in one is refused before torch sees it.

`torch.export.load` unpickles where a file asks for it, evaluates its symbolic expressions with
sympy, looks up any function of torch by name, and runs its guards as Python. What `gankit export`
writes needs none of that, so a file that does is not opened. Torch is handed a copy made of what
was looked at, so that two readings of one zip cannot differ.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from gankit.errors import CheckpointError

__all__ = ["FACTS", "facts_in", "harmless"]

FACTS = "gankit.json"
"""Our own record, among the archive's extra files."""

MEMBERS = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|data/(weights|constants)/(weight_\d+|tensor_\d+|model_(weights|constants)_config\.json)"
    rf"|data/sample_inputs/model\.pt|extra/{re.escape(FACTS)}"
)
CALLS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|_operator\.(add|sub|mul|floordiv|getitem)"
)
SYMBOL = re.compile(r"Symbol\('[su]\d+'(, \w+=True)*\)")
ARITHMETIC = re.compile(r"(?:[\s\d()+\-*,]|/|\b(?:Add|Mul|Pow|Max|Min|Mod|FloorDiv|Integer)\b)*")
REFUSED = (
    *("as_operator", "as_custom_obj", "as_graph", "custom_obj_values"),
    "treespec_namedtuple_fields",
)
"""What a program of ours leaves empty, and torch would look up or load."""
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
PROGRAM = "models/model.json"
LARGEST = 64 << 20
"""The most bytes of a JSON file."""


def facts_in(path: Path) -> str:
    """What we have written into a pt2 file about it.

    Raises:
        CheckpointError: it is no export of ours.
    """
    return _members(path)[f"extra/{FACTS}"].decode()


def harmless(path: Path) -> io.BytesIO:
    """A pt2 file made of the parts of this one that are data.

    Raises:
        CheckpointError: it holds what our exports never do.
    """
    members = _members(path)
    try:
        if members["data/sample_inputs/model.pt"]:
            raise CheckpointError("it has sample inputs, which are pickled")
        for name in (WEIGHTS, CONSTANTS):
            for entry in json.loads(members[name])["config"].values():
                if entry["use_pickle"] or not re.match(r"(weight|tensor)_\d+$", entry["path_name"]):
                    raise CheckpointError("it has pickled tensors or objects")
        program = json.loads(members[PROGRAM])
        program["guards_code"] = []
        members[PROGRAM] = json.dumps(_looked_at(program)).encode()
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is not read: {error}, as nothing is that gankit exports"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is no pt2 file as gankit writes it") from error
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    copy.seek(0)
    return copy


def _members(path: Path) -> dict[str, bytes]:
    """The files in the archive, by the names they have below its top folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
            names = [info.filename.partition("/")[2] for info in listed]
            if len(set(names)) < len(names) or f"extra/{FACTS}" not in names:
                raise CheckpointError(f"{path} is no export of gankit")
            for name, info in zip(names, listed, strict=True):
                large = name.endswith(".json") and info.file_size > LARGEST
                packed = info.compress_type != zipfile.ZIP_STORED
                if large or packed or not MEMBERS.fullmatch(name):
                    raise CheckpointError(f"{path} is not read: {name} does not belong there")
            return {name: archive.read(info) for name, info in zip(names, listed, strict=True)}
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no pt2 file") from error


def _looked_at(tree: Any, key: str = "") -> Any:
    """The same tree without notes, once all that torch would make code of is of a known form."""
    if isinstance(tree, list):
        return [_looked_at(item, key) for item in tree]
    if isinstance(tree, str):
        _check_text(tree, key)
        return tree
    if not isinstance(tree, dict):
        return tree
    if "target" in tree and "inputs" in tree and not CALLS.fullmatch(tree["target"]):
        raise CheckpointError(f"it calls {tree['target']}")
    for refused in REFUSED:
        if tree.get(refused):
            raise CheckpointError(f"it has {refused}")
    for name in tree:
        _check_text(name, "name")
    return {k: {} if k == "metadata" else _looked_at(v, k) for k, v in tree.items()}


def _check_text(text: str, key: str) -> None:
    """Refuse a text that could be code: names become part of functions that torch writes."""
    if key in ("as_string", "as_strings"):
        return  # quoted wherever it is used
    if key == "expr_str":
        known = ARITHMETIC.fullmatch(SYMBOL.sub("", text))
    elif key in ("in_spec", "out_spec", "context"):
        _looked_at(json.loads(text))
        return
    else:
        known = re.fullmatch(r"[\w.+-]*", text)
    if not known:
        raise CheckpointError(f"it has code where {key or 'a name'} should be")
