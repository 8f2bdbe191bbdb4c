"""Whether a daemon answers, where it was sought, and whether this user may talk to it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mapcell_formats.errors import AccessDenied, DaemonUnavailable, MapcellError

from . import output
from .asking import ask
from .findings import Finding

if TYPE_CHECKING:
    from mapcell_formats.messages import Status

_ANSWER_SECONDS = 3.0
_NAMED = 4


def runtime_findings() -> list[Finding]:
    """Each folder in which a daemon is sought: whether it is there, whose it is, and who may enter."""
    from mapcell.connection import runtime_folders

    return [_folder(Path(folder)) for folder in runtime_folders()]


def _folder(folder: Path) -> Finding:
    check = f"runtime {folder}"
    try:
        info = folder.lstat()
    except FileNotFoundError:
        return Finding(check, True, "not there: no daemon uses it")
    except OSError as exc:
        return Finding(check, False, str(exc.strerror), "ask its operator to let you through the folders above it")
    who = f"{_name(pwd.getpwuid, info.st_uid)}:{_name(grp.getgrgid, info.st_gid)} {stat.S_IMODE(info.st_mode):04o}"
    if not stat.S_ISDIR(info.st_mode):
        return Finding(check, False, f"no folder, of {who}", "remove it, or set MAPCELL_RUNTIME to another folder")
    if info.st_uid not in (0, os.geteuid()) and str(folder).startswith("/tmp/"):
        return Finding(check, False, f"{who}: somebody else made it", "remove it, or set MAPCELL_RUNTIME", True)
    if info.st_mode & stat.S_IWOTH:
        return Finding(check, False, f"{who}: everybody may put sockets in it", f"chmod o-w {folder}", True)
    return _entered(check, folder, who, info)


def _entered(check: str, folder: Path, who: str, info: os.stat_result) -> Finding:
    from mapcell.connection import CONTROL, HANDLES, listens

    if not os.access(folder, os.X_OK):
        group = _name(grp.getgrgid, info.st_gid)
        advice = f"join its group: sudo usermod -aG {group} $USER, then log in again"
        return Finding(check, False, f"{who}: not open to this user", advice, True)
    sockets = [name for name in (CONTROL, HANDLES) if (folder / name).exists()]
    if not sockets:
        return Finding(check, True, f"{who}, without sockets: no daemon uses it")
    if listens(str(folder)):
        return Finding(check, True, f"{who}, a daemon listens")
    return Finding(
        check, False, f"{who}, with {' and '.join(sockets)} that nobody listens on", "start the daemon again"
    )


def _name(look_up: Callable[[int], tuple[object, ...]], number: int) -> str:
    with contextlib.suppress(KeyError):
        return str(look_up(number)[0])
    return str(number)


def daemon_findings() -> tuple[list[Finding], int | None]:
    """Whether a daemon answers this user in this version, and the daemon's pid when it does."""
    from mapcell_formats.messages import GetStatus
    from mapcell_formats.wire import PROTOCOL

    try:
        status: Status = ask(GetStatus(), _ANSWER_SECONDS)
    except DaemonUnavailable as exc:
        advice = "start one with `mapcell serve`; without one each process maps files by itself"
        return [Finding("daemon", False, exc.message.partition(";")[0], advice)], None
    except AccessDenied as exc:
        return [Finding("daemon", False, exc.message, "ask its operator to add you to [allow]", True)], None
    except MapcellError as exc:
        return [Finding("daemon", False, exc.message, "install the same mapcell here and there", True)], None
    ours = version("mapcell")
    detail = f"mapcelld {status.version}, pid {status.pid}, protocol {PROTOCOL}, in {status.runtime}"
    found = [Finding("daemon", True, detail), Finding("daemon access", True, f"uid {os.getuid()} is admitted")]
    if status.version != ours:
        advice = "install the same on both sides: the protocol agrees, messages may not"
        found.append(Finding("daemon version", False, f"{status.version} there, {ours} here", advice))
    return [*found, _room(status), *_unguarded()], status.pid


def _unguarded() -> list[Finding]:
    """Models whose files may change under those who map them."""
    from mapcell_formats.messages import ListModels

    try:
        rows = [r for r in ask(ListModels(), _ANSWER_SECONDS).rows if r.guard in ("unguarded", "lost")]
    except MapcellError:
        return []
    if not rows:
        return [Finding("guarded files", True, "whoever writes to a mapped file waits until it is copied")]
    named = "; ".join(f"{r.name}: {r.outlook or r.guard}" for r in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    advice = 'load them with residence "auto" or "sealed", or write beside the file and rename'
    return [Finding("guarded files", False, f"{named}{more}", advice)]


def _room(status: Status) -> Finding:
    left = status.budget - status.sealed
    detail = f"{output.size(max(left, 0))} of {output.size(status.budget)} left"
    return Finding("daemon budget", left > 0, detail, "" if left > 0 else "unload a model, or raise its --budget")
