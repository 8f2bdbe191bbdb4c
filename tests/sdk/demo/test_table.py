"""The table and the JSON of one made-up comparison."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mapcell.demo.job import STEPS
from mapcell.demo.measure import Memory
from mapcell.demo.results import Comparison, Daemon, WayResult, Worker, document
from mapcell.demo.table import PIPED_WIDTH, show

MIB = 1 << 20
NAMES = ("private", "mmap", "mapcell")
TIMES = dict(zip(STEPS, (0.02, 0.2, 0.005, 0.1, 0.001, 0.05), strict=True))


def memory(mib: int) -> Memory:
    """A process of that size."""
    return Memory(rss=3 * mib * MIB, pss=2 * mib * MIB, private=mib * MIB, hugetlb=0)


def way(name: str, cast: bool) -> WayResult:
    """Two workers, and a daemon where there is one."""
    workers = [Worker(TIMES, memory(100)), Worker(TIMES | {"load": 0.2}, memory(110))]
    daemon = Daemon(0.15, 0.25, "sealed" if cast else "mapped", 87 * MIB * cast, 39 * MIB, 38 * MIB)
    return WayResult(name, cast, workers, daemon if name == "mapcell" else None, 459 * MIB, -3 * MIB, 1.8626e-07)


FOUND = Comparison(
    ways=[way(name, cast) for cast in (False, True) for name in NAMES],
    bare=[memory(12), memory(12)],
    checkpoint=87 * MIB,
    sentences=5,
    threads=1,
    reference="reference",
)


def shown(found: Comparison, width: int | None) -> list[str]:
    """What is printed on a terminal of that width, or into a pipe."""
    out = io.StringIO()
    show(found, Console(file=out, width=width, force_terminal=width is not None, no_color=True, color_system=None))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_into_a_pipe() -> None:
    """All columns, every way's row, nothing cut off, within 110 columns."""
    lines = shown(FOUND, None)
    assert max(map(len, lines)) <= PIPED_WIDTH == 110
    assert not any("…" in line for line in lines)
    (row,) = (line.split() for line in lines if line.strip().startswith("mapcell, cast"))
    assert row == ["mapcell,", "cast", "426", "20", "200", "5", "150", "1", "50", "105", "210", "459", "-3", "2e-07"]
    assert [line.split("  ")[0].strip() for line in lines if "2e-07" in line] == [
        "private", "mmap", "mapcell", "private, cast", "mmap, cast", "mapcell, cast",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [70, 80, 100])
def test_narrow_terminal(width: int) -> None:
    """Without room for the steps the other columns stay whole."""
    lines = shown(FOUND, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    assert not any("forward" in line for line in lines)


def test_notes() -> None:
    """The lines below name the floor, the daemon's cost, and what errors are measured against."""
    text = " ".join(" ".join(shown(FOUND, 200)).split())
    assert "only imports NumPy: 12 MiB private, 24 MiB PSS" in text
    assert "39 MiB PSS; started in 150 ms, loaded the model once in 250 ms, mapped in place" in text
    assert "cast the model once in 250 ms, and holds it in 87 MiB" in text
    assert "reference embeddings" in text
    own = " ".join(shown(replace(FOUND, reference="private", threads=2), 200))
    assert "your own sentences have no reference" in own
    assert "2 BLAS threads each" in own


def test_document() -> None:
    """The JSON has bytes and seconds; a way without a daemon says so."""
    told = document(FOUND)
    first = told["ways"][0]
    assert {k: first[k] for k in ("way", "cast", "total_pss", "host_delta", "max_difference", "daemon")} == {
        "way": "private", "cast": False, "total_pss": 459 * MIB, "host_delta": -3 * MIB, "max_difference": 1.8626e-07,
        "daemon": None,
    }  # fmt: skip
    worker = first["workers"][0]
    assert worker["private"] == 100 * MIB
    assert worker["pss"] == 200 * MIB
    assert worker["first_answer"] == pytest.approx(0.376)
    assert worker["ready"] == pytest.approx(0.326)
    assert told["ways"][5]["daemon"]["sealed"] == 87 * MIB
    assert told["bare_numpy"][0] == {"pss": 24 * MIB, "private": 12 * MIB, "rss": 36 * MIB}
