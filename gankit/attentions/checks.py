"""What attentions ask of their options."""

from __future__ import annotations

from gankit.errors import OptionError

__all__ = ["share_of"]


def share_of(channels: int, name: str, reduction: int) -> int:
    """So many channels, divided by a reduction.

    Raises:
        OptionError: none would be left.
    """
    if not 1 <= reduction <= channels:
        raise OptionError(name, f"{name} {reduction} of {channels} channels leaves none")
    return channels // reduction
