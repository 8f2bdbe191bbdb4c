"""Every format, as its own library writes it, comes back byte for byte: by a daemon and without, mapped and sealed.

Staged by one thread and by several: how many there are goes by the cores that the daemon may use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from formats.mindspore_data import ENCRYPTED, FOLDER, key_of, mode_of
from mapcell.attaching import attach
from mapcell.daemon_backend import attach_path
from mapcell.train.loading import load_checkpoint
from mapcell_formats.errors import UnsupportedFormat
from support.daemon import DaemonProcess
from support.real_files import FILES, Arrays

OPTIONS: dict[str, Any] = {"dtype": None, "keys": None, "prefix": "", "mode": "r", "timeout": 30}


def one_core() -> list[str]:
    """What has a program run on one of the cores that this process may use."""
    return ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]


@pytest.fixture(scope="module", params=["one thread", "several"])
def running(request: pytest.FixtureRequest) -> Iterator[DaemonProcess]:
    """One daemon for all formats."""
    with DaemonProcess(under=one_core() if request.param == "one thread" else ()) as daemon:
        yield daemon


@pytest.fixture
def daemon(running: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> DaemonProcess:
    """The daemon, with this process pointed at it."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
    return running


def same(found: Mapping[str, np.ndarray[Any, Any]], wanted: Arrays) -> None:
    """Both have the same names, dtypes, shapes and bytes."""
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        view = found[name]
        assert (view.dtype, view.shape, view.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
        assert not view.flags.writeable


@pytest.mark.parametrize("case", FILES)
def test_in_this_process(case: str, tmp_path: Path) -> None:
    """Without a daemon every file is read as its library reads it."""
    wanted = FILES[case].write(tmp_path)
    with attach(tmp_path, daemon="never") as weights:
        same(weights, wanted)


@pytest.mark.parametrize("case", FILES)
def test_through_a_daemon(case: str, daemon: DaemonProcess, tmp_path: Path) -> None:
    """Sealed by a daemon, and mapped by one where the format allows."""
    wanted = FILES[case].write(tmp_path)
    with attach_path(str(tmp_path), **OPTIONS, residence="sealed") as weights:
        same(weights, wanted)
        assert (weights.residence, weights.verified) == ("sealed", True)
    if not FILES[case].mapped:
        with pytest.raises(UnsupportedFormat, match="cannot be mapped"):
            attach_path(str(tmp_path), **OPTIONS, residence="mapped")
        return
    with attach_path(str(tmp_path), **OPTIONS, residence="mapped") as weights:
        same(weights, wanted)
        assert weights.residence == "mapped"


@pytest.mark.parametrize(
    "case", ["safetensors", "npz, compressed", "npy, Fortran order", "torch, views", "MindSpore .ckpt"]
)
def test_threads_of_one_process(case: str, tmp_path: Path) -> None:
    """Threads that want the tensors of one attachment at the same time, mapped or decoded, all get them."""
    wanted = FILES[case].write(tmp_path)
    with attach(tmp_path, daemon="never") as weights, ThreadPoolExecutor(4) as pool:
        together = Barrier(4)

        def read(_: int) -> None:
            together.wait()
            same(weights, wanted)

        assert list(pool.map(read, range(4))) == [None] * 4


@pytest.mark.parametrize("file", ENCRYPTED)
def test_encrypted(file: str) -> None:
    """An encrypted .ckpt holds what the plain one holds, for who has the key."""
    found = load_checkpoint(str(FOLDER / file), dec_key=key_of(file), dec_mode=mode_of(file))
    plain = load_checkpoint(str(FOLDER / "lenet5.ckpt"))
    assert {n: p.asnumpy().tobytes() for n, p in found.items()} == {n: p.asnumpy().tobytes() for n, p in plain.items()}


def test_threads() -> None:
    """The daemons of these tests differ as they are meant to, where there is more than one core."""
    import subprocess
    import sys

    ask = [sys.executable, "-c", "from mapcelld.filling import threads; print(threads())"]
    alone = subprocess.run([*one_core(), *ask], check=True, capture_output=True, text=True).stdout
    free = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
    assert int(alone) == 1
    assert int(free) == min(4, len(os.sched_getaffinity(0)))
