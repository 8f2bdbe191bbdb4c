"""Opens a checkpoint's files in this process: what a daemon is sent, and what is read when there is none."""

from __future__ import annotations

from mapcell_formats.errors import AccessDenied, NotFound
from mapcell_formats.locate import open_path
from mapcell_formats.source import FileSource


def open_sources(path: str) -> list[FileSource]:
    """The files of the checkpoint at `path`: a file, a folder or an index; the caller owns them.

    NotFound or AccessDenied when it cannot be opened, FormatError as `locate.open_path` raises it.
    """
    try:
        return open_path(path)
    except FileNotFoundError as exc:
        raise NotFound(f"{path}: no such file; give the path of a checkpoint", path=path) from exc
    except PermissionError as exc:
        raise AccessDenied(f"{path}: this process may not read it", path=path) from exc
