"""The command `verify`: digests of a file, or of what the daemon lends under a name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from mapcell_formats.digest import PREFIX
from mapcell_formats.errors import DaemonUnavailable, NotFound

from . import output
from .asking import as_json, ask, complete_models, model_name
from .files import opened
from .output import Column
from .secrets import Decryption, takes_key

if TYPE_CHECKING:
    from mapcell.weights import Weights
    from mapcell_formats.manifest import TensorEntry
    from mapcell_formats.messages import ModelRow
    from mapcell_formats.verify import Report

_ATTACH_SECONDS = 30.0
_HEX_DIGITS = 64
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Expected:
    """The digest that was asked for: which hash, and its hex digits. Both empty for none."""

    algorithm: str = ""
    digits: str = ""


@dataclass(frozen=True, slots=True)
class _Result:
    """What was read, and what is wrong with it, if anything. `sha256` in hex digits, "" unless asked for; the state of
    the source as ModelRow has it."""

    report: Report
    sha256: str
    faults: tuple[str, ...]
    compared: int | None
    source_state: str = ""
    source_detail: str = ""


def _expected(_context: click.Context, _parameter: click.Parameter, text: str | None) -> _Expected:
    if text is None:
        return _Expected()
    algorithm, _, digits = text.strip().rpartition(":")
    digits = digits.lower()
    if algorithm not in ("", "blake3", "sha256") or len(digits) != _HEX_DIGITS or set(digits) - set("0123456789abcdef"):
        raise click.BadParameter(f"{text!r}: say blake3: or sha256: and {_HEX_DIGITS} hex digits")
    return _Expected(algorithm, digits)


@click.command()
@click.argument("source", metavar="FILE|NAME", shell_complete=complete_models)
@click.option("--tensors", "each", is_flag=True, help="Also show the digest of each tensor.")
@click.option("--nans", is_flag=True, help="Also count NaNs and infinities in floating tensors.")
@click.option("--sha256", is_flag=True, help="Also hash a single file as Hugging Face publishes it.")
@click.option(
    "--expect",
    callback=_expected,
    metavar="DIGEST",
    help="Fail unless the digest is this one: blake3:... or sha256:... Without either word it is what the others say.",
)
@takes_key
@as_json
def verify(
    source: str,
    each: bool,
    nans: bool,
    sha256: bool,
    expect: _Expected,
    how: Decryption,
    as_json: bool,
) -> None:
    """Reads every byte of a checkpoint and says its digest, which is the version that the daemon gives it when sealed.

    A file needs no daemon. Of a model that the daemon holds, the bytes that it lends are compared with the digests that
    were taken when they were staged.
    """
    began = time.monotonic()
    sha256 = sha256 or expect.algorithm == "sha256"
    if _is_file(source):
        version, result = _verify_file(os.path.abspath(os.path.expanduser(source)), nans, sha256, how)
    elif sha256:
        raise click.UsageError("--sha256 is of a file: name one")
    elif how.key:
        raise click.UsageError("a key is of a file: name one")
    else:
        version, result = _verify_name(model_name(source), nans)
    faults = (*result.faults, *_unexpected(expect, result))
    document = _document(version, result, faults, each, nans, time.monotonic() - began)
    if as_json:
        output.emit(document)
    else:
        _print(document, nans)
    if faults:
        output.fail(f"{source}: {'; '.join(faults[:_SHOWN])}; do not use it, and get it anew")
        raise click.exceptions.Exit(1)


def _is_file(source: str) -> bool:
    """Whether a file is meant: a path, or the name of a file that is no model's."""
    from mapcell.attaching import is_path
    from mapcell_formats.messages import Resolve

    if is_path(source) or not os.path.exists(source):
        return is_path(source)
    try:
        ask(Resolve(source))
    except (NotFound, DaemonUnavailable):
        return True
    return False


def _verify_file(path: str, nans: bool, sha256: bool, how: Decryption) -> tuple[str, _Result]:
    from mapcell_formats import verify as verifying

    with opened(path, how) as (sources, checkpoint):
        if sha256 and len(sources) > 1:
            raise click.UsageError(f"--sha256 is of a single file, and {path} has {len(sources)}: name one")
        report = verifying.examine(checkpoint, nans=nans)
        return report.version, _Result(report, verifying.sha256(sources[0]) if sha256 else "", (), None)


