"""Algorithms behind learn2learn's interface: clone, adapt, call."""
