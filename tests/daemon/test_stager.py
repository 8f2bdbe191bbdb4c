"""One stager's work, from the job to what it hands over, with the test in the daemon's place."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell_formats import messages, wire
from mapcell_formats.digest import file_identity
from mapcell_formats.errors import (
    AccessDenied,
    FormatError,
    MapcellError,
    NotFound,
    ProtocolError,
    StagingFailed,
    UnsupportedFormat,
)
from mapcell_formats.manifest import Manifest
from mapcell_formats.messages import Identified, Job, Manner, Proceed, Progress, Refused, Selection, Sized, Staged
from mapcelld import channel, memfd, stager
from support.checkpoints import write_safetensors

TENSORS = {
    "encoder.weight": np.arange(600_000, dtype=np.float32).reshape(600, 1000),
    "encoder.bias": np.arange(7, dtype=np.float32),
    "decoder.ids": np.arange(5, dtype=np.int64),
    "nothing": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint that only this user can change."""
    path = write_safetensors(tmp_path / "x.safetensors", TENSORS, {"format": "np"})
    path.chmod(0o600)
    return path


class Desk:
    """The daemon's end of a job channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: list[int] = []

    def begin(self, job: object, fds: list[int]) -> None:
        """Sends the job."""
        with channel.owned([memfd.sealed_copy("job", wire.encode(job))]) as held:
            channel.send(self.sock, messages.JOB_FOLLOWS, [*held, *fds])

    def told(self) -> Any:
        """The next report but for progress, refusals raised; None at the channel's end."""
        while True:
            payload, fds = channel.receive(self.sock, messages.MAX_CONTROL_BYTES, 251)
            self.fds += fds
            if not payload:
                return None
            _, message = wire.decode(payload, messages.STAGER_REPORTS)
            if isinstance(message, Refused):
                raise message.error()
            if not isinstance(message, Progress):
                return message

    def proceed(self) -> None:
        """Lets it go on."""
        channel.send(self.sock, wire.encode(Proceed()))

    def to_the_end(self) -> tuple[Staged, Manifest]:
        """Lets it do the whole job; what it handed over."""
        for expected in (Identified, Sized):
            assert isinstance(self.told(), expected)
            self.proceed()
        staged = self.told()
        assert isinstance(staged, Staged)
        assert len(self.fds) == 1 + len(staged.segments)
        assert memfd.is_sealed(self.fds[0], staged.manifest)
        return staged, Manifest(os.pread(self.fds[0], staged.manifest, 0))

    def array(self, manifest: Manifest, name: str) -> np.ndarray[Any, Any]:
        """One tensor of what was handed over."""
        from mapcell_formats.dtypes import numpy_dtype

        entry = manifest[name]
        data = os.pread(self.fds[1 + entry.segment], entry.nbytes, entry.offset)
        return np.frombuffer(data, numpy_dtype(entry.dtype)).reshape(entry.shape)


@contextmanager
def working() -> Iterator[Desk]:
    """A stager at work, which ends with the channel and leaves nothing behind."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def work() -> None:
        # It ends its process when nobody wants the job any more; here that is this thread.
        with theirs, contextlib.suppress(SystemExit):
            stager.run(theirs)

    thread = threading.Thread(target=work)
    thread.start()
    desk = Desk(ours)
    try:
        yield desk
    finally:
        ours.close()
        thread.join(20)
        channel.close_all(desk.fds)
    assert not thread.is_alive()


def job(path: Path | str, **fields: object) -> Job:
    """A job for a configured path."""
    sound: dict[str, object] = {
        "kind": "configured",
        "paths": (str(path),),
        "roots": (),
        "selection": Selection(),
        "residence": "auto",
        "base": "",
        "manner": Manner(),
    }
    return Job(**(sound | fields))  # type: ignore[arg-type]


def staged(path: Path, **fields: object) -> Staged:
    """What a whole job hands over, its content compared with what was saved."""
    with working() as desk:
        desk.begin(job(path, **fields), [])
        result, manifest = desk.to_the_end()
        for name in manifest.names():
            np.testing.assert_array_equal(desk.array(manifest, name), TENSORS[name])
        for fd, nbytes in zip(desk.fds[1:], result.segments, strict=True):
            assert memfd.is_sealed(fd, nbytes) == (result.residence == "sealed")
        assert manifest.description().version == result.version
    return result


def test_sealed(file: Path) -> None:
    """A sealed version holds the same bytes, hashed; the same content has the same name."""
    first, again = staged(file, residence="sealed"), staged(file, residence="sealed")
    assert first.version == again.version
    assert first.version.startswith("blake3:")
    assert (first.residence, first.verified, first.tensors) == ("sealed", True, 4)
    assert first.format == "safetensors"


def test_mapped(file: Path) -> None:
    """A mapped version is the file itself, under a provisional name; hashed on demand it has its content's."""
    plain, warm = staged(file, residence="mapped"), staged(file, residence="mapped", manner=Manner(warm=True))
    assert (plain.residence, plain.verified, plain.version[:5]) == ("mapped", False, "file-")
    assert (warm.residence, warm.verified) == ("mapped", True)
    assert warm.version == staged(file, residence="sealed").version


