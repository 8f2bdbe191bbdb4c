"""What a stager takes: regular files that are open for reading, and nothing else that has a descriptor or a path."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mapcell_formats.errors import AccessDenied, FormatError, MapcellError, NotFound, ProtocolError
from mapcell_formats.messages import MAX_DESCRIPTORS
from mapcell_formats.source import FileSource, read
from mapcelld import channel, intake

BODY = b"checkpoint"


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end and the stager's."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        yield a, b


@contextmanager
def offered(ends: tuple[socket.socket, socket.socket], fds: list[int], paths: list[str]) -> Iterator[list[FileSource]]:
    """What the stager makes of `fds`, closed at the end."""
    channel.send(ends[0], b"ticket", fds)
    sources = intake.receive_offer(ends[1], paths)
    try:
        yield sources
    finally:
        intake.close_sources(sources)


def refused(ends: tuple[socket.socket, socket.socket], fds: list[int], paths: list[str]) -> MapcellError:
    """The error that an offer is refused with; nothing that came stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MapcellError) as caught, offered(ends, fds, paths):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
    return caught.value


def opened(stack: ExitStack, path: str | Path, flags: int) -> int:
    """A descriptor that is closed with `stack`."""
    fd = os.open(path, flags)
    stack.callback(os.close, fd)
    return fd


def _file(stack: ExitStack, folder: Path, flags: int) -> int:
    (folder / "file").write_bytes(BODY)
    return opened(stack, folder / "file", flags)


def _fifo(stack: ExitStack, folder: Path) -> int:
    os.mkfifo(folder / "fifo")
    return opened(stack, folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)


def _pipe(stack: ExitStack, folder: Path) -> int:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends[0]


def _socket(stack: ExitStack, folder: Path) -> int:
    return stack.enter_context(socket.socket(socket.AF_UNIX)).fileno()


def _memory(stack: ExitStack, folder: Path) -> int:
    fd = os.memfd_create("theirs")
    stack.callback(os.close, fd)
    return fd


