import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.folder import make_folder
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings


def test_the_defaults_are_the_papers_where_there_is_data():
    settings = NoisyLabelSettings(data="somewhere", device="cpu").resolved()
    assert (settings.network, settings.epochs, settings.meta_images) == (
        *("resnet32", 60, 1000),
    )
    assert (settings.lr, settings.meta_lr, settings.batch_size) == (0.1, 1e-3, 100)
    assert (settings.noise, settings.noise_rate) == ("flip2", 0.4)


def test_what_is_asked_for_stays():
    settings = NoisyLabelSettings(network="resnet32", iterations=5).resolved()
    assert settings.network == "resnet32"
    assert (settings.epochs, settings.iterations) == (None, 5)
    assert settings.meta_images == 100
    assert settings.device in ("cpu", "cuda")


def test_settings_come_back_from_their_file(tmp_path):
    settings = NoisyLabelSettings(methods=("exact",), seeds=3).resolved()
    make_folder(tmp_path, "noisy-labels", settings.to_dict())
    assert NoisyLabelSettings.from_file(tmp_path) == settings
    assert list(settings.all_seeds) == [0, 1, 2]
    assert settings.different({"seeds": 2, "noise": "flip2"}) == ["seeds"]
    assert settings.different({"device": "auto"}) == []


def test_the_usual_methods_and_rate_depend_on_what_is_learned():
    samples = NoisyLabelSettings().resolved()
    assert samples.weighting == "samples" and samples.lr == 0.03
    assert "frozen" not in samples.methods and "evograd-32" in samples.methods
    net = NoisyLabelSettings(weighting="net").resolved()
    assert net.lr == 0.1
    assert "frozen" in net.methods and "evograd-32" not in net.methods
    assert NoisyLabelSettings(data="somewhere").resolved().methods == net.methods
    assert NoisyLabelSettings(lr=0.5).resolved().lr == 0.5


@pytest.mark.parametrize("content", ["{", "[]", '{"noise": "flip"}'])
def test_a_file_of_another_kind_is_refused(content: str, tmp_path):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(InputError, match="not JSON|an object|no digest"):
        NoisyLabelSettings.from_file(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_rate": 1.5}, "noise rate between 0 and 1, got 1.5"),
        ({"noise": "swap"}, "noise to be one of 'uniform'"),
        ({"weighting": "hope"}, "weighting to be one of 'samples', 'net'"),
        ({"methods": ("frozen",)}, "weighting 'samples' has no net"),
        ({"methods": ("magic",)}, "methods to be one of 'baseline'"),
        ({"methods": ("exact", "exact")}, "each at most once, got exact, exact"),
        ({"methods": ()}, "to be one or more of"),
        ({"methods": "exact"}, "a sequence of names"),
        ({"network": "vgg"}, "network to be one of 'small'"),
        ({"precision": "16"}, "precision to be one of '32', 'bf16'"),
        ({"imbalance": 0.5}, "imbalance of at least 1"),
        ({"epochs": 3, "iterations": 3}, "epochs or iterations, got both"),
        ({"iterations": 0}, "iterations to be a whole number of at least 1"),
        ({"meta_images": 0}, "meta_images to be a whole number of at least 1"),
        ({"image_size": 8}, "image_size to be a whole number of at least 16"),
        ({"batch_size": 1}, "batch_size to be a whole number of at least 2"),
        ({"lr": 0.0}, "lr to be positive"),
        ({"meta_lr": "fast"}, "meta_lr to be positive and finite, got 'fast'"),
    ],
)
def test_bad_input_is_refused(changes, message: str):
    with pytest.raises(InputError, match=message):
        NoisyLabelSettings(**changes)
