"""The plots of docs/plots, as SVG and PNG: transparent, with grey text that can be read on white and on black."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIB = 1 << 20
GREY = "#808080"
OURS = "#0a84d0"
# Okabe and Ito's colours, which colour-blind readers tell apart, without the two that vanish on white or black.
# https://jfly.uni-koeln.de/color/
PEERS = ("#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#999999", "#8c6d31", "#b2a800")
MARKERS = "sD^vPXhp"
OUR_LINES = ("-", "--", ":", "-.")
WIDTH, HEIGHT = 7.5, 4.2
STEPS = {
    "interpreter": "#999999", "imports": "#56b4e9", "construct": "#cc79a7", "load": "#d55e00", "bind": "#e69f00",
    "forward": "#009e73",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.size": 10, "font.family": "DejaVu Sans", "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY,
    "axes.titlecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": GREY, "grid.alpha": 0.25, "legend.frameon": False, "legend.fontsize": 9, "svg.hashsalt": "mapcell",
    "axes.titlesize": 11,
}  # fmt: skip


class Looks:
    """A look for each way, the same in every plot of one figure."""

    def __init__(self, ways: list[str]) -> None:
        ours = [way for way in ways if way.startswith("mapcell")]
        others = [way for way in ways if way not in ours]
        self._looks: dict[str, dict[str, Any]] = {
            way: {"color": OURS, "linestyle": OUR_LINES[i % 4], "marker": "o", "linewidth": 2.4, "zorder": 5}
            for i, way in enumerate(ours)
        }
        for i, way in enumerate(others):
            look = {"color": PEERS[i % len(PEERS)], "marker": MARKERS[i % len(MARKERS)], "linewidth": 1.4}
            self._looks[way] = look | {"markersize": 5}

    def of(self, way: str) -> dict[str, Any]:
        """The line of a way."""
        return self._looks[way]

    def bars(self, ways: list[str]) -> list[str]:
        """The colours of bars for these ways: one for mapcell, one for all others."""
        return [OURS if way.startswith("mapcell") else GREY for way in ways]


def _line(
    axes: Axes, results: Results, bench: str, key: str, value: Callable[[Mapping[str, Any]], float], **case: object
) -> None:
    # Of all cases, so that a way looks the same in panels that stand side by side.
    looks = Looks(results.ways(bench))
    for way in results.ways(bench, **case):
        points = [
            (row["case"][key], value(row["figures"]))
            for row in results.rows(bench, **case)
            if row["way"] == way and "figures" in row and key in row["case"]
        ]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), label=way, **looks.of(way))
    axes.grid(True, which="major")


def _legend(axes: Axes) -> None:
    if axes.lines:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _bars(axes: Axes, values: Mapping[str, float], unit: str, log: bool = False) -> None:
    ways = list(values)
    drawn = axes.barh(ways, list(values.values()), color=Looks(ways).bars(ways), height=0.65)
    axes.bar_label(drawn, [f" {_short(v)} {unit}" for v in values.values()], color=GREY, fontsize=9)
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    if log:
        axes.set_xscale("log")
        axes.set_xlim(left=10 ** math.floor(math.log10(min(values.values()) / 2)))
    axes.margins(x=0.25)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _median_ms(figures: Mapping[str, Any]) -> float:
    return float(figures["seconds"]["p50"]) * 1e3


def attach(figure: Figure, results: Results) -> bool:
    """Attaching by the number of tensors."""
    axes = figure.subplots()
    _line(axes, results, "attach_latency", "tensors", _median_ms, mib=64)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="tensors in the checkpoint", ylabel="ms, median", title="Open a checkpoint and have 10 tensors")
    _legend(axes)
    return bool(axes.lines)


def memory(figure: Figure, results: Results) -> bool:
    """Everybody's memory together by the number of workers, with and without a cast."""
    both = figure.subplots(1, 2, sharey=True)
    for axes, cast in zip(both, (False, True), strict=True):
        _line(axes, results, "memory", "workers", lambda f: (f["pss"] + f["keeper"]) / (1 << 30), cast=cast)
        axes.set(xlabel="workers", title="cast from bfloat16 to float32" if cast else "as stored")
    both[0].set_ylim(bottom=0)
    both[0].set_ylabel("GiB of memory, all together (Pss)")
    _legend_of_both(figure, both)
    return bool(both[0].lines)


