"""The model that learn2learn's own tests adapt, with a buffer, and a batch for it."""

import torch
from torch import nn


def small_model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(10, 20),
        nn.ReLU(),
        nn.Linear(20, 20),
        nn.Sigmoid(),
        nn.Linear(20, 20),
        nn.Softmax(dim=1),
    )
    model.register_buffer("constant", torch.zeros(1, 2, 3, 4))
    return model, torch.randn(7, 10)
