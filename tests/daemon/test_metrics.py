"""Figures in Prometheus's format: read back by its own parser, named by its rules, bounded whatever clients do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from mapcelld import metrics
from mapcelld.figures import Histogram, Statistics
from mapcelld.metrics import MAX_LABEL, MAX_SERIES, OTHER, bounded, render

# The rules of `promtool check metrics` (promlint): base units, and words that belong to a type or are no base unit.
BASE_UNITS = ("seconds", "bytes")
OTHER_UNITS = (
    *("milliseconds", "ms", "minutes", "hours", "days", "microseconds", "nanoseconds", "ns", "us"),
    *("kilobytes", "megabytes", "gigabytes", "kb", "mb", "gb", "kib", "mib", "gib", "bits", "percent"),
)
TYPES = ("gauge", "counter", "histogram", "summary", "untyped")


def some() -> Statistics:
    """Figures of which no two are the same."""
    attaches, stagings = Histogram(), Histogram()
    for seconds in (0.0002, 0.0002, 0.7, 100.0):
        attaches.observe(seconds)
    stagings.observe(3.0)
    return Statistics(
        version="0.1.0",
        started=1.5e9,
        budget=101,
        models=2,
        versions={("sealed", "READY"): 3, ("mapped", "READY"): 4, ("sealed", "RETIRED"): 5},
        held={"sealed": 106, "mapped": 107},
        lingering=108,
        leases={("minilm", 1000): 9, ("minilm", 1001): 10, (metrics.PRIVATE, 1000): 11},
        connections=12,
        subscriptions=13,
        descriptors=14,
        descriptor_limit=15,
        staging=16,
        attaches=attaches.statistics(),
        stagings=stagings.statistics(),
        read=117,
        published=18,
        evictions=19,
        refusals={"not_found": 20, "denied": 21},
        restarts=22,
        adopted=123,
        stored=24,
        store_limit=25,
        sources={"same": 26, "changed": 27},
        watches=28,
        followed=29,
        unverified=30,
        hashed=31,
    )


def families(statistics: Statistics) -> dict[str, Metric]:
    """The metric families of `statistics`, as Prometheus's parser reads them."""
    return {f.name: f for f in text_string_to_metric_families(render(statistics).decode())}


def values(statistics: Statistics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    return {(s.name, tuple(s.labels.items())): s.value for f in families(statistics).values() for s in f.samples}


def test_every_figure_arrives() -> None:
    """What was counted is what a scraper reads, under its labels."""
    found = values(some())
    assert found["mapcell_info", (("version", "0.1.0"),)] == 1
    assert found["mapcell_versions", (("residence", "mapped"), ("state", "READY"))] == 4
    assert found["mapcell_held_bytes", (("residence", "sealed"),)] == 106
    assert found["mapcell_leases", (("model", "minilm"), ("uid", "1001"))] == 10
    assert found["mapcell_leases", (("model", "(private)"), ("uid", "1000"))] == 11
    assert found["mapcell_refusals_total", (("reason", "denied"),)] == 21
    for name, value in {
        "start_time_seconds": 1.5e9,
        "budget_bytes": 101,
        "models": 2,
        "lingering_bytes": 108,
        "connections": 12,
        "subscriptions": 13,
        "open_descriptors": 14,
        "max_descriptors": 15,
        "staging_jobs": 16,
        "read_bytes_total": 117,
        "publications_total": 18,
        "evictions_total": 19,
        "restarts_total": 22,
        "adopted_bytes": 123,
        "stored_descriptors": 24,
        "max_stored_descriptors": 25,
    }.items():
        assert found[f"mapcell_{name}", ()] == value


def test_histograms_are_cumulative() -> None:
    """Buckets add up to the count, as Prometheus wants them."""
    found = values(some())
    buckets = [(k[1][0][1], v) for k, v in found.items() if k[0] == "mapcell_attach_seconds_bucket"]
    assert dict(buckets)["0.00025"] == 2
    assert dict(buckets)["1.0"] == 3
    assert dict(buckets)["+Inf"] == found["mapcell_attach_seconds_count", ()] == 4
    assert [v for _, v in buckets] == sorted(v for _, v in buckets)
    assert found["mapcell_attach_seconds_sum", ()] == pytest.approx(100.7004)


def test_names_follow_the_rules() -> None:
    """What promtool would complain about is not there."""
    text = render(some()).decode()
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.M))
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert helped == typed.keys()
    for name, kind in typed.items():
        words = name.split("_")
        assert re.fullmatch(r"mapcell(_[a-z]+)+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert not set(words) & {*OTHER_UNITS, *TYPES}
        for unit in BASE_UNITS:
            assert unit not in words or name.removesuffix("_total").endswith(unit)
        assert kind == "histogram" or not name.endswith(("_count", "_sum", "_bucket"))
    for family in families(some()).values():
        assert len(family.documentation) > 5
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels)
            assert not (set(sample.labels) & set(family.name.split("_")))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len({line.rpartition(" ")[0] for line in samples})


@pytest.mark.parametrize(
    "name", ['a"b', "a\nb 1\nmapcell_models 7", "a\\", "ä\x1b[31m", "} 1", "a" * 1000, "", "\u2028", "\x00"]
)
def test_names_of_models_are_data(name: str) -> None:
    """Whatever a model is called, the exposition holds its name as one label and nothing else."""
    found = values(replace(some(), leases={(name, 1): 1}))
    assert found.keys() - values(replace(some(), leases={})).keys() == {
        ("mapcell_leases", (("model", name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"), ("uid", "1")))
    }
    assert found["mapcell_models", ()] == 2


def test_series_are_bounded() -> None:
    """However many models and users there are, so many series and no more, and no lease is lost from the sum."""
    leases = {(f"m{i:05}", i): 1 + i % 7 for i in range(10_000)}
    found = bounded(leases)
    assert len(found) == MAX_SERIES
    assert sum(found.values()) == sum(leases.values())
    assert all(count == 7 for key, count in found.items() if key != (OTHER, OTHER))
    assert len(render(replace(some(), leases=leases))) < 64 << 10


def test_names_that_are_cut_alike_are_added() -> None:
    """Two long names that begin alike are one series, not a doubled one."""
    assert bounded({("x" * 200 + "1", 5): 2, ("x" * 200 + "2", 5): 3}) == {("x" * (MAX_LABEL - 1) + "…", 5): 5}
