"""What `inspect` tells of a checkpoint: as a document, and as tables for people."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import gcd, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import output
from .files import put_metadata, put_tensors, type_of
from .output import Column
from .secrets import encryption

if TYPE_CHECKING:
    from mapcell_formats.checkpoint import Checkpoint, SourceTensor
    from mapcell_formats.source import FileSource

# Nobody aligns to more than a page, and what lies on one fits every purpose.
_MAX_ALIGNMENT = 4096


def describe(path: str, sources: Sequence[FileSource], checkpoint: Checkpoint) -> dict[str, Any]:
    """What `inspect --json` prints of the checkpoint in the files `sources`: sizes and offsets in bytes.

    `totals` are by dtype, `types` by what the elements really are where they are more than their dtype says;
    `obstructed` tensors cannot be used where they lie; `parameters` counts elements, of quantised tensors the weights.
    """
    obstacle, tensors = checkpoint.obstacle(), checkpoint.tensors
    documents = [_tensor(tensor, checkpoint.metadata) for tensor in tensors]
    totals = _totals((t.dtype, t.nbytes) for t in tensors)
    return {
        "name": Path(path).name,
        "source": path,
        "format": checkpoint.format,
        "encryption": encryption(sources) or None,
        "files": _files(sources, checkpoint),
        "dtype": next(iter(totals)) if len(totals) == 1 else "mixed",
        "nbytes": checkpoint.nbytes,
        "parameters": sum(prod(d.get("weights", d["shape"])) for d in documents),
        "mappable": obstacle is None,
        "obstacle": obstacle,
        "obstructed": checkpoint.obstructed(),
        "alignment": _alignment(tensors),
        "metadata": dict(checkpoint.metadata),
        "totals": totals,
        "types": _totals((d["type"], d["nbytes"]) for d in documents if "type" in d),
        "tensors": documents,
    }


def _tensor(tensor: SourceTensor, metadata: Mapping[str, str]) -> dict[str, Any]:
    first = tensor.extents[0] if tensor.extents else None
    document = {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "segment": first.source if first else 0,
        "offset": first.offset if first else 0,
        "nbytes": tensor.nbytes,
        "pieces": len(tensor.extents),
    }
    if kind := type_of(tensor.name, metadata):
        document["type"] = kind
        document["weights"] = list(_weights(tensor.shape, kind))
    return document


def _weights(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    from mapcell_formats.gguf import weights_shape

    # MindSpore counts bytes, of two nibbles each, in the dims themselves.
    return shape if kind == "Int4" else weights_shape(shape, kind)


def _totals(items: Iterable[tuple[str, int]]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for kind, nbytes in items:
        total = totals.setdefault(kind, {"tensors": 0, "nbytes": 0})
        total["tensors"] += 1
        total["nbytes"] += nbytes
    return totals


def _files(sources: Sequence[FileSource], checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The files with their tensors; an index has none. What was decoded of a file is counted with it."""
    segments: list[list[int]] = [[] for _ in sources]
    number = 0
    for segment, source in enumerate(checkpoint.sources):
        # They come in the files' order, and what was decoded of a file comes behind it.
        while sources[number].path != source.path:
            number += 1
        segments[number].append(segment)
    file_of = {segment: number for number, held in enumerate(segments) for segment in held}
    tensors = Counter(file_of[tensor.extents[0].source] for tensor in checkpoint.tensors if tensor.extents)
    return [
        {"name": os.path.basename(s.path), "nbytes": s.size, "tensors": tensors[number], "segments": segments[number]}
        for number, s in enumerate(sources)
    ]


def _alignment(tensors: Sequence[SourceTensor]) -> int:
    """The largest power of two up to a page that all tensors' offsets in their sources are multiples of."""
    shared = gcd(_MAX_ALIGNMENT, *(e.offset for t in tensors for e in t.extents[:1]))
    return shared & -shared


def put(document: dict[str, Any], everything: bool) -> None:
    """The document as fields and tables that fit the terminal."""
    tensors = document["tensors"]
    output.put_fields(
        [
            ("file", document["source"]),
            ("format", _format(document)),
            ("encryption", document["encryption"] or ""),
            ("tensors", f"{len(tensors):,}, {output.size(document['nbytes'])}"),
            ("parameters", f"{document['parameters']:,}"),
            *_kinds(document),
            ("mapped", _mapped(document)),
            ("alignment", "" if not tensors else output.size(document["alignment"])),
        ]
    )
    _put_files(document["files"], everything)
    put_metadata(document["metadata"], everything)
    put_tensors(tensors, everything, document["metadata"])


def _format(document: dict[str, Any]) -> Any:
    files = sum(bool(file["tensors"]) for file in document["files"])
    return (
        f"{document['format']}, in {output.count(files, 'file')}" if len(document["files"]) > 1 else document["format"]
    )


def _kinds(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Totals by dtype, and within them by what the elements really are."""
    rows = []
    for dtype, total in document["totals"].items():
        rows.append((dtype, _total(total)))
        kinds = {t["type"] for t in document["tensors"] if t["dtype"] == dtype and "type" in t}
        rows += [(f"  {kind}", _total(total)) for kind, total in document["types"].items() if kind in kinds]
    return rows


def _total(total: Mapping[str, int]) -> str:
    return f"{output.count(total['tensors'], 'tensor')}, {output.size(total['nbytes'])}"


def _mapped(document: dict[str, Any]) -> str:
    if document["mappable"]:
        return "possible, as it lies"
    if document["encryption"]:
        return "no, and not sealed either: the worker that has the key decrypts it for itself"
    number, count = document["obstructed"], len(document["tensors"])
    which = f" ({number:,} of {count:,} tensors)" if 0 < number < count else ""
    return f"no, it will be sealed{which}: {document['obstacle']}"


def _put_files(files: Sequence[dict[str, Any]], everything: bool) -> None:
    if len(files) == 1:
        return
    click.echo()
    columns = [
        Column("SEGMENT", right=True),
        Column("FILE", flexible=True),
        Column("TENSORS", right=True),
        Column("SIZE", right=True),
    ]
    rows = [
        (", ".join(map(str, f["segments"])), f["name"], f"{f['tensors']:,}", output.size(f["nbytes"])) for f in files
    ]
    output.put_table(columns, rows, everything=everything)
