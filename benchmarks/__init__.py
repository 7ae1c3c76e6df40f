"""Benchmarks of time, memory and accuracy. No test asserts the figures."""
