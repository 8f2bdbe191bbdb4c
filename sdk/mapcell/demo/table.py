"""The demo's result as people read it: one table, and the lines below it that say what the figures are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .job import STEPS
from .results import Comparison, Daemon, WayResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Where there is no terminal to fit.
PIPED_WIDTH = 110
_MIB = 1 << 20


def show(found: Comparison, console: Console) -> None:
    """Prints the table, without the steps where the terminal is too narrow for them, and its notes."""
    from rich.table import Table

    if not console.is_terminal:
        console.width = PIPED_WIDTH
    full = table(found)
    wide = console.options.update(max_width=2 * PIPED_WIDTH)
    fits = console.measure(full, options=wide).maximum <= console.width
    console.print(full if fits else table(found, steps=False))
    legend = Table.grid(padding=(0, 2, 0, 0))
    for word, explanation in notes(found):
        legend.add_row(word, explanation)
    console.print(legend)


def table(found: Comparison, steps: bool = True) -> Table:
    """One row for each way: milliseconds, then MiB, then the largest difference; `steps` splits the time."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # The box puts a blank between columns; one more is enough.
    out = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column(f"\n{len(found.bare)} workers", no_wrap=True)
    titles = ["ms to\nanswer", *(f"\n{step}" for step in STEPS if steps)]
    titles += ["MiB\nprivate", "MiB\nPSS", "PSS\nof all", "host\nlost", "largest\nerror"]
    for title in titles:
        out.add_column(title, justify="right", no_wrap=True)
    for cast in (False, True):
        for way in (w for w in found.ways if w.cast == cast):
            out.add_row(*_row(way, steps), style="bold" if way.way == "mapcell" else "")
        out.add_section()
    return out


def _row(way: WayResult, steps: bool) -> Iterator[str]:
    count = len(way.workers)
    yield f"{way.way}, cast" if way.cast else way.way
    yield _ms(sum(w.first_answer for w in way.workers) / count)
    if steps:
        yield from (_ms(way.mean(step)) for step in STEPS)
    yield _mib(sum(w.memory.private for w in way.workers) / count)
    yield _mib(sum(w.memory.pss for w in way.workers) / count)
    yield _mib(way.total_pss)
    yield _mib(way.host_delta)
    yield f"{way.max_difference:.0e}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _mib(nbytes: float) -> str:
    return str(round(nbytes / _MIB))


def notes(found: Comparison) -> Iterator[tuple[str, str]]:
    """What the columns are, and what stands beside the table: (word, explanation)."""
    bare, count = found.bare, len(found.bare)
    yield "ms", f"from the process's start, mean of {count} started at once; {_threads(found.threads)} each"
    yield "MiB", "after the first answer: of each worker, PSS of all with the daemon, and by how much MemAvailable fell"
    yield "cast", f"the checkpoint ({_mib(found.checkpoint)} MiB in float32) holds bfloat16 and is used in float32"
    yield "error", _compared(found.reference)
    private, pss = (_mib(sum(values) / count) for values in ([m.private for m in bare], [m.pss for m in bare]))
    yield "bare", f"a process that only imports NumPy: {private} MiB private, {pss} MiB PSS"
    for way in found.ways:
        if way.daemon is not None:
            yield "daemon", _of_daemon(way.daemon, way.cast)


def _compared(reference: str) -> str:
    if reference == "reference":
        return "from reference embeddings; for cast, from those of the weights rounded to bfloat16"
    return "from the embeddings of the private copies: your own sentences have no reference"


def _of_daemon(daemon: Daemon, cast: bool) -> str:
    text = f"{_mib(daemon.pss)} MiB PSS; started in {_ms(daemon.start)} ms, {'cast' if cast else 'loaded'} the model "
    text += f"once in {_ms(daemon.load)} ms"
    if daemon.residence == "mapped":
        return text + ", mapped in place"
    return text + f", and holds it in {_mib(daemon.sealed)} MiB (PSS counts pages that workers touched)"


def _threads(count: int) -> str:
    return f"{count} BLAS thread{'' if count == 1 else 's'}"
