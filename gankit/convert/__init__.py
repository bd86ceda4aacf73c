"""Checkpoints of other libraries as run folders, compared with what their networks gave."""

from gankit.convert.comparing import LIMIT
from gankit.convert.converting import Converted, convert
from gankit.convert.libraries import LIBRARIES

__all__ = ["LIBRARIES", "LIMIT", "Converted", "convert"]
