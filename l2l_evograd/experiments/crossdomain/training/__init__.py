"""Pre-training, meta-training and testing."""
