"""Sums and means over processes."""

import pytest
import torch
from several_processes import in_processes
from torch import distributed

from l2l_evograd.distributed import Processes

pytestmark = pytest.mark.usefixtures("float64")


def means(rank, group):
    single = torch.full((2, 2), float(rank), dtype=torch.float32)
    processes = Processes(group)
    found = processes.mean([torch.tensor([rank, 3.0]), None, single, single.sum()])
    assert found[1] is None
    seed = processes.common(5 + rank, torch.device("cpu"))
    return [found[0], found[2], found[3], torch.tensor(seed)]


def test_means_keep_shapes_dtypes_and_what_is_not_there(tmp_path):
    for pair, matrix, total, seed in in_processes(tmp_path, 2, means):
        assert pair.tolist() == [0.5, 3.0] and pair.dtype == torch.float64
        assert torch.equal(matrix, torch.full((2, 2), 0.5, dtype=torch.float32))
        assert float(total) == 2.0 and int(seed) == 5


def test_one_process_is_left_as_it_is():
    tensors = [torch.ones(2), None]
    found = Processes().mean(tensors)
    assert found[0] is tensors[0] and found[1] is None
    assert Processes().common(3, torch.device("cpu")) == 3


def test_one_process_has_all_candidates():
    processes = Processes()
    values = [torch.tensor(float(k)) for k in processes.share(3)]
    assert processes.gathered(values, 3).tolist() == [0, 1, 2]
    assert processes.sums(values) == values


def shares(rank, group):
    processes = Processes(group)
    sums = processes.sums([torch.full((2,), float(rank)), torch.ones(3).float()])
    values = [torch.tensor(float(k)) for k in processes.share(5)]
    tensor = torch.full((3,), 7.0 + rank)
    processes.follow_first([tensor])
    return [*sums, processes.gathered(values, 5), tensor]


@pytest.mark.parametrize("count", [2, 3])
def test_sums_and_shares_of_several_processes(tmp_path, count):
    for first, second, gathered, followed in in_processes(tmp_path, count, shares):
        assert first.tolist() == [sum(range(count))] * 2
        assert second.tolist() == [count] * 3 and second.dtype == torch.float32
        assert gathered.tolist() == [0, 1, 2, 3, 4]
        assert followed.tolist() == [7.0] * 3


def apart(rank, group):
    with pytest.raises(ValueError, match=r"got processes \[0, 1\] in both"):
        Processes(group).check_apart(Processes(group))
    alone = [distributed.new_group([r]) for r in range(2)]
    Processes(group).check_apart(Processes(alone[rank]))
    Processes(group).check_apart(Processes())
    return []


def test_processes_share_out_data_or_candidates_and_not_both(tmp_path):
    in_processes(tmp_path, 2, apart)


def test_what_is_no_group_is_refused():
    with pytest.raises(TypeError, match="torch.distributed.ProcessGroup, got int"):
        Processes(2)
