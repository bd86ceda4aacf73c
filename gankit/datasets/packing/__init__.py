"""Images decoded once into a file of bytes, which is then read many times faster.

`pack` writes, from a `Listing` of a tree, a .zip or CelebA's download; `check` looks before,
`verify` after. The data set `gankit.datasets.Packed` reads.
"""

from __future__ import annotations

from gankit.datasets.packing.celeba import celeba, images_of
from gankit.datasets.packing.checking import Report, check
from gankit.datasets.packing.listing import Listing, folder
from gankit.datasets.packing.looking import Decoder
from gankit.datasets.packing.manifest import MANIFEST, Manifest, command, pair, read
from gankit.datasets.packing.packer import Options, pack
from gankit.datasets.packing.pool import Watch, cores
from gankit.datasets.packing.sources import shown
from gankit.datasets.packing.verifying import Verified, verify

__all__ = [
    "MANIFEST",
    "Decoder",
    "Listing",
    "Manifest",
    "Options",
    "Report",
    "Verified",
    "Watch",
    "celeba",
    "check",
    "command",
    "cores",
    "folder",
    "images_of",
    "pack",
    "pair",
    "read",
    "shown",
    "verify",
]
