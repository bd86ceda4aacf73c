"""Scores as people read them."""

from __future__ import annotations

import sys

__all__ = ["number", "show"]


def number(value: float) -> str:
    """A score in as many digits as mean something."""
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"


def show(table: object) -> None:
    """Print a table; what is in it is text, whatever it looks like."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 160
    Console(width=wide, highlight=False, markup=False, emoji=False).print(table)
