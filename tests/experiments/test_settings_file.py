import json
from pathlib import Path
from typing import Any

import pytest
from few_settings import Settings

from l2l_evograd import cli
from l2l_evograd.checks import InputError
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings
from l2l_evograd.experiments.search.searched import SEARCHED
from l2l_evograd.experiments.settings_file import check_names, override, read_settings


def written(folder: Path, content: Any, name: str = "best.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_settings_of_a_run_are_a_settings_file(tmp_path):
    settings = Settings(methods=("b",), ways=3, workers=2)
    given = read_settings(Settings, written(tmp_path, settings.to_dict()))
    assert Settings(**given) == settings


def test_a_file_may_contain_some_settings_and_null_is_the_default(tmp_path):
    path = written(tmp_path, {"lr": None, "warm_up": 3, "methods": ["guided"]})
    found = read_settings(NoisyLabelSettings, path)
    assert found == {"warm_up": 3, "methods": ("guided",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "best.json is not JSON"),
        ([], "best.json to contain an object"),
        ({"way": 3}, "best.json: some has no setting way: expected methods, seed, see"),
        ({"ways": 1}, "best.json: expected ways to be a whole number of at least 2"),
        ({"ways": "3"}, "best.json: expected ways to be a whole number of at least 2"),
        ({"methods": ["c"]}, "best.json: expected methods to be one of 'a', 'b'"),
    ],
)
def test_what_is_wrong_in_a_file_names_the_file(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_settings(Settings, written(tmp_path, content))


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"--config to be a JSON, YAML or TOML file, got .*nowhere"
    ):
        read_settings(Settings, tmp_path / "nowhere")
    with pytest.raises(InputError, match="--config to be a JSON, YAML or TOML file"):
        read_settings(Settings, tmp_path)


def test_names_of_settings_are_checked():
    check_names(Settings, ["ways", "seed"])
    with pytest.raises(InputError, match="no setting x, y"):
        check_names(Settings, ["x", "ways", "y"])


def test_a_setting_gives_way_to_the_other_one_of_its_pair():
    file = {"epochs": 5, "lr": 0.1}
    kind = NoisyLabelSettings
    assert override(kind, file, {"iterations": 3}) == {"lr": 0.1, "iterations": 3}
    assert override(kind, {"iterations": 3}, {"epochs": 5}) == {"epochs": 5}
    assert override(kind, file, {"iterations": None, "lr": 1.0})["epochs"] == 5
    assert override(kind, file, {"lr": 0.2}) == {"epochs": 5, "lr": 0.2}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (NoisyLabelSettings, {"epochs": 3, "iterations": 2}),
        (FewShotSettings, {"gradients": 3, "seconds": 2.0}),
    ],
)
def test_both_settings_of_a_pair_are_refused(kind, given):
    one, other = given
    with pytest.raises(InputError, match=f"expected {one} or {other}, got both: 3 and"):
        kind(**given)


