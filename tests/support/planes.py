"""Features of three domains, as principal planes are computed from."""

import torch
from torch import Tensor


def features(seed: int = 0, width: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(width, 0, -1).double()
    return {
        name: spread * torch.randn(count, width, generator=generator).double()
        for name, count in (("photo", 12), ("print", 9), ("sketch", 5))
    }
