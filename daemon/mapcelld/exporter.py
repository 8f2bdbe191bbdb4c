"""Where the figures go: a file for node_exporter, HTTP over a UNIX socket, HTTP over the loopback. All off by default.

A figure that cannot be delivered costs a line in the log, never the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mapcelld.config import Metrics
from mapcelld.metrics import CONTENT_TYPE

log = logging.getLogger("mapcelld.exporter")

TEXTFILE_SECONDS = 15.0
REQUEST_SECONDS = 5.0
# A scraper sends a few hundred bytes.
_MAX_REQUEST = 8192
MAX_CONNECTIONS = 16
_PAGES = (b"/metrics", b"/")


class Exporter:
    """Every output that is configured. `figures` renders them at the moment when they are asked for."""

    def __init__(self, metrics: Metrics, runtime: Path, figures: Callable[[], bytes]) -> None:
        self._metrics = metrics
        # A name stands for a socket beside the daemon's own; an absolute path for itself.
        self._socket = runtime / metrics.socket if metrics.socket else None
        self._figures = figures
        self._servers: list[asyncio.Server] = []
        self._writing: asyncio.Task[None] | None = None
        self._open = 0

    async def open(self) -> None:
        """Starts every output; one that cannot be had is named in the log."""
        if self._socket is not None:
            with _reported("metrics.socket", str(self._socket)):
                await self._listen_unix(self._socket)
        if self._metrics.listen is not None:
            host, port = self._metrics.listen
            with _reported("metrics.listen", f"{host}:{port}"):
                await self._listen_tcp(host, port)
        if self._metrics.textfile:
            self._writing = asyncio.create_task(self._write(self._metrics.textfile))

    async def close(self) -> None:
        """Ends every output and removes what would only get old. A second call does nothing."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        if self._socket is not None:
            _remove_socket(self._socket)
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            with contextlib.suppress(OSError):
                os.unlink(self._metrics.textfile)

    async def _listen_unix(self, path: Path) -> None:
        _remove_socket(path)
        self._servers.append(await asyncio.start_unix_server(self._answer, str(path), limit=_MAX_REQUEST))
        # Figures tell who uses what: not for everybody who may attach a model.
        path.chmod(0o600)

    async def _listen_tcp(self, host: str, port: int) -> None:
        server = await asyncio.start_server(self._answer, host, port, limit=_MAX_REQUEST)
        self._servers.append(server)
        # A family of addresses that the sandbox forbids is passed over in silence.
        if not server.sockets:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    async def _write(self, path: str) -> None:
        said = False
        while True:
            figures = self._figures()
            try:
                await asyncio.to_thread(_replace, path, figures)
                said = False
            except OSError as exc:
                if not said:
                    log.error("not delivered: key=metrics.textfile path=%r error=%r", path, str(exc))
                said = True
            await asyncio.sleep(TEXTFILE_SECONDS)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._response(head))
                    await writer.drain()
        # A scraper that is slow, leaves, or talks nonsense is let go.
        except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        page = rest.split(b" ", 1)[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _message("405 Method Not Allowed", b"only GET and HEAD\n", method)
        if page not in _PAGES:
            return _message("404 Not Found", b"see /metrics\n", method)
        return _message("200 OK", self._figures(), method)


@contextlib.contextmanager
def _reported(key: str, where: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        advice = "see mapcelld-metrics.conf for what the unit's sandbox then needs"
        log.error("not delivered: key=%s where=%r error=%r advice=%r", key, where, str(exc), advice)


def _message(status: str, body: bytes, method: bytes) -> bytes:
    kind = CONTENT_TYPE if status.startswith("200") else "text/plain; charset=utf-8"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if method != b"HEAD" else b"")


def _replace(path: str, figures: bytes) -> None:
    # Not flushed to the disk: after a crash of the host these figures mean nothing.
    fd, sibling = tempfile.mkstemp(prefix=".mapcell-", dir=os.path.dirname(path))
    try:
        with open(fd, "wb") as file:
            file.write(figures)
            # node_exporter runs as another user.
            os.fchmod(fd, 0o644)
        os.rename(sibling, path)
    except BaseException:
        os.unlink(sibling)
        raise


def _remove_socket(path: Path) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
