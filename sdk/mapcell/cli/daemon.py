"""Commands about the daemon itself: its figures, its leases, and running it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from . import output
from .asking import as_json, ask
from .output import Column

if TYPE_CHECKING:
    from mapcell_formats.messages import LeaseRow, StagingRow, Status

# A process that began this much later than its lease has only inherited the number of the one that took it.
_CLOCK_SLACK = 1.0
_UNKNOWN = "?"
# The start of a command line tells workers apart; --json has all of it.
_COMMAND_SHOWN = 60


@click.command()
@as_json
def status(as_json: bool) -> None:
    """Shows the daemon: its memory and budget, what it holds, and what it is loading."""
    from mapcell_formats.messages import GetStatus

    figures: Status = ask(GetStatus())
    if as_json:
        output.emit(asdict(figures))
    else:
        _print_status(figures)


@click.command()
@as_json
def ps(as_json: bool) -> None:
    """Lists the processes that hold models, the one that has held longest first."""
    from mapcell_formats.messages import ListLeases

    rows: tuple[LeaseRow, ...] = ask(ListLeases()).rows
    documents = [_lease(row) for row in rows]
    if as_json:
        output.emit(documents)
    elif documents:
        _print_leases(documents)
    else:
        output.say("no process holds a model; mapcell.attach(NAME) in a worker takes one")


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Runs the daemon in the foreground: the same as mapcelld, with the same options."""
    os.execv(sys.executable, [sys.executable, "-m", "mapcelld.main", *arguments])


def _lease(row: LeaseRow) -> dict[str, Any]:
    return {
        "pid": row.pid,
        "uid": row.uid,
        "command": command(row.pid, row.since),
        "name": row.name,
        "version": row.version,
        "since": row.since,
        "nbytes": row.nbytes,
    }


def command(pid: int, since: float) -> str:
    """The command line of process `pid`, "?" when it cannot be read or is not the process that was there at `since`.

    A lease may outlive the process that took it: a forked child holds it on, and the number is given to another.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.create_time() > since + _CLOCK_SLACK:
            return _UNKNOWN
        return " ".join(process.cmdline()).strip() or process.name() or _UNKNOWN
    # psutil says ValueError for a number that is none of a process, such as that of a peer outside our pid namespace.
    except (psutil.Error, ValueError):
        return _UNKNOWN


def _print_leases(leases: list[dict[str, Any]]) -> None:
    now = time.time()
    columns = [
        Column("PID", right=True),
        Column("UID", right=True),
        Column("MODEL", flexible=True),
        Column("VERSION"),
        Column("FOR", right=True),
        Column("SIZE", right=True),
        Column("COMMAND", flexible=True),
    ]
    rows = [
        (
            str(x["pid"]),
            str(x["uid"]),
            x["name"],
            output.short(x["version"]),
            output.duration(now - x["since"]),
            output.size(x["nbytes"]),
            _shortened(x["command"]),
        )
        for x in leases
    ]
    output.put_table(columns, rows)


def _shortened(text: str) -> str:
    return text if len(text) <= _COMMAND_SHOWN else text[: _COMMAND_SHOWN - 3] + "..."


def _print_status(figures: Status) -> None:
    share = f" ({100 * figures.sealed / figures.budget:.0f} %)" if figures.budget else ""
    output.put_fields(
        [
            ("daemon", f"mapcelld {figures.version}, pid {figures.pid}, up {output.duration(figures.uptime)}"),
            ("runtime", figures.runtime),
            ("sealed", f"{output.size(figures.sealed)} of {output.size(figures.budget)}{share}"),
            ("mapped", f"{output.size(figures.mapped)} of files, lent in place"),
            ("models", f"{figures.models:,}"),
            ("leases", f"{figures.leases:,}"),
            ("connections", f"{figures.connections:,}"),
            ("descriptors", f"{figures.descriptors:,}"),
            ("staging", f"{output.count(figures.stagers, 'checkpoint')}" if figures.stagers else "nothing"),
        ]
    )
    if figures.staging:
        _print_staging(figures.staging)


def _print_staging(rows: tuple[StagingRow, ...]) -> None:
    click.echo()
    columns = [
        Column("STAGING", flexible=True),
        Column("STEP"),
        Column("DONE", right=True),
        Column("OF", right=True),
        Column("WAITING", right=True),
    ]
    output.put_table(
        columns, [(r.name, r.step, output.size(r.done), output.size(r.total), str(r.waiting)) for r in rows]
    )
