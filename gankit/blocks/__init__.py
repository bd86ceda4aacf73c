"""Stages of a network: each is made from the shape coming in and the network's Norm.

A stage is called as `stage(x, condition)` and states the shape going out as `out`. A layer stands
alone: what normalises and activates its output is the next stage, `normalise` or `activate`. A
stage that looks at the condition says so by a module with `conditioned = True` in it; conditional
norms have it from the network's Norm.
"""

from gankit.blocks.heads import Classify, MeanPositions, MinibatchStd, Project, SumPositions
from gankit.blocks.infomax import InfoMax
from gankit.blocks.layers import (
    Attend,
    Normalise,
    NormaliseWith,
    Plain,
    activate,
    conv,
    dense,
    transposed,
)
from gankit.blocks.maxout import Maxout, dropout
from gankit.blocks.resampled import ConvPool2d, UpsampleConv2d, Upsampling
from gankit.blocks.residual import (
    Hidden,
    Residual,
    Shortcut,
    residual,
    residual_down,
    residual_stem,
    residual_up,
)
from gankit.blocks.resnext import Basis, InvertedBottleneck, interpolate_down, interpolate_up

__all__ = [
    "Attend",
    "Basis",
    "Classify",
    "ConvPool2d",
    "Hidden",
    "InfoMax",
    "InvertedBottleneck",
    "Maxout",
    "MeanPositions",
    "MinibatchStd",
    "Normalise",
    "NormaliseWith",
    "Plain",
    "Project",
    "Residual",
    "Shortcut",
    "SumPositions",
    "UpsampleConv2d",
    "Upsampling",
    "activate",
    "conv",
    "dense",
    "dropout",
    "interpolate_down",
    "interpolate_up",
    "residual",
    "residual_down",
    "residual_stem",
    "residual_up",
    "transposed",
]
