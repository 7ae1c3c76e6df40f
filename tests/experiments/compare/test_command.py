import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from l2l_evograd import cli
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.compare.names import estimators_by_name
from l2l_evograd.experiments.compare.problem import ProblemError

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "compare_problem.py"

PROBLEM = """
import torch

def problem():
    model = torch.nn.Linear(3, 1)
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    lam = torch.zeros(3, requires_grad=True)
    return {
        "model": model,
        "inner_loss": lambda net: ((net(x) - y) ** 2).mean() + (
            lam.exp() * net.weight ** 2).sum(),
        "outer_loss": lambda net: (net(x + 1) - y).square().mean(),
        "hyperparameters": [lam],
        "lr": 0.1,
    }
"""


@pytest.fixture(autouse=True)
def modules_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if getattr(sys.modules[name], "__file__", None) is None:
            continue
        if "/own_" in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def place(tmp_path):
    """Writes a problem to a file and returns its path."""

    def write(text: str = PROBLEM, name: str = "own_problem.py") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_the_example_is_a_problem(capsys):
    line = ["compare", f"{EXAMPLE}:problem", "--draws", "3", "--json"]
    assert cli.main([*line, "--estimators", "guided,evograd-8,exact"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["method"]: row for row in found["rows"]}
    assert [*rows] == ["higher", "guided", "evograd-8", "exact"]
    assert rows["exact"]["fidelity"]["cosine"]["value"] == pytest.approx(1)
    assert rows["guided"]["fidelity"]["cosine"]["value"] > 0.9
    assert rows["evograd-8"]["draws"] == 3


def test_the_table_is_printed_and_the_seed_counts(place, capsys):
    path = place()

    def rows(seed: str) -> list[dict[str, object]]:
        line = ["compare", f"{path}:problem", "--draws", "2", "--seed", seed, "--json"]
        assert cli.main([*line, "--quiet", "--estimators", "evograd"]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return [row["fidelity"] for row in json.loads(said.out)["rows"]]

    before = torch.get_rng_state()
    assert rows("1") == rows("1") != rows("2")
    assert torch.equal(torch.get_rng_state(), before)
    assert cli.main(["compare", f"{path}:problem", "--draws", "2"]) == 0
    shown = capsys.readouterr().out
    assert "guided-central" in shown and "lr = 0.1" in shown


def test_options_override_the_problem(place, capsys):
    path = place()
    line = ["compare", f"{path}:problem", "--draws", "2", "--lr", "0.2", "--steps", "3"]
    assert cli.main([*line, "--deltas", "0.5", "--estimators", "exact"]) == 0
    shown = capsys.readouterr().out
    assert "through 3 inner steps" in shown and "lr = 0.2" in shown
    assert "δ = 0.5" in shown and "δ = 0.3 " not in shown


def test_a_problem_may_have_estimators_of_its_own(place, capsys):
    text = PROBLEM.replace(
        '"lr": 0.1',
        '"lr": 0.1, "draws": 2, "estimators": {"mine": "guided", "evograd": "exact"}',
    )
    path = place(text)
    assert cli.main(["compare", f"{path}:problem", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in rows] == ["higher", "mine", "evograd"]
    line = ["compare", f"{path}:problem", "--json", "--estimators", "evograd,guided"]
    assert cli.main(line) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["estimator"][:5] for row in rows[1:]] == ["Exact", "Guide"]


def test_a_module_is_found_in_the_current_folder_with_its_neighbours(
    place, tmp_path, monkeypatch, capsys
):
    place("own = 0.3\n", "own_rate.py")
    place(PROBLEM.replace("import torch", "import torch\nimport own_rate"))
    monkeypatch.chdir(tmp_path)
    for module in ("own_problem", "own_problem.py"):
        line = ["compare", f"{module}:problem", "--draws", "2", "--quiet"]
        assert cli.main([*line, "--estimators", "exact"]) == 0


RETURNS = "def problem():\n    return {}\n"


@pytest.mark.parametrize(
    ("text", "function", "options", "message"),
    [
        (PROBLEM, "nothing", [], "'own_problem.py' to have a function nothing, got n"),
        (PROBLEM, "torch", [], "to have a function torch, got module"),
        (PROBLEM, "pro blem", [], "expected the problem as MODULE:FUNCTION or FILE.py"),
        (RETURNS.format("3"), "problem", [], "to return a dictionary with model, inne"),
        (
            RETURNS.format("{'model': 3}"),
            "problem",
            [],
            "inner_loss, outer_loss, hyperparameters is missing",
        ),
        (
            PROBLEM.replace('"lr"', '"rate"'),
            "problem",
            [],
            "'rate', which compare() does not take: expected model, inner_loss",
        ),
        (PROBLEM.replace('"lr": 0.1,', ""), "problem", [], "returns no lr, the learni"),
        (PROBLEM.replace("0.1", "-1"), "problem", [], "lr to be positive"),
        (PROBLEM.replace('"model": model', '"model": 3'), "problem", [], "a torch.nn."),
        (
            PROBLEM.replace(".square().mean()", ".square()"),
            "problem",
            [],
            "to be a scalar, got a tensor of shape (8, 1)",
        ),
        (
            PROBLEM.replace(".square().mean()", ".square().mean().item()"),
            "problem",
            [],
            "to be a scalar tensor, got float",
        ),
        (PROBLEM.replace("[lam]", '["x"]'), "problem", [], "'x'"),
        (
            "def problem(needed):\n    return {}\n",
            "problem",
            [],
            "missing 1 required positional argument: 'needed'",
        ),
        (PROBLEM, "problem", ["--estimators", "best"], "there is no estimator 'best'"),
        (PROBLEM, "problem", ["--estimators", ","], "to name some of exact, guided-c"),
        (PROBLEM, "problem", ["--estimators", "evograd-1"], "evograd-1: "),
        (PROBLEM, "problem", ["--deltas", "a"], "--deltas: expected a finite number"),
        (PROBLEM, "problem", ["--deltas", "-1"], "every delta to be positive"),
        (PROBLEM, "problem", ["--draws", "0"], "draws to be a whole number"),
        (PROBLEM, "problem", ["--seed", "-1"], "seed to be a whole number of at least"),
        (PROBLEM, "problem", ["--lr", "nan"], "finite number"),
    ],
)
def test_what_is_no_problem_is_one_line(
    text, function, options, message, place, tmp_path, monkeypatch, capsys
):
    place(text)
    monkeypatch.chdir(tmp_path)
    line = ["compare", f"own_problem.py:{function}", "--draws", "2", *options]
    assert cli.main(line) == 2
    said = capsys.readouterr()
    (shown,) = said.err.splitlines()
    assert shown.startswith("error: ") and message in shown and said.out == ""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_such_module:problem", "there is no module no_such_module, looked for in"),
        ("json.no_such:problem", "there is no module json.no_such, looked for"),
        ("no-such:problem", "expected the problem as MODULE:FUNCTION"),
        ("nowhere.py:problem", "there is no file 'nowhere.py'"),
        ("problem.py", "expected the problem as MODULE:FUNCTION"),
        (":problem", "expected the problem as MODULE:FUNCTION"),
        ("a\0b.py:problem", "error: "),
        (".py:problem", "there is no file"),
        ("", "expected the problem as MODULE:FUNCTION"),
    ],
)
def test_a_place_without_a_problem_is_one_line(
    place, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_library\n" + PROBLEM, ModuleNotFoundError),
        ("def problem(:\n", SyntaxError),
        ("def problem():\n    raise KeyError('mine')\n", KeyError),
        (PROBLEM.replace("net(x + 1)", "net(x.T)"), RuntimeError),
        (PROBLEM.replace("net(x + 1)", "int('mine')"), ValueError),
        # our error, but in the middle of the user's code
        (
            "from l2l_evograd import Guided\n"
            + PROBLEM.replace("(3, 1)", "(Guided(-1), 1)"),
            ValueError,
        ),
    ],
)
def test_errors_of_the_problem_keep_their_traceback(text, cause, place):
    path = place(text)
    with pytest.raises(ProblemError, match="own_problem.py.* has failed: ") as caught:
        cli.main(["compare", f"{path}:problem", "--draws", "2"])
    assert isinstance(caught.value.__cause__, cause)


