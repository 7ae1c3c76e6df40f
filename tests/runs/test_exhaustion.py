import pytest
import torch

from l2l_evograd.runs.exhaustion import enough_memory


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory")])
def test_a_lack_of_memory_says_what_to_do(error: Exception):
    with pytest.raises(ValueError, match="not enough memory for this; lower that"):
        with enough_memory("this; lower that"):
            raise error


def test_another_error_stays_as_it_is():
    with pytest.raises(RuntimeError, match="something else"):
        with enough_memory("this"):
            raise RuntimeError("something else")


def test_main_memory_that_is_not_there_is_recognised():
    # A tensor larger than any address space; a smaller one may be promised.
    with pytest.raises(ValueError, match="not enough memory for this .torch says: "):
        with enough_memory("this"):
            torch.empty(2**60)
