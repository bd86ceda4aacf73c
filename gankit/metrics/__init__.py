"""How far generated images are from real ones, by features of both.

Parts of the kind `metric`. `frechet` and `modes` take the same room however many images they are
shown; the others keep features, or logits, of each. The batches make no difference to a score but
for rounding, and all that is drawn follows from the metric's `seed`.
"""

from gankit.metrics.frechet import Frechet, FrechetInfinity, IntraFrechet
from gankit.metrics.gathering import Kept, Moments
from gankit.metrics.gaussians import frechet_distance
from gankit.metrics.inception import InceptionScore
from gankit.metrics.kernel import Kernel
from gankit.metrics.memorisation import Memorisation
from gankit.metrics.modes import Counted, Modes
from gankit.metrics.prdc import PRDC
from gankit.metrics.sliced import SlicedWasserstein

__all__ = [
    "PRDC",
    "Counted",
    "Frechet",
    "FrechetInfinity",
    "InceptionScore",
    "IntraFrechet",
    "Kept",
    "Kernel",
    "Memorisation",
    "Modes",
    "Moments",
    "SlicedWasserstein",
    "frechet_distance",
]
