"""The few-shot experiment: meta-learning algorithms side by side on one problem."""
