"""Parts from outside: local files today, installed packages by entry point."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from gankit.errors import PartError, SetupError
from gankit.registry.entries import Provider, registry

__all__ = ["load_file"]


_ran: dict[Path, Provider] = {}
"""What each file held when it was last run."""


def load_file(path: Path) -> Provider:
    """Run a Python file so that the parts it declares are on the plug board; once per content.

    The provider is the file's name with the SHA-256 of its bytes.

    Raises:
        SetupError: the file is missing, or fails to run; the cause is chained.
    """
    path = path.resolve()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SetupError(f"plugin file {path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(source).hexdigest()
    provider = Provider(path.name, f"sha256:{digest}")
    name = f"gankit_plugin_{path.stem}_{digest[:8]}"
    if name in sys.modules:
        return provider
    if path in _ran:
        registry.forget(_ran[path])
    _ran[path] = provider
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with registry.provided_by(provider):
            spec.loader.exec_module(module)
    except PartError:
        del sys.modules[name]
        registry.forget(provider)
        raise
    except Exception as error:
        del sys.modules[name]
        registry.forget(provider)
        raise SetupError(f"plugin file {path} fails: {type(error).__name__}: {error}") from error
    return provider
