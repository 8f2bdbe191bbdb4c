"""The daemon's figures as Prometheus reads them. Source: prometheus.io, "Exposition formats" and "Metric and label
naming".

prometheus_client is imported when the first figures are rendered, so a daemon without [metrics] never loads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from mapcelld.figures import Durations, Statistics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Series of leases, and bytes of a label: what clients choose must not grow a time-series database without bound.
MAX_SERIES = 256
MAX_LABEL = 128
OTHER = "(other)"
PRIVATE = "(private)"


def render(statistics: Statistics) -> bytes:
    """The exposition of `statistics`, in Prometheus's text format."""
    from prometheus_client.exposition import generate_latest

    return bytes(generate_latest(_Collected(statistics)))


class _Collected:
    """What generate_latest asks of a registry, for one snapshot."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Every metric family."""
        now = self._statistics
        yield from _plain(now)
        yield _labelled("mapcell_info", "Which mapcell runs.", ("version",), {(now.version,): 1})
        yield _labelled("mapcell_versions", "Versions held.", ("residence", "state"), now.versions)
        held = {(k,): v for k, v in now.held.items()}
        yield _labelled("mapcell_held_bytes", "Bytes of the versions held.", ("residence",), held)
        leases = {(m, str(u)): n for (m, u), n in bounded(now.leases).items()}
        yield _labelled("mapcell_leases", "Leases in force.", ("model", "uid"), leases)
        refusals = {(k,): v for k, v in now.refusals.items()}
        yield _labelled("mapcell_refusals", "Requests refused.", ("reason",), refusals, counter=True)
        sources = {(k,): v for k, v in now.sources.items()}
        yield _labelled("mapcell_sources", "Named models, by what became of their sources.", ("state",), sources)
        yield _durations("mapcell_attach_seconds", "From a client's connection to its grant, staging included.",
                         now.attaches)  # fmt: skip
        yield _durations("mapcell_stage_seconds", "From the start of a staging job to its version.", now.stagings)


def bounded(leases: Mapping[tuple[str, int], int]) -> dict[tuple[str, int | str], int]:
    """At most MAX_SERIES of `leases`, the largest; the others summed up under OTHER. Names are cut to MAX_LABEL."""
    merged: Counter[tuple[str, int | str]] = Counter()
    for number, ((model, uid), count) in enumerate(sorted(leases.items(), key=lambda item: (-item[1], item[0]))):
        fits = number < MAX_SERIES - 1
        merged[(_cut(model), uid) if fits else (OTHER, OTHER)] += count
    return dict(merged)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _plain(now: Statistics) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    for name, text, value in (
        ("start_time_seconds", "When the daemon started, in seconds since the epoch.", now.started),
        ("budget_bytes", "Bytes of sealed memory that may be used.", now.budget),
        ("lingering_bytes", "Sealed bytes that were dropped and are still mapped by somebody.", now.lingering),
        ("models", "Models with at least one version.", now.models),
        ("connections", "Connections on the handle channel.", now.connections),
        ("subscriptions", "Clients that watch.", now.subscriptions),
        ("open_descriptors", "Descriptors that the daemon has open.", now.descriptors),
        ("max_descriptors", "Descriptors that it may have open.", now.descriptor_limit),
        ("staging_jobs", "Staging jobs under way.", now.staging),
        ("stored_descriptors", "Descriptors in the service manager's store.", now.stored),
        ("max_stored_descriptors", "Descriptors that the store holds at most; 0 when there is none.", now.store_limit),
        ("watched_folders", "Folders in which a change of a source would show.", now.watches),
        ("unverified_versions", "Versions whose bytes are not hashed yet, or are not what they were.", now.unverified),
        ("adopted_bytes", "Bytes that this daemon took over from the one before.", now.adopted),
    ):
        yield GaugeMetricFamily(f"mapcell_{name}", text, value=value)
    for name, text, count in (
        ("read_bytes", "Bytes that stagers read.", now.read),
        ("publications", "Versions that were staged.", now.published),
        ("evictions", "Versions that were evicted.", now.evictions),
        ("followed", "Versions that were staged because their source changed.", now.followed),
        ("hashings", "Mapped versions whose bytes were hashed in the background.", now.hashed),
        ("restarts", "Daemons that ended and were followed by another that took over.", now.restarts),
    ):
        yield CounterMetricFamily(f"mapcell_{name}", text, value=count)


def _labelled(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int], counter: bool = False
) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    family: Any = (CounterMetricFamily if counter else GaugeMetricFamily)(name, text, labels=labels)
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family  # type: ignore[no-any-return]


def _durations(name: str, text: str, durations: Durations) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    bounds = [*map(repr, durations.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=durations.seconds)
