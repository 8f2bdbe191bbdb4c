"""Torch in several processes: one copy of the weights, and what happens to it when processes are made of processes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mapcell.torch
from mapcell.connection import daemon_status
from support.daemon import DaemonProcess
from support.models import MIB, load, write_model
from support.proc import eventually

WORKERS = 4
TENSORS = 8


@pytest.fixture
def sealed(daemon: DaemonProcess, tmp_path: Path) -> Path:
    """A checkpoint of 32 MiB that the daemon holds in its own memory."""
    path = write_model(tmp_path / "m.safetensors", 3, TENSORS, 4)
    load(path, "m").close()
    return path


def told(daemon: DaemonProcess, *arguments: str) -> Any:
    """What one of support.torch_programs prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "support.torch_programs", *arguments],
        env=daemon.env() | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_workers_hold_one_copy(daemon: DaemonProcess, sealed: Path) -> None:
    """Four processes that load the model and read every element hold it once between them, and dirtied no page."""
    nbytes = TENSORS * 4 * MIB
    answer = told(daemon, "workers", "m", str(WORKERS))
    assert answer["leases"] == WORKERS
    assert answer["sums"] == [3.0 * nbytes / 4] * WORKERS
    assert all(p["Rss"] >= nbytes and p["Private_Dirty"] == 0 for p in answer["pages"])
    assert sum(p["Pss"] for p in answer["pages"]) <= nbytes * 1.05
    eventually(lambda: daemon_status().leases == 0)


def test_data_loaders_and_queues(daemon: DaemonProcess, sealed: Path) -> None:
    """Forked and spawned workers compute with the tensors, write to their own, and change nobody else's."""
    answer = told(daemon, "loaders", "m")
    assert answer["fork"] == answer["spawn"] == [3.0 * MIB] * TENSORS
    assert answer["fork leases"] == 1
    assert answer["leases"] == 0
    assert [answer[k] for k in ("before", "after", "mine")] == [3.0 * MIB, 6.0 * MIB, 3.0 * MIB]


def test_the_lease_ends_with_the_last_tensor(daemon: DaemonProcess, sealed: Path) -> None:
    """A module keeps the lease through deletions of everything else, and gives it back with its last parameter."""
    with mapcell.torch.no_init_parameters():
        module = nn.ParameterDict({f"t{i}": nn.Parameter(torch.empty(MIB)) for i in range(TENSORS)})
    assert mapcell.torch.bind_module(module, "m") == ([], [])
    assert daemon_status().leases == 1
    last = module["t3"][5:]
    state = module.state_dict()
    del module
    gc.collect()
    assert daemon_status().leases == 1
    del state
    assert daemon_status().leases == 1
    with torch.no_grad():
        last.zero_()
    del last
    gc.collect()
    eventually(lambda: daemon_status().leases == 0)
    assert float(mapcell.torch.load_file("m")["t3"].sum()) == 3.0 * MIB


def test_casts_come_from_the_daemon(daemon: DaemonProcess, sealed: Path) -> None:
    """Bound to a module of another dtype, floating tensors are cast once, for everybody."""
    modules: list[nn.ParameterDict] = []
    sealed_bytes = []
    for _ in range(2):
        with mapcell.torch.no_init_parameters():
            modules.append(nn.ParameterDict({"t0": torch.empty(MIB, dtype=torch.bfloat16)}))
        missing, unexpected = mapcell.torch.bind_module(modules[-1], sealed, strict=False)
        assert (missing, len(unexpected)) == ([], TENSORS - 1)
        sealed_bytes.append(daemon_status().sealed)
    assert sealed_bytes[0] == sealed_bytes[1] < TENSORS * 4 * MIB * 1.2
    assert all(bool((m["t0"] == 3).all()) for m in modules)
    assert daemon_status().leases == 2
    with mapcell.torch.sharing(daemon="require"):
        from safetensors.numpy import load_file

        array = load_file(sealed)["t1"]
    assert daemon_status().leases == 3
    array[:] = 0
    assert float(mapcell.torch.load_file("m")["t1"].mean()) == 3.0
