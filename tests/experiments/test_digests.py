import copy
from collections import OrderedDict

import pytest
import torch

from l2l_evograd.experiments.digests import digest_of, digest_of_state, fingerprint

STATE = {
    "weights": OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.tensor(True)),
    "losses": [0.1, float("nan"), 3],
    "names": ("x", b"y", None),
}


def test_the_same_content_has_the_same_digest():
    assert digest_of_state(STATE) == digest_of_state(copy.deepcopy(STATE))
    turned = {**STATE, "weights": dict(STATE["weights"])}
    turned["weights"]["a"] = torch.arange(6.0).view(3, 2).t().reshape(3, 2).view(2, 3)
    assert digest_of_state(turned) != digest_of_state(STATE)
    plain = {**STATE, "weights": dict(STATE["weights"])}
    assert digest_of_state(plain) == digest_of_state(STATE)
    apart = torch.arange(12.0)[::2].view(2, 3)
    assert digest_of_state(apart) == digest_of_state(apart.contiguous())


@pytest.mark.parametrize(
    "other",
    [
        [torch.zeros(2, 3)],
        [torch.zeros(6)],
        [torch.zeros(3, 2, dtype=torch.float64)],
        [torch.zeros(3, 2, dtype=torch.int32)],
        [-torch.zeros(3, 2)],
        [[torch.zeros(3, 2)]],
        [torch.zeros(3, 2), None],
        [],
    ],
)
def test_another_content_has_another_digest(other):
    assert digest_of_state(other) != digest_of_state([torch.zeros(3, 2)])


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), ("1", 1), ("a", b"a"), ("ab", ["a", "b"])]
)
def test_another_type_has_another_digest(one, other):
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.uint8])
def test_every_dtype_has_a_digest(dtype):
    assert fingerprint(torch.ones(3).to(dtype)) != fingerprint(torch.zeros(3).to(dtype))
    assert len(fingerprint(torch.empty(0, dtype=dtype))) == 16


def test_an_object_that_cannot_be_read_has_none():
    with pytest.raises(TypeError, match="expected tensors, numbers and text"):
        digest_of_state({"a": object()})


def test_json_counts_content_and_not_order():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_of({"a": float("nan")})
