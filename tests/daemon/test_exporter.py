"""Where figures go: a file that is always whole, HTTP that answers scrapers and outlives everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mapcelld import exporter
from mapcelld.config import Metrics
from mapcelld.exporter import MAX_CONNECTIONS, Exporter

FIGURES = b"mapcell_models 3\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A runtime folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mce", dir="/tmp") as name:
        yield Path(name)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def during(metrics: Metrics, folder: Path, test: Callable[[], Awaitable[None]]) -> None:
    """Runs `test` while the exporter is open."""

    async def run() -> None:
        running = Exporter(metrics, folder, lambda: FIGURES)
        await running.open()
        try:
            await test()
        finally:
            await running.close()
            await running.close()

    asyncio.run(run())


async def asked(path: Path, request: bytes = GET) -> bytes:
    """What the socket at `path` answers before it closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GET, b"200 OK", FIGURES),
        (b"GET / HTTP/1.0\r\n\r\n", b"200 OK", FIGURES),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", b"200 OK", FIGURES),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK", b""),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404 Not Found", b"see /metrics\n"),
        (b"GET\r\n\r\n", b"405 Method Not Allowed", b"only GET and HEAD\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"only GET and HEAD\n"),
        (b"\x00\xff\r\n\r\n", b"405 Method Not Allowed", b"only GET and HEAD\n"),
    ],
)
def test_answers(folder: Path, request_: bytes, status: bytes, body: bytes) -> None:
    """A scraper gets the figures; anything else a status that says what would do."""

    async def test() -> None:
        head, _, rest = (await asked(folder / "m.sock", request_)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status)
        assert rest == body
        assert b"Connection: close" in head
        if body:
            assert b"Content-Length: %d\r\n" % len(body) in head

    during(Metrics(socket="m.sock"), folder, test)


def test_socket_is_for_the_daemons_user(folder: Path) -> None:
    """Nobody else may connect, one that was left by an earlier daemon is replaced, and none stays behind."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / "m.sock"))
    left.close()

    async def test() -> None:
        assert stat.S_IMODE((folder / "m.sock").stat().st_mode) == 0o600
        assert FIGURES in await asked(folder / "m.sock")

    during(Metrics(socket="m.sock"), folder, test)
    assert list(folder.iterdir()) == []


def test_absolute_socket(folder: Path) -> None:
    """A path names a socket outside the runtime folder."""

    async def test() -> None:
        assert FIGURES in await asked(folder / "there.sock")

    during(Metrics(socket=str(folder / "there.sock")), Path("/nonexistent"), test)


def test_loopback(folder: Path) -> None:
    """HTTP over the loopback, and on no other address."""
    port = free_port()

    async def test() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert FIGURES in await reader.read()
        writer.close()
        await writer.wait_closed()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.2", port)

    during(Metrics(listen=("127.0.0.1", port)), folder, test)


@pytest.mark.parametrize("request_", [b"", b"GET /metrics HTTP/1.1\r\n", b"x" * 100_000])
def test_bad_scrapers(folder: Path, request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing, half of it, or far too much is let go, and the next is served."""
    monkeypatch.setattr(exporter, "REQUEST_SECONDS", 0.1)

    async def test() -> None:
        # It may hang up on what it had not read.
        with contextlib.suppress(ConnectionError):
            assert await asked(folder / "m.sock", request_) == b""
        assert FIGURES in await asked(folder / "m.sock")

    during(Metrics(socket="m.sock"), folder, test)


def test_too_many_scrapers(folder: Path) -> None:
    """Beyond a handful of connections the next is closed at once; those that are there are answered."""

    async def test() -> None:
        held = [await asyncio.open_unix_connection(str(folder / "m.sock")) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_unix_connection(str(folder / "m.sock"))
        assert await reader.read() == b""
        writer.close()
        for reader, writer in held:
            writer.write(GET)
            assert FIGURES in await reader.read()
            writer.close()
            await writer.wait_closed()

    during(Metrics(socket="m.sock"), folder, test)


def test_textfile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is whole whenever it is read, readable for all, and gone with the daemon; nothing lies beside it."""
    monkeypatch.setattr(exporter, "TEXTFILE_SECONDS", 0.001)
    path = folder / "mapcell.prom"

    async def test() -> None:
        while not path.exists():
            await asyncio.sleep(0.001)
        first = path.stat()
        while path.stat().st_ino == first.st_ino:
            assert path.read_bytes() == FIGURES
            await asyncio.sleep(0.001)
        assert stat.S_IMODE(first.st_mode) == 0o644

    during(Metrics(textfile=str(path)), folder, test)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("metrics", "key"),
    [
        (Metrics(textfile="/nonexistent/m.prom"), "metrics.textfile"),
        (Metrics(socket="/nonexistent/m.sock"), "metrics.socket"),
        (Metrics(socket="m" * 200), "metrics.socket"),
        (Metrics(listen=("203.0.113.1", 9464)), "metrics.listen"),
    ],
)
def test_what_cannot_be_had(folder: Path, metrics: Metrics, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """An output that fails is named once in the log, and the daemon goes on."""

    async def test() -> None:
        while "not delivered" not in caplog.text:
            await asyncio.sleep(0.005)

    during(metrics, folder, test)
    assert f"key={key}" in caplog.text
    assert os.listdir(folder) == []
