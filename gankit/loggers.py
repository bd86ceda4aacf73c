"""Loggers: where a run's metrics and samples go beside its own files."""

from __future__ import annotations

__all__: list[str] = []
