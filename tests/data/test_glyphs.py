import random

import numpy as np
import pytest
import torch

from l2l_evograd.data.glyphs import CLASSES, STYLES, GlyphSplit
from l2l_evograd.experiments.crossdomain.data.domains import built_in_domains


def images(style="print", split="val", seed=0, size=32, copies=3):
    drawn = GlyphSplit(style, split, size, seed, copies)
    count = len(CLASSES[split]) * copies
    return torch.stack([drawn.image(i) for i in range(count)])


def test_no_glyph_is_in_two_splits():
    every = [glyph for glyphs in CLASSES.values() for glyph in glyphs]
    assert len(every) == len(set(every))
    assert len(CLASSES["base"]) >= 40
    assert min(len(CLASSES["val"]), len(CLASSES["novel"])) >= 10


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_draws_the_same_images(style):
    first = images(style)
    assert first.dtype == torch.uint8 and first.shape == (33, 3, 32, 32)
    assert torch.equal(first, images(style))
    assert not torch.equal(first, images(style, seed=1))


@pytest.mark.parametrize("style", STYLES)
def test_images_of_a_class_differ_and_none_is_blank(style):
    drawn = images(style).float()
    assert len({tuple(image.flatten().tolist()) for image in drawn}) == len(drawn)
    assert float(drawn.flatten(1).std(1).min()) > 8


def test_a_glyph_is_nearer_to_itself_than_to_others_on_average():
    # In print, where pixels can be compared: the mean images of two halves of a class.
    drawn = images("print", copies=20).float().view(11, 20, -1)
    first, second = drawn[:, ::2].mean(1), drawn[:, 1::2].mean(1)
    distances = torch.cdist(first, second)
    own = distances.diagonal().mean()
    others = (distances.sum() - distances.diagonal().sum()) / (11 * 10)
    assert float(own) < 0.75 * float(others)


def test_domains_differ_more_than_seeds_do():
    means = {style: images(style).float().mean((0, 2, 3)) for style in STYLES}
    again = images("print", seed=1).float().mean((0, 2, 3))
    assert float((means["print"] - again).norm()) < 15
    assert float((means["print"] - means["inverse"]).norm()) > 100


def test_drawing_leaves_global_random_states_alone():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    images("sketch")
    assert before[0] == random.getstate()
    assert before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.get_rng_state())


def test_built_in_domains_have_matching_images_and_labels():
    domains = built_in_domains(image_size=16, images_per_class=2)
    assert list(domains) == list(STYLES)
    for domain in domains.values():
        for split, dataset in domain.splits.items():
            assert dataset.label_names == CLASSES[split]
            assert len(dataset) == 2 * len(CLASSES[split])
    val = domains["inverse"].splits["val"]
    image, label = val[3]
    assert label == 1
    assert torch.allclose(image, val.picture(3) / 127.5 - 1, atol=1e-6)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="image size of at least 16, got 8"):
        GlyphSplit("print", "val", 8, 0, 1)
    with pytest.raises(ValueError, match="at least one image of each class, got 0"):
        GlyphSplit("print", "val", 16, 0, 0)
