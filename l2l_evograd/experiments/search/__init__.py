"""``l2l-evograd search``: searches the settings of the other commands."""
