"""Attention: modules that let every position of a feature map look at the others.

Each starts as the identity, through a learned gain of zero, and keeps (B, C, H, W).
"""

from gankit.attentions.cbam import CBAM
from gankit.attentions.controls import NoAttention, ResidualBlock
from gankit.attentions.efficient import EfficientAttention2d
from gankit.attentions.self_attention import SelfAttention2d, explicit, fused

__all__ = [
    "CBAM",
    "EfficientAttention2d",
    "NoAttention",
    "ResidualBlock",
    "SelfAttention2d",
    "explicit",
    "fused",
]