def _legend_of_both(figure: Figure, both: Any) -> None:
    found: dict[str, Any] = {}
    for axes in both:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=3)


def whole(figure: Figure, results: Results) -> bool:
    """All tensors of a large model: the arrays alone, and every byte read."""
    both = figure.subplots(1, 2)
    titles = {"arrays": "every tensor as an array", "bytes": "and every byte read"}
    drawn = False
    for axes, (look, title) in zip(both, titles.items(), strict=True):
        found = {
            way: results.figure("whole_model", way, "seconds", look=look)
            for way in results.ways("whole_model", look=look)
        }
        values = {way: seconds * 1e3 for way, seconds in found.items() if seconds is not None}
        if values:
            _bars(axes, values, "ms", log=True)
            drawn = True
        axes.set(title=title, xlabel="ms, median")
    return drawn


def ready(figure: Figure, results: Results) -> bool:
    """The steps from a process's start to its first answer."""
    model = results.values("ready", "model")[-1:]
    axes = figure.subplots()
    rows = [row for row in results.rows("ready", model=model[0]) if "figures" in row] if model else []
    for number, row in enumerate(rows):
        left = 0.0
        for step, color in STEPS.items():
            took = row["figures"]["steps"].get(step, 0.0) * 1e3
            axes.barh(number, took, left=left, color=color, height=0.6, label=step if number == 0 else None)
            left += took
        axes.text(left, number, f" {left:,.0f} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["way"] for row in rows])
    axes.invert_yaxis()
    size = next((row["case"].get("mib") for row in rows), "")
    axes.set(xlabel="ms, medians", title=f"From process start to the first answer, {size} MiB")
    axes.margins(x=0.15)
    axes.grid(True, axis="x")
    if rows:
        figure.legend(loc="outside lower center", ncols=6)
    return bool(rows)


def staging(figure: Figure, results: Results) -> bool:
    """Throughput of staging beside its parts."""
    axes = figure.subplots()
    case: dict[str, Any] = {"what": "stage", "cache": "warm"}
    mib = max(results.values("staging", "mib", **case), default=0)
    values = {}
    for way in results.ways("staging", **case):
        seconds = results.figure("staging", way, "seconds", **case)
        if seconds is not None and way != "mapcell, mapped":
            values[way] = mib * MIB / seconds / 1e9
    if values:
        _bars(axes, values, "GB/s")
    axes.set(xlabel="GB/s of what workers get, median", title=f"{mib} MiB, warm page cache")
    return bool(values)


def serve(figure: Figure, results: Results) -> bool:
    """Attaches a second by the number of clients."""
    axes = figure.subplots()
    _line(axes, results, "serve", "clients", lambda f: float(f["per_second"]))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(xlabel="client processes", ylabel="a second, all together", title="Attach, have one tensor, let go")
    clients = results.values("serve", "clients")
    axes.set_xticks(clients, [str(n) for n in clients])
    _legend(axes)
    return bool(axes.lines)


PLOTS: Mapping[str, tuple[Callable[[Figure, Results], bool], float]] = {
    "attach": (attach, HEIGHT),
    "memory": (memory, HEIGHT + 0.8),
    "whole": (whole, 3.2),
    "ready": (ready, 3.0),
    "staging": (staging, 3.4),
    "serve": (serve, HEIGHT),
}


def draw(results: Results, folder: Path) -> list[str]:
    """Writes every plot that has anything to show; their names."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context(STYLE):
        for name, (plot, height) in PLOTS.items():
            width = WIDTH + 2 if name in ("memory", "whole") else WIDTH
            figure = pyplot.figure(figsize=(width, height), layout="constrained")
            if plot(figure, results):
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
                figure.savefig(folder / f"{name}.png", dpi=130)
                made.append(name)
            pyplot.close(figure)
    return made
