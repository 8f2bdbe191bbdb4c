"""The daemon under a real systemd, with the hardened unit as it is installed: life, death, and what survives it.

MAPCELL_TEST_SYSTEMD scales how often things are killed: 1 is the suite's share of patience, 10 what was promised.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.checkpoints import write_safetensors
from support.proc import eventually
from support.service import SERVICE, SOCKETS, InstalledService, finished
from support.systemd import needs_systemd

pytestmark = needs_systemd

SCALE = int(os.environ.get("MAPCELL_TEST_SYSTEMD", "1"))
BYTES = 64 << 20
# More than a Python process reads to start differently twice, and far less than a checkpoint.
READ_NOISE = 1 << 20


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that is the same inside and outside."""
    with tempfile.TemporaryDirectory(prefix="mcs", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def installed(folder: Path) -> Iterator[InstalledService]:
    """The service, installed once for all tests."""
    service = InstalledService(folder)
    try:
        yield service
    finally:
        service.sandbox.close()


@pytest.fixture
def service(installed: InstalledService) -> InstalledService:
    """The service with nothing loaded, its own configuration and an empty log."""
    installed.configure("# nothing\n")
    installed.fresh()
    return installed


def checkpoint(folder: Path, name: str, seed: int, nbytes: int = BYTES) -> Path:
    """A checkpoint of random floats."""
    values = np.random.default_rng(seed).standard_normal(nbytes // 4, np.float32)
    return write_safetensors(folder / f"{name}.safetensors", {"w": values})


def report(record: pytest.Item | None, **figures: object) -> None:
    """Prints what was measured; `pytest -s` shows it."""
    print(json.dumps(figures, default=str))


def test_starts_stops_and_starts_again(service: InstalledService) -> None:
    """It is active once it answers, stops with exit status 0, and leaves the store empty."""
    assert service.sandbox.show(SERVICE, "ActiveState") == "active"
    pid = json.loads(service.command("status", "--json"))["pid"]
    assert pid == service.pid()
    service.systemctl("stop", SERVICE)
    assert service.sandbox.show(SERVICE, "ActiveState") == "inactive"
    assert service.sandbox.show(SERVICE, "Result") == "success"
    assert service.stored() == 0
    service.systemctl("start", SERVICE)
    assert service.command("ls", "--json").strip() == "[]"
