"""The paper's two small problems: one dimension, and rotated digits."""
