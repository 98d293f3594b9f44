"""Every test runs on one thread, as every worker of the package does, and from fixed addresses."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