def test_only_ones_own_files_are_guarded(file: Path) -> None:
    """What is neither configured nor the asker's own makes nobody wait: it is sealed, or mapped without a guard."""
    for uid, residence, reason in (
        (os.getuid(), "mapped", ""),
        (os.getuid() + 1, "sealed", "it is neither configured nor the asker's own file"),
    ):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, file.open("rb") as held, working() as desk:
            channel.send(ours, b"redeem", [held.fileno()])
            desk.begin(job(file, kind="offer", residence="auto", uid=uid), [theirs.fileno()])
            staged, _ = desk.to_the_end()
            assert (staged.residence, staged.unguarded) == (residence, reason)


def test_auto(file: Path) -> None:
    """What the kernel guards is mapped, whoever may write it; what it does not is sealed, and the reason told."""
    file.chmod(0o666)
    assert (staged(file).residence, staged(file).unguarded) == ("mapped", "")
    with file.open("r+b"):
        assert (staged(file).residence, staged(file).unguarded) == ("sealed", "it is open for writing")
        demanded = staged(file, residence="mapped")
        assert (demanded.residence, demanded.unguarded) == ("mapped", "it is open for writing")
    slow = staged(file, manner=Manner(deadline=0.001))
    assert slow.residence == "sealed"
    assert slow.unguarded.startswith(f"a writer would wait too long for the copy of {file.stat().st_size} bytes")
    assert staged(file, residence="sealed").unguarded == ""


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(keys=("encoder.bias", "nothing")), ["encoder.bias", "nothing"]),
        (Selection(prefix="decoder."), ["decoder.ids"]),
        (Selection(keys=("encoder.bias", "decoder.ids"), prefix="encoder."), ["encoder.bias"]),
        (Selection(keys=()), []),
    ],
)
def test_parts(file: Path, selection: Selection, names: list[str]) -> None:
    """Only what was selected is staged."""
    with working() as desk:
        desk.begin(job(file, selection=selection), [])
        result, manifest = desk.to_the_end()
        assert sorted(manifest.names()) == names
        assert result.residence == "sealed"
        for name in names:
            np.testing.assert_array_equal(desk.array(manifest, name), TENSORS[name])


def test_cast(file: Path) -> None:
    """Floating tensors are cast, the others are not."""
    with working() as desk:
        desk.begin(job(file, selection=Selection(dtype="F16")), [])
        _, manifest = desk.to_the_end()
        with np.errstate(over="ignore"):
            expected = TENSORS["encoder.weight"].astype(np.float16)
        np.testing.assert_array_equal(desk.array(manifest, "encoder.weight"), expected)
        assert manifest["decoder.ids"].dtype == "I64"


def test_offer(file: Path) -> None:
    """A client's descriptors are taken out of its connection; what is handed over is no description of the client's."""
    client, daemons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with client, daemons, file.open("rb") as opened, working() as desk:
        channel.send(client, b"ticket", [opened.fileno()])
        desk.begin(job("/claimed", kind="offer", residence="mapped"), [daemons.fileno()])
        _, manifest = desk.to_the_end()
        np.testing.assert_array_equal(desk.array(manifest, "encoder.bias"), TENSORS["encoder.bias"])
        os.lseek(opened.fileno(), 99, os.SEEK_SET)
        assert os.path.samestat(os.fstat(desk.fds[1]), os.fstat(opened.fileno()))
        assert os.lseek(desk.fds[1], 0, os.SEEK_CUR) == 0


def derivation(held: Staged, file: Path, prefix: str = "") -> Job:
    """A cast of `held`, which was made from `file` as it is now."""
    identities = (file_identity(file.stat()),) if held.residence == "mapped" and file.exists() else ()
    selection = Selection("F64", prefix=prefix)
    return job("", kind="derive", base=held.version, selection=selection, identities=identities)


@pytest.mark.parametrize("residence", ["sealed", "mapped"])
def test_derive(file: Path, residence: str) -> None:
    """A cast of what is held already reads that, not the source."""
    with working() as base:
        base.begin(job(file, residence=residence), [])
        held, _ = base.to_the_end()
        if residence == "sealed":
            file.unlink()
        with working() as desk:
            desk.begin(derivation(held, file, prefix="encoder."), base.fds)
            result, manifest = desk.to_the_end()
            np.testing.assert_array_equal(desk.array(manifest, "encoder.weight"), TENSORS["encoder.weight"])
            assert (result.dtype, result.tensors) == ("F64", 2)


def test_derive_of_what_changed(file: Path) -> None:
    """A file that was changed after it was mapped is not taken for the version that it was."""
    with working() as base:
        base.begin(job(file, residence="mapped"), [])
        held, _ = base.to_the_end()
        sent = derivation(held, file)
        os.utime(file, ns=(0, 0))
        with working() as desk:
            desk.begin(sent, base.fds)
            assert isinstance(desk.told(), Identified)
            desk.proceed()
            with pytest.raises(StagingFailed, match="changed since they were mapped"):
                desk.told()


