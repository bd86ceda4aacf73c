"""Several seeds of a small spec trained together, with stacked weights.

Small networks cost more to call than to compute: five seeds in one batched product take about half
the time of five by themselves. What comes of it are ordinary runs.
"""

from gankit.together.group import Group
from gankit.together.networks import Unstackable, stacked
from gankit.together.run import train_together

__all__ = ["Group", "Unstackable", "stacked", "train_together"]