@pytest.mark.parametrize("command", [*SEARCHED, "schedules"])
def test_every_command_reads_settings_from_a_file(command, tmp_path, capsys):
    path = written(tmp_path, {"seeds": 0})
    out = tmp_path / "run"
    assert cli.main([command, "--config", str(path), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {path}: expected seeds to be a whole number of at")
    assert not out.exists()


def test_a_settings_file_and_resume_go_together(tmp_path, capsys):
    from idx import write_digits

    write_digits(tmp_path / "mnist", "t10k", 60)
    content = {"data": str(tmp_path / "mnist"), "iterations": 2, "batch_size": 8}
    path = written(tmp_path, {**content, "methods": ["none"], "seeds": 2})
    out = tmp_path / "run"
    line = ["rotation", "--config", str(path), "--out", str(out)]
    assert cli.main([*line, "--seeds", "1", "--iterations", "3"]) == 0
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["seeds"], settings["iterations"]) == (1, 3)
    own = ["rotation", "--config", str(out / "settings.json"), "--out", str(out)]
    assert cli.main([*own, "--resume", "--seeds", "2"]) == 0
    assert len(json.loads((out / "results.json").read_text())["runs"]) == 2
    capsys.readouterr()
    assert cli.main([*line, "--resume"]) == 2  # the file has other iterations
    assert "expected --iterations 3, got 2" in capsys.readouterr().err


YAML = """
# a comment
command: noisy-labels
methods: [guided, exact]
width: 3
lr: 1e-3
no-augment: true
image_size: null
"""
TOML = """
command = "noisy-labels"  # a comment
methods = "guided, exact"
width = 3
lr = 1e-3
no-augment = true
"""


@pytest.mark.parametrize(
    ("name", "text"), [("a.yaml", YAML), ("a.YML", YAML), ("a.toml", TOML)]
)
def test_yaml_and_toml_say_what_json_says(name, text, tmp_path):
    assert read_settings(NoisyLabelSettings, written(tmp_path, text, name)) == {
        "methods": ("guided", "exact"),
        "width": 3,
        "lr": 1e-3,
        "no_augment": True,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"warm-up": 3}'),
        ("a.yaml", "warm-up: 3"),
        ("a.toml", "warm-up = 3"),
    ],
)
def test_names_have_dashes_or_underscores_but_not_both(name, text, tmp_path):
    path = written(tmp_path, text, name)
    assert read_settings(NoisyLabelSettings, path) == {"warm_up": 3}
    both = text.replace("{", "").replace("}", "")
    joined = ", " if name == "a.json" else "\n"
    both = f"{both}{joined}{both.replace('-', '_')}"
    path = written(tmp_path, f"{{{both}}}" if name == "a.json" else both, name)
    with pytest.raises(InputError, match="'warm_up' twice, with - and with _"):
        read_settings(NoisyLabelSettings, path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "ways: [", r"a.yaml is not YAML that can be read: line 1, "),
        ("a.yaml", "3", "a.yaml to contain an object, got a int"),
        ("a.yaml", "- 3", "a.yaml to contain an object, got a list"),
        (
            "a.yaml",
            "no_augment: yes",
            "a.yaml: expected no_augment to be True or False, got",
        ),
        ("a.yaml", "way: 3", "a.yaml: noisy-labels has no setting way"),
        ("a.yaml", "width: 0x10", "a.yaml: expected width to be a whole number"),
        ("a.yaml", "lr: .inf", "a.yaml: expected lr to be"),
        ("a.toml", "ways = ", "a.toml is not TOML that can be read: Invalid value"),
        ("a.toml", "ways = 3\nways = 4", "a.toml is not TOML that can be read: Cannot"),
        ("a.toml", "lr = inf", "a.toml: expected lr to be"),
        ("a.toml", "width = 2020-01-01", "a.toml: expected width to be a whole number"),
        ("a.toml", "a = " + "[" * 5000, "a.toml is not TOML that can be read: "),
        ("a.toml", "#" * 2**17, "at most 0.0625 MiB, got .* of 0.12 MiB"),
        ("a.ini", "ways = 3", "by its suffix, .json, .yaml, .yml, .toml, got"),
        ("a", "{}", "by its suffix, .json, .yaml, .yml, .toml, got"),
    ],
)
def test_what_is_wrong_in_yaml_or_toml_names_the_file(name, text, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        read_settings(NoisyLabelSettings, written(tmp_path, text, name))
    assert len(str(caught.value).splitlines()) == 1


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b'a = "\xff"')
    with pytest.raises(InputError, match="a.toml is not TOML: it is not text in UTF-8"):
        read_settings(Settings, path)


@pytest.mark.parametrize("name", ["a.yaml", "a.toml"])
def test_a_file_without_settings_sets_none(name, tmp_path):
    (tmp_path / name).write_text("# nothing yet\n", encoding="utf-8")
    assert read_settings(FewShotSettings, tmp_path / name) == {}