def _verify_name(name: str, nans: bool) -> tuple[str, _Result]:
    from mapcell.daemon_backend import attach_name
    from mapcell_formats.verify import examine_parts

    with attach_name(name, dtype=None, keys=None, prefix="", mode="r", timeout=_ATTACH_SECONDS) as weights:
        report = examine_parts(_lent(weights), weights.metadata, nans=nans)
        known = {tensor.name: weights.digest(tensor.name) for tensor in report.tensors}
        damaged = [t.name for t in report.tensors if known[t.name] not in (None, t.digest)]
        faults = [f"tensor {tensor!r} is not what was staged" for tensor in damaged]
        if weights.version.startswith(PREFIX) and report.version != weights.version:
            faults.append(f"the content is {report.version}, not {weights.version}")
        compared = sum(d is not None for d in known.values())
        row = _row(name, weights.version)
        how = (row.source_state, row.source_detail) if row is not None else ("", "")
        return weights.version, _Result(report, "", tuple(faults), compared, *how)


def _row(name: str, version: str) -> ModelRow | None:
    """What the daemon says of the version now; None when the name means another by now, or the daemon went away."""
    from mapcell_formats.messages import Resolve

    try:
        row: ModelRow = ask(Resolve(name)).rows[0]
    except (NotFound, DaemonUnavailable):
        return None
    return row if row.version == version else None


def _lent(weights: Weights) -> Iterator[tuple[TensorEntry, Iterator[memoryview]]]:
    import numpy as np

    from mapcell_formats.verify import cut

    for entry in weights.entries():
        yield entry, cut(weights[entry.name].reshape(-1).view(np.uint8).data)


def _unexpected(expect: _Expected, result: _Result) -> list[str]:
    if not expect.digits:
        return []
    own = {"blake3": result.report.version.rpartition(":")[2], "sha256": result.sha256}
    algorithms = [expect.algorithm] if expect.algorithm else [name for name, digits in own.items() if digits]
    if any(own[name] == expect.digits for name in algorithms):
        return []
    return [f"the digest is {' or '.join(f'{name}:{own[name]}' for name in algorithms)}, not {expect.digits}"]


def _document(
    version: str, result: _Result, faults: tuple[str, ...], each: bool, nans: bool, seconds: float
) -> dict[str, Any]:
    report = result.report
    document: dict[str, Any] = {
        "version": version,
        "ok": not faults,
        "tensors": len(report.tensors),
        "nbytes": report.nbytes,
        "seconds": seconds,
        "digest": report.version,
        "faults": list(faults),
        "source_state": result.source_state,
        "source_detail": result.source_detail,
    }
    if result.compared is not None:
        document["compared"] = result.compared
    if result.sha256:
        document["sha256"] = result.sha256
    if nans:
        document["nans"] = sum(t.nans or 0 for t in report.tensors)
        document["infs"] = sum(t.infs or 0 for t in report.tensors)
    if each:
        document["digests"] = [_without_none(asdict(t)) for t in report.tensors]
    return document


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _print(document: dict[str, Any], nans: bool) -> None:
    tensors, size = output.count(document["tensors"], "tensor"), output.size(document["nbytes"])
    fields = [
        ("version", document["version"]),
        ("digest", document["digest"] if document["digest"] != document["version"] else ""),
        ("sha256", document.get("sha256", "")),
        ("read", f"{tensors}, {size}, in {output.duration(document['seconds'])}"),
        ("compared", _compared(document)),
        ("source", output.source(document["source_state"], document["source_detail"])),
        ("not finite", f"{document['nans']:,} NaNs, {document['infs']:,} infinities" if nans else ""),
    ]
    output.put_fields(fields)
    if "digests" in document:
        click.echo()
        _print_digests(document["digests"], nans)


def _compared(document: dict[str, Any]) -> str:
    if "compared" not in document:
        return ""
    if not document["compared"]:
        return "nothing: the file is mapped as it lies, and was not hashed yet"
    return f"{output.count(document['compared'], 'tensor')} with what was staged or hashed before"


def _print_digests(tensors: list[dict[str, Any]], nans: bool) -> None:
    columns = [Column("TENSOR", flexible=True), Column("DTYPE"), Column("SHAPE", flexible=True), Column("DIGEST")]
    if nans:
        columns += [Column("NANS", right=True), Column("INFS", right=True)]
    rows = []
    for t in tensors:
        counts = (f"{t['nans']:,}", f"{t['infs']:,}") if nans else ()
        rows.append((t["name"], t["dtype"], output.shape(t["shape"]), output.short(t["digest"]), *counts))
    output.put_table(columns, rows)
