import pytest
import torch

from benchmarks.meta_weight_net import CONFIGS, STEPS, Config, measure, problem_of

SMOKE = CONFIGS["smoke"]


def test_every_method_is_measured():
    records = measure(SMOKE)
    assert [record["method"] for record in records] == list(STEPS)
    assert all(record["seconds"] > 0 for record in records)


def hypergradient(name: str) -> torch.Tensor:
    problem = problem_of(name, SMOKE)
    STEPS[name](problem)
    return torch.cat([p.grad.flatten() for p in problem.weight_net.parameters()])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "cosine"), [("exact", 1 - 1e-9), ("guided", 0.5)])
def test_the_methods_do_the_same_work(name, cosine):
    exact = hypergradient("second order (higher)")
    found = hypergradient(name)
    assert torch.cosine_similarity(exact, found, dim=0) > cosine


def test_the_default_is_the_papers_network_and_batch():
    assert Config().network == "resnet32" and Config().batch_size == 100
