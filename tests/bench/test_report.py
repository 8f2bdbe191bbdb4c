"""The report: tables between marks and plots, from what the benchmarks left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
MACHINE = {
    "kernel": "6.1", "cpu": "A processor", "cores": 2, "memory": 8 << 30, "python": "3.11.0", "huge_pages": 0,
    "load": 0.5,
}  # fmt: skip
DOCUMENT = "before\n<!-- bench:{0} -->\nold\n<!-- /bench:{0} -->\nafter\n"


def timed(case: dict[str, Any], way: str, p50: float) -> dict[str, Any]:
    """A row with times around `p50` seconds."""
    seconds = {"count": 3, "p50": p50, "p99": 2 * p50, "min": p50 / 2}
    return {"case": case, "way": way, "figures": {"seconds": seconds}}


def leave(folder: Path, bench: str, rows: list[dict[str, Any]]) -> None:
    """Writes a result as the scripts do."""
    document = {"bench": bench, "date": "2026-01-02T03:04:05Z", "machine": MACHINE, "versions": {"numpy": "2.0"}}
    (folder / f"{bench}.json").write_text(json.dumps(document | {"rows": rows}))


TURNS = {"1,000 tensors, 8 MiB": 0.0002, "1,000 tensors, 8,192 MiB": 0.00021, "100,000 tensors, 64 MiB": 0.0003}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with documents, and results of two scripts."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    case = {"tensors": 1000, "mib": 64}
    leave(
        tmp_path / "results",
        "attach_latency",
        [
            timed(case, "joblib mmap", 0.05),
            timed(case, "mapcell", 0.0002),
            timed({"tensors": 100_000, "mib": 64}, "mapcell", 0.0003),
            {"case": {"tensors": 100_000, "mib": 64}, "way": "joblib mmap", "failed": "OSError: too | many"},
            *(timed({"what": "in turns", "model": model}, "mapcell", took) for model, took in TURNS.items()),
        ],
    )
    leave(
        tmp_path / "results",
        "memory",
        [
            {
                "case": {"workers": n, "mib": 64, "cast": cast},
                "way": "mapcell",
                "figures": {"pss": n << 26, "keeper": 0},
            }
            for n in (1, 8)
            for cast in (False, True)
        ],
    )
    return tmp_path


def report(place: Path) -> subprocess.CompletedProcess[str]:
    """What bench/report.py says."""
    command = [sys.executable, str(BENCH / "report.py"), "--results", str(place / "results"), "--root", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def write(place: Path, readme: str, benchmarks: str = "") -> None:
    """The documents as they were."""
    (place / "README.md").write_text(readme)
    (place / "docs" / "benchmarks.md").write_text(benchmarks)


def test_tables_and_plots(place: Path) -> None:
    """Tables go between their marks, failures with their reasons; plots are written in both formats, twice the same."""
    write(place, DOCUMENT.format("machine"), DOCUMENT.format("attach-tensors") + DOCUMENT.format("goals"))
    done = report(place)
    assert done.returncode == 0, done.stderr
    readme, page = (place / "README.md").read_text(), (place / "docs" / "benchmarks.md").read_text()
    assert "before\n<!-- bench:machine -->\n\nMeasured on 2026-01-02: Linux 6.1, A processor, 2 cores" in readme
    assert readme.endswith("<!-- /bench:machine -->\nafter\n")
    assert "old" not in readme + page
    assert "| **mapcell** | 0.2 / 0.4 | 0.3 / 0.6 |\n| joblib mmap | 50 / 100 | — |" in page
    assert "— joblib mmap: `OSError: too / many`" in page
    assert "| attach to 1,000 tensors and have 10, connected, p50 | 0.2 ms | ≤ 0.25 ms | yes |" in page
    assert "| the same, 100,000 tensors against 1,000 | 1.5x | ≤ 1.1x | **no** |" in page
    assert "| the same, 8 GiB against 8 MiB | 1.05x | ≤ 1.1x | yes |" in page
    plots = {path.name: path.read_bytes() for path in (place / "docs" / "plots").iterdir()}
    assert plots.keys() == {"attach.svg", "attach.png", "memory.svg", "memory.png"}
    assert report(place).returncode == 0
    assert (place / "docs" / "benchmarks.md").read_text() == page
    assert (place / "docs" / "plots" / "attach.svg").read_bytes() == plots["attach.svg"]


def test_what_was_not_measured_stays(place: Path) -> None:
    """A table of a script that left nothing keeps what it has."""
    write(place, DOCUMENT.format("soak"))
    assert report(place).returncode == 0
    assert (place / "README.md").read_text() == DOCUMENT.format("soak")


def test_unknown_mark(place: Path) -> None:
    """A mark that no table has the name of is an error, not a table that is never written."""
    write(place, DOCUMENT.format("no-such-table"))
    done = report(place)
    assert done.returncode != 0
    assert "no table is called 'no-such-table'" in done.stderr


def test_no_results(place: Path) -> None:
    """Without results nothing is touched, and one is told what to run."""
    write(place, "as it was")
    for path in (place / "results").iterdir():
        path.unlink()
    done = report(place)
    assert done.returncode == 1
    assert "make bench" in done.stderr
    assert (place / "README.md").read_text() == "as it was"


def test_every_mark_has_a_table() -> None:
    """The documents of this repository ask for tables that there are, and for each but the README's own once."""
    names = "import json, report; print(json.dumps([*report.TABLES, 'goals']))"
    done = subprocess.run(
        [sys.executable, "-c", names], cwd=BENCH, capture_output=True, text=True, check=True, timeout=60
    )
    page = (BENCH.parent / "docs" / "benchmarks.md").read_text()
    for name in json.loads(done.stdout):
        assert page.count(f"<!-- bench:{name} -->\n") == page.count(f"<!-- /bench:{name} -->") == 1
