import dataclasses
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from idx import write_digits
from noisy import CLASSES, tiny_source
from noisy import tiny_settings as small_noisy
from small_tasks import tiny_problem
from small_tasks import tiny_settings as small_fewshot
from tiny import tiny_domains
from tiny import tiny_settings as small_crossdomain

from l2l_evograd.checks import InputError, NotFiniteError
from l2l_evograd.experiments.rotation import problem as rotation_problem
from l2l_evograd.experiments.search.problem import _DATA, Problem, make_problem
from l2l_evograd.experiments.search.searched import SEARCHED
from l2l_evograd.experiments.search.settings import SearchSettings
from l2l_evograd.experiments.search.space import check_space
from l2l_evograd.experiments.settings import kind_of
from l2l_evograd.experiments.settings_file import override, read_settings


def methods_of(command: str) -> tuple[str, ...]:
    fields = {f.name: f for f in dataclasses.fields(SEARCHED[command].settings)}
    return tuple(fields["methods"].metadata["choices"])


def made(command: str, folder: Path = Path("nowhere"), **given: Any) -> Problem:
    return make_problem(SearchSettings(experiment=command, **given), folder)


@pytest.fixture
def tiny(tmp_path: Path) -> Problem:
    write_digits(tmp_path / "mnist", "t10k", 60)
    fixed = {"data": str(tmp_path / "mnist"), "batch_size": 8, "methods": ["guided"]}
    return made("rotation", tmp_path / "trainings", fixed=fixed, fidelity="1..3")


@pytest.mark.parametrize(
    ("command", "method"),
    [(command, method) for command in SEARCHED for method in methods_of(command)],
)
def test_usual_spaces_name_settings_within_their_bounds(command, method):
    kind = SEARCHED[command].settings
    fixed: dict[str, Any] = {"methods": [method]}
    if command == "noisy-labels":
        fixed["weighting"] = "net"
    if (command, method) == ("crossdomain", "none"):
        with pytest.raises(InputError, match="no usual space for none"):
            made(command, fixed=fixed)
        return
    problem = made(command, fixed=fixed)
    assert problem.space.keys() <= {f.name for f in dataclasses.fields(kind)}
    for fidelity in (problem.low, problem.high):
        length = {problem.searched.fidelity: fidelity}
        check_space(kind, problem.space, override(kind, problem.fixed, length))
    assert 1 <= problem.low < problem.high


def test_every_default_that_a_search_can_find_is_in_its_space():
    for command, searched in SEARCHED.items():
        for method in methods_of(command):
            if (command, method) == ("crossdomain", "none"):
                continue
            weighting = {"weighting": "net"} if command == "noisy-labels" else {}
            space = made(command, fixed={"methods": [method], **weighting}).space
            for name, values in space.items():
                default = searched.settings.__dataclass_fields__[name].default
                if default is not None:
                    assert values[0] <= default <= values[1], (command, name)


def test_the_space_is_that_of_the_method():
    population = {"candidates", "sigma", "temperature"}
    assert set(made("rotation").space) == {"lr", "meta_lr", *population}
    guided = made("rotation", fixed={"methods": ["guided"]})
    assert set(guided.space) == {"lr", "meta_lr", "h"}
    assert set(made("noisy-labels").space) == {"lr", "warm_up"}
    net = made("noisy-labels", fixed={"weighting": "net"})
    assert set(net.space) == {"lr", "meta_lr", "warm_up"}
    aruba = made("fewshot", fixed={"methods": ["aruba"]})
    assert set(aruba.space) == {
        "reptile_steps",
        "reptile_lr",
        "reptile_meta_lr",
        "zeta",
    }


def test_the_tests_of_a_training_are_as_small_as_they_may_be():
    assert made("fewshot").settings({}, 3, 5).tasks == 2  # type: ignore[attr-defined]
    settings: Any = made("crossdomain").settings({"meta_lr": 0.1}, 7, 5)
    assert (settings.episodes, settings.iterations, settings.meta_lr) == (2, 7, 0.1)
    assert settings.all_seeds == range(5, 6)


