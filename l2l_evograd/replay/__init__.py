"""Replay: a loss tensor becomes a function of its weights.

The aten calls that lead to a loss are recorded while they run, and can be repeated with
other weights. A value that does not depend on a tensor that requires grad is a constant
and keeps its recorded value. This package does not depend on the code for
hypergradients. In the core, only this package uses private parts of torch.
"""
