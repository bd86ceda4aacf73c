"""Small specs that several test files train."""

IMAGES = """
gankit = 1
name = "images"
[data]
use = "digits"
size = 16
[generator]
use = "dcgan"
latent = 8
width = 4
norm = ["spectral", "batchnorm"]
attention = { use = "self_attention", reduction = 4 }
attention_at = [8]
[discriminator]
use = "dcgan"
width = 8
norm = "spectral"
attention = "self_attention"
attention_at = [8]
[loss]
use = "hinge"
[train]
steps = 20
batch = 8
ema = 0.9
"""

POINTS = """
gankit = 1
name = "points"
[data]
use = "ring"
length = 1000
[generator]
use = "mlp"
width = 8
[discriminator]
use = "mlp"
width = 8
[loss]
use = "nonsaturating"
[train]
steps = 20
batch = 8
"""