def test_names_of_populations():
    found = estimators_by_name(["evograd-paper-8", "evograd-16"])
    assert found["evograd-paper-8"][0] == "evolution"
    assert found["evograd-16"].n_model_candidates == 16
    with pytest.raises(InputError, match="expected exact, guided-central.*, mine$"):
        estimators_by_name(["x"], {"mine": "guided"})


def test_the_command_needs_no_library_of_the_experiments():
    code = (
        "import sys; from l2l_evograd import cli;"
        f"code = cli.main(['compare', {f'{EXAMPLE}:problem'!r}, '--draws', '2']);"
        "heavy = {'learn2learn', 'pytorch_lightning', 'matplotlib', 'torchvision',"
        " 'scipy', 'cachetools', 'yaml'};"
        "assert code == 0 and not heavy & {*sys.modules}, heavy & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_example_returns_what_the_command_needs():
    spec = importlib.util.spec_from_file_location("compare_problem", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {"model", "lr"} < {*module.problem()}


ENDS_ITSELF = """
import sys
def problem():
    sys.exit(0)
"""

PRINTS_ELSEWHERE = """
import os, torch
def problem():
    os.write(1, b"straight to the descriptor\\n")
    net = torch.nn.Linear(2, 1)
    decay = torch.zeros(2, requires_grad=True)
    x = torch.ones(3, 2)
    return {
        "model": net,
        "inner_loss": lambda n: (decay.exp() * n.weight ** 2).sum() + n(x).sum(),
        "outer_loss": lambda n: (n(x) - 1).square().mean(),
        "hyperparameters": [decay],
        "lr": 0.1,
    }
"""


def test_code_that_ends_the_process_has_failed(tmp_path):
    (tmp_path / "ends.py").write_text(ENDS_ITSELF, encoding="utf-8")
    with pytest.raises(ProblemError, match="has failed: SystemExit: 0"):
        cli.main(["compare", f"{tmp_path / 'ends.py'}:problem"])


def test_what_others_write_to_the_descriptor_is_not_in_the_document(tmp_path, capfd):
    (tmp_path / "prints.py").write_text(PRINTS_ELSEWHERE, encoding="utf-8")
    place = f"{tmp_path / 'prints.py'}:problem"
    options = ["--estimators", "exact", "--json"]
    assert cli.main(["compare", place, *options]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["command"] == "compare"
    assert "straight to the descriptor" in err
