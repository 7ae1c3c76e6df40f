"""Modules for a ``pytorch_lightning.Trainer``, one for each algorithm."""

from l2l_evograd.lightning.aruba import LightningARUBA
from l2l_evograd.lightning.evograd import LightningEvoGrad
from l2l_evograd.lightning.warpgrad import LightningWarpGrad

__all__ = ["LightningARUBA", "LightningEvoGrad", "LightningWarpGrad"]
