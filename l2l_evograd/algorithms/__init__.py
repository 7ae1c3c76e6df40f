"""Algorithms with learn2learn's interface: clone, adapt, call."""

from l2l_evograd.algorithms.aruba import ARUBA
from l2l_evograd.algorithms.evograd import EvoGradMetaOptimizer
from l2l_evograd.algorithms.trajectory_buffer import TrajectoryBuffer
from l2l_evograd.algorithms.warpgrad import WarpGrad

__all__ = ["ARUBA", "EvoGradMetaOptimizer", "TrajectoryBuffer", "WarpGrad"]
