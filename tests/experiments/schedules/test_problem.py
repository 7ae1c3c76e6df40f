"""The training run, its networks and its images."""

import math

import pytest
import torch
from idx import write_digits
from PIL import Image
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.schedules.networks import initial_weights, scores
from l2l_evograd.experiments.schedules.sources import read_splits

QUIET = Console(quiet=True)


def drawn(network: str, shape=(2, 9, 11)):
    return initial_weights(network, shape, 4, torch.Generator().manual_seed(0))


def test_the_networks_are_those_of_torch():
    images = torch.rand(3, 2, 9, 11, generator=torch.Generator().manual_seed(1))
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(198, 32), nn.Tanh(), nn.Linear(32, 4))
    conv = nn.Sequential(
        *(nn.Conv2d(2, 8, 5, 2, 2), nn.Tanh(), nn.Conv2d(8, 16, 5, 2, 2), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(16 * 3 * 3, 4)),
    )
    for name, module in (("mlp", mlp), ("conv", conv)):
        weights = drawn(name)
        for own, drawn_ in zip(module.parameters(), weights.values(), strict=True):
            own.data.copy_(drawn_)
        torch.testing.assert_close(scores(name, weights, images), module(images))


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_initial_weights_have_the_variance_of_their_fan_in(network):
    for name, weight in drawn(network, (1, 28, 28)).items():
        if "bias" in name:
            assert not weight.any()
            continue
        scaled = weight * math.sqrt(weight[0].numel())
        # The standard error of a variance is its √(2/n); five of them.
        room = 5 * math.sqrt(2 / weight.numel())
        assert float(scaled.square().mean()) == pytest.approx(1, abs=room)


def test_a_short_run_has_the_first_batches_of_a_long_one(problem):
    made = problem()
    short, long = made.run(3, 5), made.run(3)
    assert (short["steps"], long["steps"]) == (5, 14)
    params = long["params"]
    for a, b in zip(short["inner_loss"], long["inner_loss"], strict=False):
        assert float(a(params, None)) == float(b(params, None))
    other = made.run(4)
    assert not torch.equal(other["params"]["weight0"], params["weight0"])
    assert float(other["inner_loss"][0](params, None)) != float(
        long["inner_loss"][0](params, None)
    )


def test_figures_are_those_of_all_images(problem, splits):
    made = problem()
    params = made.run(0)["params"]
    images, labels = splits.test
    found = made.figures(params, splits.test)
    expected = scores("mlp", params, images / 255)
    assert found.loss == pytest.approx(float(cross_entropy(expected, labels)), rel=1e-5)
    assert found.accuracy == int((expected.argmax(1) == labels).sum()) / 60
    outer = made.figures(params, splits.validation).loss
    assert float(made.outer_loss(params, None)) == pytest.approx(outer, rel=1e-5)


def test_built_in_digits_are_divided_and_upright():
    found = read_splits(None, QUIET)
    sizes = [len(part) for part in (found.train, found.validation, found.test)]
    assert sizes == [2000, 1000, 2000]
    assert found.classes == 10 and found.shape == (1, 28, 28)
    kinds = [part.labels.bincount() for part in found[2:]]
    assert all(int(kind.min()) > 50 for kind in kinds)
    # The average 1 is a column: it would not be if it were turned by 30 degrees.
    for part in found[2:]:
        one = part.pixels[part.labels == 1].float().mean((0, 1))
        weights = one / one.sum()
        columns = torch.arange(28.0)
        rows, spread = weights.sum(1), weights.sum(0)
        assert float((rows * (columns - rows @ columns).square()).sum()) > 2 * float(
            (spread * (columns - spread @ columns).square()).sum()
        )


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files_are_read_packed_or_not(suffix, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    write_digits(folder, "t10k", 100, suffix=suffix)
    alone = read_splits(str(tmp_path), QUIET)
    assert [len(part) for part in alone[2:]] == [40, 20, 40]
    pixels = torch.cat([part.pixels for part in alone[2:]]).flatten(1)
    assert len(torch.unique(pixels, dim=0)) == 100  # no image is in two parts
    again = read_splits(str(tmp_path), QUIET)
    assert torch.equal(again.test.pixels, alone.test.pixels)
    write_digits(folder, "train", 120, suffix=suffix)
    both = read_splits(str(tmp_path), QUIET)
    assert [len(part) for part in both[2:]] == [100, 20, 100]
    assert torch.equal(both.test.labels, torch.arange(100) % 10)


def test_a_folder_of_images_is_read(tmp_path):
    for part, count in (("train", 30), ("test", 25)):
        for label, shade in (("dark", 10), ("light", 200)):
            place = tmp_path / part / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (shade, number, 0)).save(
                    place / f"{number}.png"
                )
    found = read_splits(str(tmp_path), QUIET)
    assert [len(part) for part in found[2:]] == [50, 10, 50]
    assert found.classes == 2 and found.shape == (3, 32, 32)
    bright = found.test.pixels[:, 0, 0, 0] > 100
    assert torch.equal(bright.long(), found.test.labels)


def test_images_that_cannot_be_used_are_refused(tmp_path):
    write_digits(tmp_path, "t10k", 30)
    with pytest.raises(InputError, match="expected at least 50 images .* got 30"):
        read_splits(str(tmp_path), QUIET)
    write_digits(tmp_path / "half", "train", 60)
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte or .* found neither"):
        read_splits(str(tmp_path / "half"), QUIET)
    with pytest.raises(InputError, match="expected a folder with MNIST's files"):
        read_splits(str(tmp_path / "none"), QUIET)
