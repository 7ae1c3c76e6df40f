"""The paper's two small problems: one dimension, and rotated digits."""

from l2l_evograd.runs.folder import ACCURACY

ANGLES = "angle.png"
ESTIMATES = "estimates.png"
TRAJECTORIES = "trajectories.png"
# Of both problems: where the run of one takes the place of the other's, none stays.
PICTURES = (ANGLES, ACCURACY, ESTIMATES, TRAJECTORIES)
