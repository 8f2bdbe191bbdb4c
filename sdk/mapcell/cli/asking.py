"""Questions to the daemon, and what every command that asks them has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mapcell_formats.messages import ModelRow

# A daemon answers in microseconds; one that takes this long hangs.
ANSWER_SECONDS = 5.0
_COMPLETION_SECONDS = 0.5

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def ask(message: object, timeout: float = ANSWER_SECONDS) -> Any:
    """The daemon's reply to `message`. DaemonUnavailable when none answers; the error that it refused with."""
    from mapcell.connection import CONNECTIONS

    return CONNECTIONS.client().ask(message, timeout)


def models(timeout: float = ANSWER_SECONDS) -> tuple[ModelRow, ...]:
    """Every version of every model that the daemon shows to us."""
    from mapcell_formats.messages import ListModels

    rows: tuple[ModelRow, ...] = ask(ListModels(), timeout).rows
    return rows


def complete_models(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The models' names that begin so, for the shell; none when no daemon answers."""
    from mapcell_formats.errors import MapcellError
    from mapcell_formats.messages import ListModels

    try:
        rows = ask(ListModels(), _COMPLETION_SECONDS).rows
    except MapcellError:
        return []
    return sorted({row.name for row in rows if row.name.startswith(incomplete)})


def model_name(text: str) -> str:
    """What the daemon calls the model that a person named. For a path that is the one model loaded from there."""
    import os

    from mapcell.attaching import is_path

    if not is_path(text):
        return text
    path = os.fsencode(os.path.abspath(os.path.expanduser(text))).decode(errors="backslashreplace")
    rows = models()
    # A model that came out of a folder names the first of its files as its source.
    named = {row.name for row in rows if path in (row.source, os.path.dirname(row.source))}
    return named.pop() if len(named) == 1 else path