def _touch(file: Path) -> None:
    file.chmod(0o640)


def _forge(file: Path) -> None:
    info = file.stat()
    with file.open("r+b") as changing:
        changing.seek(-1, os.SEEK_END)
        changing.write(b"X")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize(
    ("hashed", "harm", "says"),
    [
        (False, _touch, "are not hashed yet; ask again"),
        (True, _touch, None),
        (True, _forge, "are not what they were when it was hashed; load it again"),
        (False, _forge, "are not hashed yet; ask again"),
    ],
)
def test_derive_of_what_was_touched(file: Path, hashed: bool, harm: Callable[[Path], None], says: str | None) -> None:
    """When only the ctime is another the digests decide, and without them nobody does: mtimes can be set back."""
    with working() as base:
        base.begin(job(file, residence="mapped", manner=Manner(warm=hashed)), [])
        held, _ = base.to_the_end()
        assert held.verified is hashed
        sent = derivation(held, file)
        harm(file)
        with working() as desk:
            desk.begin(sent, base.fds)
            if says is None:
                _, manifest = desk.to_the_end()
                np.testing.assert_array_equal(desk.array(manifest, "encoder.weight"), TENSORS["encoder.weight"])
                return
            assert isinstance(desk.told(), Identified)
            desk.proceed()
            with pytest.raises(StagingFailed, match=says):
                desk.told()


@pytest.mark.parametrize("residence", ["sealed", "mapped"])
def test_changed_meanwhile(file: Path, residence: str) -> None:
    """A source that changes while it is read is refused in the end."""
    with working() as desk:
        desk.begin(job(file, residence=residence), [])
        assert isinstance(desk.told(), Identified)
        desk.proceed()
        assert isinstance(desk.told(), Sized)
        with file.open("r+b") as changing:
            changing.seek(-1, os.SEEK_END)
            changing.write(b"X")
        os.utime(file)
        desk.proceed()
        with pytest.raises(StagingFailed, match="changed while it was being read"):
            desk.told()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(100))


@pytest.mark.parametrize(
    ("break_it", "fields", "error", "says"),
    [
        (_truncate, {}, FormatError, "x.safetensors: "),
        (lambda p: p.write_bytes(b""), {}, UnsupportedFormat, "x.safetensors: is empty"),
        (lambda p: p.write_bytes(b"\0" * 50), {}, FormatError, "x.safetensors: "),
        (lambda p: p.unlink(), {}, NotFound, "x.safetensors: no such file"),
        (lambda p: None, {"selection": Selection(keys=("encoder.wieght",))}, NotFound, "'encoder.wieght'"),
        (lambda p: None, {"selection": Selection("F16"), "residence": "mapped"}, UnsupportedFormat, "cannot be mapped"),
        (lambda p: None, {"roots": ("/nowhere",)}, AccessDenied, "beneath none"),
        (lambda p: None, {"manner": Manner(digest="sha256:" + "0" * 64)}, StagingFailed, "digest has to be"),
    ],
)  # fmt: skip
def test_refused(
    file: Path, break_it: Callable[[Path], object], fields: dict[str, object], error: type[MapcellError], says: str
) -> None:
    """What is wrong with a source or a wish is named, by file and tensor, in the error that the client will see."""
    break_it(file)
    with working() as desk:
        desk.begin(job(file, **fields), [])
        with pytest.raises(error) as caught:
            desk.to_the_end()
        assert says in str(caught.value)
        assert desk.told() is None


@pytest.mark.parametrize("step", [0, 1, 2])
def test_nobody_wants_it_any_more(file: Path, step: int) -> None:
    """When the daemon closes the channel the stager ends, wherever it is."""
    with working() as desk:
        if step:
            desk.begin(job(file, residence="sealed"), [])
            desk.told()
        if step == 2:
            desk.proceed()
            desk.told()


@pytest.mark.parametrize(
    ("order", "error"),
    [(wire.encode(Proceed()), StagingFailed), (b"\xc1", ProtocolError), (b"", ProtocolError)],
    ids=["too early", "garbage", "nothing"],
)
def test_odd_orders(order: bytes, error: type[MapcellError]) -> None:
    """An order that is none is refused, not died of."""
    with working() as desk, channel.owned([memfd.sealed_copy("job", order)]) as fds:
        channel.send(desk.sock, messages.JOB_FOLLOWS, fds)
        with pytest.raises(error):
            desk.told()


def test_a_job_instead_of_a_word(file: Path) -> None:
    """Anything but the word to go on is refused."""
    with working() as desk:
        desk.begin(job(file), [])
        desk.told()
        channel.send(desk.sock, wire.encode(job(file)))
        with pytest.raises(StagingFailed, match="instead of to proceed"):
            desk.told()
