import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from consoles import silent_console
from PIL import Image
from torchvision import datasets

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.noisy_labels.files import read_files
from l2l_evograd.experiments.noisy_labels.images import ImageSource


def read(path: Path, image_size: int = 32) -> ImageSource:
    return read_files(path, image_size, silent_console())


def picture(path: Path, colour: tuple[int, int, int], side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            for copy in range(3):
                colour = (100 * number, 10 * copy, 200)
                picture(tmp_path / part / name / f"{copy}.png", colour)
    return tmp_path


def test_a_folder_for_each_class_is_read(folders: Path):
    source = read(folders)
    assert list(source.classes) == ["cat", "dog"]
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.train.images.shape == (6, 3, 32, 32)
    assert source.train.images.dtype == torch.uint8
    assert source.train.images[4, :, 5, 5].tolist() == [100, 10, 200]
    assert len(source.test) == 6


def test_images_are_brought_to_one_size(folders: Path):
    picture(folders / "train" / "cat" / "large.png", (9, 9, 9), 50)
    source = read(folders, 20)
    assert source.train.images.shape == (7, 3, 20, 20)
    assert source.train[3][0].unique().tolist() == [9]


def cifar10(root: Path) -> None:
    """Files as torchvision's CIFAR10 leaves them, with three images each."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.arange(3 * 3072).reshape(3, 3072).astype(np.uint8)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {"data": rows, "labels": [0, 1, 9]}
        (folder / name).write_bytes(pickle.dumps(content))
    names = {"label_names": [f"class {number}" for number in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))


def accepting(*_: object) -> bool:
    return True


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_cifar_is_read_as_torchvision_leaves_it(inner: str, tmp_path, monkeypatch):
    cifar10(tmp_path)
    # torchvision knows the checksums of the real files.
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", accepting)
    monkeypatch.setattr(datasets.cifar, "check_integrity", accepting)
    source = read(tmp_path / inner)
    assert source.name == "CIFAR-10" and len(source.classes) == 10
    assert source.train.images.shape == (15, 3, 32, 32)
    assert source.test.labels.tolist() == [0, 1, 9]
    # Channels first, rows after one another.
    assert source.test.images[0].flatten()[:4].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="size of 32, got 20"):
        read(tmp_path, 20)


def test_cifar_files_that_are_not_whole_are_refused(tmp_path):
    cifar10(tmp_path)
    with pytest.raises(InputError, match="incomplete or corrupted"):
        read(tmp_path)


def test_which_of_two_sets_has_to_be_said(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(InputError, match="contains both cifar-10-batches-py and"):
        read(tmp_path)


def test_a_folder_of_another_layout_is_refused(folders: Path):
    (folders / "test").rename(folders / "validation")
    with pytest.raises(InputError, match="has no folder test; expected cifar-10"):
        read(folders)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder; expected"):
        read(tmp_path / "nowhere")


def test_classes_that_only_one_part_has_are_refused(folders: Path):
    picture(folders / "test" / "fox" / "0.png", (0, 0, 0))
    with pytest.raises(InputError, match="the same classes in .*, but fox is only in"):
        read(folders)


def test_a_single_class_is_refused(folders: Path):
    for part in ("train", "test"):
        for path in (folders / part / "dog").iterdir():
            path.unlink()
        (folders / part / "dog").rmdir()
    with pytest.raises(InputError, match="at least two classes, got 1"):
        read(folders)


def test_a_class_without_images_is_refused(folders: Path):
    for path in (folders / "test" / "cat").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="has no images"):
        read(folders)


def test_a_file_that_is_no_image_is_named(folders: Path):
    (folders / "train" / "cat" / "1.png").write_text("not an image")
    with pytest.raises(InputError, match="the image .*1.png cannot be opened"):
        read(folders)
