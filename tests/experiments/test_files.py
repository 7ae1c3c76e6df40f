import json
from pathlib import Path

import pytest

from l2l_evograd.experiments.files import read_object, write_json, write_whole


def test_a_file_is_whole_or_not_there(tmp_path):
    def failing(place: Path) -> None:
        place.write_text("half")
        raise KeyError

    path = tmp_path / "a.png"
    with pytest.raises(KeyError):
        write_whole(path, failing)
    assert list(tmp_path.iterdir()) == []
    write_whole(path, lambda place: place.write_text("whole") and None)
    assert path.read_text() == "whole"


def test_an_old_file_stays_if_the_new_one_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "a.json is not JSON"), ("[]", "a.json to contain an object")],
)
def test_a_file_that_holds_no_object_is_refused(text: str, message: str, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_object(tmp_path / "a.json")
