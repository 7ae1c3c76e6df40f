import pytest
import torch

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.noisy_labels.images import LabelledImages


def test_statistics_are_those_of_the_bytes():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5000, 3, 4, 4), generator=generator).byte()
    mean, deviation = LabelledImages(images, torch.zeros(5000)).statistics()
    channels = images.double().transpose(0, 1).flatten(1)
    assert mean == pytest.approx(channels.mean(1).tolist())
    assert deviation == pytest.approx(channels.std(1, correction=0).tolist())


def test_a_label_is_needed_for_each_image():
    with pytest.raises(InputError, match="2 labels for 3 images"):
        LabelledImages(torch.zeros(3, 3, 4, 4), torch.zeros(2))
