import pytest
import torch

from l2l_evograd.experiments.out_of_memory import out_of_memory_advice


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory")])
def test_a_lack_of_memory_says_what_to_do(error: Exception):
    with pytest.raises(ValueError, match="not enough memory for this; lower that"):
        with out_of_memory_advice("this; lower that"):
            raise error


def test_another_error_stays_as_it_is():
    with pytest.raises(RuntimeError, match="something else"):
        with out_of_memory_advice("this"):
            raise RuntimeError("something else")


def test_main_memory_that_is_not_there_is_recognised():
    # A tensor larger than any address space; a smaller one may be promised.
    with pytest.raises(ValueError, match="not enough memory for this .torch reports: "):
        with out_of_memory_advice("this"):
            torch.empty(2**60)
