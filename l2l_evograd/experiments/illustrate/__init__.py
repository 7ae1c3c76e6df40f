"""The one-dimensional problem of the EvoGrad paper."""
