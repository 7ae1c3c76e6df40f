"""What the runs of all commands share: folder, settings, results, seeds, training."""
