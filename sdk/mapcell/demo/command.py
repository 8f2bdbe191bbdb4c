"""`mapcell demo`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mapcell_formats.errors import MapcellError

from .run import Options, Report, compare, save

_MAX_WORKERS = 64


@click.command()
@click.option(
    "--workers", metavar="N", type=click.IntRange(1, _MAX_WORKERS), default=4, show_default=True, help="Processes."
)
@click.option(
    "--sentences",
    "source",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Embed these lines instead of the demo's own sentences.",
)
@click.option(
    "--save",
    "target",
    metavar="OUT.npz",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the embeddings: `embedding`, float32, lines x 384.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def demo(workers: int, source: Path | None, target: Path | None, as_json: bool) -> None:
    """Runs a real model (all-MiniLM-L6-v2) in several workers and shows what memory and time they take.

    The workers get the weights in three ways: each reads its own copy, each maps the file, or mapcell lends them. The
    daemon is one of the demo's own and ends with it.
    """
    from .assets import lines_of
    from .results import document

    if target is not None and not target.parent.is_dir():
        raise MapcellError(f"{target.parent}: no such folder; make it first, or save somewhere else")
    with _progress() as report:
        found, embeddings = compare(Options(workers, lines_of(source) if source is not None else None), report)
    if target is not None:
        save(target, embeddings)
    if as_json:
        import json

        click.echo(json.dumps(document(found)))
    else:
        from rich.console import Console

        from .table import show

        show(found, Console())


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on stderr, for as long as something runs; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(24), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)
