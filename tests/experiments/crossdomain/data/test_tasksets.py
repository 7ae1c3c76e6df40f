import inspect
import json
import pickle
import random

import learn2learn.vision.benchmarks as benchmarks
import pytest
import torch
from learn2learn.data import MetaDataset
from learn2learn.data.transforms import LoadData, NWays
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from l2l_evograd.experiments.crossdomain.data.tasksets import get_tasksets

SMALL = {"image_size": 16, "images_per_class": 6}
TASKS = {"train_ways": 3, "train_samples": 4, "test_ways": 2, "test_samples": 5}
SPLITS = ("base", "val", "novel")


def make_folder(root, classes=(3, 2, 2), each=5, size=(20, 24)):
    """Class c of the lists is a plain image of grey value 30 c."""
    folder = root / "greys"
    folder.mkdir(parents=True)
    first = 0
    for split, count in zip(SPLITS, classes, strict=True):
        images, labels = [], []
        for label in range(first, first + count):
            for copy in range(each):
                images.append(f"{label}-{copy}.png")
                labels.append(label)
                Image.new("RGB", size, (30 * label,) * 3).save(folder / images[-1])
        content = {
            "label_names": [f"grey {c}" for c in range(sum(classes))],
            "image_names": images,
            "image_labels": labels,
        }
        (folder / f"{split}.json").write_text(json.dumps(content))
        first += count
    return folder


def test_the_signature_is_learn2learns():
    ours, theirs = (
        inspect.signature(f).parameters for f in (get_tasksets, benchmarks.get_tasksets)
    )
    assert list(ours) == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default
        assert ours[name].kind == parameter.kind


def test_tasks_of_a_built_in_domain_have_the_sizes_asked_for():
    tasksets = get_tasksets("sketch", **TASKS, **SMALL)
    assert isinstance(tasksets, benchmarks.BenchmarkTasksets)
    for taskset, ways, samples in zip(tasksets, (3, 2, 2), (4, 5, 5), strict=True):
        images, labels = taskset.sample()
        assert images.shape == (ways * samples, 3, 16, 16)
        assert images.dtype == torch.float32
        assert -1 <= float(images.min()) < float(images.max()) <= 1
        # The classes' items lie side by side; which comes first differs.
        blocks = labels.view(ways, samples)
        assert (blocks == blocks[:, :1]).all()
        assert sorted(blocks[:, 0].tolist()) == list(range(ways))


def test_splits_are_disjoint_and_in_learn2learns_order(tmp_path):
    make_folder(tmp_path)
    tasksets = get_tasksets("greys", 3, 2, 2, 2, root=tmp_path)
    seen = []
    for taskset in tasksets:
        images, _ = taskset.sample()
        greys = (images[:, 0, 0, 0] * 0.229 + 0.485) * 255
        seen.append({round(float(grey)) for grey in greys})
    assert seen == [{0, 30, 60}, {90, 120}, {150, 180}]


def test_items_of_a_task_are_different_images_of_the_right_class():
    taskset = get_tasksets("print", 5, 6, 5, 6, **SMALL).train
    images, labels = taskset.sample()
    assert len({tuple(image.flatten().tolist()) for image in images}) == 30
    dataset = taskset.dataset.dataset
    for way in range(5):
        classes = {
            label
            for image in images[labels == way]
            for other, label in dataset
            if torch.equal(image, other)
        }
        assert len(classes) == 1


def test_tasks_repeat_under_a_seed():
    def drawn(seed):
        random.seed(seed)
        tasksets = get_tasksets("print", **TASKS, **SMALL)
        return [tasksets.train.sample() for _ in range(3)]

    for (x, y), (same_x, same_y) in zip(drawn(1), drawn(1), strict=True):
        assert torch.equal(x, same_x) and torch.equal(y, same_y)
    assert not torch.equal(drawn(1)[0][0], drawn(2)[0][0])


def test_the_number_of_tasks_is_kept():
    tasksets = get_tasksets("print", **TASKS, num_tasks=3, **SMALL)
    for taskset in tasksets:
        assert len(taskset) == 3
        # Drawn once, then the same again.
        assert all(torch.equal(taskset[i][0], taskset[i][0]) for i in range(3))
        assert not torch.equal(taskset[0][0], taskset[1][0])
    fresh = get_tasksets("print", **TASKS, **SMALL).train
    assert not torch.equal(fresh[0][0], fresh[0][0])


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_tasks_come_on_the_device(device):
    for tensor in get_tasksets("print", **TASKS, device=device, **SMALL).test.sample():
        assert tensor.device.type == "meta"


