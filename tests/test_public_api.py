import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import l2l_evograd

PACKAGE = Path(l2l_evograd.__file__).parent

BLOCKED = (
    "learn2learn",
    "torchvision",
    "higher",
    "pytorch_lightning",
    "rich",
    "cyclopts",
    "cachetools",
    "dehb",
    "ConfigSpace",
    "optuna",
    "distributed",
)

FOLDERS = (
    "algorithms",
    "bilevel",
    "updates",
    "unroll",
    "estimators",
    "replay",
    "oracle",
)

FILES = [
    *(PACKAGE / f"{name}.py" for name in ("checks", "encoders", "hyperparameters")),
    *(PACKAGE / f"{name}.py" for name in ("layers", "warp_layers")),
    *(file for name in FOLDERS for file in sorted((PACKAGE / name).glob("*.py"))),
]

CORE = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in FILES
]


def test_the_public_names_are_these():
    assert sorted(l2l_evograd.__all__) == sorted(
        [
            "ARUBA",
            "BilevelGradients",
            "BilevelStep",
            "EvoGrad",
            "EvoGradMetaOptimizer",
            "Exact",
            "FeatureWiseTransform2d",
            "Guided",
            "Hypergradient",
            "ReweightingStep",
            "TrajectoryBuffer",
            "WarpGrad",
            "WarpLayer2d",
            "add_feature_transforms",
            "add_warp_layers",
            "bilevel_gradients",
            "bilevel_step",
            "feature_transforms",
            "feature_transforms_switched",
            "hypergradcheck",
            "hypergradient",
            "reweighting_step",
            "warp_layers",
        ]
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", l2l_evograd.__version__)


@pytest.mark.parametrize("name", l2l_evograd.__all__)
def test_public_things_say_what_they_are(name):
    thing = getattr(l2l_evograd, name)
    assert inspect.getdoc(thing)
    assert len(inspect.getdoc(thing).splitlines()[0]) <= 88


def test_the_core_works_without_learn2learn_and_torchvision():
    script = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
import torch
import l2l_evograd
for name in {CORE!r}:
    __import__(name)
meta = l2l_evograd.EvoGradMetaOptimizer(torch.nn.Linear(2, 1), 0.1)
learner = meta.clone()
learner.adapt(learner(torch.ones(3, 2)).square().mean())
learner(torch.ones(3, 2)).square().mean().backward()
assert meta.module.weight.grad.abs().sum() > 0
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_seeds_the_global_random_state_or_goes_behind_autograds_back():
    # Private generators are seeded; torch's own, and .data, are left alone.
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"torch\.manual_seed\(|[\w)\]]\.data\b(?!_)", text), (
            path.name
        )
