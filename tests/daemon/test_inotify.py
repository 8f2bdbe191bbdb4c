"""inotify as the kernel has it: what is told of a folder, and what a message can hold of its names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mapcelld import inotify


@pytest.fixture
def instance() -> Iterator[int]:
    """An instance."""
    fd = inotify.create()
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("harm", "mask"),
    [
        (lambda p: p.write_bytes(b"new"), inotify.CLOSE_WRITE),
        (lambda p: os.truncate(p, 0), inotify.MODIFY),
        (lambda p: p.chmod(0o600), inotify.ATTRIB),
        (lambda p: os.rename(p, p.with_name("other")), inotify.MOVED_FROM),
        (lambda p: os.rename(p.with_name("beside"), p), inotify.MOVED_TO),
        (lambda p: p.unlink(), inotify.DELETE),
    ],
)
def test_told(instance: int, tmp_path: Path, harm: Callable[[Path], object], mask: int) -> None:
    """Each way to change what a name means is told, once the watch is there, under the watch's number."""
    path = tmp_path / "m"
    for one in (path, path.with_name("beside")):
        one.write_bytes(b"old")
    watch = inotify.add(instance, str(tmp_path))
    assert inotify.add(instance, str(tmp_path)) == watch
    harm(path)
    changes = list(inotify.parse(os.read(instance, inotify.READ_BYTES)))
    assert any(c.watch == watch and c.name == "m" and c.mask & mask for c in changes), changes


def test_names_of_any_bytes(instance: int, tmp_path: Path) -> None:
    """A name that is no UTF-8 is escaped, the same way wherever it comes from."""
    inotify.add(instance, str(tmp_path))
    os.close(os.open(os.path.join(os.fsencode(tmp_path), b"a\xff"), os.O_CREAT | os.O_WRONLY))
    (name,) = {c.name for c in inotify.parse(os.read(instance, inotify.READ_BYTES))}
    assert name == "a\\xff" == inotify.printable(os.listdir(tmp_path)[0])


def test_the_folder_itself(instance: int, tmp_path: Path) -> None:
    """Its end is told without a name, and ends the watch; removing it again does nothing."""
    folder = tmp_path / "f"
    folder.mkdir()
    watch = inotify.add(instance, str(folder))
    folder.rmdir()
    changes = list(inotify.parse(os.read(instance, inotify.READ_BYTES)))
    assert {c.name for c in changes} == {""}
    assert any(c.mask & inotify.IGNORED for c in changes)
    inotify.remove(instance, watch)


def test_only_folders(instance: int, tmp_path: Path) -> None:
    """What is no folder, or is not there, is refused as the kernel does it."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        inotify.add(instance, str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        inotify.add(instance, str(tmp_path / "nothing"))


def test_cut_off() -> None:
    """Half an event is none."""
    assert list(inotify.parse(b"")) == list(inotify.parse(bytes(15))) == []
