import pytest
import torch
from consoles import silent_console
from photographs import make_domain
from small_omniglot import write_archives

from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.fewshot.sources import built_in_glyphs, read_problem


def test_built_in_glyphs_are_grey_ink_on_paper():
    problem = built_in_glyphs(16)
    assert problem.shape == (1, 16)
    classes = [len(split.label_names) for split in problem[1:]]
    assert classes == [43, 11, 22]
    for split, count in zip(problem[1:], classes, strict=True):
        assert len(split) == 20 * count
        assert torch.tensor(split.labels).bincount().tolist() == [20] * count
    images = problem.train.of(torch.arange(100))
    assert float(images.median()) < 0.2 < float(images.max())


def test_file_lists_are_read_into_memory(tmp_path):
    folder = make_domain(tmp_path)
    settings = FewShotSettings(data=str(folder))
    problem = read_problem(settings, silent_console())
    assert problem.name == str(folder)
    assert problem.shape == (3, 20)  # their own size
    assert problem.validation.labels == [2, 2, 3, 3]
    assert problem.test.images[:, 0, 0, 0].tolist() == [160, 160, 200, 200]
    image, label = problem.test[0]
    assert label == 4
    assert float(image[0, 0, 0]) == pytest.approx((160 / 255 - 0.485) / 0.229)
    other = FewShotSettings(data=str(folder), image_size=16)
    assert read_problem(other, silent_console()).shape == (3, 16)


def test_omniglot_is_read_from_its_folder(tmp_path):
    write_archives(tmp_path)
    settings = FewShotSettings(omniglot=str(tmp_path))
    assert read_problem(settings, silent_console()).shape == (1, 28)


def test_missing_lists_are_named(tmp_path):
    folder = make_domain(tmp_path)
    (folder / "val.json").unlink()
    settings = FewShotSettings(data=str(folder))
    with pytest.raises(ValueError, match="but val.json is missing"):
        read_problem(settings, silent_console())
    settings = FewShotSettings(data=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="base.json and val.json and novel.json are"):
        read_problem(settings, silent_console())
