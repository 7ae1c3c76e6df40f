import pytest
import torch
from small_tasks import tiny_split

from l2l_evograd.experiments.fewshot.images import Tasks


def test_a_task_depends_on_seed_and_number_alone():
    source = tiny_split("train")
    first, second = (Tasks(source, 3, 1, 2, seed=5) for _ in range(2))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    second.task(7)
    for one, other in zip(first.task(4), second.task(4), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first.task(4)[0], first.task(5)[0])
    other_seed = Tasks(source, 3, 1, 2, seed=6)
    assert not torch.equal(first.task(4)[0], other_seed.task(4)[0])


def test_support_and_query_are_different_images_of_the_same_classes():
    source = tiny_split("train")
    task = Tasks(source, 3, 2, 4, seed=0).task(0)
    assert task.support_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert task.query_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    everything = source.of(torch.arange(len(source)))
    support, query = (
        [
            next(i for i, known in enumerate(everything) if torch.equal(known, image))
            for image in images
        ]
        for images in (task.support_x, task.query_x)
    )
    assert len({*support, *query}) == 18
    classes = [source.labels[i] for i in support[::2]]
    assert [source.labels[i] for i in query[::4]] == classes
    assert len(set(classes)) == 3


def test_tasks_of_other_sizes_have_the_same_classes_and_first_images():
    source = tiny_split("train")
    small, large = Tasks(source, 3, 1, 2, seed=0), Tasks(source, 3, 6, 0, seed=0)
    task, other = small.task(9), large.task(9)
    images = other.support_x.view(3, 6, *other.support_x.shape[1:])
    assert torch.equal(task.support_x, images[:, 0])
    assert torch.equal(task.query_x, images[:, 1:3].flatten(0, 1))


def test_minibatches_are_passes_over_the_images():
    tasks = Tasks(tiny_split("train"), 3, 4, 0, seed=0)
    found = tasks.minibatches(2, 5, 5)
    assert [len(labels) for _, labels in found] == [5] * 5
    images = torch.cat([images for images, _ in found[:2]])
    assert len(images.flatten(1).unique(dim=0)) == 10  # two of a pass of twelve
    again = tasks.minibatches(2, 5, 5)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, again, strict=True))


def test_images_are_normalised():
    split = tiny_split("train")
    assert torch.equal(split.of(torch.tensor([3]))[0], split.images[3] / 255)
    image, label = split[8]
    assert torch.equal(image, split.images[8] / 255) and label == split.labels[8]


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "message"),
    [
        (6, 1, 2, "train has 5 classes, too few for 6 ways: lower the ways to 5"),
        (3, 4, 3, "has 6 images, too few for 4 shots and 3 queries: lower them"),
        (3, 7, 0, "has 6 images, too few for 7 shots: lower"),
    ],
)
def test_too_few_images_are_refused(ways, shots, queries, message):
    with pytest.raises(ValueError, match=message):
        Tasks(tiny_split("train"), ways, shots, queries, seed=0)
