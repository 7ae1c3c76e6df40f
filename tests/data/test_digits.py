from pathlib import Path

import numpy as np
import pytest
import torch
from idx import write_digits, write_idx
from torchvision.transforms.v2.functional import rotate

from l2l_evograd.data.digits import Digits, built_in_digits, read_digits

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def test_built_in_digits_are_whole_and_always_the_same():
    first, second = built_in_digits(), built_in_digits()
    assert [len(part) for part in first[:3]] == [3000, 1000, 1000]
    for one, other in zip(first[:3], second[:3], strict=True):
        assert isinstance(one, Digits) and isinstance(other, Digits)
        assert torch.equal(one.images, other.images)
        assert one.images.shape[1:] == (1, 28, 28)
        assert 0 <= one.images.min() < 0.01 and 0.9 < one.images.max() <= 1
        assert one.labels.bincount().tolist() == pytest.approx(
            [len(one) / 10] * 10, rel=0.25
        )


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inside", ["", "MNIST/raw"])
def test_training_files_are_divided_as_in_the_notebook(suffix, inside, tmp_path):
    write_digits(tmp_path / inside, "train", 60, suffix=suffix)
    write_digits(tmp_path / inside, "t10k", 50, suffix=suffix)
    found = read_digits(tmp_path)
    assert [len(part) for part in found[:3]] == [40, 10, 50]
    raw = np.random.default_rng(60).integers(0, 256, (60, 28, 28)).astype(np.uint8)
    pixels = torch.from_numpy(raw)
    torch.testing.assert_close(found.train.images[:, 0], pixels[:40] / 255)
    torch.testing.assert_close(
        found.validation.images[:, 0], rotate(pixels[50:], 30) / 255
    )
    assert found.validation.labels.tolist() == [i % 10 for i in range(50, 60)]


def test_test_files_alone_are_divided_without_overlap(tmp_path):
    write_digits(tmp_path, "t10k", 100)
    found = read_digits(tmp_path)
    assert [len(part) for part in found[:3]] == [60, 20, 20]
    # The middle of a digit that is turned by 30 degrees stays where it is.
    marks = [part.images[:, 0, 13:15, 13:15].flatten(1) for part in found[:3]]
    assert len({tuple(mark.tolist()) for mark in torch.cat(marks)}) == 100
    again = read_digits(tmp_path)
    assert torch.equal(found.test.images, again.test.images)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_cut_files_are_named(tmp_path):
    write_digits(tmp_path, "t10k", 60)
    cut(tmp_path / "t10k-images-idx3-ubyte")
    with pytest.raises(ValueError, match="images-idx3-ubyte is cut short or damaged: "):
        read_digits(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\0\0")
    with pytest.raises(ValueError, match="is not an IDX file of images"):
        read_digits(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    write_digits(tmp_path, "t10k", 60, suffix=".gz")
    cut(tmp_path / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(ValueError, match="ubyte.gz is cut short or not a gz"):
        read_digits(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"not packed")
    with pytest.raises(ValueError, match="ubyte.gz is cut short or not a gz"):
        read_digits(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_digits(tmp_path, "t10k", 60)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    write_idx(labels, np.zeros(59))
    with pytest.raises(ValueError, match="one label for each of the 60 t10k images"):
        read_digits(tmp_path)
    write_idx(labels, np.full(60, 10))
    with pytest.raises(
        ValueError, match="labels 0 to 9 .*, got 10 among the t10k labels"
    ):
        read_digits(tmp_path)
    write_idx(labels, np.zeros((60, 1, 1)))
    with pytest.raises(ValueError, match="is not an IDX file of labels"):
        read_digits(tmp_path)
    labels.unlink()
    with pytest.raises(ValueError, match="labels-idx1-ubyte.gz in .* neither"):
        read_digits(tmp_path)


def test_digits_of_another_size_or_too_few_are_refused(tmp_path):
    write_digits(tmp_path / "a", "t10k", 60, side=16)
    with pytest.raises(ValueError, match="28 x 28 pixels, got 16 x 16"):
        read_digits(tmp_path / "a")
    write_digits(tmp_path / "b", "t10k", 49)
    with pytest.raises(ValueError, match="at least 50 digits, got 49"):
        read_digits(tmp_path / "b")


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz in"):
        read_digits(tmp_path)
    with pytest.raises(ValueError, match="expected a folder with MNIST's files"):
        read_digits(tmp_path / "nowhere")


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's test files are not here")
def test_the_real_test_files_are_read():
    found = read_digits(MNIST)
    assert [len(part) for part in found[:3]] == [6000, 2000, 2000]
    labels = torch.cat([part.labels for part in found[:3]])
    assert labels.bincount().tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
