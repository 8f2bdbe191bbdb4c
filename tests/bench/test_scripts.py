"""Every benchmark runs, at a size that takes a moment, and leaves JSON of one shape. What it measured is not judged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
# Script, arguments, the ways that are asked for.
RUNS: list[tuple[str, str, list[str]]] = [
    ("import_time", "--rounds 1", ["python", "mapcell"]),
    (
        "attach_latency",
        "--tensors 10 --mib 1 --asked 2 --rounds 2",
        ["mapcell", "mapcell, connecting", "mapcell, no daemon", "safetensors numpy", "numpy mmap", "shared_memory"],
    ),
    (
        "whole_model",
        "--mib 4 --tensors 4 --rounds 1",
        ["mapcell, mapped", "mapcell, sealed", "mapcell, huge pages", "file map", "safetensors numpy", "numpy mmap"],
    ),
    (
        "network",
        "--parameters 20 --elements 1 --rounds 1",
        ["mapcell", "mapcell, no_init", "mapcell, shared", "mapcell, private arrays"],
    ),
    (
        "staging",
        "--mib 4 --tensors 2 --encrypted 1 --rounds 1",
        [
            "mapcell, sealed",
            "mapcell, huge pages",
            "mapcell, cast",
            "mapcell, mapped",
            "read",
            "read and copy",
            "decrypt",
        ],
    ),
    (
        "memory",
        "--workers 1 2 --mib 8 --tensors 2",
        ["bare numpy", "mapcell", "mapcell, huge pages", "safetensors numpy", "fork after load"],
    ),
    ("ready", "--mib 16 --rounds 1", ["mapcell", "numpy + safetensors"]),
    (
        "serve",
        "--clients 1 3 --seconds 0.1 --models 2 --staged 4",
        ["mapcell", "mapcell, while staging", "safetensors numpy", "shared_memory"],
    ),
    ("many_attaches", "--attaches 20 --steps 2", ["mapcell"]),
    ("guard_delay", "--mib 1 --workers 1 --rounds 1", ["guarded", "memcpy", "unguarded"]),
    ("compute", "--rounds 1 --batch 1 --tokens 8 --threads 1", ["mapcell"]),
    ("listing", "--tensors 100 --repeat 1", ["safetensors", "npz"]),
    ("attach_while_staging", "--gib 0.0625 --idle 5 --rounds 1", ["mapcell"]),
    ("soak", "--seconds 0.5", ["mapcell"]),
]


def left_by(script: str, arguments: str, ways: list[str], out: Path) -> dict[str, Any]:
    """What the script leaves."""
    command = [sys.executable, str(BENCH / f"{script}.py"), *arguments.split(), "--out", str(out), "--only", *ways]
    # Without compiled files each of a script's processes would compile NumPy anew.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


class Left:
    """What each script left in a folder, run when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, dict[str, Any]] = {}

    def by(self, script: str, arguments: str, ways: list[str]) -> dict[str, Any]:
        """The script's document."""
        if script not in self._found:
            self._found[script] = left_by(script, arguments, ways, self.folder / f"{script}.json")
        return self._found[script]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """One run of each script, for all tests."""
    return Left(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize(("script", "arguments", "ways"), RUNS, ids=[script for script, _, _ in RUNS])
def test_shape(script: str, arguments: str, ways: list[str], left: Left) -> None:
    """A result says what ran where and when, and has figures for each way that was asked for."""
    found = left.by(script, arguments, ways)
    assert found["bench"] == script
    assert found["script"] == f"bench/{script}.py"
    assert found["machine"].keys() >= {"kernel", "cpu", "cores", "memory", "python"}
    assert found["versions"]["numpy"]
    for row in found["rows"]:
        assert row["case"] is not None
        assert ("figures" in row) != ("failed" in row)
    measured = {row["way"] for row in found["rows"] if "figures" in row}
    assert measured == set(ways), [row for row in found["rows"] if "failed" in row]
    for row in found["rows"]:
        seconds = row.get("figures", {}).get("seconds")
        if isinstance(seconds, dict):
            assert seconds["count"] >= 1
            assert 0 < seconds["min"] <= seconds["p50"] <= seconds["p99"]


def test_report_takes_them_all(left: Left, tmp_path: Path) -> None:
    """Every table of the documents is made from what the scripts leave, and every plot."""
    for run in RUNS:
        left.by(*run)
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/benchmarks.md"):
        text = (BENCH.parent / name).read_text()
        emptied = re.sub(r"(<!-- bench:[\w-]+ -->\n).*?(?=<!-- /bench:)", r"\1", text, flags=re.DOTALL)
        (tmp_path / name).write_text(emptied)
    command = [sys.executable, str(BENCH / "report.py"), "--results", str(left.folder), "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert not re.findall(r"<!-- bench:([\w-]+) -->\n<!--", page)
    drawn = {path.stem for path in (tmp_path / "docs" / "plots").iterdir()}
    assert drawn == {found[1] for found in re.finditer(r"\(plots/(\w+)\.svg\)", page)}


def test_every_script_is_run() -> None:
    """What `make bench` starts is what is tested here, in both of its sets."""
    listed = "import json, run; print(json.dumps([list(run.SHORT), list(run.FULL)]))"
    done = subprocess.run(
        [sys.executable, "-c", listed], cwd=BENCH, capture_output=True, text=True, check=True, timeout=60
    )
    short, full = json.loads(done.stdout)
    assert short == full
    assert set(short) == {script for script, _, _ in RUNS}


def test_a_peer_that_fails_is_reported(tmp_path: Path) -> None:
    """A peer that is not there, or cannot do it, is a row with the reason."""
    arguments = f"--rounds 1 --mindspore-python {tmp_path}/no-such-python"
    found = left_by("import_time", arguments, ["python", "mindspore"], tmp_path / "out.json")
    rows = {row["way"]: row for row in found["rows"]}
    assert "figures" in rows["python"]
    assert rows["mindspore"]["failed"].startswith("FileNotFoundError: ")
