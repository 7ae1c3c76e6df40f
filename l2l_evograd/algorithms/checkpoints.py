"""Detection of activation checkpoints in a learner's model."""

from typing import Any

from l2l_evograd.replay.autograd_graph import hands_out_saved_tensors
from l2l_evograd.replay.tensor import tensors_in
from l2l_evograd.updates.inner_step import History


class Checkpoints:
    """Detect activation checkpoints in a model from its first outputs and losses.

    A checkpoint computes its saved tensors again in ``backward()``, with its module in
    the state of that time. The module must therefore not change, and the learner
    continues with a copy of the module.
    """

    def __init__(self) -> None:
        self._looks = History("first")
        self._found = False

    def behind(self, outputs: Any) -> bool:
        """Say whether outputs or a loss were computed through activation checkpoints.

        Cost: one walk over the graph, in the first 3 calls and every 100th.
        """
        if not self._found and self._looks.due():
            self._found = hands_out_saved_tensors(list(tensors_in(outputs)))
        return self._found
