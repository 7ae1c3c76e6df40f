import json

import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.sealed import (
    damaged,
    exists,
    last_good,
    mend,
    previous,
    read_sealed,
    remove,
    write_sealed,
)

FIRST, SECOND = {"a": 1, "b": [0.1, None]}, {"b": [0.2], "a": 2}


@pytest.fixture
def path(tmp_path):
    """A file of which there are two generations."""
    write_sealed(tmp_path / "some.json", FIRST)
    write_sealed(tmp_path / "some.json", SECOND)
    return tmp_path / "some.json"


def test_what_was_written_is_read(path):
    assert read_sealed(path) == SECOND
    assert read_sealed(previous(path)) == FIRST
    assert mend(path) == ""


def test_the_order_of_entries_does_not_count(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items()))))
    assert read_sealed(path) == SECOND


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.2", "0.3", "is damaged or was edited"),
        ('"a"', '"c"', "is damaged or was edited"),
        ('"digest"', '"digost"', "has no digest"),
        ("sha256:", "sha512:", "is damaged or was edited"),
        ("0.2", "NaN", "NaN is not a number of JSON"),
        ("0.2", "1" * 5000, "is not JSON that can be read"),
        ("0.2", "[" * 100_000, "too nested"),
        ("{", "", "is not JSON"),
    ],
)
def test_a_file_that_was_changed_is_named(path, old: str, new: str, message: str):
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_sealed(path)
    found, used, wrong = last_good(path, read_sealed)
    assert (found, used) == (FIRST, previous(path)) and message in wrong


def test_a_damaged_file_moves_out_of_the_way(path):
    path.write_text("{")
    assert "going on from some.previous.json" in mend(path)
    assert damaged(path).read_text() == "{" and not path.exists()
    write_sealed(path, SECOND)  # does not take the place of the good generation
    assert read_sealed(previous(path)) == FIRST
    remove(path)
    assert list(path.parent.iterdir()) == []


def test_if_both_are_damaged_the_newest_is_named(path):
    for each in (path, previous(path)):
        each.write_text("{")
    with pytest.raises(InputError, match="some.json is not JSON"):
        mend(path)


def test_between_two_names_the_one_before_counts(path):
    path.unlink()
    assert exists(path) and mend(path) == ""
    assert last_good(path, read_sealed)[:2] == (FIRST, previous(path))


def test_what_json_cannot_store_is_not_written(path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_sealed(path, {"a": float("inf")})
    assert read_sealed(path) == SECOND
