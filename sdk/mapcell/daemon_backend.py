"""Weights through the daemon: ask for a ticket, redeem it for descriptors, map them.

The sequence is drawn in ARCHITECTURE.md. A path is opened here, by the worker, and its descriptor is what the daemon
gets: it never reads for a client what that client could not.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from mapcell_formats import messages, wire
from mapcell_formats.errors import DaemonUnavailable, NotFound, ProtocolError, StagingFailed
from mapcell_formats.manifest import Manifest, TensorEntry
from mapcell_formats.messages import Attach, Grant, Offer, Progress, Redeem, Refused, Resolve, Selection, Ticket

from .connection import CONNECTIONS, HANDLES, ControlClient, Lease
from .mapping import Array, Mode, SegmentMap, map_segment, view
from .process_backend import open_sources
from .weights import Weights, select

OnProgress = Callable[[Progress], None]


class DaemonBacking:
    """The maps of one lease's segments."""

    backend: Literal["daemon"] = "daemon"

    def __init__(self, name: str, version: str, maps: Sequence[SegmentMap | None], mode: Mode) -> None:
        self._name = name
        self._version = version
        self._maps = list(maps)
        self._mode: Mode = mode

    def array(self, entry: TensorEntry) -> Array:
        """A view of the shared bytes."""
        return view(self._maps[entry.segment], entry, self._mode)

    def newer(self) -> str | None:
        """The version that the name means now, if it is another one; None while no daemon knows the name."""
        try:
            rows = CONNECTIONS.client().ask(Resolve(self._name), timeout=5.0).rows
        except (NotFound, DaemonUnavailable):
            return None
        return rows[0].version if rows and rows[0].version != self._version else None

    def close(self) -> None:
        """Lets go of the maps: each goes with its last view, and the lease with the last map."""
        self._maps.clear()


def attach_name(
    name: str,
    *,
    dtype: str | None,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    timeout: float,
    on_progress: OnProgress | None = None,
) -> Weights:
    """Weights of a model that the daemon knows. Errors as `mapcell.attach`."""
    until = time.monotonic() + timeout
    request = Attach(name, Selection(dtype or "", keys, prefix))
    client = CONNECTIONS.client()
    try:
        grant, fds, lease = _redeem(client, client.ask(request, timeout), (), until, on_progress)
    except NotFound:
        # Between ticket and redemption the version may be evicted or replaced; asking again settles which.
        grant, fds, lease = _redeem(client, client.ask(request, timeout), (), until, on_progress)
    return _weights(grant, fds, lease, keys, prefix, mode, None)


def attach_path(
    path: str,
    *,
    dtype: str | None,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    timeout: float,
    residence: str = "auto",
    name: str = "",
    tag: str = "",
    pin: bool = False,
    hold: bool = False,
    on_progress: OnProgress | None = None,
) -> Weights:
    """Weights of the checkpoint at `path`, whose descriptors this process opens and sends. Errors as `attach`.

    `name` registers it as a model of that name; `hold` lets the daemon go on staging when this process goes away.
    """
    until = time.monotonic() + timeout
    client = CONNECTIONS.client()
    sources = open_sources(path)
    try:
        selection = Selection(dtype or "", keys, prefix)
        request = Offer(tuple(_label(s.path) for s in sources), selection, residence, name, tag, pin, hold)
        fds = [s.fileno() for s in sources]
        grant, handles, lease = _redeem(client, client.ask(request, timeout), fds, until, on_progress)
    finally:
        for source in sources:
            source.close()
    return _weights(grant, handles, lease, keys, prefix, mode, path)


def _label(path: str) -> str:
    """What to call the file at `path`, which may hold any bytes, in a message that holds UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _redeem(
    client: ControlClient, ticket: Ticket, offer: Sequence[int], until: float, on_progress: OnProgress | None
) -> tuple[Grant, list[int], Lease]:
    """Redeems `ticket`, with an offer's descriptors: the grant, its descriptors (the caller's), and the lease."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(str(client.folder / HANDLES))
            socket.send_fds(sock, [wire.encode(Redeem(ticket.ticket))], list(offer))
        except OSError as exc:
            raise DaemonUnavailable(f"the daemon at {client.folder} went away: {exc.strerror}; try again") from exc
        while True:
            message, fds = _receive(sock, client.folder, until)
            if isinstance(message, Refused):
                raise message.error()
            if isinstance(message, Grant):
                break
            if on_progress is not None:
                on_progress(message)
        if len(fds) != 1 + len(message.segments):
            _close_all(fds)
            raise ProtocolError(f"{len(fds)} descriptors came with a grant of {len(message.segments)} segments")
        return message, fds, Lease(sock)


def _receive(sock: socket.socket, folder: Path, until: float) -> tuple[Grant | Progress | Refused, list[int]]:
    sock.settimeout(max(until - time.monotonic(), 0.001))
    try:
        payload, fds, _, _ = socket.recv_fds(
            sock, messages.MAX_HANDLE_BYTES, messages.MAX_DESCRIPTORS + 1, socket.MSG_CMSG_CLOEXEC
        )
    except TimeoutError:
        raise StagingFailed("not ready in time; give a longer timeout=, or load it beforehand") from None
    except OSError as exc:
        raise DaemonUnavailable(f"the daemon at {folder} went away: {exc.strerror}; try again") from exc
    if not payload:
        raise DaemonUnavailable(f"the daemon at {folder} went away; try again")
    _, message = wire.decode(payload, messages.HANDOUTS)
    return message, list(fds)


def _weights(
    grant: Grant,
    fds: Sequence[int],
    lease: Lease,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    source: str | None,
) -> Weights:
    try:
        # The manifest outlives the lease: it tells what is mapped even when nothing is any more.
        text = map_segment(fds[0], grant.manifest, "r", None)
        maps = [map_segment(fd, n, mode, lease) for fd, n in zip(fds[1:], grant.segments, strict=True)]
    finally:
        _close_all(fds)
    manifest = Manifest(memoryview(text) if text is not None else b"")
    backing = DaemonBacking(grant.name, grant.version, maps, mode)
    return Weights(manifest, backing, name=grant.name, source=source, selected=select(manifest, keys, prefix))


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
