"""Encoders and heads of the networks."""