def test_the_length_of_a_settings_file_is_that_of_whole_trainings():
    problem = made("rotation", fixed={"iterations": 450, "seed": 3, "seeds": 2})
    assert (problem.low, problem.high) == (50, 450)
    assert problem.fixed == {"methods": ("evograd",)}
    with pytest.raises(InputError, match="in iterations, not in epochs: expected --f"):
        made("noisy-labels", fixed={"epochs": 4})
    assert made("noisy-labels", fixed={"epochs": 4}, fidelity="9..90").high == 90


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fidelity": "9"}, "expected --fidelity LOW..HIGH, got '9'"),
        ({"fidelity": "1..9:log"}, "expected --fidelity LOW..HIGH, got"),
        ({"fidelity": "9..3"}, "LOW < HIGH, got 9..3"),
        ({"space": {"iterations": "3..9"}}, "iterations cannot be searched"),
        ({"space": {"seed": "3..9"}}, "seed cannot be searched"),
        ({"space": {"x": "3..9"}}, "rotation has no setting x: expected methods, seed"),
        ({"fixed": {"x": 3}}, "rotation has no setting x: expected methods, seed"),
        ({"fixed": {"lr": -3.0}}, "expected lr to be positive"),
        ({"fixed": {"methods": ["none", "exact"]}}, "expected --set methods=NAME, got"),
        ({"fixed": {"methods": ["maml"]}}, "expected methods to be one of 'none'"),
    ],
)
def test_what_cannot_be_searched_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        made("rotation", **given)


def test_unknown_commands_are_refused():
    with pytest.raises(InputError, match="one of 'crossdomain', 'fewshot', 'noisy-lab"):
        made("schedules")
    with pytest.raises(InputError, match="expected the command whose settings are sea"):
        make_problem(SearchSettings(), Path("nowhere"))


def test_a_training_of_several_processes_is_refused():
    problem = made("noisy-labels", fixed={"devices": 2, "device": "cpu"})
    with pytest.raises(InputError, match="devices and nodes of 1, got 2 processes"):
        problem.check()


def noisy(folder: Path, **changes: Any) -> Problem:
    """The noisy-labels command on a few images."""
    kept = {k: v for k, v in small_noisy().to_dict().items() if v is not None}
    del kept["iterations"]
    kept["methods"] = ["guided"]
    problem = made("noisy-labels", folder, fixed=kept, **changes)
    return given_data(problem, tiny_source())


def crossdomain(folder: Path) -> Problem:
    """The cross-domain command on a few images."""
    fixed = {**small_crossdomain().to_dict(), "methods": ["lft-guided"]}
    kept = {name: value for name, value in fixed.items() if value is not None}
    problem = made("crossdomain", folder, fixed=kept, fidelity="1..3")
    return given_data(problem, tiny_domains())


def fewshot(folder: Path) -> Problem:
    """The few-shot command on a few images."""
    # Large meta-iterations, so that there are few of them.
    sizes = {"meta_batch": 10, "validation_tasks": 4}
    fixed = {**small_fewshot().to_dict(), **sizes, "methods": ["warpgrad"]}
    kept = {name: value for name, value in fixed.items() if value is not None}
    problem = made("fewshot", folder, fixed=kept, fidelity="1..2")
    return given_data(problem, tiny_problem())


def given_data(problem: Problem, data: Any) -> Problem:
    """Let this process have read data for a problem."""
    settings = problem.settings({}, problem.high, 0)
    sources = (getattr(settings, name) for name in problem.searched.sources)
    _DATA[(problem.command, *sources)] = data
    return problem


@pytest.fixture(autouse=True)
def no_data() -> Iterator[None]:
    yield
    _DATA.clear()


def test_bounds_are_checked_at_the_shortest_length_too(tmp_path):
    noisy(tmp_path / "trainings", fidelity="11..90").check()
    problem = noisy(tmp_path / "trainings", fidelity="10..90")
    with pytest.raises(InputError, match="warm_up of less than the 10 iterations"):
        problem.check()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [noisy, crossdomain, fewshot])
def test_each_command_has_a_loss_that_the_test_does_not_change(
    make, tmp_path, monkeypatch
):
    problem = make(tmp_path)
    config = {name: values[0] for name, values in problem.space.items()}
    loss = problem(config, problem.low, 2)
    assert 0 < loss < 5
    experiment = problem.experiment(problem.settings(config, problem.low, 2), tmp_path)
    kind = type(experiment)
    # Nothing is classified correctly in the test.
    if make is noisy:
        wrong = experiment.source.test
        monkeypatch.setattr(
            kind, "_test_set", type(wrong)(wrong.images, (wrong.labels + 1) % CLASSES)
        )
    elif make is crossdomain:
        monkeypatch.setattr(kind, "_test", lambda *_: [0.0, 0.0])
    else:
        validation = kind._validation
        monkeypatch.setattr(kind, "_tests", lambda self, seed: validation(self, 99))
    assert problem(config, problem.low, 2) == loss
    assert problem(config, problem.low, 3) != loss
    assert not list(tmp_path.iterdir())


