"""Programs with torch that tests run as `python -m support.torch_programs PROGRAM ARGUMENTS`; each prints JSON."""

from __future__ import annotations

import json
import multiprocessing
import sys
import warnings
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

import mapcell.torch
from mapcell.connection import daemon_status


class Sums(Dataset[float]):
    """The sum of each tensor of a checkpoint, computed where it is asked for."""

    def __init__(self, path: str) -> None:
        self.tensors = list(mapcell.torch.load_file(path, daemon="require").values())

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, number: int) -> float:
        tensor = self.tensors[number]
        total = float(tensor.sum())
        if multiprocessing.get_start_method() == "fork":
            # A worker's own affair; what is sent to a spawned one torch itself shares between the two.
            tensor.zero_()
        return total


def workers(path: str, count: str) -> dict[str, Any]:
    """What `count` processes that load `path` and read every element compute, and hold when all have done so."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(int(count) + 1), context.SimpleQueue()
    started = [context.Process(target=_hold, args=(path, barrier, answers)) for _ in range(int(count))]
    for process in started:
        process.start()
    barrier.wait()
    leases = daemon_status().leases
    barrier.wait()
    told = [answers.get() for _ in started]
    for process in started:
        process.join()
    return {"leases": leases, "sums": [total for total, _ in told], "pages": [pages for _, pages in told]}


def _hold(path: str, barrier: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    tensors = mapcell.torch.load_file(path, daemon="require")
    total = sum(float(t.sum()) for t in tensors.values())
    barrier.wait()
    pages = _mapped()
    barrier.wait()
    answers.put((total, pages))


def _mapped() -> dict[str, int]:
    """Resident, proportional and private bytes of the daemon's memory in this process."""
    found, inside = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            key, _, rest = line.partition(":")
            if "-" in key:
                inside = "memfd:mapcell-segment" in line
            elif inside and key in found:
                found[key] += int(rest.split()[0]) * 1024
    return found


def loaders(path: str) -> dict[str, Any]:
    """What DataLoaders with forked and spawned workers compute, and the leases left when all is gone."""
    told: dict[str, Any] = {}
    for method in ("fork", "spawn"):
        data = Sums(path)
        before = [float(t.sum()) for t in data.tensors]
        count = 2 if method == "fork" else 1
        loader = DataLoader(data, batch_size=None, num_workers=count, multiprocessing_context=method)
        told[method] = [float(value) for value in loader]
        assert told[method] == before == [float(t.sum()) for t in data.tensors]
        told[f"{method} leases"] = daemon_status().leases
        del loader, data
    told["leases"] = daemon_status().leases
    return told | queue(path)


def queue(path: str) -> dict[str, Any]:
    """A tensor through a queue of torch's, to a process and back."""
    context = torch.multiprocessing.get_context("spawn")
    there, back = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=_double, args=(there, back))
    process.start()
    tensor = next(iter(mapcell.torch.load_file(path, daemon="require").values()))
    before = float(tensor.sum())
    there.put(tensor)
    after = back.get()
    back_again = float(tensor.sum())
    process.join()
    return {"before": before, "after": after, "mine": back_again}


def _double(there: Any, back: Any) -> None:
    # A tensor would be gone with this process, which does not wait for it to be fetched.
    back.put(float(there.get().sum()) * 2)


_PROGRAMS = {program.__name__: program for program in (workers, loaders, queue)}

if __name__ == "__main__":
    warnings.simplefilter("error")
    multiprocessing.set_start_method("fork")
    answer = _PROGRAMS[sys.argv[1]](*sys.argv[2:])
    if answer is not None:
        print(json.dumps(answer))
