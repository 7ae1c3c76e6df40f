import json
import time

import pytest
from searching import FEW, SPACE, Interrupted, told, train

from l2l_evograd.checks import InputError
from l2l_evograd.search import RECORD, search
from l2l_evograd.search.workers import trained

distributed = pytest.importorskip("distributed")
pytest.importorskip("dehb")


@pytest.fixture(scope="module")
def client():
    """Workers that are threads of this process: quick to start."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def slow_for_some(config, fidelity, seed):
    time.sleep(0.002 * (seed % 7))
    return train(config, fidelity, seed)


def test_what_is_proposed_does_not_depend_on_who_ends_first(client):
    steady = search(train, SPACE, **FEW, client=client)
    uneven = search(slow_for_some, SPACE, **FEW, client=client)
    assert told(uneven) == told(steady)
    assert client.status == "running"


def test_random_search_is_the_same_with_any_number_of_workers(client):
    few = {**FEW, "method": "random"}
    assert told(search(train, SPACE, **few, client=client, workers=3)) == told(
        search(train, SPACE, **few)
    )


@pytest.mark.parametrize("method", ["dehb", "tpe"])
def test_a_resumed_search_is_an_uninterrupted_one(client, method, tmp_path):
    if method == "tpe":
        pytest.importorskip("optuna")
    few = {**FEW, "method": method, "client": client, "workers": 3}
    whole = search(train, SPACE, **few)
    stopped = whole.evaluations[7].seed

    def failing(config, fidelity, seed):
        if seed == stopped:
            raise Interrupted
        return train(config, fidelity, seed)

    with pytest.raises(Interrupted):
        search(failing, SPACE, **few, folder=tmp_path)
    assert told(search(train, SPACE, **few, folder=tmp_path, resume=True)) == told(
        whole
    )


def test_what_has_ended_is_recorded_though_another_fails(client, tmp_path):
    few = {**FEW, "method": "random", "client": client, "workers": 2}
    seeds = [one.seed for one in search(train, SPACE, **few).evaluations]

    def first_fails_last(config, fidelity, seed):
        if seed == seeds[0]:
            time.sleep(0.2)
            raise Interrupted
        return train(config, fidelity, seed)

    with pytest.raises(Interrupted):
        search(first_fails_last, SPACE, **few, folder=tmp_path)
    lines = (tmp_path / RECORD).read_text().splitlines()[1:]
    assert [json.loads(line)["number"] for line in lines] == [1]


def test_two_processes_give_what_two_workers_of_a_client_give(client):
    few = {"min_fidelity": 3, "max_fidelity": 9, "budget": 27, "fresh_seeds": 1}
    assert told(search(train, SPACE, **few, workers=2)) == told(
        search(train, SPACE, **few, client=client)
    )


def test_a_client_without_workers_is_refused():
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        pytest.raises(InputError, match="expected client to have workers, got none"),
    ):
        search(train, SPACE, **FEW, client=client)


def test_a_loss_may_be_anything_that_is_a_number():
    torch = pytest.importorskip("torch")
    outcome = trained(lambda *_: torch.tensor(2.5), {}, 1, 0)
    assert outcome.loss == 2.5
    assert outcome.seconds >= 0


class DyingFuture:
    """A training run whose workers die."""

    status = "error"

    def result(self):
        raise distributed.KilledWorker("train", None, 3)


class DyingClient:
    """What is asked of a client whose workers all die, as those do that lack memory."""

    status = "running"

    def nthreads(self):
        return {"worker": 1}

    def submit(self, *_, **__):
        return DyingFuture()

    def cancel(self, futures):
        assert len(futures) == 1


def test_workers_that_die_are_told_in_one_line():
    with pytest.raises(InputError, match="process of a training run died.*fewer work"):
        search(train, SPACE, **FEW, client=DyingClient())