def test_too_few_validation_images_are_refused(tmp_path):
    problem = crossdomain(tmp_path)
    problem.fixed["test_queries"] = 6
    with pytest.raises(InputError, match="too few for 1 shots and 6 queries"):
        problem.check()


def test_a_training_can_be_sent_to_another_process(tiny):
    copy = pickle.loads(pickle.dumps(tiny))
    assert copy == tiny
    assert copy({"lr": 0.01}, 2, 4) == tiny({"lr": 0.01}, 2, 4)


def test_a_training_gives_the_validation_loss_and_leaves_nothing(tiny):
    loss = tiny({"lr": 0.01}, 2, 4)
    settings: Any = tiny.settings({"lr": 0.01}, 2, 4)
    digits = tiny.experiment(settings, tiny.folder).digits
    found = rotation_problem.train("guided", digits, settings, 4)
    assert loss == found["validation_loss"] > 0
    assert not list(tiny.folder.iterdir())
    assert tiny({"lr": 0.02}, 2, 4) != loss
    assert tiny({"lr": 0.01}, 3, 4) != loss
    assert tiny({"lr": 0.01}, 2, 5) != loss


def test_the_loss_does_not_depend_on_the_test(tiny, monkeypatch):
    loss = tiny({}, 2, 4)
    experiment = tiny.experiment(tiny.settings({}, 2, 4), tiny.folder)
    test = experiment.digits.test
    changed = experiment.digits._replace(
        test=type(test)(torch.rand_like(test.images), test.labels.flip(0))
    )

    class Unread(dict):  # type: ignore[type-arg]
        """The results of a training, of which only the validation may be read."""

        def __getitem__(self, name):
            assert name == "validation_loss"
            return super().__getitem__(name)

    one = type(experiment).one

    def guarded(self, *arguments):
        self.digits = changed
        return Unread(one(self, *arguments))

    monkeypatch.setattr(type(experiment), "one", guarded)
    assert tiny({}, 2, 4) == loss


def test_data_are_read_once(tiny, monkeypatch):
    settings = tiny.settings({}, 2, 0)
    first = tiny.experiment(settings, tiny.folder)
    assert tiny.experiment(settings, tiny.folder).digits is first.digits
    other = tiny.folder.parent / "other"
    write_digits(other, "t10k", 70)
    changed = dataclasses.replace(settings, data=str(other))
    assert len(tiny.experiment(changed, tiny.folder).digits.train) == 42
    assert len(tiny.experiment(settings, tiny.folder).digits.train) == 36


def test_a_training_that_diverges_has_no_loss(tiny, monkeypatch):
    experiment = type(tiny.experiment(tiny.settings({}, 2, 0), tiny.folder))

    def diverges(*_: Any) -> Any:
        raise NotFiniteError("the loss is NaN")

    monkeypatch.setattr(experiment, "one", diverges)
    assert math.isnan(tiny({}, 2, 4))
    monkeypatch.setattr(experiment, "one", lambda *_: {"validation_loss": None})
    assert math.isnan(tiny({}, 2, 4))

    def fails(*_: Any) -> Any:
        raise InputError("the disk is full")

    monkeypatch.setattr(experiment, "one", fails)
    with pytest.raises(InputError, match="disk"):
        tiny({}, 2, 4)


def test_a_rate_that_is_far_too_high_diverges(tiny):
    assert math.isnan(tiny({"lr": 1e6}, 3, 4))


@pytest.mark.parametrize("command", SEARCHED)
def test_what_was_found_is_a_settings_file(command, tmp_path):
    problem = made(command)
    kind = SEARCHED[command].settings
    config = {name: values[0] for name, values in problem.space.items()}
    path = tmp_path / "best.json"
    path.write_text(json.dumps(problem.best_settings(config)))
    given = read_settings(kind, path)
    trained = problem.settings(config, problem.high, seed=0)
    own = {"seed", "seeds", *kind.marked("test_size")}
    for field in dataclasses.fields(kind):
        if field.name not in own:
            assert getattr(kind(**given), field.name) == getattr(trained, field.name)
    assert not own & given.keys()


def test_the_type_of_a_setting_is_known():
    assert kind_of(int) == (int, False)
    assert kind_of(float | None) == (float, True)
    assert kind_of(tuple[str, ...] | None) == (tuple, True)
    assert kind_of(dict[str, str]) == (dict, False)
