"""What metrics see of an image: fixed maps from images to vectors.

Parts of the kind `features`, each handed the data set that images are compared with.
"""

from __future__ import annotations

from gankit.extractors.decoding import Decoded, decode
from gankit.extractors.digits import Digits
from gankit.extractors.inception import Inception
from gankit.extractors.mixture import Mixture
from gankit.extractors.pixels import Pixels
from gankit.extractors.random import Random
from gankit.extractors.shapes import Shapes

__all__ = [
    "Decoded",
    "Digits",
    "Inception",
    "Mixture",
    "Pixels",
    "Random",
    "Shapes",
    "decode",
]
