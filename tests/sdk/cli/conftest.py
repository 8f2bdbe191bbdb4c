"""The command line, run in this process, and a daemon for it to talk to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell.cli import main
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess


@dataclass(frozen=True, slots=True)
class Ran:
    """How one command ended, and what it wrote."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


class Cli:
    """Runs `mapcell` with arguments, in this process."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    def __call__(self, *arguments: str) -> Ran:
        self._captured.readouterr()
        status = main(arguments)
        out, err = self._captured.readouterr()
        return Ran(status, out, err)

    def json(self, *arguments: str) -> Any:
        """What the command prints with --json, once it has ended well and said nothing else."""
        ran = self(*arguments, "--json")
        assert (ran.status, ran.err) == (0, "")
        return ran.json()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, with tables as wide as they are in a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)
    return Cli(capsys)


@pytest.fixture(scope="module")
def running() -> Iterator[DaemonProcess]:
    """A daemon for all tests of one module."""
    with DaemonProcess("--budget", "64MiB") as daemon:
        yield daemon


@pytest.fixture
def daemon(running: DaemonProcess, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """The module's daemon, holding nothing, with this process pointed at it."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
    monkeypatch.setenv("HF_HUB_CACHE", str(running.runtime / "no-cache"))
    yield running
    for name in {row["name"] for row in cli.json("ls")}:
        cli("unload", name)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small checkpoint: two F32 tensors and one I64, with a string beside them."""
    tensors = {
        "a.weight": np.ones((4, 8), np.float32),
        "a.bias": np.arange(8, dtype=np.float32),
        "ids": np.arange(3),
    }
    return write_safetensors(tmp_path / "small.safetensors", tensors, {"format": "np"})
