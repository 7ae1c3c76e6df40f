"""The command ``compare``: estimators of a hypergradient on the user's own problem."""
