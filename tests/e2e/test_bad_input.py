"""Bad input brings one typed error that says what is wrong, through the daemon and without it; the daemon serves on."""

from __future__ import annotations

import gc
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell_formats.errors import FormatError, MapcellError, NotFound, ProtocolError, UnsupportedFormat
from mapcell_formats.messages import Attach, Offer, Selection
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.proc import eventually


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with that header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    """One tensor's line in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# name: (bytes of the file, class of the error, words that its message has to hold)
FILES: dict[str, tuple[bytes, type[MapcellError], tuple[str, ...]]] = {
    "empty": (b"", FormatError, ("bad.bin",)),
    "text": (b"hello, this is no checkpoint\n" * 9, UnsupportedFormat, ("bad.bin",)),
    "noise": (b"\xff" * 4096, FormatError, ("bad.bin",)),
    "truncated header": (safetensors_bytes({"a": tensor(0, 8, [2])})[:30], FormatError, ("bad.bin",)),
    "truncated data": (safetensors_bytes({"a": tensor(0, 8, [2])}, bytes(7)), FormatError, ("bad.bin", "byte")),
    "overlap": (
        safetensors_bytes({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)),
        FormatError,
        ("bad.bin", "'b'", "byte"),
    ),
    "out of range": (safetensors_bytes({"a": tensor(0, 800, [200])}, bytes(8)), FormatError, ("bad.bin", "'a'")),
    "wrong size": (safetensors_bytes({"a": tensor(0, 8, [3])}, bytes(8)), FormatError, ("bad.bin", "'a'", "expected")),
    "negative shape": (safetensors_bytes({"a": tensor(0, 8, [-2])}, bytes(8)), FormatError, ("'a'",)),
    "unknown dtype": (safetensors_bytes({"a": tensor(0, 8, [2], "Q7")}, bytes(8)), UnsupportedFormat, ("'a'", "Q7")),
    "duplicate name": (
        safetensors_bytes(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        FormatError,
        ("'a'",),
    ),
    "huge header length": (struct.pack("<Q", 2**63) + b"{}" * 40, FormatError, ("bad.bin",)),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for the whole table: it has to outlive all of it."""
    with DaemonProcess() as running:
        yield running


@pytest.fixture(params=["require", "never"])
def through(request: pytest.FixtureRequest, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The daemon ("require") or this process alone ("never"); afterwards the daemon is as it was, and serves."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
    CONNECTIONS.client()
    before, own = daemon_status(), len(os.listdir("/proc/self/fd"))
    yield request.param
    gc.collect()
    after = daemon_status()
    assert (after.descriptors, after.leases, after.stagers) == (before.descriptors, before.leases, 0)
    # The thread that listens for replaced files lingers for a moment.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= own)


@pytest.mark.parametrize("case", FILES)
def test_bad_file(case: str, through: str, tmp_path: Path) -> None:
    """The error is of the right class and names file, tensor and what was expected."""
    data, kind, words = FILES[case]
    path = tmp_path / "bad.bin"
    path.write_bytes(data)
    with pytest.raises(kind) as caught:
        attach(path, daemon=through)
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value)


def test_directory_and_missing_path(through: str, tmp_path: Path) -> None:
    """A folder and a path that is not there are told apart, and named."""
    with pytest.raises(FormatError, match="directory"):
        attach(tmp_path, daemon=through)
    with pytest.raises(NotFound, match="no such file"):
        attach(tmp_path / "nothing.safetensors", daemon=through)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda p, d: attach(p, dtype="float31", daemon=d), ValueError),
        (lambda p, d: attach(p, dtype="int32", daemon=d), ValueError),
        (lambda p, d: attach(p, mode="w", daemon=d), ValueError),
        (lambda p, d: attach(p, keys=["a", "nope"], daemon=d), NotFound),
        (lambda p, d: attach("unknown-model", daemon=d), NotFound),
        (lambda p, d: attach(p, daemon="perhaps"), ValueError),
    ],
)
def test_bad_arguments(call: Callable[..., Any], kind: type[Exception], through: str, tmp_path: Path) -> None:
    """Wrong dtypes, modes, keys and names bring the error that says so."""
    path = write_safetensors(tmp_path / "good.safetensors", {"a": np.ones(3, np.float32)})
    with pytest.raises(kind):
        call(path, through)


def test_unknown_tensor_offers_near_names(through: str, tmp_path: Path) -> None:
    """A tensor that is not there is a NotFound (a LookupError) that says which one may have been meant."""
    path = write_safetensors(tmp_path / "good.safetensors", {"layer.weight": np.ones(3, np.float32)})
    with attach(path, daemon=through) as weights:
        with pytest.raises(LookupError, match=r"did you mean 'layer\.weight'"):
            weights["layer.wieght"]
        assert weights.get("nope") is None


@pytest.mark.parametrize(
    "request_",
    [
        Attach("m", Selection(dtype="I32")),
        Offer(("/x",), residence="somewhere"),
        Offer(()),
        Offer(tuple(f"/{i}" for i in range(300))),
        Offer(("/x",), name="no:good"),
        Offer(("/x",), name="../up"),
    ],
)
def test_requests_out_of_range(request_: Any, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Well-formed messages with values that mean nothing are refused by type."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
    with pytest.raises(ProtocolError):
        CONNECTIONS.client().ask(request_, 5)


def test_second_daemon_names_the_first(daemon: DaemonProcess) -> None:
    """A second daemon on the same runtime folder exits at once with an error that names the first one's pid."""
    command = [sys.executable, "-m", "mapcelld.main", "--runtime", str(daemon.runtime)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("error: ")
    assert str(daemon.pid) in second.stderr
    assert daemon.alive()
    assert (daemon.runtime / "control.sock").exists()
