"""How far generated images are from real ones, by features of both.

Parts of the kind `metric`.
"""

from __future__ import annotations

__all__: list[str] = []
