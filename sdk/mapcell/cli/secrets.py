"""Keys of encrypted checkpoints: out of a file, never from the command line, which every user of the host can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from mapcell_formats.errors import AccessDenied, FormatError

from . import output

F = TypeVar("F", bound=Callable[..., Any])

MODES = ("AES-GCM", "AES-CBC", "SM4-CBC")
_LONGEST_KEY = 32
_HEAD = 4


@dataclass(frozen=True, slots=True)
class Decryption:
    """How to decrypt: the file that holds the key, None for none, and the mode, "" for what the checkpoint says."""

    key_file: str | None = None
    mode: str = ""

    def key(self) -> bytes | None:
        """The key in the file. FormatError when it is no key at all, AccessDenied when it may not be read."""
        return None if self.key_file is None else _read_key(self.key_file)


def takes_key(command: F) -> F:
    """Gives a command the options --dec-key-file and --dec-mode, which it gets as `dec_key_file` and `dec_mode`."""
    file = click.option(
        "--dec-key-file",
        metavar="FILE",
        help="Decrypt a MindSpore .ckpt with the key in FILE: its 16, 24 or 32 bytes as they are; - reads stdin.",
    )
    mode = click.option(
        "--dec-mode", type=click.Choice(MODES), help="How it is encrypted; default: as the checkpoint says."
    )
    return file(mode(command))


def decryption(dec_key_file: str | None, dec_mode: str | None) -> Decryption:
    """What the options say. UsageError for a mode without a key."""
    if dec_mode and dec_key_file is None:
        raise click.UsageError("--dec-mode goes with --dec-key-file FILE")
    return Decryption(dec_key_file, dec_mode or "")


def encryption(sources: Sequence[Any]) -> str:
    """How the first encrypted one of `sources` is encrypted, "" when none is."""
    from mapcell_formats.encrypted_ckpt import mode_of
    from mapcell_formats.source import read

    modes = (mode_of(bytes(read(source, 0, min(_HEAD, source.size)))) for source in sources)
    return next(filter(None, modes), "")


def _read_key(path: str) -> bytes:
    try:
        key = sys.stdin.buffer.read(_LONGEST_KEY + 2) if path == "-" else _contents(path)
    except PermissionError as exc:
        raise AccessDenied(f"{path}: this process may not read the key", path=path) from exc
    from mapcell_formats.encrypted_ckpt import KEY_BYTES

    lengths = {length for lengths in KEY_BYTES.values() for length in lengths}
    # An editor puts a line's end behind a key that was typed.
    typed = key.removesuffix(b"\n").removesuffix(b"\r")
    found = next((k for k in (key, typed) if len(k) in lengths), None)
    if found is None:
        raise FormatError("holds no key", path=path, expected="16, 24 or 32 bytes, as they are")
    return found


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077 and os.path.isfile(path):
            output.say(f"{path} can be read by others than its owner; `chmod 600 {path}` keeps the key a secret")
        return file.read(_LONGEST_KEY + 2)
