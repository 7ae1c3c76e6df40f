import json
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from photographs import make_domain
from torchvision.transforms.v2 import functional as transforms

from l2l_evograd.experiments.crossdomain.data.augmentation import Augmentation
from l2l_evograd.experiments.crossdomain.data.domains import listed_domain, read_domains
from l2l_evograd.experiments.crossdomain.data.filelists import (
    ImageFiles,
    find_domains,
    read_filelist,
    smallest_side,
)
from l2l_evograd.experiments.crossdomain.data.image_cache import ImageCache
from l2l_evograd.seeds import seeded

ARCHIVE = Path(__file__).parents[5] / "shared" / "data" / "cifar-domains.tar.xz"


def noise(path, width, height):
    """Write an image of which every pixel tells where it is from."""
    generator = torch.Generator().manual_seed(width)
    size = (3, height, width)
    pixels = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    transforms.to_pil_image(pixels).save(path)
    return pixels


def rewrite(file, **changes):
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_of_domains_is_read(tmp_path, absolute):
    make_domain(tmp_path, "birds", absolute=absolute)
    make_domain(tmp_path, "cars", absolute=absolute)
    (tmp_path / "notes").mkdir()
    domains = read_domains(tmp_path, 20)
    assert list(domains) == ["birds", "cars"]
    novel = domains["cars"].splits["novel"]
    assert novel.labels == [4, 4, 5, 5]
    assert (
        novel.picture(3).tolist()
        == torch.tensor([200, 1, 0]).view(3, 1, 1).expand(3, 20, 20).tolist()
    )
    image, label = novel[3]
    assert label == 5
    assert float(image[0, 0, 0]) == pytest.approx((200 / 255 - 0.485) / 0.229, rel=1e-5)


@pytest.mark.parametrize("size", [(20, 20), (64, 48), (10, 14)])
def test_images_of_any_size_come_out_at_the_size_asked_for(tmp_path, size):
    listed = read_filelist(make_domain(tmp_path, size=size) / "base.json")
    images = ImageFiles(listed, 20)
    assert images.image(0).shape == (3, 20, 20)
    assert images.image(0).dtype == torch.uint8
    assert images.image(0) is images.image(0)
    assert smallest_side(listed) == min(size)


@pytest.mark.parametrize("size", [(64, 48), (40, 90), (21, 30)])
def test_larger_images_are_resized_and_cut_as_in_the_benchmark(tmp_path, size):
    folder = make_domain(tmp_path)
    pixels = noise(folder / "images" / "0-0.png", *size)
    expected = transforms.center_crop(
        transforms.resize(pixels, [23], antialias=True), [20, 20]
    )
    images = ImageFiles(read_filelist(folder / "base.json"), 20)
    assert torch.equal(images.image(0), expected)


@pytest.mark.parametrize("size", [(64, 48), (14, 10), (20, 20), (41, 39)])
def test_parts_are_cut_from_the_pixels_of_the_file_up_to_twice_the_size(tmp_path, size):
    folder = make_domain(tmp_path)
    pixels = noise(folder / "images" / "0-0.png", *size)
    if min(size) > 40:
        pixels = transforms.resize(pixels, [40], antialias=True)
        assert min(pixels.shape[1:]) == 40 and max(pixels.shape[1:]) == 53
    images = ImageFiles(read_filelist(folder / "base.json"), 20)
    for _ in range(2):
        with seeded(3, torch.device("cpu")):
            found = images.augmented(0)
        with seeded(3, torch.device("cpu")):
            assert torch.equal(found, Augmentation(20)(pixels))


def test_what_is_read_does_not_depend_on_what_is_kept(tmp_path):
    folder = make_domain(tmp_path)
    noise(folder / "images" / "0-0.png", 64, 48)
    listed = read_filelist(folder / "base.json")
    kept, forgotten = ImageFiles(listed, 20), ImageFiles(listed, 20, ImageCache(0))

    def read(images):
        with seeded(1, torch.device("cpu")):
            return torch.stack([images.image(0), images.augmented(0)] * 2)

    assert torch.equal(read(kept), read(forgotten))
    assert kept.image(0) is kept.image(0)
    assert forgotten.image(0) is not forgotten.image(0)


