"""The demo's result as people read it: one table, and the lines below it that say what the figures are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .job import STEPS
from .results import Comparison, WayResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# With the steps the table is this wide; a narrower terminal gets it without them.
WIDTH = 106
_MIB = 1 << 20
_NAMES = {"private": "private copies", "mmap": "mmap", "mapcell": "mapcell"}


def show(found: Comparison, console: Console) -> None:
    """Prints the table and its notes."""
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table(found, steps=console.width >= WIDTH))
    for line in notes(found):
        console.print(line, highlight=False, soft_wrap=True)


def table(found: Comparison, steps: bool = True) -> Table:
    """One row for each way: milliseconds, then MiB, then the largest difference; `steps` splits the time."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    workers = len(found.bare)
    out = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    out.add_column(f"{workers} workers", no_wrap=True)
    for title in ("ms to\nanswer", *(STEPS if steps else ())):
        out.add_column(title, justify="right", no_wrap=True)
    for title in ("MiB\nprivate", "MiB\nPSS", "all and\ndaemon", "host\nlost", "largest\ndifference"):
        out.add_column(title, justify="right", no_wrap=True)
    for cast in (False, True):
        title = "bfloat16 cast to float32" if cast else "float32 as it is"
        out.add_row(f"[bold]{title}[/bold]")
        for way in (w for w in found.ways if w.cast == cast):
            out.add_row(*_row(way, steps))
        out.add_section()
    return out


def _row(way: WayResult, steps: bool) -> Iterator[str]:
    count = len(way.workers)
    yield f"  {_NAMES[way.way]}"
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
    return f"{nbytes / _MIB:.0f}"


def notes(found: Comparison) -> Iterator[str]:
    """What the columns are, and what stands beside the table."""
    bare = found.bare
    yield (
        f"Time: from the process's start, mean of {len(bare)} workers started at once, {_threads(found.threads)} each. "
        "Memory: after the first answer."
    )
    yield (
        f"Checkpoint: {_mib(found.checkpoint)} MiB in float32. A process that only imports NumPy: "
        f"{_mib(sum(m.private for m in bare) / len(bare))} MiB private, "
        f"{_mib(sum(m.pss for m in bare) / len(bare))} MiB PSS."
    )
    for way in found.ways:
        if way.daemon is not None:
            kind = "cast to float32 and sealed" if way.cast else f"{way.daemon.residence}"
            yield (
                f"Daemon: started in {_ms(way.daemon.start)} ms, loaded the model once in {_ms(way.daemon.load)} ms "
                f"({kind}), {_mib(way.daemon.pss)} MiB PSS itself."
            )
    yield _compared(found)


def _threads(count: int) -> str:
    return f"{count} BLAS thread{'' if count == 1 else 's'}"


def _compared(found: Comparison) -> str:
    if found.reference == "reference":
        return "Difference: from reference embeddings; those for bfloat16 are of the weights rounded to it."
    return "Difference: from the private copies' embeddings (there are no reference embeddings of your own sentences)."
