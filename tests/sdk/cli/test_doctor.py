"""doctor: the report as a whole, without and with a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mapcell_formats.wire import PROTOCOL
from support.daemon import DaemonProcess

from .conftest import Cli
from .test_main import MAIN

FIELDS = {"check", "ok", "detail", "advice"}
CHECKS = {
    "kernel", "memfd sealing", "MFD_NOEXEC_SEAL", "descriptor passing", "SO_PEERGROUPS", "openat2", "leases on memory",
    "leases on files", "fs.lease-break-time", "huge pages", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "vm.max_map_count",
    "MemAvailable", "memory cgroup", "daemon", "python", "numpy", "pyzmq", "libzmq", "extra crypto", "BLAS threads",
}  # fmt: skip
SECONDS = 60


def by_check(document: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The findings under their names, each of which stands once."""
    found = {finding["check"]: finding for finding in document}
    assert len(found) == len(document)
    return found


def test_report(cli: Cli) -> None:
    """Every check is there with its fields, says what was found, and advises exactly where something is amiss."""
    found = by_check(cli.json("doctor"))
    assert found.keys() >= CHECKS
    for finding in found.values():
        assert finding.keys() >= FIELDS
        assert finding["detail"]
        assert bool(finding["advice"]) == (not finding["ok"]), finding
    assert found["kernel"]["detail"].startswith(f"Linux {os.uname().release}")
    assert (found["daemon"]["ok"], found["daemon"]["required"]) == (False, False)
    assert "mapcell serve" in found["daemon"]["advice"]


def test_for_people(cli: Cli) -> None:
    """For people each check is a line, and the end says whether mapcell works here."""
    ran = cli("doctor")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("ok    kernel ")
    assert lines[-1].startswith("mapcell works here") or lines[-1] == "all is well"


def test_with_a_daemon(cli: Cli, daemon: DaemonProcess) -> None:
    """The daemon that answers is named, its folder shown, and its room counted instead of ours."""
    found = by_check(cli.json("doctor"))
    assert found["daemon"]["ok"]
    assert f"pid {daemon.pid}, protocol {PROTOCOL}, in {daemon.runtime}" in found["daemon"]["detail"]
    assert found["daemon access"]["detail"] == f"uid {os.getuid()} is admitted"
    assert found["daemon budget"]["detail"] == "64.0 MiB of 64.0 MiB left"
    assert "a daemon listens" in found[f"runtime {daemon.runtime}"]["detail"]
    assert f"the daemon (pid {daemon.pid})" in found["memory cgroup"]["detail"]


def test_what_is_required(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that mapcell cannot work with ends in status 1 and one line that names it."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("MAPCELL_RUNTIME", str(folder))
    ran = cli("doctor")
    assert ran.status == 1
    assert f"FAIL  runtime {folder}" in ran.out
    assert f"chmod o-w {folder}" in ran.out
    assert ran.err.startswith(f"error: runtime {folder}: mapcell cannot work so")
    assert ran.err.count("\n") == 1
    ran = cli("doctor", "--json")
    assert ran.status == 1
    assert not by_check(ran.json())[f"runtime {folder}"]["ok"]


def test_limits_of_the_shell(cli: Cli) -> None:
    """A hard limit on descriptors, and what BLAS was told about threads, are those of the process that asks."""
    command = f"ulimit -n 512 && OPENBLAS_NUM_THREADS=1 exec {sys.executable} -c '{MAIN}' doctor --json"
    ran = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, timeout=SECONDS, check=True)
    found = by_check(json.loads(ran.stdout))
    assert not found["RLIMIT_NOFILE"]["ok"]
    assert "to 512" in found["RLIMIT_NOFILE"]["detail"]
    assert "LimitNOFILE" in found["RLIMIT_NOFILE"]["advice"]
    assert found["BLAS threads"]["detail"].startswith("a worker multiplies in 1 thread on ")
    assert found["BLAS threads"]["detail"].endswith("OPENBLAS_NUM_THREADS=1")
