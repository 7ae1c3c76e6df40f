"""Cross-domain few-shot learning: domains, episodes, networks and their training."""
