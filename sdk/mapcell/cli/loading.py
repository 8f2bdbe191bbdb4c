"""The command `load`: having the daemon stage a checkpoint, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mapcell_formats.errors import NotFound, UnsupportedFormat

from . import output
from .asking import as_json, ask, complete_models, models
from .planning import foresee
from .secrets import encryption
from .targets import File, Known, Wish, locate

if TYPE_CHECKING:
    from mapcell.weights import Weights
    from mapcell_formats.messages import Progress

RESIDENCES = ("auto", "mapped", "sealed")
# The daemon gives a source up that stalls; this only ends what nobody would wait for.
_STAGING_SECONDS = 86_400.0


class _Left(Exception):
    """Staging has begun, and nobody wants to wait for its end."""


def dtype_code(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str:
    """The code that --dtype means, "" when it is not given."""
    from mapcell_formats.dtypes import FLOATING, parse_dtype

    if text is None:
        return ""
    try:
        code = parse_dtype(text)
    except KeyError:
        raise click.BadParameter(f"{text!r} is no dtype; say float32, bfloat16, float16 ...") from None
    if code not in FLOATING:
        raise click.BadParameter(f"{text!r} is not floating, and only floating tensors are cast; say float32 ...")
    return code


@click.command()
@click.argument("source", shell_complete=complete_models)
@click.option("--name", default="", metavar="N", help="Call the model so; default: after the file or its folder.")
@click.option("--tag", default="", metavar="T", help="Also give this version a tag: NAME:TAG finds it from then on.")
@click.option(
    "--residence",
    type=click.Choice(RESIDENCES),
    default="auto",
    help="mapped: the file as it lies, no copy. sealed: a copy in memory that nobody can change. auto: mapped where "
    "that is as safe.",
)
@click.option("--dtype", callback=dtype_code, metavar="D", help="Cast floating tensors once, for all workers.")
@click.option("--pin", is_flag=True, help="Never evict it to make room.")
@click.option("--wait/--no-wait", default=True, help="Return when it is ready, or as soon as it is being staged.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and whether it fits; load nothing.")
@as_json
def load(
    source: str,
    name: str,
    tag: str,
    residence: str,
    dtype: str,
    pin: bool,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Has the daemon hold SOURCE, so that workers attach to it at once.

    SOURCE is a checkpoint (a file, the index of several, or their folder), a model that the daemon is configured with,
    or ORG/NAME from the local Hugging Face cache.
    """
    from mapcell_formats.messages import GetStatus

    figures = ask(GetStatus())
    wish = Wish(name, tag, residence, dtype, pin, wait)
    target = locate(source, wish)
    if isinstance(target, File):
        _refuse_encrypted(target.path)
    if dry_run:
        foresee(target, wish, figures, as_json)
    else:
        _load(target, wish, as_json)


def _refuse_encrypted(path: str) -> None:
    from mapcell.opening import open_sources

    sources = open_sources(path)
    try:
        mode = encryption(sources)
    finally:
        for source in sources:
            source.close()
    if mode:
        raise UnsupportedFormat(
            f"is encrypted with {mode}, and the daemon takes no keys: they stay in the processes that have them. Each "
            "worker can open it with load_checkpoint(path, dec_key=..., dec_mode=...); to share it, write it in the "
            "clear with `mapcell convert --dec-key-file FILE` and load that",
            path=path,
        )


def _load(target: Known | File, wish: Wish, as_json: bool) -> None:
    began = time.monotonic()
    try:
        with _progress(target.name) as on_progress:
            weights = _attach(target, wish, on_progress if wish.wait else _leave)
    except _Left:
        if as_json:
            output.emit({"name": target.name, "state": "STAGING"})
        else:
            output.put(f"{target.name} is being staged; `mapcell status` shows how far it is")
        return
    # Letting go ends the lease; the daemon keeps the model.
    with weights:
        name, version = weights.name, weights.version
    _tell(name, version, time.monotonic() - began, as_json)


def _leave(_report: Progress) -> None:
    raise _Left


def _attach(target: Known | File, wish: Wish, on_progress: Callable[[Progress], None]) -> Weights:
    from mapcell.daemon_backend import attach_name, attach_path

    dtype = wish.dtype or None
    if isinstance(target, Known):
        return attach_name(
            target.name,
            dtype=dtype,
            keys=None,
            prefix="",
            mode="r",
            timeout=_STAGING_SECONDS,
            hold=not wish.wait,
            on_progress=on_progress,
        )
    return attach_path(
        target.path,
        dtype=dtype,
        keys=None,
        prefix="",
        mode="r",
        timeout=_STAGING_SECONDS,
        residence=wish.residence,
        name=target.name,
        tag=wish.tag,
        pin=wish.pin,
        hold=not wish.wait,
        on_progress=on_progress,
    )


def _tell(name: str, version: str, seconds: float, as_json: bool) -> None:
    row = next((r for r in models() if (r.name, r.version) == (name, version)), None)
    if row is None:
        raise NotFound(f"{name!r} was loaded and is gone again: unloaded or evicted; --pin keeps it", model=name)
    if as_json:
        document = asdict(row)
        # Our own lease may or may not have ended by now.
        del document["leases"]
        output.emit({**document, "seconds": seconds})
        return
    output.put(
        f"{name} is loaded: {output.count(row.tensors, 'tensor')}, {output.size(row.nbytes)} {row.residence}, "
        f"{output.short(version)}, in {output.duration(seconds)}"
    )


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr while a checkpoint is staged; nothing at all when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    from rich import progress
    from rich.console import Console

    text = progress.TextColumn("{task.description}", markup=False)
    columns: tuple[Any, ...] = (
        text,
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(output.escape(name), total=None)
        yield lambda report: bar.update(task, completed=report.done, total=report.total)


def _ignore(_report: Progress) -> None:
    """Nobody looks."""
