"""Activation checkpoints in a learner's model."""

from typing import Any

from l2l_evograd.replay.autograd_graph import hands_out_saved_tensors
from l2l_evograd.replay.tensor import tensors_in
from l2l_evograd.updates.inner_step import Checks


class Checkpoints:
    """Whether parts of the model are activation checkpoints, as in the first losses.

    What they save is computed again in ``backward()``, from their module as it is then.
    So that module has to stay as it is, and the learner goes on with another one.
    """

    def __init__(self) -> None:
        self._looks = Checks("first")
        self._found = False

    def behind(self, outputs: Any) -> bool:
        """Say whether there are any behind outputs or a loss.

        Cost: one walk over the graph, in the first 3 calls and every 100th.
        """
        if not self._found and self._looks.due():
            self._found = hands_out_saved_tensors(list(tensors_in(outputs)))
        return self._found
