"""What mapcell sets out to reach, beside what was measured: ratios within one run where it can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from report_tables import NONE, number, table
from results import Results, ratio

MIB = 1 << 20
_USUAL = 1000
_EACH_EXTRA = 4 * MIB
_MODEL_SHARE = 1.01


@dataclass(frozen=True, slots=True)
class Goal:
    """One claim: `measured` in `unit`, which has to be at most (or at least, if `least`) `bound`."""

    claim: str
    script: str
    measured: Callable[[Results], float | None]
    bound: float
    unit: str = ""
    least: bool = False

    def reached(self, value: float) -> bool:
        """Whether `value` is within the bound."""
        return value >= self.bound if self.least else value <= self.bound


def _attach(results: Results, stat: str = "p50", way: str = "mapcell", **case: object) -> float | None:
    found = results.figure("attach_latency", way, "seconds", stat, **({"tensors": _USUAL} | case))
    return None if found is None else found * 1e3


def _in_turns(results: Results, place: int) -> float | None:
    """What the model at `place` of those that took turns takes, against the first one, which is the smallest."""
    case = {"what": "in turns"}
    models = results.values("attach_latency", "model", **case)
    found = [results.figure("attach_latency", "mapcell", "seconds", model=model, **case) for model in models]
    return ratio(found[place], found[0]) if len(found) > place else None


def _whole(look: str, above: str, below: str) -> Callable[[Results], float | None]:
    def measured(results: Results) -> float | None:
        found = [results.figure("whole_model", way, "seconds", look=look) for way in (above, below)]
        return ratio(*found)

    return measured


def _each(what: str) -> Callable[[Results], float | None]:
    def measured(results: Results) -> float | None:
        seconds = results.figure("network", "mapcell", "seconds", what=what)
        count = max(results.values("network", "parameters", what=what), default=0)
        found = ratio(seconds, count)
        return None if found is None else found * 1e6

    return measured


def _forward(results: Results) -> float | None:
    """The worst of the batches, by their fastest passes: what is left of noise."""
    found = []
    for batch in results.values("network", "batch"):
        shared, private = (
            results.figure("network", f"mapcell, {kind}", "seconds", "min", what="forward", batch=batch)
            for kind in ("shared", "private arrays")
        )
        if (one := ratio(shared, private)) is not None:
            found.append(one)
    return max(found, default=None)


def _construct(what: str) -> Callable[[Results], float | None]:
    def measured(results: Results) -> float | None:
        found = results.figure("network", "mapcell, no_init", "seconds", what=what)
        return None if found is None else found * 1e3

    return measured


def _memory(cast: bool) -> Callable[[Results], float | None]:
    """Pss of eight workers (or the most there are) as a share of what they may take."""

    def measured(results: Results) -> float | None:
        counts = [n for n in results.values("memory", "workers") if n <= 8]
        workers = max(counts, default=0)
        pss = results.figure("memory", "mapcell", "pss", workers=workers, cast=cast)
        bare = results.figure("memory", "bare numpy", "pss", workers=workers)
        model = max(results.values("memory", "mib"), default=0) * MIB
        return None if bare is None else ratio(pss, _MODEL_SHARE * model + bare + workers * _EACH_EXTRA)

    return measured


def _import(results: Results) -> float | None:
    ours, numpy = (results.figure("import_time", way, "seconds") for way in ("mapcell", "numpy"))
    return None if ours is None or numpy is None else (ours - numpy) * 1e3


def _staging(results: Results) -> float | None:
    case: dict[str, Any] = {"what": "stage", "cache": "warm"}
    copy = results.figure("staging", "copy to memfd, 1 thread", "seconds", **case)
    found = ratio(copy, results.figure("staging", "mapcell, sealed", "seconds", **case))
    return None if found is None else found * 100


def _served(results: Results) -> float | None:
    found = [
        results.figure("serve", "mapcell", "daemon_cpu", clients=clients)
        for clients in results.values("serve", "clients")
    ]
    return max((1 / each for each in found if each), default=None)


def _grown(results: Results) -> float | None:
    held = [row["figures"]["daemon"] for row in results.rows("many_attaches") if "figures" in row]
    return (held[-1] - held[1]) / 1024 if len(held) > 2 else None


GOALS = (
    Goal("attach to 1,000 tensors and have 10, connected, p50", "attach_latency", _attach, 0.25, " ms"),
    Goal("the same, p99", "attach_latency", lambda r: _attach(r, "p99"), 1, " ms"),
    Goal("the same, 100,000 tensors against 1,000", "attach_latency", lambda r: _in_turns(r, 2), 1.1, "x"),
    Goal("the same, 8 GiB against 8 MiB", "attach_latency", lambda r: _in_turns(r, 1), 1.1, "x"),
    Goal(
        "the same with a first connection, p50", "attach_latency", lambda r: _attach(r, way="mapcell, connecting"),
        1, " ms",
    ),
    Goal(
        "all tensors of 2 GiB: safetensors.torch load_file against mapcell", "whole_model",
        _whole("arrays", "safetensors torch", "mapcell, sealed"), 10, "x", True,
    ),
    Goal(
        "all tensors of 2 GiB: safetensors.numpy load_file against mapcell", "whole_model",
        _whole("arrays", "safetensors numpy", "mapcell, sealed"), 2000, "x", True,
    ),
    Goal("every byte of 2 GiB, mapped, against a bare file map", "whole_model",
         _whole("bytes", "mapcell, mapped", "file map"), 1.2, "x"),
    Goal("every byte of 2 GiB, sealed, against a bare file map", "whole_model",
         _whole("bytes", "mapcell, sealed", "file map"), 1.2, "x"),
    Goal("every byte of 2 GiB, sealed in huge pages, against a bare file map", "whole_model",
         _whole("bytes", "mapcell, huge pages", "file map"), 1.2, "x"),
    Goal("bind, each Parameter", "network", _each("bind"), 2, " µs"),
    Goal("first use, each Parameter", "network", _each("first use"), 3, " µs"),
    Goal("forward with shared weights against private arrays", "network", _forward, 1.02, "x"),
    Goal("construct 10,000 Parameters under no_init", "network", _construct("construct"), 100, " ms"),
    Goal("construct 1 billion elements under no_init", "network", _construct("elements"), 10, " ms"),
    Goal("Pss of 8 workers against 1.01 models + 8 x (bare NumPy + 4 MiB)", "memory", _memory(False), 1, "x"),
    Goal("the same with a cast from bfloat16 to float32", "memory", _memory(True), 1, "x"),
    Goal("import mapcell, beyond import numpy", "import_time", _import, 40, " ms"),
    Goal("warm staging, hashed, against a plain copy into a memfd", "staging", _staging, 80, " %", True),
    Goal("bytes read for each byte of the file while staging", "staging",
         lambda r: r.figure("staging", "mapcell, sealed", "ratio", what="bytes"), 1.01, "x"),
    Goal("attach and detach for each second of the daemon's processor time", "serve", _served, 4000, "", True),
    Goal("what the daemon grows by after the first tenth of very many attaches", "many_attaches", _grown, 256, " KiB"),
)  # fmt: skip


def goals(results: Results) -> str:
    """All of them, each with the script that measures it."""
    lines = []
    for goal in GOALS:
        value = goal.measured(results)
        met = NONE if value is None else ("yes" if goal.reached(value) else "**no**")
        bound = f"{'≥' if goal.least else '≤'} {number(goal.bound)}{goal.unit}"
        link = f"[{goal.script}](../bench/{goal.script}.py)"
        lines.append([goal.claim, number(value, goal.unit), bound, met, link])
    return table(["", "measured", "goal", "reached", "script"], lines)


def summary(results: Results) -> str:
    """The few that a reader of the README wants first."""
    chosen = {
        "attach by name and have 10 of 1,000 tensors": _times(
            results, "attach_latency", "mapcell", "safetensors numpy", "joblib mmap", tensors=_USUAL, mib=64
        ),
        "all 600 tensors of a 2 GiB model": _times(
            results, "whole_model", "mapcell, sealed", "safetensors torch", "safetensors numpy", look="arrays"
        ),
    }
    lines = [[what, *cells] for what, cells in chosen.items()]
    lines += _memory_lines(results)
    return table(["", "mapcell", "instead", ""], lines)


def _times(results: Results, bench: str, ours: str, *others: str, **case: Any) -> list[str]:
    def cell(way: str) -> str:
        seconds = results.figure(bench, way, "seconds", **case)
        return NONE if seconds is None else f"{number(seconds * 1e3)} ms"

    return [cell(ours), *(f"{way}: {cell(way)}" for way in others)]


def _memory_lines(results: Results) -> list[list[str]]:
    lines = []
    others = ("safetensors torch", "safetensors numpy")
    # The most of which all could be measured, for the others run out of memory.
    counts = set(results.values("memory", "workers"))
    for row, _ in results.failures("memory"):
        if row["way"] in others:
            counts.discard(row["case"]["workers"])
    workers = max(counts, default=0)
    for cast in (False, True):

        def cell(way: str, cast: bool = cast) -> str:
            held = [results.figure("memory", way, name, workers=workers, cast=cast) for name in ("pss", "keeper")]
            return NONE if None in held else f"{number(sum(filter(None, held)) / MIB, digits=4)} MiB"

        what = f"{workers} workers on a 1 GiB model" + (", cast from bfloat16 to float32" if cast else "")
        lines.append([what, cell("mapcell"), *(f"{way}: {cell(way)}" for way in others)])
    return lines
