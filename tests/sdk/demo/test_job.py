"""What a worker is told arrives as it was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapcell.demo.job import BOOT, Job, environment, read_job


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_command(dtype: str | None) -> None:
    """A job survives the command line, odd paths included."""
    job = Job("mmap", "/a b/ü'\".safetensors", dtype, "c", "t", "a")
    option, boot, text = job.command()
    assert (option, boot) == ("-c", BOOT)
    assert read_job(text) == job


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker sees the demo's daemon or none, and as many BLAS threads as it is told, unless the user said."""
    monkeypatch.setenv("MAPCELL_DAEMON", "never")
    monkeypatch.setenv("MAPCELL_CONFIG", "/etc/x")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    known = environment(Path("/run/x"), 3)
    assert {k: v for k, v in known.items() if k.startswith("MAPCELL_")} == {"MAPCELL_RUNTIME": "/run/x"}
    assert known["OPENBLAS_NUM_THREADS"] == "3"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert environment(None, 3)["OPENBLAS_NUM_THREADS"] == "7"
    assert "MAPCELL_RUNTIME" not in environment(None, 3)