REFUSED: dict[str, tuple[Callable[[ExitStack, Path], int], type[MapcellError], str]] = {
    "written": (lambda s, p: _file(s, p, os.O_RDWR), AccessDenied, "open for reading only"),
    "write-only": (lambda s, p: _file(s, p, os.O_WRONLY), AccessDenied, "open for reading only"),
    "path": (lambda s, p: _file(s, p, os.O_PATH), AccessDenied, "open for reading only"),
    "folder as path": (lambda s, p: opened(s, p, os.O_PATH), AccessDenied, "open for reading only"),
    "folder": (lambda s, p: opened(s, p, os.O_RDONLY), FormatError, "is a directory"),
    "fifo": (_fifo, FormatError, "is not a regular file"),
    "pipe": (_pipe, AccessDenied, "file system of type 0x50495045"),
    "socket": (_socket, AccessDenied, "open for reading only"),
    "device": (lambda s, p: opened(s, "/dev/zero", os.O_RDONLY), FormatError, "is not a regular file"),
    "procfs": (lambda s, p: opened(s, "/proc/self/status", os.O_RDONLY), AccessDenied, "type 0x9fa0"),
    "sysfs": (lambda s, p: opened(s, "/sys/kernel/mm", os.O_RDONLY), AccessDenied, "type 0x62656572"),
    "writable memory": (_memory, AccessDenied, "open for reading only"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(connection: tuple[socket.socket, socket.socket], tmp_path: Path, kind: str) -> None:
    """What may hang, change or be no file is refused by name, also behind a file that is fine."""
    make, error, says = REFUSED[kind]
    with ExitStack() as stack:
        fd = make(stack, tmp_path)
        caught = refused(connection, [fd], ["/claimed"])
        assert type(caught) is error
        assert says in str(caught)
        assert "/claimed" in str(caught)
        (tmp_path / "good").write_bytes(BODY)
        good = opened(stack, tmp_path / "good", os.O_RDONLY)
        assert "/claimed" in str(refused(connection, [good, fd, good], ["/one", "/claimed", "/three"]))


@pytest.mark.parametrize(("sent", "named"), [(0, 1), (1, 2), (2, 1), (MAX_DESCRIPTORS, 1), (3, 0)])
def test_wrong_number(connection: tuple[socket.socket, socket.socket], sent: int, named: int) -> None:
    """As many descriptors come as files were named, or none is taken."""
    with open("/proc/self/exe", "rb") as file:
        caught = refused(connection, [file.fileno()] * sent, ["/x"] * named)
    assert isinstance(caught, ProtocolError)
    assert str(caught) == f"{sent} descriptors came for {named} files"


def test_too_many(connection: tuple[socket.socket, socket.socket]) -> None:
    """More than a message may bring are refused, and none stays open."""
    with open("/proc/self/exe", "rb") as file:
        assert "descriptors" in str(refused(connection, [file.fileno()] * 253, ["/x"] * 250))


def test_a_description_of_its_own(connection: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """What the client does to its description afterwards changes nothing for the stager."""
    with ExitStack() as stack:
        fd = _file(stack, tmp_path, os.O_RDONLY)
        with offered(connection, [fd], ["/x"]) as (source,):
            os.lseek(fd, 5, os.SEEK_SET)
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
            assert not fcntl.fcntl(source.fileno(), fcntl.F_GETFL) & os.O_DIRECT
            assert read(source, 0, len(BODY)) == BODY
            assert (source.path, source.size) == ("/x", len(BODY))


def test_deleted_file(connection: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    """A file that has no name any more is still the client's to give."""
    with ExitStack() as stack:
        fd = _file(stack, tmp_path, os.O_RDONLY)
        (tmp_path / "file").unlink()
        with offered(connection, [fd], ["/x"]) as (source,):
            assert read(source, 0, len(BODY)) == BODY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A configured root with a file, and links of every kind beside it."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "file").write_bytes(BODY)
    (root / "inner" / "up").symlink_to("../file")
    (root / "inner" / "chain").symlink_to("up")
    (root / "out").symlink_to("../outside")
    (root / "absolute").symlink_to(tmp_path / "outside")
    (root / "absolute-inside").symlink_to(root / "file")
    (root / "folder").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nothing")
    os.mkfifo(root / "fifo")
    return root


@pytest.mark.parametrize("name", ["file", "inner/up", "inner/chain", "inner/../file"])
def test_beneath(root: Path, name: str) -> None:
    """A file beneath the root, also through links and steps that stay beneath it."""
    sources = intake.open_configured([f"{root}/{name}"], [str(root)])
    try:
        assert read(sources[0], 0, len(BODY)) == BODY
    finally:
        intake.close_sources(sources)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("../outside", AccessDenied),
        ("inner/../../outside", AccessDenied),
        ("out", AccessDenied),
        ("absolute", AccessDenied),
        ("absolute-inside", AccessDenied),
        ("folder/outside", AccessDenied),
        ("loop", AccessDenied),
        ("file/below", AccessDenied),
        ("dangling", NotFound),
        ("nothing", NotFound),
        ("fifo", FormatError),
    ],
)
def test_not_beneath(root: Path, name: str, error: type[MapcellError]) -> None:
    """Whatever leads out of the root, or to no file, is refused by the path that the operator wrote."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(error) as caught:
        intake.open_configured([f"{root}/{name}"], [str(root)])
    assert f"{root}/{name}" in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_magic_links(root: Path) -> None:
    """Links of /proc lead wherever their process looks, and are not followed."""
    with (root / "file").open("rb") as file, pytest.raises(AccessDenied):
        intake.open_configured([f"/proc/self/fd/{file.fileno()}"], ["/proc"])


@pytest.mark.parametrize(
    ("roots", "error"), [(["/nowhere"], AccessDenied), (["/root-that-is-not-there"], AccessDenied)]
)
def test_other_roots(root: Path, roots: list[str], error: type[MapcellError]) -> None:
    """A path beneath no root is refused; so is a root whose name only begins alike."""
    with pytest.raises(error, match="beneath none of the configured roots"):
        intake.open_configured([f"{root}/file"], [*roots, str(root)[:-1]])


def test_missing_root(tmp_path: Path) -> None:
    """A root that is not there is an error about the path, not a crash."""
    with pytest.raises(NotFound, match="no such file"):
        intake.open_configured([f"{tmp_path}/gone/file"], [f"{tmp_path}/gone"])


def test_no_roots(root: Path) -> None:
    """Without roots an operator's source may lie anywhere."""
    sources = intake.open_configured([f"{root}/file", f"{root.parent}/outside"], [])
    assert [s.size for s in sources] == [len(BODY), 6]
    intake.close_sources(sources)


def test_folders_and_indices(tmp_path: Path) -> None:
    """A configured folder is opened as the checkpoint in it, its links followed beneath the root and not out of it."""
    model, blobs = tmp_path / "root" / "model", tmp_path / "root" / "blobs"
    model.mkdir(parents=True)
    blobs.mkdir()
    (tmp_path / "secret").write_bytes(BODY)
    (blobs / "part").write_bytes(BODY)
    (model / "1.safetensors").symlink_to("../blobs/part")
    index = model / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "1.safetensors"}}')
    roots = [str(tmp_path / "root")]
    before = os.listdir("/proc/self/fd")
    for path in (model, index):
        sources = intake.open_configured([str(path)], roots)
        assert [source.path for source in sources] == [str(index), str(model / "1.safetensors")]
        assert read(sources[1], 0, len(BODY)) == BODY
        intake.close_sources(sources)
    (model / "1.safetensors").unlink()
    for target, error in (("../../secret", AccessDenied), ("../blobs/gone", FormatError), ("../blobs", FormatError)):
        (model / "1.safetensors").symlink_to(target)
        with pytest.raises(error):
            intake.open_configured([str(model)], roots)
        (model / "1.safetensors").unlink()
    assert os.listdir("/proc/self/fd") == before
