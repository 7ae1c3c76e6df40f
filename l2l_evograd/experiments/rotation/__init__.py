"""The rotation experiment: digits are turned by an unknown angle that is learned."""
