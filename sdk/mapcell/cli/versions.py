"""Commands that change what the daemon holds: pin, unpin, tag, retire, evict, unload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from . import output
from .asking import as_json, ask, complete_models, model_name

if TYPE_CHECKING:
    from mapcell_formats.messages import ModelRow

_which = click.argument("name", metavar="NAME[@VERSION]", shell_complete=complete_models)
# What ids of versions begin with; anything else that stands for a version is a tag.
_IDS = ("blake3:", "file-")


@click.command()
@_which
@as_json
def pin(name: str, as_json: bool) -> None:
    """Keeps a version in memory: the newest of NAME, NAME:TAG or NAME@VERSION. Never evicted to make room for another.

    Takes an operator. A newer version that is loaded later is not pinned by this.
    """
    from mapcell_formats.messages import Pin

    rows = ask(Pin(model_name(name), True)).rows
    _report(rows, as_json, [f"pinned {_called(row)}, {output.size(row.nbytes)}" for row in rows])


@click.command()
@_which
@as_json
def unpin(name: str, as_json: bool) -> None:
    """Lets every version of NAME be evicted again, or only NAME:TAG or NAME@VERSION. Takes an operator."""
    from mapcell_formats.messages import Pin

    rows = ask(Pin(model_name(name), False)).rows
    _report(rows, as_json, [_unpinned(row) for row in rows])


@click.command()
@click.argument("name", shell_complete=complete_models)
@click.argument("version")
@click.argument("tag")
@as_json
def tag(name: str, version: str, tag: str, as_json: bool) -> None:
    """Makes NAME:TAG mean VERSION, and keeps that version when newer ones come. Takes an operator.

    VERSION is an id or its beginning, as `mapcell ls` shows it, or another tag, such as latest. A tag that the model
    has already is moved.
    """
    from mapcell_formats.messages import Tag

    name = model_name(name)
    rows = ask(Tag(name, _version(name, version), tag)).rows
    _report(rows, as_json, [f"{row.name}:{tag} is {output.short(row.version)}" for row in rows])


@click.command()
@_which
@as_json
def retire(name: str, as_json: bool) -> None:
    """Stops handing out NAME, or one version of it. Processes that hold it keep it, and it goes with the last of them.

    Takes an operator, or whoever loaded the model.
    """
    from mapcell_formats.messages import Retire

    _put_gone("retired", ask(Retire(model_name(name))).rows, as_json)


@click.command()
@_which
@as_json
def evict(name: str, as_json: bool) -> None:
    """Gives the memory of NAME, or of one version, back at once. Refused while a process holds it or it is pinned.

    Takes an operator, or whoever loaded the model.
    """
    from mapcell_formats.messages import Evict

    _put_gone("evicted", ask(Evict(model_name(name))).rows, as_json)


@click.command()
@_which
@as_json
def unload(name: str, as_json: bool) -> None:
    """Gives the memory of the model NAME back, or of one version: NAME:TAG or NAME@VERSION.

    A version that processes hold is handed out no more, and goes with the last of them.
    """
    from mapcell_formats.messages import Unload

    _put_gone("unloaded", ask(Unload(model_name(name))).rows, as_json)


def _version(name: str, text: str) -> str:
    """The beginning of a version's id that `text` stands for: itself, or what the tag `text` means now."""
    from mapcell_formats.messages import Resolve

    if text.startswith(_IDS):
        return text
    version: str = ask(Resolve(f"{name}:{text}")).rows[0].version
    return version


def _called(row: ModelRow) -> str:
    return f"{row.name} {output.short(row.version)}"


def _unpinned(row: ModelRow) -> str:
    if row.state == "READY":
        return f"unpinned {_called(row)}; it may be evicted again"
    return f"unpinned {_called(row)}, which a newer version has replaced; {_back(row)}"


def _back(row: ModelRow) -> str:
    when = "now" if not row.leases else f"when {output.count(row.leases, 'lease')} on it ended"
    return f"its {output.size(row.nbytes)} come back {when}"


def _put_gone(done: str, rows: Sequence[ModelRow], as_json: bool) -> None:
    _report(rows, as_json, [f"{done} {_called(row)}; {_back(row)}" for row in rows])


def _report(rows: Sequence[ModelRow], as_json: bool, lines: Sequence[str]) -> None:
    if as_json:
        output.emit([asdict(row) for row in rows])
        return
    for line in lines:
        output.put(line)
