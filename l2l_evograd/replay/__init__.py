"""A loss tensor made into a function of its weights; knows nothing of hypergradients.

The aten calls that lead to a loss are recorded while they run and can be repeated with
other weights. Whatever does not depend on a tensor that requires grad is a constant, as
it came out. The only place of the core that uses private parts of torch.
"""
