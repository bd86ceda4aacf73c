"""Whole texts that people read, kept in `tests/golden` and compared to the letter.

`UPDATE_GOLDEN=1 python -m pytest tests/test_errors.py` writes them anew; read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gankit.registry import registry

FOLDER = Path(__file__).parent / "golden"


def compare(name: str, text: str) -> None:
    """Fail where the text is not the one that is kept under a name."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@contextmanager
def our_parts_alone() -> Iterator[None]:
    """Forget for a while the parts that other tests have declared: messages list what there is."""
    ours = {(e.kind.name, e.name): e for e in registry.find() if e.provider.name == "gankit"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_entries", ours)
        yield
