import json
from pathlib import Path
from typing import Any

import pytest
import torch
from consoles import silent_console
from tiny import tiny_domains, tiny_experiment, tiny_settings

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.experiment import CrossDomainExperiment
from l2l_evograd.experiments.crossdomain.networks.heads import FewShotModel
from l2l_evograd.experiments.crossdomain.results import CrossDomainResults
from l2l_evograd.experiments.crossdomain.training.meta_training import MetaTraining

METHODS = ("none", "lft-evograd")


def figures(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What must come out the same; times and memory need not."""
    measured = ("seconds_per_iteration", "peak_memory_bytes")
    return [{k: v for k, v in run.items() if k not in measured} for run in runs]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.stem}/{name}": value
        for path in sorted((out / "checkpoints").glob("*.ckpt"))
        for name, value in torch.load(path, weights_only=True)["state_dict"].items()
    }


def assert_same(out: Path, other: Path) -> None:
    own, others = weights(out), weights(other)
    assert own.keys() == others.keys() and own
    assert all(torch.equal(own[name], others[name]) for name in own)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrossDomainResults]:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    return out, tiny_experiment(out, methods=METHODS).run()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(whole, tmp_path):
    torch.manual_seed(123)
    again = tiny_experiment(tmp_path / "a", methods=METHODS).run()
    other = tiny_experiment(tmp_path / "b", methods=("none",), seed=1).run()
    assert figures(again.runs) == figures(whole[1].runs)
    assert_same(tmp_path / "a", whole[0])
    assert other.runs[0]["accuracies"] != again.runs[0]["accuracies"]


@pytest.mark.parametrize("stop", [("none", 3), ("lft-evograd", 4)])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(
    stop: tuple[str, int], whole, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    iterate = MetaTraining.iterate

    def stopping(self: MetaTraining, iteration: int) -> float:
        if (self.method.name, iteration) == stop:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(MetaTraining, "iterate", stopping)
        with pytest.raises(KeyboardInterrupt):
            tiny_experiment(tmp_path, methods=METHODS).run()
    rest = tiny_experiment(tmp_path, methods=METHODS).run(resume=True)
    assert figures(rest.runs) == figures(whole[1].runs)
    assert_same(tmp_path, whole[0])


def test_a_method_that_is_finished_is_not_trained_again(tmp_path):
    first = tiny_experiment(tmp_path, methods=("none",), pretrain_epochs=0).run()
    second = tiny_experiment(tmp_path, methods=("none",), pretrain_epochs=0).run(True)
    assert second.runs == first.runs
    (version,) = (tmp_path / "logs" / "0-none").iterdir()
    assert version.name == "version_0"


def test_a_run_that_does_not_go_on_begins_anew(tmp_path):
    first = tiny_experiment(tmp_path, methods=("none",)).run()
    second = tiny_experiment(tmp_path, methods=("none",), seed=1).run()
    assert first.runs[0]["seed"] == 0
    assert [run["seed"] for run in second.runs] == [1]
    assert not (tmp_path / "checkpoints" / "0-none.ckpt").exists()


def test_every_method_and_seed_has_its_figures(tmp_path):
    all_methods = ("none", "ft", "lft-exact", "lft-evograd", "lft-guided")
    experiment = tiny_experiment(
        tmp_path, methods=all_methods, seeds=2, iterations=3, head="relationnet"
    )
    experiment.run()
    content = json.loads((tmp_path / "results.json").read_text())
    done = [(run["seed"], run["method"]) for run in content["runs"]]
    assert done == [(seed, method) for seed in (0, 1) for method in all_methods]
    for run in content["runs"]:
        assert len(run["accuracies"]) == run["accuracy"]["episodes"] == 6
        assert run["seconds_per_iteration"] > 0
        assert [point["iteration"] for point in run["curve"]] == [0, 2, 3]
        learned = run["method"].startswith("lft")
        assert (run["movement_mean"] or 0) > 0 if learned else not run["movement_mean"]
        assert bool(run["movement"]) == (run["method"] != "none")
    assert content["domains"] == {
        "unseen": "sketch",
        "base": "print",
        "seen": ["print", "texture-like"],
    }
    assert content["settings"]["ways"] == 2


def test_fixed_noise_has_the_start_strengths_to_the_end(tmp_path):
    changes = {"start_scale": 0.7, "start_shift": 0.2, "iterations": 2}
    (run,) = tiny_experiment(tmp_path, methods=("ft",), **changes).run().runs
    for at in run["strengths"]:
        for layer in at["layers"].values():
            assert layer == pytest.approx({"gamma": 0.7, "beta": 0.2})


def test_methods_start_from_the_same_weights(tmp_path):
    runs = tiny_experiment(tmp_path, methods=("none", "ft")).run().runs
    assert runs[0]["curve"][0]["accuracy"] == runs[1]["curve"][0]["accuracy"]


def test_training_goes_without_pretraining(tmp_path):
    tiny_experiment(tmp_path, methods=("none",), pretrain_epochs=0).run()
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(names) == ["0-none.ckpt", "0-none.previous.ckpt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 9}, "print/base has 4 classes, too few for 9 ways"),
        ({"shots": 9}, "has 6 images, too few for 9 shots and 2 queries"),
    ],
)
def test_episodes_that_cannot_be_drawn_are_refused_before_anything_is_written(
    changes: dict[str, int], message: str, tmp_path
):
    with pytest.raises(ValueError, match=message):
        tiny_experiment(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_lack_of_memory_names_what_needs_it_and_what_lowers_it(tmp_path):
    class Enormous(CrossDomainExperiment):
        def _fresh_model(self, seed: int) -> FewShotModel:
            model = super()._fresh_model(seed)
            # More than any address space holds.
            model.register_forward_hook(lambda *_: torch.empty(2**60))
            return model

    settings = tiny_settings(pretrain_epochs=0, methods=("lft-evograd",))
    domains, console = tiny_domains(), silent_console()
    with pytest.raises(InputError) as raised:
        Enormous(settings, tmp_path, console, domains=domains).run()
    (line,) = str(raised.value).splitlines()
    for part in ("cnn4 at 16 px", "K = 2", "lower --image-size, --queries"):
        assert part in line


def test_another_run_lends_its_encoder_where_it_is_the_one_wanted(tmp_path):
    options = {"methods": ("none",), "iterations": 2}
    lender, alone, taker = (tmp_path / name for name in ("lender", "alone", "taker"))
    tiny_experiment(lender, **options).run()
    other = {**options, "unseen": "print", "base": "texture-like"}
    tiny_experiment(alone, **other).run()
    tiny_experiment(taker, [lender], **other).run()
    assert_same(alone, taker)
    third = tmp_path / "third"
    tiny_experiment(third, [lender], **options, queries=3).run()
    own, others = weights(lender), weights(third)
    names = [name for name in own if name.startswith("0-pretrain/")]
    assert names and all(torch.equal(own[name], others[name]) for name in names)


def test_accumulation_auxiliary_and_the_like_reach_the_training(tmp_path):
    runs = [
        tiny_experiment(
            tmp_path / str(number), methods=("lft-guided",), iterations=2, **changes
        ).run().runs[0]
        for number, changes in enumerate(
            (
                {},
                {"accumulate": 2},
                {"auxiliary": True},
                {"precision": "bf16"},
                {"domain_block": 50},
                {"test_queries": 4},
                {"pretrain_classifier": "cosine"},
                {"pretrain_batch": 3},
                {"start_scale": 0.7},
                {"start_shift": 0.7},
            )
        )
    ]  # fmt: skip
    told = [(run["curve"], run["strengths"], run["accuracies"]) for run in runs]
    assert len({json.dumps(one) for one in told}) == 10
