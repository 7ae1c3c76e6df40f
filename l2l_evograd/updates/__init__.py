"""One inner step on the caller's autograd graph: new weights and their adjoint."""
