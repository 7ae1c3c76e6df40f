"""One thread for each test process, and double precision where a test asks for it."""

import signal
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def interrupts_as_before():
    """Let every test begin with Ctrl-C as a terminal leaves it.

    Shells ignore it in what they run in the background, and Lightning leaves it ignored
    where it has seen one.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
