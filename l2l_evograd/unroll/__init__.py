"""Hypergradients of a whole training run of SGD with momentum.

All four functions have one signature and return a :class:`RunGradients`. The first
three return the same number at different costs; the fourth is a control.

==================  =========================================================
``unrolled_sgd``    autograd through the run; its memory grows with the steps
``forward_mode``    tangents; its time and memory grow with the number of
                    hyperparameters
``reversible_sgd``  the run taken back step by step, for any number of both;
                    needs momentum and losses that can be repeated
``greedy``          one step ahead at every step, added up
==================  =========================================================

``forward_mode_of`` is forward mode for any optimizer that is given as a function,
:class:`SignDescent` an outer optimizer for all of them, and ``run_sgd`` the run alone,
to train with what was found on other seeds.
"""

from l2l_evograd.unroll.backwards import Unreversed
from l2l_evograd.unroll.forward_mode import forward_mode
from l2l_evograd.unroll.forward_mode_of import forward_mode_of
from l2l_evograd.unroll.greedy import greedy
from l2l_evograd.unroll.result import RunGradients, TrainedRun
from l2l_evograd.unroll.reversible import reversible_sgd
from l2l_evograd.unroll.run import run_sgd
from l2l_evograd.unroll.sign_descent import SignDescent
from l2l_evograd.unroll.unrolled import unrolled_sgd

__all__ = [
    "RunGradients",
    "SignDescent",
    "TrainedRun",
    "Unreversed",
    "forward_mode",
    "forward_mode_of",
    "greedy",
    "reversible_sgd",
    "run_sgd",
    "unrolled_sgd",
]
