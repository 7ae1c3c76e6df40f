import pytest
import torch
from photographs import make_domain
from torchvision.transforms import v2

from l2l_evograd.experiments.crossdomain.data.augmentation import Augmentation
from l2l_evograd.experiments.crossdomain.data.domains import (
    PHOTOGRAPHS,
    built_in_domains,
    read_domains,
)
from l2l_evograd.seeds import seeded

CPU = torch.device("cpu")
SIDE = 24
DRAWS = 400


def drawn(image: torch.Tensor, seed: int) -> torch.Tensor:
    with seeded(seed, CPU):
        return Augmentation(SIDE)(image)


def noise(height: int = 40, width: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (3, height, width)
    return torch.randint(256, size, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(24, 24), (10, 90), (300, 17), (1, 1)])
def test_any_image_becomes_a_square_of_bytes(size):
    image = noise(*size)
    before = image.clone()
    for seed in range(10):
        changed = drawn(image, seed)
        assert changed.shape == (3, SIDE, SIDE)
        assert changed.dtype == torch.uint8
    assert torch.equal(image, before)


def test_a_seed_says_what_comes_out():
    image = noise()
    outcomes = [drawn(image, seed) for seed in range(20)]
    assert all(torch.equal(drawn(image, s), outcomes[s]) for s in range(20))
    pairs = [(a, b) for a in range(20) for b in range(a)]
    assert not any(torch.equal(outcomes[a], outcomes[b]) for a, b in pairs)


def test_the_steps_are_torchvisions_with_the_published_settings():
    image = noise()
    with seeded(5, CPU):
        part = v2.RandomResizedCrop(
            SIDE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True
        )(image)
        shaken = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)(part)
        expected = v2.RandomHorizontalFlip(0.5)(shaken)
    assert torch.equal(drawn(image, 5), expected)


def test_half_of_the_images_are_mirrored():
    # Rising to the right, and within what the jitter does not cut off.
    rising = torch.linspace(80, 150, 64).to(torch.uint8).expand(3, 64, 64)
    mirrored = 0
    for seed in range(DRAWS):
        columns = drawn(rising, seed).float().mean((0, 1))
        assert columns[0] != columns[-1]
        mirrored += bool(columns[0] > columns[-1])
    # Four standard errors of a fair coin.
    assert abs(mirrored / DRAWS - 0.5) < 4 * (0.25 / DRAWS) ** 0.5


def test_brightness_is_multiplied_by_up_to_two_fifths_either_way():
    # Contrast and saturation leave an even grey as it is, but for three roundings.
    grey = torch.full((3, 16, 16), 180, dtype=torch.uint8)
    means = torch.stack([drawn(grey, s).float().mean() for s in range(DRAWS)])
    assert 0.6 * 180 - 3 <= means.min() < 0.62 * 180
    assert 1.38 * 180 < means.max() <= 1.4 * 180 + 3
    # Four standard errors of a uniform factor.
    assert abs(means.mean() - 180) < 4 * 0.8 * 180 / 12**0.5 / DRAWS**0.5 + 3


def test_a_data_set_is_augmented_and_normalised(tmp_path):
    make_domain(tmp_path, size=(70, 50))
    plain_set = read_domains(tmp_path, SIDE)["birds"].splits["base"]
    augmented = plain_set.augmented()
    assert (augmented.name, augmented.labels) == ("birds/base", plain_set.labels)
    assert augmented.label_names == plain_set.label_names
    mean, deviation = (torch.tensor(numbers).view(3, 1, 1) for numbers in PHOTOGRAPHS)
    with seeded(0, CPU):
        picture = augmented.picture(2)
    with seeded(0, CPU):
        image, label = augmented[2]
    assert label == plain_set.labels[2]
    assert torch.allclose(image, (picture / 255 - mean) / deviation, atol=1e-6)
    assert not torch.equal(picture, plain_set.picture(2))
    # The one it was made from stays plain, and to augment twice changes nothing more.
    assert torch.equal(plain_set.picture(2), plain_set.picture(2))
    with seeded(0, CPU):
        assert torch.equal(augmented.augmented().picture(2), picture)


def test_drawings_are_not_augmented():
    drawings = built_in_domains(image_size=16, images_per_class=1)["sketch"]
    with pytest.raises(ValueError, match="photographs, but sketch/base has drawn"):
        drawings.splits["base"].augmented()
