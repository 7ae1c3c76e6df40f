import resource
from pathlib import Path
from typing import Any

import pytest
from consoles import silent_console
from reports import ONE, shown, table, text_of
from tiny import tiny_experiment
from written import edit, summary, written_run

from l2l_evograd import cli
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.report.command import report
from l2l_evograd.experiments.sealed import previous, remove


def test_a_real_run_is_gathered_from_the_command_line(tmp_path, capsys):
    out, to = tmp_path / "run", tmp_path / "report"
    tiny_experiment(out, methods=("none", "ft"), iterations=2, pretrain_epochs=0).run()
    assert cli.main(["report", str(out), "--to", str(to)]) == 0
    assert "report.md, domains.png: 1 run\n" in capsys.readouterr().out
    assert {path.name for path in to.iterdir()} == {"report.md", "domains.png"}
    text = (to / "report.md").read_text(encoding="utf-8")
    assert "## 2-way 1-shot, protonet, cnn4, 16 px, 2 iterations" in text
    rows = summary(out)
    assert table(text) == [
        ["method", "sketch", "seeds"],
        ["none", shown(rows["none"]), "1"],
        ["ft", shown(rows["ft"]), "1"],
    ]


def test_a_partial_run_says_so(tmp_path):
    folder = written_run(tmp_path / "a", ONE, seeds=3)
    console = silent_console()
    report([folder], to=tmp_path / "out", console=console)
    assert "1 run, 1 not finished" in console.file.getvalue()  # type: ignore[attr-defined]


def damage(run: Path) -> None:
    for path in (run / "results.json", previous(run / "results.json")):
        path.write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: remove(run / "results.json"), "contains no results yet"),
        (damage, "is not JSON"),
        (lambda run: edit(run / "settings.json", more=1), "in more; start a new run"),
        (lambda run: edit(run / "settings.json", lr=1.0), "belongs to another run: lr"),
        (lambda run: edit(run / "results.json", runs=[]), "has no results; leave"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    spoil: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good = written_run(tmp_path / "good", ONE)
    bad = written_run(tmp_path / "bad", {(1, "none"): [0.3, 0.5]}, seed=1)
    spoil(bad)
    to = tmp_path / "out"
    assert cli.main(["report", str(good), str(bad), "--to", str(to)]) == 2
    error = capsys.readouterr().err
    assert message in error and "bad" in error and error.count("\n") == 1
    assert not to.exists()


def test_a_report_needs_a_run_and_a_folder_to_go_to(tmp_path, capsys):
    assert cli.main(["report"]) == 2
    assert capsys.readouterr().err.startswith(
        'error: Command "report" parameter FOLDERS requires an argument'
    )
    run = written_run(tmp_path / "a", ONE)
    (tmp_path / "file").write_text("mine")
    for to, message in (
        ("file", "expected --to to be a folder, but"),
        ("file/below", "cannot make the folder"),
    ):
        assert cli.main(["report", str(run), "--to", str(tmp_path / to)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_an_older_report_stays_whole_if_the_new_one_cannot_be_written(tmp_path):
    run = written_run(tmp_path / "a", ONE)
    before = text_of([run], tmp_path / "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(InputError, match=r"out \(File too large\)"):
            text_of([run], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8") == before
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["domains.png", "report.md"]
