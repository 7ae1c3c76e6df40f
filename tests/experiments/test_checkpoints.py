import os
import random
import resource

import pytest
import pytorch_lightning as pl
import torch
from consoles import silent_console
from regression import Regression, run, weights

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.checkpoints import Saver, find_checkpoint
from l2l_evograd.experiments.sealed import previous

IDENTITY = {"backbone": "resnet10", "seen domains": ["a", "b"], "version": "1"}


def half_trained(out):
    """The checkpoints of a training that was killed, the newest first."""
    with pytest.raises(RuntimeError, match="killed"):
        run(Regression(stop_at=6), out)
    path = out / "checkpoints" / "regression.ckpt"
    return path, previous(path)


def cut(path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_one_that_was_cut_short_is_told_and_the_one_before_used(share: float, tmp_path):
    whole = run(Regression(), tmp_path / "whole")
    newest, _ = half_trained(tmp_path)
    cut(newest, share)
    console = silent_console()
    rest = run(Regression(), tmp_path, console)
    said = " ".join(console.file.getvalue().split())
    assert "cannot open the checkpoint" in said
    assert "going on from regression.previous.ckpt" in said
    assert rest.losses == whole.losses
    assert torch.equal(weights(rest), weights(whole))
    names = {path.name for path in newest.parent.iterdir()}
    assert "regression.damaged.ckpt" in names  # not the one before, which was good


def test_two_that_were_cut_short_are_refused(tmp_path):
    for path in half_trained(tmp_path):
        cut(path, 0.5)
    with pytest.raises(InputError, match="cannot open .*n.ckpt .*; remove it to train"):
        run(Regression(), tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_no_flipped_bit_gives_other_numbers(seed: int, tmp_path):
    whole = run(Regression(), tmp_path / "whole")
    newest, before = half_trained(tmp_path)
    before.unlink()
    content = bytearray(newest.read_bytes())
    chosen = random.Random(seed)
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
    newest.write_bytes(content)
    try:
        rest = run(Regression(), tmp_path)
    except InputError as error:
        assert str(newest) in str(error)
    else:  # the bit is in what the archive does not need
        assert rest.losses == whole.losses
        assert torch.equal(weights(rest), weights(whole))


def test_a_changed_weight_is_noticed(tmp_path):
    newest, before = half_trained(tmp_path)
    before.unlink()
    content = torch.load(newest, weights_only=True)
    content["state_dict"]["layer.weight"][0, 0] += 1e-6
    torch.save(content, newest)
    with pytest.raises(InputError, match="damaged: it does not agree with its digest"):
        run(Regression(), tmp_path)


def test_between_two_names_the_one_before_is_enough(tmp_path):
    whole = run(Regression(), tmp_path / "whole")
    newest, _ = half_trained(tmp_path)
    newest.unlink()
    assert run(Regression(), tmp_path).losses == whole.losses


def test_what_is_no_file_is_refused(tmp_path):
    path = tmp_path / "regression.ckpt"
    os.mkfifo(path)
    with pytest.raises(InputError, match="to be a file, got something else"):
        find_checkpoint(path, None)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="to be a file, got something else"):
        find_checkpoint(path, None)


def test_another_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoints" / "regression.ckpt"
    path.parent.mkdir()
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="a checkpoint of this version, got another"):
        run(Regression(), tmp_path)


def test_a_checkpoint_of_the_same_goes_on(tmp_path):
    whole = run(Regression(), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(Regression(stop_at=4), tmp_path, identity=IDENTITY)
    rest = run(Regression(), tmp_path, identity=IDENTITY)
    assert rest.losses == whole.losses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "cnn4"}, "backbone is 'resnet10' in .*, 'cnn4' in"),
        ({"version": "2"}, "version is '1' in .*, '2' in"),
        (
            {"seen domains": ["b", "a"]},
            r"seen domains is \['a', 'b'\] in .*, \['b', 'a'\] in",
        ),
        ({"head": "gnn"}, "head is 'missing' in .*, 'gnn' in"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_the_difference(
    change: dict[str, object], message: str, tmp_path
):
    with pytest.raises(RuntimeError, match="killed"):
        run(Regression(stop_at=4), tmp_path, identity=IDENTITY)
    with pytest.raises(ValueError, match=message) as raised:
        run(Regression(), tmp_path, identity={**IDENTITY, **change})
    assert str(raised.value).count(" in the checkpoint, ") == 1


def test_one_that_ended_is_checked_as_well(tmp_path):
    run(Regression(), tmp_path, identity=IDENTITY)
    with pytest.raises(ValueError, match="'resnet10' in .*, 'cnn4' in"):
        run(Regression(), tmp_path, identity={**IDENTITY, "backbone": "cnn4"})


def test_without_a_checkpoint_there_is_nothing_to_check(tmp_path):
    assert find_checkpoint(tmp_path / "none.ckpt", IDENTITY) is None


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path):

    class Limited(Regression):
        def on_train_epoch_end(self):
            if self.done == 6:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "checkpoints" / "regression.ckpt"
    try:
        with pytest.raises(
            ValueError,
            match="not enough space to write .*previous checkpoint is kept; f",
        ):
            run(Limited(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {place.name for place in path.parent.iterdir()} == {
        *(path.name, previous(path).name)
    }
    assert len(torch.load(path, weights_only=True)["losses"]) == 4
    whole = run(Regression(), tmp_path / "whole")
    assert torch.equal(weights(run(Regression(), tmp_path)), weights(whole))


def test_another_error_while_saving_stays_what_it_is(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", broken)
    with pytest.raises(RuntimeError, match="something else"):
        run(Regression(), tmp_path)


def test_a_saver_without_identity_adds_none(tmp_path):
    content: dict[str, object] = {}
    Saver(tmp_path / "a.ckpt").on_save_checkpoint(None, None, content)  # type: ignore[arg-type]
    assert content == {}
