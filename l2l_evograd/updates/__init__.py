"""One inner step on the caller's graph: the weights move, and the way back is known."""
