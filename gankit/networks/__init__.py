"""Networks: `stack` is a list of stages; `dcgan`, `resnet` and `mlp` are presets that write one.

A preset is a function that returns the stack it stands for, so `gankit build --expand` can print
any of them as the list to edit. Sizes come from the image; attention is placed by the height of
the feature map.
"""

from gankit.networks.conditions import Condition
from gankit.networks.dcgan import dcgan_discriminator, dcgan_generator
from gankit.networks.mlp import mlp_discriminator, mlp_generator
from gankit.networks.pacgan import PacGAN
from gankit.networks.resnet import resnet_discriminator, resnet_generator
from gankit.networks.stack import StackDiscriminator, StackGenerator, initialize

__all__ = [
    "Condition",
    "PacGAN",
    "StackDiscriminator",
    "StackGenerator",
    "dcgan_discriminator",
    "dcgan_generator",
    "initialize",
    "mlp_discriminator",
    "mlp_generator",
    "resnet_discriminator",
    "resnet_generator",
]
