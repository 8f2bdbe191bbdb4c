"""Commands that look at files and need no daemon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mapcell_formats.errors import FormatError

from . import output
from .asking import as_json
from .output import Column
from .secrets import Decryption, encryption, takes_key

if TYPE_CHECKING:
    from mapcell_formats.checkpoint import Checkpoint, SourceTensor
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

    path = os.path.abspath(os.path.expanduser(file))
    with opened(path, how) as (_, checkpoint):
        document = describe(path, checkpoint)
    if as_json:
        output.emit(document)
    else:
        _print(document, everything)


def describe(path: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `inspect --json` prints: sizes and offsets in bytes, `totals` by dtype."""
    obstacle = checkpoint.obstacle()
    totals = _totals(checkpoint.tensors)
    return {
        "name": Path(path).name,
        "source": path,
        "format": checkpoint.format,
        "dtype": next(iter(totals)) if len(totals) == 1 else "mixed",
        "nbytes": checkpoint.nbytes,
        "mappable": obstacle is None,
        "obstacle": obstacle,
        "metadata": dict(checkpoint.metadata),
        "totals": totals,
        "tensors": [_tensor(t) for t in checkpoint.tensors],
    }


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


def _tensor(tensor: SourceTensor) -> dict[str, Any]:
    first = tensor.extents[0] if tensor.extents else None
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "segment": first.source if first else 0,
        "offset": first.offset if first else 0,
        "nbytes": tensor.nbytes,
        "pieces": len(tensor.extents),
    }


def _totals(tensors: Sequence[SourceTensor]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        total = totals.setdefault(tensor.dtype, {"tensors": 0, "nbytes": 0})
        total["tensors"] += 1
        total["nbytes"] += tensor.nbytes
    return totals


def _print(document: dict[str, Any], everything: bool) -> None:
    obstacle = document["obstacle"]
    tensors = document["tensors"]
    output.put_fields(
        [
            ("file", document["source"]),
            ("format", document["format"]),
            ("tensors", f"{len(tensors):,}, {output.size(document['nbytes'])}"),
            *(
                (dtype, f"{output.count(t['tensors'], 'tensor')}, {output.size(t['nbytes'])}")
                for dtype, t in document["totals"].items()
            ),
            ("mapped", f"no, it will be sealed: {obstacle}" if obstacle else "possible, as it lies"),
        ]
    )
    put_metadata(document["metadata"])
    put_tensors(tensors, everything, document["metadata"])


def put_metadata(metadata: dict[str, str]) -> None:
    """The checkpoint's own strings as a table, if it has any; of long ones the beginning.

    Those that tell how a tensor is quantised are left to `put_tensors`.
    """
    from mapcell_formats.gguf import parse_type_key

    rows = [(key, _beginning(text)) for key, text in metadata.items() if parse_type_key(key) is None]
    if rows:
        click.echo()
        output.put_table([Column("STRING", flexible=True), Column("VALUE", flexible=True)], rows)


def _beginning(text: str) -> str:
    return text if len(text) <= _LONG_TEXT else f"{text[:_LONG_TEXT]}... ({len(text):,} characters; --json has all)"


def put_tensors(tensors: Sequence[dict[str, Any]], everything: bool, metadata: Mapping[str, str] | None = None) -> None:
    """The tensors as a table, its middle left out when there are many, unless `everything` is wanted.

    Quantised ones are shown with their type, which is in the checkpoint's `metadata`.
    """
    if not tensors:
        return
    from mapcell_formats.gguf import type_key

    types = metadata or {}
    click.echo()
    columns = [
        Column("TENSOR", flexible=True),
        Column("DTYPE"),
        Column("SHAPE", flexible=True),
        Column("SEGMENT", right=True),
        Column("OFFSET", right=True),
        Column("SIZE", right=True),
    ]
    rows = [
        (
            t["name"],
            f"{t['dtype']} {types.get(type_key(t['name']), '')}".rstrip(),
            output.shape(t["shape"]),
            str(t["segment"]),
            str(t["offset"]),
            output.size(t["nbytes"]),
        )
        for t in tensors
    ]
    if not any(t["segment"] for t in tensors):
        del columns[3]
        rows = [(*row[:3], *row[4:]) for row in rows]  # type: ignore[misc]
    output.put_table(columns, rows, everything=everything)
