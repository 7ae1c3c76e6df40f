import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings
from l2l_evograd.experiments.fewshot.settings import FewShotSettings
from l2l_evograd.experiments.memory import GIB, check_memory, machine_memory
from l2l_evograd.experiments.noisy_labels.settings import NoisyLabelSettings


def test_the_memory_of_this_machine_is_known():
    found = machine_memory()
    assert found is None or found > GIB / 4


def test_what_does_not_fit_is_refused():
    check_memory(3 * GIB, "three", there=3 * GIB)
    with pytest.raises(
        InputError, match=r"memory for four: expected at most 3.0 GiB, .* least 4.0 GiB"
    ):
        check_memory(4 * GIB, "four", there=3 * GIB)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            CrossDomainSettings(data=".", ways=10_000, shots=10_000, image_size=512),
            "an episode or a batch .ways 10000",
        ),
        (
            FewShotSettings(
                data=".", ways=10_000, shots=5000, image_size=512, gradients=10**9
            ),
            "a task .ways 10000, shots 5000",
        ),
        (
            NoisyLabelSettings(
                data=".", image_size=512, batch_size=10_000, width=32, device="cpu"
            ),
            "network resnet32, width 32, batch_size 10000, image_size 512",
        ),
    ],
)
def test_settings_that_need_far_too_much_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        settings.check_machine()
