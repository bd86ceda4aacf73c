"""Models that leave: networks as files that need no gankit, checked against the live ones."""

from gankit.export.formats import FORMATS
from gankit.export.live import WEIGHTS, Live, of_run
from gankit.export.reading import format_of, load, of_file
from gankit.export.writing import LIMIT, Exported, export

__all__ = [
    "FORMATS",
    "LIMIT",
    "WEIGHTS",
    "Exported",
    "Live",
    "export",
    "format_of",
    "load",
    "of_file",
    "of_run",
]
