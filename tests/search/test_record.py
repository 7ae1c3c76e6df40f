import hashlib
import json

import pytest
from searching import FEW, SPACE, Interrupted, stopping_after, told, train

from l2l_evograd.checks import InputError
from l2l_evograd.search import RECORD, search

pytest.importorskip("ConfigSpace")

RANDOM = {**FEW, "method": "random"}


@pytest.fixture
def begun(tmp_path):
    with pytest.raises(Interrupted):
        search(stopping_after(6), SPACE, **RANDOM, folder=tmp_path)
    return tmp_path


def test_every_evaluation_is_on_the_disk_as_soon_as_it_has_ended(tmp_path):
    lines = []

    def looking(config, fidelity, seed):
        lines.append(len((tmp_path / RECORD).read_text().splitlines()))
        return train(config, fidelity, seed)

    search(looking, SPACE, **RANDOM, folder=tmp_path)
    assert lines == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_half_a_line_at_the_end_is_done_again(begun, kept):
    path = begun / RECORD
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: len(whole) - len(last) + kept])
    resumed = search(train, SPACE, **RANDOM, folder=begun, resume=True)
    assert told(resumed) == told(search(train, SPACE, **RANDOM))
    for line in path.read_text().splitlines():
        json.loads(line)


def test_a_record_that_broke_off_in_its_first_line_begins_anew(tmp_path):
    (tmp_path / RECORD).write_text('{"settings": {"meth')
    resumed = search(train, SPACE, **RANDOM, folder=tmp_path, resume=True)
    assert told(resumed) == told(search(train, SPACE, **RANDOM))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "expected seed to be 0 as in the search in .*, got 1"),
        ({"method": "dehb"}, "expected method to be random"),
        ({"max_fidelity": 28}, "expected max_fidelity to be 27"),
        ({"min_fidelity": 2}, "expected min_fidelity to be 1"),
        ({"eta": 2}, "expected eta to be 3"),
        ({"workers": 2}, "expected workers to be 1"),
        ({"space": {**SPACE, "lr": (1e-4, 2.0, "log")}}, "expected space to be"),
    ],
)
def test_another_search_is_not_resumed(begun, changed, message):
    if changed.get("method") == "dehb":
        pytest.importorskip("dehb")
    before = (begun / RECORD).read_bytes()
    arguments = {"space": SPACE, **RANDOM, **changed}
    with pytest.raises(InputError, match=message):
        search(stopping_after(0), **arguments, folder=begun, resume=True)
    assert (begun / RECORD).read_bytes() == before


def changed(path, number, **changes):
    """Change a line as if the search had written it so, and what follows as well."""
    lines, digest = [], ""
    for place, line in enumerate(path.read_text().splitlines()):
        content = json.loads(line)
        del content["digest"]
        if place == number:
            content.update(changes)
        text = json.dumps(content, sort_keys=True)
        digest = hashlib.sha256(f"{digest} {text}".encode()).hexdigest()[:16]
        lines.append(json.dumps({**content, "digest": digest}) + "\n")
    path.write_text("".join(lines))


def test_a_record_whose_configurations_are_others_is_refused(begun):
    path = begun / RECORD
    before = path.read_text()
    changed(path, 0)
    assert path.read_text() == before
    changed(path, 3, config={"lr": 0.123, "momentum": 0.5})
    with pytest.raises(InputError, match="evaluation 3 in .* the versions of the lib"):
        search(stopping_after(0), SPACE, **RANDOM, folder=begun, resume=True)


@pytest.mark.parametrize(
    "line", ["no JSON", "3", '{"part": "search"}', "[]", '{"digest": 1}']
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_damaged_record_is_refused(begun, line, place):
    path = begun / RECORD
    lines = path.read_text().splitlines()
    lines[place] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=f"line {place + 1} of .* is damaged"):
        search(stopping_after(0), SPACE, **RANDOM, folder=begun, resume=True)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_missing_line_and_another_loss_are_noticed(begun, place):
    path = begun / RECORD
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:place] + whole[place + 1 :]))
    with pytest.raises(InputError, match=f"line {place + 1} of .* is missing"):
        search(stopping_after(0), SPACE, **RANDOM, folder=begun, resume=True)
    edited = whole[4].replace('"loss": ', '"loss": 1')
    path.write_text("".join([*whole[:4], edited, *whole[5:]]))
    with pytest.raises(InputError, match="line 5 of .* was edited"):
        search(stopping_after(0), SPACE, **RANDOM, folder=begun, resume=True)
    path.write_text("".join(whole[:4]))  # as the message advises
    resumed = search(train, SPACE, **RANDOM, folder=begun, resume=True)
    assert told(resumed) == told(search(train, SPACE, **RANDOM))


def test_a_record_that_is_no_text_is_refused(begun):
    with (begun / RECORD).open("ab") as file:
        file.write(b"\xff\xfe\n")
    with pytest.raises(InputError, match="it is not text in UTF-8"):
        search(stopping_after(0), SPACE, **RANDOM, folder=begun, resume=True)


def test_a_search_is_not_replaced(begun):
    with pytest.raises(InputError, match="already contains a search"):
        search(stopping_after(0), SPACE, **RANDOM, folder=begun)


def test_there_must_be_a_search_to_resume(tmp_path):
    with pytest.raises(InputError, match="there is no search to resume"):
        search(stopping_after(0), SPACE, **RANDOM, folder=tmp_path, resume=True)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        search(stopping_after(0), SPACE, **RANDOM, folder=tmp_path / "file")
