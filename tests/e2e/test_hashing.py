"""Digests of mapped files: taken in the background, said in every place, and taken back when they no longer hold."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

import mapcell
from mapcell.daemon_backend import attach_name
from mapcell_formats.errors import StagingFailed
from mapcell_formats.messages import ModelRow
from support.daemon import DaemonProcess
from support.models import load, number_of, rows, write_model
from support.proc import eventually

PATIENCE = 60.0


def mapped(path: Path, name: str = "m") -> str:
    """Loads `path` as it lies; the id of its version."""
    weights = load(path, name, "mapped")
    assert (weights.residence, weights.verified) == ("mapped", False)
    return weights.version


def unguarded(path: Path) -> None:
    """The same for a file that nobody guards, since somebody has it open for writing."""
    with path.open("r+b"):
        mapped(path)


def row(name: str = "m") -> ModelRow:
    """What the daemon says of the newest version of `name`."""
    return rows(name)[0]


def verified(name: str = "m") -> ModelRow:
    """That, once its bytes were hashed."""
    eventually(lambda: row(name).verified, PATIENCE)
    return row(name)


def test_hashed_once_and_said(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The id stays, the digest is that of the sealed checkpoint and finds the version; new leases are verified."""
    path = write_model(tmp_path / "m.safetensors", 1)
    number = mapped(path)
    before = mapcell.attach("m")
    found = verified()
    sealed = load(path, "s", "sealed")
    assert (found.version, found.digest) == (number, sealed.version)
    assert sealed.version != number
    for name in ("m", f"m@{found.digest[:16]}", f"m@{number[:12]}"):
        weights = mapcell.attach(name)
        assert (weights.version, weights.verified, number_of(weights)) == (number, True, 1)
        assert weights.digest("t0") == sealed.digest("t0")
    assert (before.verified, before.digest("t0")) == (False, None)
    assert daemon.log().count("verified: ") == 1
    del before, weights, sealed
    gc.collect()


def test_changed_in_place_is_verified_no_more(daemon: DaemonProcess, tmp_path: Path) -> None:
    """An unguarded file that is rewritten where it lies is not what was hashed: rows and new leases say so."""
    path = write_model(tmp_path / "m.safetensors", 1)
    unguarded(path)
    verified()
    eventually(lambda: row().source_state == "same", PATIENCE)
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(2).tobytes())
    eventually(lambda: row().source_state == "changed", PATIENCE)
    eventually(lambda: not row().verified, PATIENCE)
    assert row().digest == ""
    assert not mapcell.attach("m").verified
    gc.collect()


def test_cast_of_a_touched_file(daemon: DaemonProcess, tmp_path: Path) -> None:
    """chmod takes nothing from a version whose digests are known; bytes changed under a forged mtime are refused."""
    path = write_model(tmp_path / "m.safetensors", 1)
    unguarded(path)
    verified()
    path.chmod(0o600)
    assert number_of(attach_name("m", dtype="F64", keys=None, prefix="", mode="r", timeout=30)) == 1
    info = path.stat()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(2).tobytes())
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(StagingFailed, match="are not what they were when it was hashed; load it again"):
        attach_name("m", dtype="F16", keys=None, prefix="", mode="r", timeout=30)
    gc.collect()
