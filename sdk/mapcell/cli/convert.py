"""The command `convert`: a checkpoint into a file of another format."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import click

from mapcell_formats.errors import UnsupportedFormat

from . import output
from .asking import as_json
from .files import opened
from .loading import dtype_code
from .secrets import Decryption, gives_key, takes_key

if TYPE_CHECKING:
    from mapcell_formats.ckpt_writer import Encryption

_SHOWN = 5


def _rules(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    rules = []
    for text in texts:
        # At the last "=": a regular expression may well have one ("(?=..."), a name has none.
        pattern, equals, replacement = text.rpartition("=")
        if not equals:
            raise click.BadParameter(f"{text!r}: say REGEX=REPLACEMENT")
        try:
            re.compile(pattern).sub(replacement, "")
        except (re.error, IndexError) as exc:
            raise click.BadParameter(f"{text!r}: {exc}") from None
        rules.append((pattern, replacement))
    return rules


def _align(_context: click.Context, _parameter: click.Parameter, value: int) -> int:
    from mapcell_formats.items import check_align

    try:
        check_align(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    return value


def _destination(_context: click.Context, _parameter: click.Parameter, path: str) -> str:
    from mapcell_formats.convert import format_of

    try:
        format_of(path)
    except UnsupportedFormat as exc:
        raise click.BadParameter(exc.message) from None
    return path


@click.command()
@click.argument("source")
@click.argument("dest", callback=_destination)
@click.option(
    "--align",
    type=int,
    default=256,
    callback=_align,
    metavar="N",
    help="Put tensors at multiples of N bytes, a power of two; default 256.",
)
@click.option(
    "--rename",
    "rules",
    multiple=True,
    callback=_rules,
    metavar="REGEX=REPL",
    help="Replace what matches in tensors' names; may be given several times, applied in order.",
)
@click.option("--prefix", default="", metavar="P", help="Only tensors whose names start so, which is cut off first.")
@click.option("--dtype", callback=dtype_code, metavar="D", help="Cast floating tensors; quantised ones become floats.")
@takes_key
@gives_key
@as_json
def convert(
    source: str,
    dest: str,
    align: int,
    rules: list[tuple[str, str]],
    prefix: str,
    dtype: str,
    how: Decryption,
    secret: Encryption | None,
    as_json: bool,
) -> None:
    """Writes the checkpoint SOURCE to the file DEST, whose suffix says the format: .safetensors, .ckpt or .npz.

    SOURCE is anything that can be read, a folder or an index too. DEST is complete or not there; an old one stays until
    then. What was encrypted is written in the clear unless --enc-key-file or --enc-key-env encrypts it again. Needs no
    daemon.
    """
    from mapcell_formats import convert as converting

    began = time.monotonic()
    path = os.path.abspath(os.path.expanduser(dest))
    with opened(os.path.abspath(os.path.expanduser(source)), how) as (_, checkpoint):
        done = converting.convert(
            checkpoint, path, align=align, dtype=dtype or None, prefix=prefix, rename=rules, encryption=secret
        )
    if done.left_out:
        names = ", ".join(done.left_out[:_SHOWN]) + (" ..." if len(done.left_out) > _SHOWN else "")
        output.say(f"left out {output.count(len(done.left_out), 'string')} of the checkpoint: {names}")
    seconds = time.monotonic() - began
    if as_json:
        output.emit(
            {
                "source": os.path.abspath(os.path.expanduser(source)),
                "dest": path,
                "format": done.format,
                "encrypted": secret.mode if secret else None,
                "tensors": done.tensors,
                "nbytes": done.nbytes,
                "left_out": list(done.left_out),
                "seconds": seconds,
            }
        )
        return
    output.put(
        f"wrote {path}: {output.count(done.tensors, 'tensor')}, {output.size(done.nbytes)}, "
        + (f"encrypted with {secret.mode}, " if secret else "")
        + f"in {output.duration(seconds)}"
    )