def test_one_cache_serves_all_domains_and_holds_no_more_than_the_images(tmp_path):
    for name in ("birds", "cars"):
        folder = make_domain(tmp_path, name)
        noise(folder / "images" / "0-0.png", 64, 48)
    cache = ImageCache()
    domains = read_domains(tmp_path, 20, cache)
    for domain in domains.values():
        domain.splits["base"][0]
        domain.splits["base"][0]
    assert (len(cache), cache.held_bytes) == (2, 2 * 3 * 20 * 20)
    domains["cars"].splits["base"].augmented()[0]
    # 53 x 40: the shorter side is twice the size.
    assert (len(cache), cache.held_bytes) == (3, 2 * 3 * 20 * 20 + 3 * 53 * 40)
    # The same files at another size are other images.
    read_domains(tmp_path, 10, cache)["cars"].splits["base"][0]
    assert len(cache) == 4


def test_domains_go_to_other_processes_without_the_images(tmp_path):
    folder = make_domain(tmp_path)
    lists = {s: read_filelist(folder / f"{s}.json") for s in ("base", "val", "novel")}
    domain = listed_domain("birds", lists, 20, ImageCache(10**6))
    image, _ = domain.splits["novel"][1]
    domain.splits["base"][0]
    there = pickle.loads(pickle.dumps(domain))
    files = [there.splits[split]._read.__self__ for split in ("base", "novel")]
    assert files[0]._cache is files[1]._cache
    assert len(files[0]._cache) == 0
    assert torch.equal(there.splits["novel"][1][0], image)


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="a folder of domains, found none at"):
        find_domains(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found no folder with base.json, val.json"):
        find_domains(tmp_path)
    folder = make_domain(tmp_path)
    (folder / "val.json").unlink()
    with pytest.raises(ValueError, match="birds, but val.json is missing"):
        find_domains(tmp_path)


def test_malformed_lists_are_named(tmp_path):
    file = make_domain(tmp_path) / "base.json"
    good = file.read_text()

    def refused(message):
        with pytest.raises(ValueError, match=message):
            read_filelist(file)

    file.write_text('{\n"label_names": [1,\n')
    refused(r"base.json is not JSON: line 3, ")
    file.write_bytes(b"\xff\xfe\xfa")
    refused("base.json is not JSON: it is not text in UTF-8")
    file.write_text("[]")
    refused("base.json to contain an object, got a list")
    file.write_text(good)
    rewrite(file, image_labels=[0, 0, 1])
    refused("as many image_labels as image_names in .*base.json, got 3 and 4")
    rewrite(file, image_labels=[0, 0, 1, 6])
    refused("whole number from 0 to 5, an index into label_names, got 6")
    rewrite(file, image_labels=[0, 0, 1, True])
    refused("whole number from 0 to 5, .* got True")
    rewrite(file, image_labels=[], image_names=[])
    refused("expected images in .*base.json, got an empty list")
    rewrite(file, label_names=None)
    refused("a list under 'label_names' in .*base.json, got none")


def test_images_that_do_not_open_are_named_with_their_list(tmp_path):
    folder = make_domain(tmp_path)
    base = read_domains(tmp_path, 20)["birds"].splits["base"]
    (folder / "images" / "0-1.png").unlink()
    with pytest.raises(ValueError, match=r"0-1.png.*: No such file .*base.json"):
        base[1]
    (folder / "images" / "1-0.png").write_text("no image")
    with pytest.raises(ValueError, match=r"1-0.png cannot be opened .*base.json"):
        base[2]
    whole = (folder / "images" / "1-1.png").read_bytes()
    (folder / "images" / "1-1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1-1.png cannot be opened .*base.json"):
        base[3]


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the photographs are not here")
def test_real_photographs_are_read(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    domains = read_domains(tmp_path, 32)
    assert list(domains) == ["generic", "mammals", "vehicles_scenes"]
    sizes = {n: [len(s) for s in d.splits.values()] for n, d in domains.items()}
    assert sizes["mammals"] == [3000, 1000, 1000]
    novel = domains["mammals"].splits["novel"]
    assert novel.picture(0).shape == (3, 32, 32)
    assert {novel.label_names[label] for label in novel.labels} >= {"camel"}
