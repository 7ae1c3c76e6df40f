"""Images that the package draws, and readers of small data sets."""
