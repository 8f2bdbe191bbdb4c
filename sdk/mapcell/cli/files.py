"""Commands that look at files and need no daemon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mapcell_formats.errors import FormatError

from . import output
from .asking import as_json
from .output import Column
from .secrets import Decryption, encryption, takes_key

if TYPE_CHECKING:
    from mapcell_formats.checkpoint import Checkpoint
    from mapcell_formats.manifest import TensorEntry
    from mapcell_formats.source import FileSource

# A chat template or a licence would fill the screen.
_LONG_TEXT = 200
_PLAIN = Decryption()


@contextmanager
def opened(path: str, how: Decryption = _PLAIN) -> Iterator[tuple[Sequence[FileSource], Checkpoint]]:
    """The files of the checkpoint at `path`, and what is in them. NotFound, AccessDenied or FormatError."""
    from mapcell.opening import open_sources
    from mapcell_formats.detect import read_checkpoint

    key = how.key.read()
    sources = open_sources(path)
    try:
        mode = encryption(sources)
        if mode and key is None:
            raise FormatError(
                f"is encrypted with {mode}",
                path=path,
                expected="--dec-key-file FILE with its key, or --dec-key-env VAR",
            )
        yield sources, read_checkpoint(sources, key=key, mode=how.mode or mode)
    finally:
        for source in sources:
            source.close()


@click.command()
@click.argument("file")
@click.option("--all", "everything", is_flag=True, help="Show every tensor, however many there are.")
@takes_key
@as_json
def inspect(file: str, everything: bool, how: Decryption, as_json: bool) -> None:
    """Shows what is in the checkpoint FILE: its format, strings and tensors, and whether it can be mapped.

    FILE may also be the index of several files, or their folder. Only headers are read.
    """
    import os

    from .inspecting import describe, put

    path = os.path.abspath(os.path.expanduser(file))
    with opened(path, how) as (sources, checkpoint):
        document = describe(path, sources, checkpoint)
    if as_json:
        output.emit(document)
    else:
        put(document, everything)


def tensor_document(entry: TensorEntry) -> dict[str, Any]:
    """One tensor in JSON; `offset` and `nbytes` in bytes, `shape` in elements."""
    return {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "segment": entry.segment,
        "offset": entry.offset,
        "nbytes": entry.nbytes,
    }


def put_metadata(metadata: dict[str, str], everything: bool) -> None:
    """The checkpoint's own strings as a table, if it has any; of long ones the beginning.

    Those that tell what a tensor is are left to `put_tensors`.
    """
    from mapcell_formats.gguf import parse_type_key
    from mapcell_formats.mindspore_ckpt import parse_int4_key, parse_string_key

    rows = [
        # A .ckpt's string is kept with its place in the file, which nobody asks for.
        ((parse_string_key(key) or (0, key))[1], _beginning(text))
        for key, text in metadata.items()
        if parse_type_key(key) is None and parse_int4_key(key) is None
    ]
    if rows:
        click.echo()
        columns = [Column("STRING", flexible=True), Column("VALUE", flexible=True)]
        output.put_table(columns, rows, everything=everything)


def type_of(name: str, metadata: Mapping[str, str]) -> str:
    """What the elements of the tensor `name` really are: "Q4_0" for GGUF's blocks, "Int4"; "" for what its dtype is."""
    from mapcell_formats.gguf import type_key
    from mapcell_formats.mindspore_ckpt import int4_key

    return metadata.get(type_key(name), "Int4" if int4_key(name) in metadata else "")


def _beginning(text: str) -> str:
    return text if len(text) <= _LONG_TEXT else f"{text[:_LONG_TEXT]}... ({len(text):,} characters; --json has all)"


def put_tensors(tensors: Sequence[dict[str, Any]], everything: bool, metadata: Mapping[str, str] | None = None) -> None:
    """The tensors as a table, its middle left out when there are many, unless `everything` is wanted.

    Quantised ones are shown with their type, which is in the checkpoint's `metadata`.
    """
    if not tensors:
        return
    types = metadata or {}
    cells: list[tuple[Column, list[str]]] = [
        (Column("TENSOR", flexible=True), [t["name"] for t in tensors]),
        (Column("DTYPE"), [f"{t['dtype']} {type_of(t['name'], types)}".rstrip() for t in tensors]),
        (Column("SHAPE", flexible=True), [output.shape(t["shape"]) for t in tensors]),
    ]
    if any("weights" in t for t in tensors):
        weights = [output.shape(t["weights"]) if "weights" in t else "" for t in tensors]
        cells.append((Column("WEIGHTS", flexible=True), weights))
    if any(t["segment"] for t in tensors):
        cells.append((Column("SEGMENT", right=True), [str(t["segment"]) for t in tensors]))
    cells.append((Column("OFFSET", right=True), [str(t["offset"]) for t in tensors]))
    cells.append((Column("SIZE", right=True), [output.size(t["nbytes"]) for t in tensors]))
    rows = list(zip(*(column for _, column in cells), strict=True))
    click.echo()
    output.put_table([column for column, _ in cells], rows, everything=everything)
