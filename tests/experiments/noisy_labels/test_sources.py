import torch
from consoles import silent_console

from l2l_evograd.experiments.noisy_labels.sources import read_source


def test_the_built_in_glyphs_need_no_data():
    source = read_source(None, 16, silent_console())
    assert source.train.images.shape == (1500, 3, 16, 16)
    assert source.train.labels.bincount().tolist() == [150] * 10
    assert len(source.classes) == 10
    assert not torch.equal(source.train.images[:60], source.test.images[:60])
