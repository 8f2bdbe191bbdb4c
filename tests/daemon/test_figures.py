"""Durations fall into their buckets."""

from __future__ import annotations

import pytest

from mapcelld.figures import Histogram


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, 1e-4), (1e-4, 1e-4), (1.1e-4, 2.5e-4), (0.3, 0.5), (60.0, 60.0), (61.0, None)]
)
def test_bucket(seconds: float, bound: float | None) -> None:
    """A duration is counted where its upper bound is the first that is not below it."""
    histogram = Histogram()
    histogram.observe(seconds)
    seen = histogram.statistics()
    at = len(seen.bounds) if bound is None else seen.bounds.index(bound)
    assert [i for i, count in enumerate(seen.counts) if count] == [at]
    assert seen.seconds == seconds


def test_snapshot_stays_as_it_was() -> None:
    """What was handed out does not change when more is counted."""
    histogram = Histogram()
    before = histogram.statistics()
    histogram.observe(1.0)
    assert sum(before.counts) == 0
    assert sum(histogram.statistics().counts) == 1
