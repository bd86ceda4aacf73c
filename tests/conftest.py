"""What every test runs under: one thread, and the same hypothesis examples each time."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("gankit", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("gankit")
