"""Algorithms with learn2learn's interface: clone, adapt, call."""
