"""What metrics see of an image: fixed maps from images to vectors.

Parts of the kind `features`, each handed the data set that images are compared with.
"""

from __future__ import annotations

__all__: list[str] = []
