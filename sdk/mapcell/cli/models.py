"""Commands about the models that a daemon holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import compress
from typing import TYPE_CHECKING, Any

import click

from . import output
from .asking import as_json, ask, complete_models, model_name, models
from .files import put_metadata, put_tensors, tensor_document
from .output import Column

if TYPE_CHECKING:
    from mapcell_formats.messages import ModelRow

# Handing out a version that is there takes no staging.
_ATTACH_SECONDS = 30.0


@click.command()
@as_json
def ls(as_json: bool) -> None:
    """Lists the models that the daemon holds, every version on a line, the newest of each first.

    A model that is configured and not loaded yet is listed as unloaded.
    """
    rows = models()
    if as_json:
        output.emit([asdict(row) for row in rows])
    elif rows:
        print_rows(rows)
    else:
        output.say("no models are loaded; `mapcell load FILE` loads one")


@click.command()
@click.argument("name", shell_complete=complete_models)
@click.option("--all", "everything", is_flag=True, help="Show every tensor, however many there are.")
@as_json
def show(name: str, everything: bool, as_json: bool) -> None:
    """Shows the model NAME, its versions and the tensors of one: NAME:TAG or NAME@VERSION, else the newest."""
    from mapcell_formats.messages import Resolve

    name = model_name(name)
    row: ModelRow = ask(Resolve(name)).rows[0]
    versions = [r for r in models() if r.name == row.name and r.version]
    # Looking at a model that is not there would load it.
    metadata, tensors = _contents(name) if row.version else ({}, [])
    if as_json:
        output.emit(
            {**asdict(row), "versions": [asdict(r) for r in versions], "metadata": metadata, "tensors": tensors}
        )
        return
    _print_model(row)
    if len(versions) > 1:
        click.echo()
        print_rows(versions)
    put_metadata(metadata, everything)
    put_tensors(tensors, everything, metadata)


def print_rows(rows: Sequence[ModelRow]) -> None:
    """The versions as a table, the newest of each model first."""
    columns = [
        Column("MODEL", flexible=True),
        Column("VERSION"),
        Column("TAGS", flexible=True),
        Column("STATE"),
        Column("RESIDENCE"),
        Column("DTYPE"),
        Column("SIZE", right=True),
        Column("LEASES", right=True),
        Column("VERIFIED"),
        Column("SOURCE"),
    ]
    cells = [_cells(row) for row in rows]
    said = [True] * len(columns)
    said[2] = any(_tags(row) for row in rows)
    said[-2] = not all(row.verified for row in rows if row.version)
    said[-1] = any(_uncommon(row) for row in rows)
    output.put_table(list(compress(columns, said)), [list(compress(row, said)) for row in cells])


def _cells(row: ModelRow) -> list[str]:
    return [
        row.name,
        output.short(row.version) or "-",
        _tags(row) or "-",
        row.state.lower() + ("+pin" if row.pinned else ""),
        row.residence,
        row.dtype or "-",
        output.size(row.nbytes),
        str(row.leases),
        output.verified(row.verified) if row.version else "-",
        _uncommon(row) or "-",
    ]


def _uncommon(row: ModelRow) -> str:
    """How the source is, when it is not as it was."""
    return row.source_state if row.source_state not in ("", "same") else ""


def _tags(row: ModelRow) -> str:
    # The order says which is the latest.
    return ",".join(tag for tag in row.tags if tag != "latest")


def _contents(name: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The metadata and tensors in the manifest of what `name` means."""
    from mapcell.daemon_backend import attach_name

    with attach_name(name, dtype=None, keys=None, prefix="", mode="r", timeout=_ATTACH_SECONDS) as weights:
        return weights.metadata, [tensor_document(entry) for entry in weights.entries()]


def _print_model(row: ModelRow) -> None:
    if not row.version:
        _print_absent(row)
        return
    dtype = "of several dtypes" if row.dtype == "mixed" else row.dtype
    output.put_fields(
        [
            ("model", row.name),
            ("version", row.version),
            ("tags", ", ".join(row.tags)),
            ("state", row.state.lower() + (", pinned" if row.pinned else "")),
            ("source", f"{row.source} ({row.format})"),
            ("source now", output.source(row.source_state, row.source_detail, row.follow)),
            ("residence", row.residence),
            ("guard", ", ".join(filter(None, [row.guard, row.outlook]))),
            ("verified", _verified(row)),
            ("tensors", f"{row.tensors:,}, {dtype}, {output.size(row.nbytes)}"),
            ("leases", str(row.leases)),
        ]
    )


def _verified(row: ModelRow) -> str:
    if not row.verified:
        return f"{output.verified(False)}: a file mapped as it lies, whose bytes were not all hashed"
    return output.verified(True) + (f", {row.digest}" if row.digest != row.version else "")


def _print_absent(row: ModelRow) -> None:
    advice = f"`mapcell load {row.name}` loads it" if row.state == "UNLOADED" else "`mapcell top` shows how far it is"
    output.put_fields(
        [
            ("model", row.name),
            ("state", f"{row.state.lower()}; {advice}"),
            ("source", row.source),
            ("residence", row.residence),
            ("dtype", row.dtype),
        ]
    )
