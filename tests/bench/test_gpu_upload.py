"""The benchmark of uploads: it says why there is nothing to measure, and measures a device that is memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLAIN = "import gpu_upload; gpu_upload.main()"
FAKE = """
import gpu_upload
from mapcell.cuda import bindings, uploading
from support.device import FakeDriver
driver = FakeDriver()
bindings.CudaDriver = uploading.CudaDriver = lambda: driver
gpu_upload.main()
assert driver.live == {}, driver.live
"""


def left_by(program: str, out: Path, *only: str) -> list[dict[str, Any]]:
    """The rows that the benchmark leaves when it is run so."""
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'bench'}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", program, "--mib", "4", "--rounds", "1", "--out", str(out)]
    command += ["--only", *only] if only else []
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    return rows


def test_without_a_device(tmp_path: Path) -> None:
    """Every way is listed with the reason."""
    rows = left_by(PLAIN, tmp_path / "out.json")
    if any("figures" in row for row in rows):
        pytest.skip("this host has a CUDA device")
    assert len(rows) == 8
    assert all("no CUDA device was found" in row["failed"] for row in rows)


def test_measures(tmp_path: Path) -> None:
    """With a device the peak and every upload have figures, and nothing stays allocated."""
    kinds = [f"mapcell, {kind}, {way}" for kind in ("mapped", "sealed") for way in ("ring", "register", "auto")]
    rows = left_by(FAKE, tmp_path / "out.json", "page-locked peak", *kinds)
    assert {row["way"] for row in rows} == {"page-locked peak", *kinds}
    assert all(row["figures"]["bytes_per_second"] > 0 for row in rows)
