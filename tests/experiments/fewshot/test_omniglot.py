import zipfile
from pathlib import Path

import pytest
import torch
from small_omniglot import drawing, write_archives

from l2l_evograd.experiments.fewshot.omniglot import read_omniglot

OMNIGLOT = Path(__file__).parents[4] / "shared" / "data" / "omniglot"
ARCHIVE = "images_background_small1.zip"


def test_classes_for_training_validation_and_test_are_apart(tmp_path):
    write_archives(tmp_path)
    problem = read_omniglot(tmp_path)
    # Ten characters, the fifth and the tenth of them for validation; eight in four
    # turns. Greek is in both archives.
    assert len(problem.train.label_names) == 32
    assert problem.validation.label_names == ["Greek/character01", "Korean/character02"]
    names = [f"Tagalog/character0{number}" for number in (1, 2, 3)]
    assert problem.test.label_names == names
    assert problem.shape == (1, 28)
    assert len(problem.train) == 32 * 4 and len(problem.test) == 12
    kept = {name.rpartition("/")[0] for name in problem.train.label_names}
    assert kept.isdisjoint(problem.validation.label_names)


def test_ink_is_one_and_turns_are_classes(tmp_path):
    write_archives(tmp_path)
    train = read_omniglot(tmp_path).train
    names = list(train.label_names)
    upright, turned = (names.index(f"Balinese/character01/{a}") for a in (0, 90))
    image, label = train[4 * upright]
    assert label == upright and image.shape == (1, 28, 28)
    # Ink above, on the left, with the ringing of its edges.
    assert image[0, 0, 0] > 0.95 and image[0, -1, -1] == 0
    assert torch.equal(train[4 * turned][0], torch.rot90(image, 1, (1, 2)))
    assert read_omniglot(tmp_path, 20).shape == (1, 20)


def test_missing_archives_are_named(tmp_path):
    with pytest.raises(ValueError, match="small1.zip and .*small2.zip are missing"):
        read_omniglot(tmp_path)
    write_archives(tmp_path)
    (tmp_path / ARCHIVE).unlink()
    with pytest.raises(ValueError, match=r"small1.zip is missing; give the folder"):
        read_omniglot(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text", "picture", "flipped"])
def test_a_damaged_archive_is_named(damage, tmp_path):
    write_archives(tmp_path)
    path = tmp_path / ARCHIVE
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("not found")
    elif damage == "flipped":
        place = content.index(b"IDAT") + 10
        changed = bytes([content[place] ^ 255])
        path.write_bytes(content[:place] + changed + content[place + 1 :])
    else:
        with zipfile.ZipFile(path, "a") as archive:
            name = "images_background_small1/Balinese/character01/0001_09.png"
            archive.writestr(name, drawing(1, 1)[:60])
    with pytest.raises(ValueError, match=f"cannot read .*{ARCHIVE}.*fetch it again"):
        read_omniglot(tmp_path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    write_archives(tmp_path)
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match="expected images ALPHABET/characterNN"):
        read_omniglot(tmp_path)


def test_too_few_alphabets_are_refused(tmp_path):
    write_archives(tmp_path)
    first, second = tmp_path / ARCHIVE, tmp_path / "images_background_small2.zip"
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="an alphabet that the other archive lacks"):
        read_omniglot(tmp_path)


@pytest.mark.skipif(not OMNIGLOT.is_dir(), reason="needs ../shared/data/omniglot")
def test_the_real_archives():
    problem = read_omniglot(OMNIGLOT)
    classes = [len(split.label_names) for split in problem[1:]]
    assert classes == [4 * 109, 27, 106]
    assert all(
        len(split) == 20 * c for split, c in zip(problem[1:], classes, strict=True)
    )
    assert not any(
        "Greek" in name or "Latin" in name for name in problem.test.label_names
    )
    ink = problem.test.of(torch.arange(200))
    assert 0 <= float(ink.min()) and float(ink.max()) == 1
    assert 0.02 < float(ink.mean()) < 0.2
