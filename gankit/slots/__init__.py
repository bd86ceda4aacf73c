"""What parts are handed and what they promise.

`Image`, `Norm` and `Turn` are records that parts receive. The protocols say what each kind of part
must be able to do; nothing has to inherit from them. A parameter annotated `Norm`, `Attention`,
`Activation`, `Initializer`, `Block` or `Augment` is a slot: a spec puts a part of that kind there, and
the network receives its maker; an augment comes ready to be called.
"""

from gankit.slots.architecture import (
    Activation,
    Attention,
    Block,
    Discriminator,
    Generator,
    Image,
    Initializer,
    Norm,
    Shape,
    conditional,
    keep,
    kept,
    unchanged,
)
from gankit.slots.training import (
    Augment,
    Dataset,
    Latent,
    Logger,
    Logits,
    Loss,
    Observer,
    Penalty,
    Rates,
    ScalesKeys,
    ScalesRates,
    TakesTurns,
    Turn,
    features_of,
    heads_of,
)

__all__ = [
    "Activation",
    "Attention",
    "Augment",
    "Block",
    "Dataset",
    "Discriminator",
    "Generator",
    "Image",
    "Initializer",
    "Latent",
    "Logger",
    "Logits",
    "Loss",
    "Norm",
    "Observer",
    "Penalty",
    "Rates",
    "ScalesKeys",
    "ScalesRates",
    "Shape",
    "TakesTurns",
    "Turn",
    "conditional",
    "features_of",
    "heads_of",
    "keep",
    "kept",
    "unchanged",
]
