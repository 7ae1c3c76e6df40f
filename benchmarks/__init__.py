"""Measurements of time and memory; nothing in the tests asserts what they find."""
