import json

import pytest
import torch
from idx import write_digits
from written import edit

from l2l_evograd import cli
from l2l_evograd.experiments.rerun import difference
from l2l_evograd.experiments.sealed import read_sealed, write_sealed


@pytest.fixture
def run(tmp_path):
    """The folder of a small run."""
    write_digits(tmp_path / "mnist", "t10k", 60)
    line = ["rotation", "--data", str(tmp_path / "mnist"), "--iterations", "3"]
    line += ["--batch-size", "8", "--seeds", "1", "--methods", "none,evograd"]
    assert cli.main([*line, "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_a_run_that_is_repeated_gives_the_same_numbers(run, capsys):
    assert cli.main(["rerun", str(run / "results.json")]) == 0
    said = capsys.readouterr().out
    assert "seed 0, evograd: the same numbers" in said
    assert "all 2 results of" in said and "came out the same, bit for bit" in said
    again = run.with_name("run-rerun")
    assert json.loads((again / "results.json").read_text())["runs"]
    assert cli.main(["rerun", str(run)]) == 2  # the folder of the repetition is there
    assert "already contains a run" in capsys.readouterr().err
    assert cli.main(["rerun", str(run), "--resume"]) == 0


def test_another_number_is_told(run, capsys):
    content = read_sealed(run / "results.json")
    content["runs"][1]["curve"][1][1] += 1e-12
    write_sealed(run / "results.json", content)
    assert cli.main(["rerun", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 2 results of" in line and "the first curve[1][1]: " in line


def test_other_versions_and_threads_are_told(run, capsys):
    versions = {**read_sealed(run / "results.json")["versions"], "torch": "1.0"}
    threads = torch.get_num_threads() + 1
    edit(run / "results.json", versions=versions, threads=threads)
    assert cli.main(["rerun", str(run)]) == 0
    said = capsys.readouterr().out
    assert "torch was 1.0, and is " in said and f"threads was {threads}" in said


def test_other_data_are_refused_before_anything_is_trained(run, tmp_path, capsys):
    images = tmp_path / "mnist" / "t10k-images-idx3-ubyte"
    content = bytearray(images.read_bytes())
    content[16 + 28 * 14 + 14] ^= 64  # in the middle of the first image
    images.write_bytes(content)
    assert cli.main(["rerun", str(run)]) == 2
    assert "the data are not those of" in capsys.readouterr().err
    assert not run.with_name("run-rerun").exists()


def test_what_is_no_result_is_refused(run, tmp_path, capsys):
    assert cli.main(["illustrate", "--trials", "2", "--out", str(tmp_path / "i")]) == 0
    for path, message in (
        (tmp_path / "i", "expected .* to contain results of crossdomain"),
        (tmp_path / "nothing.json", "cannot read"),
        (run / "settings.json", "to contain results of"),
    ):
        capsys.readouterr()
        assert cli.main(["rerun", str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message.partition(".*")[2] in line
    for odd in ("", "~nobody-here/x", "a" * 5000):
        capsys.readouterr()
        assert cli.main(["rerun", odd]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert cli.main(["rerun", str(run), "--out", str(run)]) == 2
    assert "another folder than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        ({"a": 1, "seconds": 2}, {"a": 1, "seconds": 3}, ""),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "a[1] b: 2 and now 3"),
        ({"a": [1]}, {"a": [1, 2]}, "a: [1] and now [1, 2]"),
        ({"a": 1}, {"b": 1}, "a: 1 and now None"),
        ({"a": None}, None, ": {'a': None} and now None"),
    ],
)
def test_the_first_difference_is_named(one, other, place):
    assert difference(one, other) == place


@pytest.mark.parametrize("entry", [{"method": "none"}, {"seed": 0}, 3, None, {}])
def test_an_entry_without_seed_or_method_is_one_line(entry, run, capsys):
    edit(run / "results.json", runs=[entry])
    assert cli.main(["rerun", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "entry 1 of" in line and line.startswith("error: expected ")
