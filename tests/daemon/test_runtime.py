"""The runtime folder: which it is, who may use it, and that one daemon does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mapcell_formats.errors import AccessDenied, MapcellError
from mapcelld.runtime import RuntimeFolder, choose
from support.users import OTHER_UID, needs_root


@pytest.mark.parametrize(
    ("argument", "environment", "chosen"),
    [
        ("/a", {"MAPCELL_RUNTIME": "/b", "RUNTIME_DIRECTORY": "/c", "XDG_RUNTIME_DIR": "/d"}, "/a"),
        (None, {"MAPCELL_RUNTIME": "/b", "RUNTIME_DIRECTORY": "/c", "XDG_RUNTIME_DIR": "/d"}, "/b"),
        (None, {"RUNTIME_DIRECTORY": "/c:/x", "XDG_RUNTIME_DIR": "/d"}, "/c"),
        (None, {"XDG_RUNTIME_DIR": "/d"}, "/d/mapcell"),
        (None, {"MAPCELL_RUNTIME": "", "RUNTIME_DIRECTORY": ""}, "/tmp/mapcell-77"),
        (None, {}, "/tmp/mapcell-77"),
    ],
)
def test_choose(argument: str | None, environment: dict[str, str], chosen: str) -> None:
    """The argument, MAPCELL_RUNTIME, systemd's folder, the user's, else one in /tmp."""
    assert choose(argument, environment, 77) == Path(chosen)


def test_made_private(tmp_path: Path) -> None:
    """The folder is made with its parents, for its user alone, whatever the umask."""
    before = os.umask(0)
    try:
        folder = RuntimeFolder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert (folder.path.stat().st_mode & 0o777, (folder.path / "lock").stat().st_mode & 0o777) == (0o700, 0o600)
    assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"
    folder.close()


def test_one_daemon(tmp_path: Path) -> None:
    """A second one is told the first one's pid, and gets the folder once that is gone."""
    first = RuntimeFolder(tmp_path)
    with pytest.raises(MapcellError, match=f"a mapcelld with pid {os.getpid()} already serves {tmp_path}") as caught:
        RuntimeFolder(tmp_path)
    assert caught.value.details["pid"] == os.getpid()
    first.close()
    first.close()
    RuntimeFolder(tmp_path).close()


def test_close_removes_the_sockets(tmp_path: Path) -> None:
    """What is left for the next daemon is the lock file alone."""
    folder = RuntimeFolder(tmp_path)
    folder.control.touch()
    folder.handles.touch()
    folder.close()
    assert os.listdir(tmp_path) == ["lock"]


def test_too_long(tmp_path: Path) -> None:
    """A folder whose sockets would have no address is refused by name."""
    with pytest.raises(MapcellError, match="too long for a UNIX socket"):
        RuntimeFolder(tmp_path / ("x" * 100))


def test_not_ours(tmp_path: Path) -> None:
    """A file, a link and a folder that others may write in are refused."""
    (tmp_path / "file").touch()
    with pytest.raises(MapcellError, match="file cannot be used: File exists"):
        RuntimeFolder(tmp_path / "file")
    with pytest.raises(MapcellError, match="cannot be used: Not a directory"):
        RuntimeFolder(tmp_path / "file" / "below")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(AccessDenied, match="link is no folder"):
        RuntimeFolder(tmp_path / "link")
    (tmp_path / "folder").chmod(0o777)
    with pytest.raises(AccessDenied, match="with mode 777, so others could put sockets in it"):
        RuntimeFolder(tmp_path / "folder")


@needs_root
def test_somebody_elses(tmp_path: Path) -> None:
    """A folder that belongs to another user is refused: its owner could listen in our place."""
    os.chown(tmp_path, OTHER_UID, OTHER_UID)
    with pytest.raises(AccessDenied, match=f"belongs to uid {OTHER_UID}"):
        RuntimeFolder(tmp_path)


def test_lock_is_no_link(tmp_path: Path) -> None:
    """A link in the lock's place is not followed to a file that would be emptied."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "lock").symlink_to("../precious")
    with pytest.raises(MapcellError, match="cannot be used"):
        RuntimeFolder(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "kept"
