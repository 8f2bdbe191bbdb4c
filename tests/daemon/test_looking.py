"""A stager that looks: every name on the way to a source, what lies there, and what is never opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mapcell_formats.digest import file_identity
from mapcell_formats.messages import Looked
from mapcelld import inotify, looking
from mapcelld.jobs import JobChannel
from support.checkpoints import write_safetensors

from .test_stager import job

INDEX = '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'


@pytest.fixture
def instance() -> Iterator[int]:
    """An inotify instance."""
    fd = inotify.create()
    yield fd
    os.close(fd)


class Told(JobChannel):
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.report: object = None

    def tell(self, report: object, fds: Sequence[int] = ()) -> None:
        """Remembers."""
        self.report = report


def look(path: Path, *fds: int, claimed: tuple[str, ...] | None = None, roots: tuple[str, ...] = ()) -> Looked:
    """What a stager says of `path`; `claimed` are the identities that its claimant showed."""
    told = Told()
    kind = "look" if claimed is None else "look-claimed"
    looking.look(told, job(path, kind=kind, identities=claimed or (), roots=roots), list(fds))
    assert isinstance(told.report, Looked)
    return told.report


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with a checkpoint, an index with two, and links of several kinds to them."""
    for name in ("real", "blobs", "sharded"):
        (tmp_path / name).mkdir()
    write_safetensors(tmp_path / "real" / "model.safetensors", {"a": np.ones(4, np.float32)})
    for number, tensor in ((1, "a"), (2, "b")):
        write_safetensors(tmp_path / "blobs" / str(number), {tensor: np.ones(4, np.float32)})
        (tmp_path / "sharded" / f"{number}.safetensors").symlink_to(f"../blobs/{number}")
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(INDEX)
    (tmp_path / "current").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "current" / "model.safetensors")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("real/model.safetensors", {("", "real"), ("real", "model.safetensors")}),
        ("current/model.safetensors", {("", "current"), ("", "real"), ("real", "model.safetensors")}),
        ("absolute", {("", "absolute"), ("", "current"), ("", "real"), ("real", "model.safetensors")}),
        ("sharded/../real/./model.safetensors", {("", "sharded"), ("", "real"), ("real", "model.safetensors")}),
        ("sharded/1.safetensors", {("", "sharded"), ("sharded", "1.safetensors"), ("", "blobs"), ("blobs", "1")}),
        ("dangling", {("", "dangling"), ("", "nowhere")}),
        ("nowhere/at/all", {("", "nowhere")}),
        ("real/model.safetensors/x", {("", "real"), ("real", "model.safetensors"), ("real/model.safetensors", "x")}),
    ],
)
def test_names(house: Path, path: str, expected: set[tuple[str, str]]) -> None:
    """The folder of every link and of its target, as far as there is a way."""
    found = {
        (os.path.relpath(n.folder, house).removeprefix("."), n.name)
        for n in looking.names(f"{house}/{path}")
        if n.folder.startswith(str(house))
    }
    assert found == expected


def test_names_of_a_loop(house: Path) -> None:
    """A link that leads to itself has an end."""
    assert len(looking.names(f"{house}/loop/x")) < 100


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("real/model.safetensors", ["real/model.safetensors"]),
        ("real", ["real/model.safetensors"]),
        ("current/model.safetensors", ["real/model.safetensors"]),
        ("sharded", ["sharded/model.safetensors.index.json", "blobs/1", "blobs/2"]),
        ("sharded/model.safetensors.index.json", ["sharded/model.safetensors.index.json", "blobs/1", "blobs/2"]),
    ],
)
def test_what_is_there(house: Path, instance: int, path: str, files: list[str]) -> None:
    """The identities of every file of the checkpoint, and a change of any of them is told of."""
    seen = look(house / path, instance)
    identities = tuple(file_identity((house / f).stat()) for f in files)
    assert (seen.state, seen.identities, seen.unwatched) == ("there", identities, "")
    for file in files:
        (house / file).touch()
        told = {(c.watch, c.name) for c in inotify.parse(os.read(instance, inotify.READ_BYTES))}
        assert told & {(p.watch, p.name) for p in seen.places}


@pytest.mark.parametrize(
    ("path", "state", "says"),
    [("nothing", "missing", "no such file"), ("dangling", "missing", "no such file"), ("blobs", "broken", "folder")],
)
def test_what_is_not(house: Path, instance: int, path: str, state: str, says: str) -> None:
    """A source that is missing or makes no sense is told apart, and its coming is told of."""
    seen = look(house / path, instance)
    assert (seen.state, seen.identities) == (state, ())
    assert says in seen.detail
    assert seen.places


def test_a_shard_is_missing(house: Path, instance: int) -> None:
    """An index without all of its files is broken, and says which it lacks."""
    (house / "blobs/2").unlink()
    seen = look(house / "sharded", instance)
    assert seen.state == "broken"
    assert "2.safetensors is missing" in seen.detail


def test_roots(house: Path, instance: int) -> None:
    """What lies beneath no root is not looked at."""
    seen = look(house / "real", instance, roots=(str(house / "blobs"),))
    assert (seen.state, seen.identities) == ("broken", ())
    assert "beneath none of the configured roots" in seen.detail


def test_a_writer(house: Path, instance: int) -> None:
    """A file that somebody has open for writing is being written, until they close it."""
    path = house / "real/model.safetensors"
    with path.open("r+b"):
        assert look(path, instance).state == "writing"
    assert look(path, instance).state == "there"


def test_without_inotify(house: Path) -> None:
    """When the kernel gives no instance everything is seen all the same, and said not to be watched."""
    seen = look(house / "real")
    assert (seen.state, seen.places) == ("there", ())
    assert "max_user_instances" in seen.unwatched


@pytest.mark.parametrize("number", [0x6969, 0x65735546, 0xFF534D42])
def test_file_systems_that_do_not_tell(
    house: Path, instance: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS, FUSE and the like are watched for what this host does, and said not to tell of every change."""
    monkeypatch.setattr(looking.filesystems, "kind_of", lambda fd: number)
    seen = look(house / "real/model.safetensors", instance)
    assert "does not tell of every change" in seen.unwatched
    assert (seen.state, bool(seen.places)) == ("there", True)


def test_claimed(house: Path, instance: int) -> None:
    """What was offered is recognised, with all files of its index; a chmod does not matter."""
    index = house / "sharded/model.safetensors.index.json"
    known = file_identity(index.stat())
    index.chmod(0o600)
    files = (index, house / "blobs/1", house / "blobs/2")
    assert look(index, instance, claimed=(known,)).identities == tuple(file_identity(f.stat()) for f in files)


@pytest.mark.parametrize("kind", ["file", "fifo", "folder"])
def test_claimed_and_never_offered(house: Path, instance: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its claimant did not offer is not opened for reading, whatever it is."""
    path = house / "claimed"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(INDEX)
    opened: list[int] = []
    real = os.open

    def noted(name: str, flags: int, *more: int) -> int:
        if str(name) == str(path):
            opened.append(flags)
        return real(name, flags, *more)

    monkeypatch.setattr(os, "open", noted)
    seen = look(path, instance, claimed=("1.2.3.4.5",))
    assert seen.identities == (file_identity(path.stat()),)
    assert opened
    assert all(flags & os.O_PATH for flags in opened)
