"""Penalties: what is added to a player's loss, given all that its turn has.

A penalty says for whom it is (`players`) and how often (`every`); whoever applies it every so many
turns multiplies it by `every`, so that its expected strength stays the same.

Those of D see images as they are before the spec's augments: `turn.discriminator` applies them.
"""

from gankit.penalties.classification import AuxiliaryClassifier
from gankit.penalties.features import FeatureMatching
from gankit.penalties.gradients import DRAGAN, R1, R2, WGANGP
from gankit.penalties.logits import Consistency, LeCam
from gankit.penalties.self_supervision import InfoMax, Rotation
from gankit.penalties.weights import Orthogonal

__all__ = [
    "DRAGAN",
    "R1",
    "R2",
    "WGANGP",
    "AuxiliaryClassifier",
    "Consistency",
    "FeatureMatching",
    "InfoMax",
    "LeCam",
    "Orthogonal",
    "Rotation",
]
