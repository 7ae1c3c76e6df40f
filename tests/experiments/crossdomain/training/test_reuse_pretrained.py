"""Encoders that a run takes from others."""

from typing import Any

import pytest
from tiny import tiny_settings

from l2l_evograd.experiments.crossdomain.training.reuse_pretrained import (
    reuse_pretrained,
)
from l2l_evograd.experiments.folder import make_folder

NAMES = ("print", "sketch", "texture-like")


def settings_of(**changes: Any):
    return tiny_settings(**changes).resolved(NAMES, 16)


def lender(folder, text: str, **changes: Any):
    (folder / "checkpoints").mkdir(parents=True)
    make_folder(folder, "crossdomain", settings_of(**changes).to_dict())
    for name in ("0-pretrain.ckpt", "1-pretrain.ckpt", "0-none.ckpt"):
        (folder / "checkpoints" / name).write_text(text)
    return folder


def taken(out):
    return {p.name: p.read_text() for p in (out / "checkpoints").iterdir()}


def test_encoders_are_copied_and_nothing_else_is(tmp_path):
    run, out = lender(tmp_path / "run", "run"), tmp_path / "out"
    out.mkdir()
    reuse_pretrained(settings_of(), out, [run])
    assert taken(out) == {"0-pretrain.ckpt": "run", "1-pretrain.ckpt": "run"}


def test_what_is_there_already_stays_and_the_first_lender_comes_first(tmp_path):
    runs = [lender(tmp_path / name, name) for name in ("one", "two")]
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "1-pretrain.ckpt").write_text("own")
    reuse_pretrained(settings_of(), out, runs)
    assert taken(out) == {"0-pretrain.ckpt": "one", "1-pretrain.ckpt": "own"}


@pytest.mark.parametrize(
    "change",
    [
        {"data": "elsewhere"},
        {"base": "texture-like"},
        {"head": "gnn"},
        {"backbone": "conv6"},
        {"image_size": 32},
        {"lr": 0.1},
        {"pretrain_epochs": 3},
        {"pretrain_batch": 5},
        {"pretrain_classes": 9},
        {"pretrain_classifier": "cosine"},
        {"precision": "bf16"},
        {"devices": 2},
    ],
)
def test_an_encoder_that_came_about_otherwise_is_not_taken(change, tmp_path):
    runs = [lender(tmp_path / "other", "other", **change)]
    out = tmp_path / "out"
    out.mkdir()
    reuse_pretrained(settings_of(), out, runs)
    assert taken(out) == {}
    reuse_pretrained(settings_of(), out, [*runs, lender(tmp_path / "run", "run")])
    assert set(taken(out).values()) == {"run"}


def test_what_the_encoder_does_not_follow_from_may_differ(tmp_path):
    settings = settings_of(unseen="texture-like", queries=4, iterations=9)
    out = tmp_path / "out"
    out.mkdir()
    reuse_pretrained(settings, out, [lender(tmp_path / "run", "run")])
    assert len(taken(out)) == 2
