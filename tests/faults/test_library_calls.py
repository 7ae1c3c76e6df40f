"""Wrong calls of the library are refused before anything has moved.

Every fourth one here; tests/faults/everything.py makes others.
"""

import pytest
from faulty import OUTCOMES, Fault
from small_calls import CALLS

from tests.faults import library_calls


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_wrong_call_is_refused_before_anything_has_moved(call):
    faults = []
    for case in list(library_calls.cases(call))[::4]:
        try:
            assert library_calls.tried(call, case) in OUTCOMES
        except Fault as fault:
            faults.append(str(fault))
    assert not faults, "\n".join(faults)
