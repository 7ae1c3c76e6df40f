import pytest

from l2l_evograd.checks import InputError
from l2l_evograd.experiments.crossdomain.settings import CrossDomainSettings


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("toaster", "unknown device 'toaster'; choose from auto, cpu"),
        ("meta", "unknown device 'meta'; choose from auto, cpu"),
        ("cpu:5", "unknown device 'cpu:5'"),
        ("cuda:01", "unknown device 'cuda:01'"),
        ("cuda:99", "device 'cuda:99' does not exist"),
    ],
)
def test_a_device_is_looked_for_on_the_machine_of_the_run_only(device, message):
    settings = CrossDomainSettings(device=device)
    with pytest.raises(InputError, match=message):
        settings.check_machine()
