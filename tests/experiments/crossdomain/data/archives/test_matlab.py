import io

import numpy as np
import pytest
from scipy.io import savemat

from l2l_evograd.experiments.crossdomain.data.archives.matlab import read_matlab


def written(packed: bool, **variables: object) -> bytes:
    file = io.BytesIO()
    savemat(file, variables, do_compression=packed)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_what_scipy_writes_is_read(packed):
    records = np.array(
        [[(7, "a.jpg", 0.5), (8, "é.jpg", -1.25)]],
        dtype=[("class", object), ("fname", object), ("x", object)],
    )
    content = written(
        packed,
        names=np.array([["one", "two words", "3"]], dtype=object),
        annotations=records,
        numbers=np.array([[1, 2], [3, 4]], dtype=np.int16),
        text="a text",
    )
    assert read_matlab(content) == {
        "names": ["one", "two words", "3"],
        "annotations": [
            {"class": (7,), "fname": "a.jpg", "x": (0.5,)},
            {"class": (8,), "fname": "é.jpg", "x": (-1.25,)},
        ],
        "numbers": (1, 3, 2, 4),  # by columns
        "text": "a text",
    }


def test_a_file_that_inflates_is_refused():
    content = written(True, a=np.zeros((2, 2**20)))
    assert len(content) < 30_000
    with pytest.raises(ValueError, match="more than 16 MiB unpacked"):
        read_matlab(written(True, a=np.zeros((3, 2**20))))
    assert len(read_matlab(written(True, a=np.zeros((1, 2**20))))["a"]) == 2**20
