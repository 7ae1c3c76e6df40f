"""A function in several processes at once, each with its rank and their group."""

import multiprocessing
import os
from datetime import timedelta

import torch
from torch import distributed


def in_processes(folder, count, function, *arguments):
    """Return what ``function(*arguments, rank, group)`` gives in each of ``count``."""
    context = multiprocessing.get_context("fork")
    options = (folder, count, function, arguments)
    members = [
        context.Process(target=member, args=(rank, *options), daemon=True)
        for rank in range(count)
    ]
    for process in members:
        process.start()
    for process in members:
        process.join(120)
    assert [process.exitcode for process in members] == [0] * count
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def member(rank, folder, count, function, arguments):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=60),
    )
    found = function(*arguments, rank, distributed.group.WORLD)
    torch.save(found, folder / f"{rank}.pt")
    distributed.barrier()  # one that has sent nothing may still be looking for others
    distributed.destroy_process_group()
    os._exit(0)  # pytest's own clean-up is the parent's
