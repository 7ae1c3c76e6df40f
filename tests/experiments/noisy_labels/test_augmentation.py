import torch

from l2l_evograd.experiments.noisy_labels.augmentation import ShiftAndMirror
from l2l_evograd.seeds import seeded

CPU = torch.device("cpu")


def pictures(count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (count, 3, 8, 6), generator=generator, dtype=torch.uint8
    )


def windows(picture: torch.Tensor, padding: int, mirror: bool) -> list[torch.Tensor]:
    """Every crop of the picture, padded by reflection, and its mirror images."""
    padded = torch.nn.functional.pad(picture.float(), [padding] * 4, mode="reflect")
    _, height, width = picture.shape
    found = []
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[:, row : row + height, column : column + width].byte()
            found.append(crop)
            if mirror:
                found.append(crop.flip(2))
    return found


def test_every_image_becomes_one_of_its_own_crops():
    images = pictures()
    for mirror in (True, False):
        with seeded(3, CPU):
            changed = ShiftAndMirror(2, mirror)(images)
        assert changed.shape == images.shape and changed.dtype == torch.uint8
        for before, after in zip(images, changed, strict=True):
            crops = windows(before, 2, mirror)
            assert any(torch.equal(after, crop) for crop in crops)


def test_images_of_a_batch_are_changed_in_many_ways():
    picture = pictures(1)
    with seeded(3, CPU):
        changed = ShiftAndMirror(2)(picture.expand(200, -1, -1, -1))
    crops = windows(picture[0], 2, True)
    seen = {i for c in changed for i, crop in enumerate(crops) if torch.equal(c, crop)}
    assert len(seen) > 40  # of 50; 200 draws miss one in 60 of them


def test_nothing_to_draw_leaves_images_as_they_are():
    images = pictures()
    assert torch.equal(ShiftAndMirror(0, False)(images), images)
