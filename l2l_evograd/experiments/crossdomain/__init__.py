"""Cross-domain few-shot learning: train on all domains but one, test on that one."""