def test_tasksets_pass_through_pickle_and_workers(tmp_path):
    make_folder(tmp_path)
    for name, options in (("outline", SMALL), ("greys", {})):
        for num_tasks in (-1, 2):
            taskset = get_tasksets(
                name,
                **TASKS,
                num_tasks=num_tasks,
                root=tmp_path,
                device="cpu",
                **options,
            ).train
            copied = pickle.loads(pickle.dumps(taskset))
            random.seed(0)
            expected = taskset.sample()
            random.seed(0)
            for tensor, same in zip(expected, copied.sample(), strict=True):
                assert torch.equal(tensor, same)
            workers = DataLoader(taskset, batch_size=None, num_workers=1)
            ((images, labels),) = list(workers)[:1]
            assert images.shape == (12, 3, *expected[0].shape[2:])
            assert labels.unique().tolist() == [0, 1, 2]


def test_images_of_a_folder_come_at_their_own_size_unless_told(tmp_path):
    make_folder(tmp_path)
    sizes = {"train_ways": 2, "train_samples": 1, "test_ways": 2, "test_samples": 1}
    own = get_tasksets("greys", **sizes, root=tmp_path).test
    assert own.sample()[0].shape == (2, 3, 20, 20)
    told = get_tasksets("greys", **sizes, root=str(tmp_path), image_size=9).test
    assert told.sample()[0].shape == (2, 3, 9, 9)
    make_folder(tmp_path / "large", size=(100, 120))
    large = get_tasksets("greys", **sizes, root=tmp_path / "large").test
    assert large.sample()[0].shape == (2, 3, 84, 84)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "data")
    assert get_tasksets("greys", 3, 2, 2, 2).train.sample()[0].shape[0] == 6


def test_other_names_fall_through_to_learn2learn(monkeypatch, tmp_path):
    given = {}

    def answer(**kwargs):
        given.update(kwargs)
        data = TensorDataset(torch.zeros(6, 1), torch.arange(6) // 3)
        datasets = [MetaDataset(data) for _ in range(3)]
        return datasets, [[NWays(data, 2), LoadData(data)] for data in datasets]

    monkeypatch.setitem(benchmarks._TASKSETS, "fc100", answer)
    tasksets = get_tasksets(
        "fc100", **TASKS, num_tasks=4, root=tmp_path, device="cpu", data_augmentation=1
    )
    assert given == {
        **TASKS,
        "root": str(tmp_path),
        "device": "cpu",
        "data_augmentation": 1,
    }
    assert [len(taskset) for taskset in tasksets] == [4, 4, 4]


def test_unknown_names_are_answered_with_those_there_are(tmp_path):
    make_folder(tmp_path)
    message = (
        r"got 'miniImagenet'\. Built-in domains: print, .*sketch; domains in "
        rf"{tmp_path}: greys; learn2learn's own: omniglot, mini-imagenet, .*cifarfs"
    )
    with pytest.raises(ValueError, match=message):
        get_tasksets("miniImagenet", root=tmp_path)
    with pytest.raises(ValueError, match="nowhere: none; learn2learn's own"):
        get_tasksets("miniImagenet", root=tmp_path / "nowhere")


def test_incomplete_folders_are_named(tmp_path):
    (make_folder(tmp_path) / "novel.json").unlink()
    with pytest.raises(ValueError, match=r"greys, but novel\.json is missing"):
        get_tasksets("greys", root=tmp_path)


def test_too_little_data_is_said_with_what_to_lower(tmp_path):
    make_folder(tmp_path)
    enough = {"train_ways": 3, "train_samples": 5, "test_ways": 2, "test_samples": 5}

    def refused(message, **changes):
        with pytest.raises(ValueError, match=message):
            get_tasksets("greys", **{**enough, **changes}, root=tmp_path)

    get_tasksets("greys", **enough, root=tmp_path)
    refused(
        "greys/base has 3 classes, too few for 4 ways: lower train_ways to 3",
        train_ways=4,
    )
    refused(
        "greys/val has 2 classes, too few for 3 ways: lower test_ways to 2",
        test_ways=3,
    )
    refused(
        "class 'grey 0' of greys/base has 5 images, too few for 6 samples: lower "
        "train_samples to 5",
        train_samples=6,
    )
    refused("class 'grey 3' of greys/val .* lower test_samples to 5", test_samples=6)
    refused("train_ways to be a whole number of at least 1, got 0", train_ways=0)
    refused("test_samples to be a whole number of at least 1, got -1", test_samples=-1)


def test_keywords_that_a_domain_does_not_take_are_refused(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(TypeError, match="data_augmentation"):
        get_tasksets("print", data_augmentation="lee2019")
    with pytest.raises(TypeError, match="seed"):
        get_tasksets("greys", root=tmp_path, seed=1)
