"""Keys of encrypted checkpoints: out of a file or the environment, which only their owner can read.

Never from the command line, which every user of the host can.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import click

from mapcell_formats.errors import AccessDenied, FormatError

from . import output

F = TypeVar("F", bound=Callable[..., Any])

MODES = ("AES-GCM", "AES-CBC", "SM4-CBC")
_LONGEST_KEY = 32
_HEAD = 4


@dataclass(frozen=True, slots=True)
class Key:
    """Where a key is: in a file ("-" for stdin), in hexadecimal in an environment variable, or nowhere."""

    file: str | None = None
    variable: str | None = None

    def read(self) -> bytes | None:
        """The key. FormatError when it is no key at all, AccessDenied when it may not be read."""
        if self.variable is not None:
            return _from_environment(self.variable)
        return None if self.file is None else _read_key(self.file)

    def __bool__(self) -> bool:
        return self.file is not None or self.variable is not None


@dataclass(frozen=True, slots=True)
class Decryption:
    """How to decrypt: where the key is, and the mode, "" for what the checkpoint says."""

    key: Key = Key()
    mode: str = ""


def takes_key(command: F) -> F:
    """Gives a command the options that say how to decrypt what it reads; it gets a Decryption as `how`."""

    @wraps(command)
    def wrapped(
        *args: Any, dec_key_file: str | None, dec_key_env: str | None, dec_mode: str | None, **options: Any
    ) -> Any:
        how = Decryption(_key("dec", dec_key_file, dec_key_env, dec_mode), dec_mode or "")
        return command(*args, how=how, **options)

    file = click.option(
        "--dec-key-file",
        metavar="FILE",
        help="Decrypt a MindSpore .ckpt with the key in FILE: its 16, 24 or 32 bytes as they are; - reads stdin.",
    )
    variable = click.option(
        "--dec-key-env", metavar="VAR", help="The same with the key in the environment variable VAR, in hexadecimal."
    )
    mode = click.option(
        "--dec-mode", type=click.Choice(MODES), help="How it is encrypted; default: as the checkpoint says."
    )
    return cast(F, file(variable(mode(wrapped))))


def gives_key(command: F) -> F:
    """Gives a command the options that say how to encrypt what it writes; it gets an Encryption or None as `secret`."""

    @wraps(command)
    def wrapped(
        *args: Any, enc_key_file: str | None, enc_key_env: str | None, enc_mode: str | None, **options: Any
    ) -> Any:
        from mapcell_formats.ckpt_writer import Encryption

        key = _key("enc", enc_key_file, enc_key_env, enc_mode).read()
        return command(*args, secret=None if key is None else Encryption(key, enc_mode or MODES[0]), **options)

    file = click.option(
        "--enc-key-file",
        metavar="FILE",
        help="Encrypt the .ckpt with the key in FILE: its 16, 24 or 32 bytes as they are; - reads stdin.",
    )
    variable = click.option(
        "--enc-key-env", metavar="VAR", help="The same with the key in the environment variable VAR, in hexadecimal."
    )
    mode = click.option("--enc-mode", type=click.Choice(MODES), help=f"How to encrypt it; default: {MODES[0]}.")
    return cast(F, file(variable(mode(wrapped))))


def _key(kind: str, file: str | None, variable: str | None, mode: str | None) -> Key:
    """What the options of one kind say. UsageError for two keys, or for a mode without one."""
    if file is not None and variable is not None:
        raise click.UsageError(f"give --{kind}-key-file or --{kind}-key-env, not both")
    key = Key(file, variable)
    if mode and not key:
        raise click.UsageError(f"--{kind}-mode goes with --{kind}-key-file FILE or --{kind}-key-env VAR")
    return key


def encryption(sources: Sequence[Any]) -> str:
    """How the first encrypted one of `sources` is encrypted, "" when none is."""
    from mapcell_formats.encrypted_ckpt import mode_of
    from mapcell_formats.source import read

    modes = (mode_of(bytes(read(source, 0, min(_HEAD, source.size)))) for source in sources)
    return next(filter(None, modes), "")


def _lengths() -> set[int]:
    from mapcell_formats.encrypted_ckpt import KEY_BYTES

    return {length for lengths in KEY_BYTES.values() for length in lengths}


def _from_environment(variable: str) -> bytes:
    text = os.environ.get(variable, "")
    try:
        key = bytes.fromhex(text)
    # Without its cause, which would show a piece of the key.
    except ValueError:
        key = b""
    if len(key) not in _lengths():
        what = "holds no key" if text else "is not set"
        expected = "16, 24 or 32 bytes in hexadecimal"
        raise FormatError(f"the environment variable {variable} {what}", expected=expected) from None
    return key


def _read_key(path: str) -> bytes:
    try:
        key = sys.stdin.buffer.read(_LONGEST_KEY + 2) if path == "-" else _contents(path)
    except PermissionError as exc:
        raise AccessDenied(f"{path}: this process may not read the key", path=path) from exc
    lengths = _lengths()
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
