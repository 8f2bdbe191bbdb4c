"""Weights through the daemon: ask for a ticket, redeem it for descriptors, map them.

The sequence is drawn in ARCHITECTURE.md. A path is opened here, by the worker, and its descriptor is what the daemon
gets: it never reads for a client what that client could not.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from numpy import ndarray

from mapcell_formats import wire
from mapcell_formats.dtypes import numpy_dtype
from mapcell_formats.errors import DaemonUnavailable, NotFound
from mapcell_formats.manifest import Manifest, TensorEntry
from mapcell_formats.messages import Attach, Grant, Offer, Resolve, Selection

from .connection import CONNECTIONS, left
from .leasing import KEEPER, Lease, OnProgress, close_all, obtain, persist, redeem
from .mapping import Array, ManifestFile, Mode, SegmentMap, map_memory, map_segment, view
from .opening import open_sources
from .weights import Weights, select


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
        _, code, shape, number, offset, nbytes = entry
        segment = self._maps[number]
        if segment is None or not nbytes:
            return view(segment, entry, self._mode)
        # As `view` does, which is one call less for each of thousands.
        return ndarray(shape, numpy_dtype(code), segment, segment.start + offset)

    def newer(self) -> str | None:
        """The version that the name means now, if it is another one; None while no daemon knows the name."""
        try:
            client = CONNECTIONS.client()
            rows = client.ask(Resolve(self._name), timeout=5.0).rows
            KEEPER.renew(client)
        except (NotFound, DaemonUnavailable):
            return None
        # While it is loaded anew the name means no version at all; what was cast from what it means is as new as that.
        current = self._version in {row.version for row in rows}
        return None if current or not rows[0].version else rows[0].version

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
    hold: bool = False,
    on_progress: OnProgress | None = None,
) -> Weights:
    """Weights of a model that the daemon knows. Errors as `mapcell.attach`.

    `hold` lets the daemon go on staging when this process goes away.
    """
    until = time.monotonic() + timeout
    # Pages that are private once they are written cannot follow a file's replacement: they lie over memory.
    wanted = (name, dtype or "", keys, prefix, hold, mode == "c")
    request, payload = _question(*wanted) if keys is None else _asking(*wanted)
    # Where no daemon ever answered nobody waits for one: only what was there is waited for.
    found = [CONNECTIONS.latest() or CONNECTIONS.client(until)]

    def attempt() -> Weights:
        client = found.pop() if found else CONNECTIONS.client(until)
        granted = obtain(client, request, until, on_progress, payload)
        weights = _weights(*granted, client.folder, keys, prefix, mode, None)
        KEEPER.renew(client)
        return weights

    return persist(attempt, until)


def _asking(
    name: str, dtype: str, keys: tuple[str, ...] | None, prefix: str, hold: bool, sealed: bool
) -> tuple[Attach, bytes]:
    request = Attach(name, Selection(dtype, keys, prefix), hold, sealed)
    return request, wire.encode(request)


# What a worker asks for, it asks for again: the same model, or its newer versions.
_question = lru_cache(maxsize=16, typed=True)(_asking)


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
    patience: float | None = None,
) -> Weights:
    """Weights of the checkpoint at `path`, whose descriptors this process opens and sends. Errors as `attach`.

    `name` registers it as a model of that name; `hold` lets the daemon go on staging when this process goes away.
    `patience` in seconds bounds the wait for a daemon that was there before; `timeout` all waiting.
    """
    until = time.monotonic() + timeout
    back = until if patience is None else time.monotonic() + min(patience, timeout)
    found = [CONNECTIONS.client(back)]
    sources = open_sources(path)
    selection = Selection(dtype or "", keys, prefix)
    if mode == "c":
        residence = "sealed"
    request = Offer(tuple(_label(s.path) for s in sources), selection, residence, name, tag, pin, hold)
    fds = [s.fileno() for s in sources]

    def attempt() -> Weights:
        client = found.pop() if found else CONNECTIONS.client(back)
        ticket = client.ask(request, left(back))
        granted = redeem(client, ticket, fds, until, on_progress)
        weights = _weights(*granted, client.folder, keys, prefix, mode, path)
        KEEPER.renew(client)
        return weights

    try:
        return persist(attempt, back)
    finally:
        for source in sources:
            source.close()


def _lease(grant: Grant, sock: socket.socket, folder: str) -> Lease:
    name = f"{grant.name}@{grant.version}"
    if not grant.guarded:
        return Lease(sock, name)
    # The thread's module is for those alone who need it.
    from .listening import GuardedLease

    return GuardedLease(sock, name, folder)


def _label(path: str) -> str:
    """What to call the file at `path`, which may hold any bytes, in a message that holds UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _weights(
    grant: Grant,
    fds: Sequence[int],
    sock: socket.socket,
    folder: str,
    keys: tuple[str, ...] | None,
    prefix: str,
    mode: Mode,
    source: str | None,
) -> Weights:
    lease = _lease(grant, sock, folder)
    # The manifest outlives the lease: it tells what is mapped even when nothing is any more.
    text, *segments = fds
    file = ManifestFile(text, grant.manifest)
    try:
        # A guarded one is a file: the kernel chooses its place itself.
        mapped = map_segment if grant.guarded else map_memory
        maps = [mapped(fd, n, mode, lease) for fd, n in zip(segments, grant.segments, strict=True)]
    finally:
        close_all(segments)
    if grant.guarded:
        lease.listen(maps)
    manifest = Manifest(file)
    backing = DaemonBacking(grant.name, grant.version, maps, mode)
    selected = None if keys is None and not prefix else select(manifest, keys, prefix)
    return Weights(manifest, backing, name=grant.name, source=source, selected=selected, version=grant.version)
