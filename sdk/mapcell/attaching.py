"""`attach`: from a name or a path to Weights, through the daemon when one answers, else in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from mapcell_formats.dtypes import FLOATING, parse_dtype
from mapcell_formats.errors import DaemonUnavailable, NotFound

from .mapping import Mode
from .weights import Weights

# With daemon="auto", a daemon that was there and does not come back for this long is done without.
_PATIENCE_SECONDS = 5.0

DaemonChoice = Literal["auto", "require", "never"]


def is_path(source: str | os.PathLike[str]) -> bool:
    """Whether `source` means a file: an os.PathLike, or a str that starts with / ./ ../ or ~."""
    return not isinstance(source, str) or source in (".", "..", "~") or source.startswith(("/", "./", "../", "~"))


def daemon_choice(
    daemon: str | None, environment: Mapping[str, str] | Callable[[], Mapping[str, str]] = os.environ
) -> DaemonChoice:
    """What `daemon=` means: the argument, else MAPCELL_DAEMON, else "auto". ValueError for anything else."""
    env = environment() if callable(environment) else environment
    choice = daemon if daemon is not None else env.get("MAPCELL_DAEMON", "auto")
    if choice not in ("auto", "require", "never"):
        raise ValueError(f"daemon={choice!r}: say 'auto', 'require' or 'never'")
    return cast(DaemonChoice, choice)


def _dtype_code(dtype: Any) -> str | None:
    if dtype is None:
        return None
    text = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or str(dtype)
    try:
        code = parse_dtype(text)
    except KeyError:
        raise ValueError(f"dtype={dtype!r} is no dtype that checkpoints hold; say 'float32', 'bfloat16' ...") from None
    if code not in FLOATING:
        raise ValueError(f"dtype={dtype!r}: only floating tensors are cast, so it has to be a floating dtype")
    return code


def attach(
    source: str | os.PathLike[str],
    dtype: Any = None,
    keys: Iterable[str] | None = None,
    prefix: str = "",
    mode: Mode = "r",
    daemon: str | None = None,
    timeout: float = 30.0,
    *,
    _decryption: tuple[bytes, str] | None = None,
) -> Weights:
    """Weights of a model that the daemon knows, or of a checkpoint file.

    `source` is a path (os.PathLike, or a str that starts with / ./ ../ ~), else a model's name: "minilm" for its
    newest version, "minilm:stable" for a tag, "minilm@blake3:3f9a" for one version. `dtype` casts floating tensors
    once, in the daemon; `keys` and `prefix` choose tensors; `mode` is "r" (read-only) or "c" (copy-on-write), as
    numpy.memmap has it. `daemon` is "auto" (the daemon if one answers; its refusals stand), "require" or "never";
    MAPCELL_DAEMON gives the default. `timeout` in seconds bounds staging and answers.

    Raises NotFound, FormatError, AccessDenied, BudgetExceeded, StagingFailed, DaemonUnavailable or ProtocolError.
    """
    if mode not in ("r", "c"):
        raise ValueError(f"mode={mode!r}: say 'r' (read-only) or 'c' (copy-on-write)")
    code, choice = _dtype_code(dtype), daemon_choice(daemon)
    chosen = tuple(keys) if keys is not None else None
    if is_path(source):
        path = os.path.abspath(os.path.expanduser(os.fspath(source)))
        return _attach_path(path, code, chosen, prefix, mode, choice, timeout, _decryption)
    return _attach_name(os.fspath(source), code, chosen, prefix, mode, choice, timeout)


def _attach_path(
    path: str,
    dtype: str | None,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    choice: DaemonChoice,
    timeout: float,
    decryption: tuple[bytes, str] | None,
) -> Weights:
    # A key is the worker's secret: it stays in the process until the daemon can keep one apart for each asker.
    if choice != "never" and decryption is None:
        from .daemon_backend import attach_path

        try:
            patience = timeout if choice == "require" else _PATIENCE_SECONDS
            return attach_path(
                path, dtype=dtype, keys=keys, prefix=prefix, mode=mode, timeout=timeout, patience=patience
            )
        except DaemonUnavailable:
            if choice == "require":
                raise
    from .process_backend import attach_in_process

    return attach_in_process(path, dtype=dtype, keys=keys, prefix=prefix, mode=mode, decryption=decryption)


def _attach_name(
    name: str,
    dtype: str | None,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    choice: DaemonChoice,
    timeout: float,
) -> Weights:
    if choice == "never":
        message = f"{name!r} is a model's name, which only a daemon knows, and daemon='never'"
        raise NotFound(f"{message}{_hint(name)}", model=name)
    from .daemon_backend import attach_name

    try:
        return attach_name(name, dtype=dtype, keys=keys, prefix=prefix, mode=mode, timeout=timeout)
    except NotFound as exc:
        raise NotFound(f"{exc.message}{_hint(name)}", **exc.details) from None
    except DaemonUnavailable as exc:
        raise DaemonUnavailable(f"{exc.message}{_hint(name)}", **exc.details) from None


def _hint(name: str) -> str:
    return f"; did you mean './{name}'?" if os.path.exists(name) else ""
