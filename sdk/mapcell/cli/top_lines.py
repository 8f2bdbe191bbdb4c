"""What `top` shows, as lines that fit a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import output
from .output import Column
from .rates import Rates, Sample

if TYPE_CHECKING:
    from mapcell_formats.messages import Event, ModelRow, StagingRow

# Rates, times and all, what is staged fits 80 columns.
_BAR = 12
_TITLE = "bold"
_WARNING = "bold red"
# Of a low terminal the events get this much at least, and of a high one this much at most.
_MIN_EVENTS, _MAX_EVENTS = 3, 10
_MODELS = [
    Column("MODEL", flexible=True),
    Column("VERSION"),
    Column("STATE"),
    Column("RESIDENCE"),
    Column("DTYPE"),
    Column("SIZE", right=True),
    Column("LEASES", right=True),
]
_STAGING = [
    Column("STAGING", flexible=True),
    Column("STEP"),
    Column("DONE"),
    Column("OF", right=True),
    Column("RATE", right=True),
    Column("LEFT", right=True),
    Column("WAITING", right=True),
]


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and rich's name of its style."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One picture: the last sample, its rates, what happened lately, and why there is no newer sample, if so."""

    sample: Sample
    rates: Rates
    events: tuple[str, ...] = ()
    trouble: str = ""


def lines(view: View, width: int, height: int | None = None, footer: str = "") -> list[Line]:
    """The picture in lines of at most `width`, and at most `height` of them, when given."""
    head = _head(view)
    staging = _table(_STAGING, [_staging(row, view.rates) for row in view.sample.status.staging], width)
    models = _table(_MODELS, [_model(row) for row in view.sample.rows], width) or [
        Line("no models are loaded; `mapcell load FILE` loads one")
    ]
    events = [Line("EVENTS", _TITLE), *map(Line, view.events)] if view.events else []
    if height is not None:
        room = height - len(head) - 2 - bool(footer) - (len(staging) + 1 if staging else 0)
        shown = max(min(len(events), _MAX_EVENTS + 1, room - len(models)), min(len(events), _MIN_EVENTS + 1))
        events = events[:1] + events[1:][-max(shown - 1, 0) :] if shown > 1 else []
        models = _shortened(models, max(room - len(events), 2))
    sections = [part for part in (head, models, staging, events) if part]
    joined = [line for part in sections for line in (*part, Line(""))][:-1]
    if height is not None:
        joined = joined[: height - bool(footer)]
        joined += [Line("")] * (height - len(joined) - bool(footer))
    if footer:
        joined.append(Line(footer, "dim"))
    return [Line(output.cut(output.escape(line.text), width), line.style) for line in joined]


def describe(event: Event) -> str:
    """What happened, in a few words; "" for what is shown elsewhere."""
    version = output.short(event.version)
    match event.kind:
        case "staging":
            return f"{event.name}: staging {output.size(event.total)}" if event.total else f"{event.name}: opening"
        case "ready":
            return f"{event.name} {version}: ready, {output.size(event.total)} {event.detail}"
        case "retired":
            return f"{event.name} {version}: retired, handed out no more"
        case "failed":
            return f"{event.name}: failed: {event.detail}"
        case _:
            return ""


def bar(done: int, total: int) -> str:
    """ "[###.........]  25 %"."""
    share = min(max(done / total, 0.0), 1.0) if total else 0.0
    filled = int(share * _BAR)
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {100 * share:3.0f} %"


def _head(view: View) -> list[Line]:
    status = view.sample.status
    rate = "" if view.rates.attaches is None else f" ({view.rates.attaches:.1f}/s)"
    if view.trouble:
        first = Line(f"{view.trouble}; waiting for it", _WARNING)
    else:
        up = output.duration(status.uptime)
        first = Line(f"mapcelld {status.version}, pid {status.pid}, up {up}, in {status.runtime}", _TITLE)
    sealed = f"{output.size(status.sealed)} of {output.size(status.budget)}"
    return [
        first,
        Line(f"sealed  {bar(status.sealed, status.budget)}  {sealed}   mapped {output.size(status.mapped)}"),
        Line(
            f"leases  {status.leases:,}   attaches {status.attaches:,}{rate}   stagings {status.stagings:,}   "
            f"evictions {status.evictions:,}"
        ),
        Line(f"open    connections {status.connections:,}   descriptors {status.descriptors:,}"),
    ]


def _model(row: ModelRow) -> list[str]:
    return [
        row.name,
        output.short(row.version) or "-",
        row.state.lower() + ("+pin" if row.pinned else ""),
        row.residence,
        row.dtype or "-",
        output.size(row.nbytes) if row.nbytes else "-",
        str(row.leases),
    ]


def _staging(row: StagingRow, rates: Rates) -> list[str]:
    rate, left = rates.staging.get(row.name), rates.seconds_left(row)
    return [
        row.name,
        row.step,
        bar(row.done, row.total),
        output.size(row.total) if row.total else "-",
        "-" if rate is None else f"{output.size(int(rate))}/s",
        "-" if left is None else output.duration(left),
        str(row.waiting),
    ]


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[Line]:
    if not rows:
        return []
    head, *body = output.table_lines(columns, rows, width)
    return [Line(head, _TITLE), *map(Line, body)]


def _shortened(table: list[Line], room: int) -> list[Line]:
    if len(table) <= room:
        return table
    hidden = len(table) - room + 1
    return [*table[: room - 1], Line(f"... {hidden:,} more; `mapcell ls` lists them ...")]
