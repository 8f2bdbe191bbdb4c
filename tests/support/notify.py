"""The service manager's side of the notification socket: what it was told, and a descriptor store that follows it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mapcelld.manager import Inherited, Manager

_MAX_FDS = 253


@dataclass(frozen=True, slots=True)
class Told:
    """One datagram: its assignments, and the descriptors that came with it, which belong to the `NotifySocket`."""

    values: dict[str, str]
    fds: tuple[int, ...]


class NotifySocket:
    """A NOTIFY_SOCKET that remembers everything. Owns what it received until `close`.

    A thread reads it, as another process would: whoever waits on a barrier waits for that.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.told: list[Told] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(self.path))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def manager(self, inherited: Sequence[Inherited] = (), limit: int = 100, **environment: str) -> Manager:
        """A Manager that speaks to this socket and is handed `inherited` at its start."""
        made = Manager({"NOTIFY_SOCKET": str(self.path), "FDSTORE": str(limit), **environment}, os.getpid())
        made._inherited = list(inherited)
        return made

    def states(self) -> list[str]:
        """Everything that was told without descriptors and without being about the store."""
        return [
            "\n".join(f"{k}={v}" for k, v in t.values.items())
            for t in self.told
            if not t.fds and "FDSTOREREMOVE" not in t.values
        ]

    def store(self, upto: int | None = None) -> list[tuple[str, int]]:
        """(name, descriptor) of what a manager that read the first `upto` datagrams keeps; this object owns them."""
        kept: list[tuple[str, int]] = []
        for one in self.told[:upto]:
            name = one.values.get("FDNAME", "stored")
            if "FDSTOREREMOVE" in one.values:
                kept = [(n, fd) for n, fd in kept if n != name]
            elif "FDSTORE" in one.values:
                kept += [(name, fd) for fd in one.fds]
        return kept

    def hand_over(self, upto: int | None = None) -> list[Inherited]:
        """Copies of the store's descriptors, as the next daemon finds them; the caller's."""
        return [Inherited(name, os.dup(fd)) for name, fd in self.store(upto)]

    def close(self) -> None:
        """Closes everything."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"END", str(self.path))
        self._reader.join()
        self._sock.close()
        for one in self.told:
            for fd in one.fds:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        while True:
            payload, fds, _, _ = socket.recv_fds(self._sock, 4096, _MAX_FDS)
            if payload == b"END":
                return
            values = dict(line.partition("=")[::2] for line in payload.decode().splitlines())
            barrier = "BARRIER" in values
            self.told.append(Told(values, () if barrier else tuple(fds)))
            if barrier:
                for fd in fds:
                    os.close(fd)
