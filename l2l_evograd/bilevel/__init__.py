"""Hypergradients of user-defined bilevel problems, without learn2learn."""

from l2l_evograd.bilevel.gradients import BilevelGradients, bilevel_gradients
from l2l_evograd.bilevel.hypergradient import Hypergradient, hypergradient
from l2l_evograd.bilevel.reweighting import ReweightingStep, reweighting_step
from l2l_evograd.bilevel.step import BilevelStep, bilevel_step

__all__ = [
    "BilevelGradients",
    "BilevelStep",
    "Hypergradient",
    "ReweightingStep",
    "bilevel_gradients",
    "bilevel_step",
    "hypergradient",
    "reweighting_step",
]
