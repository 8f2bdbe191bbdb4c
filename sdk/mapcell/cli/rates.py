"""Rates out of counters: what `top` makes of the daemon's figures, looked at again and again. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapcell_formats.messages import ModelRow, StagingRow, Status

# Rates are over this long: long enough to be calm, short enough to follow what happens.
WINDOW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon said at one moment, `at` in seconds of any steady clock."""

    at: float
    status: Status
    rows: tuple[ModelRow, ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """Attaches in a second, None before there are two samples; and of each model being staged the bytes in a second."""

    attaches: float | None = None
    staging: Mapping[str, float] = field(default_factory=dict)

    def seconds_left(self, row: StagingRow) -> float | None:
        """How long `row` will take at its rate, None when nobody can tell."""
        rate = self.staging.get(row.name, 0.0)
        return (row.total - row.done) / rate if rate > 0 else None


class Meter:
    """Looks back over the samples of the last few seconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def take(self, sample: Sample) -> Rates:
        """The rates up to `sample`, which is the newest. A daemon that was restarted counts from nothing."""
        if self._samples and self._samples[-1].status.pid != sample.status.pid:
            self._samples.clear()
        self._samples.append(sample)
        # The last one that is older than the window is what the window is measured from.
        while len(self._samples) > 2 and self._samples[1].at <= sample.at - WINDOW_SECONDS:
            self._samples.popleft()
        first = self._samples[0]
        seconds = sample.at - first.at
        attaches = (sample.status.attaches - first.status.attaches) / seconds if seconds > 0 else None
        rates = {row.name: rate for row in sample.status.staging if (rate := self._rate(row, sample.at)) is not None}
        return Rates(attaches, rates)

    def _rate(self, row: StagingRow, now: float) -> float | None:
        """Bytes in a second since this step of `row` was first seen."""
        for earlier in self._samples:
            for was in earlier.status.staging:
                if (was.name, was.step, was.total) == (row.name, row.step, row.total) and was.done <= row.done:
                    return (row.done - was.done) / (now - earlier.at) if now > earlier.at else None
        return None
