"""Rates from counters."""

from __future__ import annotations

import pytest

from mapcell.cli.rates import WINDOW_SECONDS, Meter, Rates, Sample

from .figures import sample, staging


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        ([sample(0.0, 10)], None),
        ([sample(0.0, 10), sample(0.0, 11)], None),
        ([sample(0.0, 10), sample(2.0, 10)], 0.0),
        ([sample(0.0, 10), sample(2.0, 15)], 2.5),
        ([sample(0.0, 0), sample(1.0, 100), sample(2.0, 100)], 50.0),
        ([sample(0.0, 10), sample(1.0, 30, pid=2)], None),
        ([sample(0.0, 10), sample(1.0, 3, pid=2), sample(2.0, 7, pid=2)], 4.0),
    ],
    ids=["one", "no time", "idle", "busy", "window", "restart", "after a restart"],
)
def test_attaches(samples: list[Sample], rate: float | None) -> None:
    """Attaches in a second are over the window's samples, of one daemon only."""
    meter = Meter()
    assert [meter.take(s) for s in samples][-1].attaches == rate


def test_the_past_is_forgotten() -> None:
    """What happened before the window counts no more, however often it was looked at."""
    meter = Meter()
    for second in range(100):
        rates = meter.take(sample(float(second), 1000 if second else 0))
        assert rates.attaches is None or (rates.attaches > 0) == (second <= WINDOW_SECONDS)


@pytest.mark.parametrize(
    ("rows", "rate", "left"),
    [
        ([(staging("m", 0),), (staging("m", 200),)], 100.0, 8.0),
        ([(staging("m", 0), staging("n", 500)), (staging("n", 500), staging("m", 100))], 50.0, 18.0),
        ([(staging("m", 500, step="reading"),), (staging("m", 100, step="hashing"),)], None, None),
        ([(staging("m", 500),), (staging("m", 100),)], None, None),
        ([(), (staging("m", 100),)], None, None),
        ([(staging("m", 100),), (staging("m", 100),)], 0.0, None),
    ],
    ids=["one", "two", "next step", "again", "new", "stalled"],
)
def test_staging(rows: list[tuple[object, ...]], rate: float | None, left: float | None) -> None:
    """Bytes in a second count within one step of one model, and tell how long the rest takes."""
    meter = Meter()
    rates = Rates()
    for number, row in enumerate(rows):
        rates = meter.take(sample(2.0 * number, staging=row))  # type: ignore[arg-type]
    assert rates.staging.get("m") == rate
    last = next(row for row in rows[-1] if row.name == "m")  # type: ignore[attr-defined]
    assert rates.seconds_left(last) == left
