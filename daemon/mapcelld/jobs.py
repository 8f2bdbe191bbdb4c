"""A stager's end of its job channel."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from mapcell_formats import messages, wire
from mapcell_formats.errors import StagingFailed
from mapcell_formats.messages import Proceed
from mapcelld import channel


class JobChannel:
    """Reports to the daemon over `sock` (borrowed), from any thread. Ends the process when nobody wants them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def tell(self, report: object, fds: Sequence[int] = ()) -> None:
        """Sends one report with descriptors, which stay the caller's."""
        try:
            channel.send(self._sock, wire.encode(report), fds)
        except (BrokenPipeError, ConnectionResetError):
            raise SystemExit(0) from None

    def await_proceed(self) -> None:
        """Waits for the daemon's word to go on."""
        payload, fds = channel.receive(self._sock, messages.MAX_HANDLE_BYTES, 1)
        channel.close_all(fds)
        if not payload:
            # The daemon closed the channel: nobody wants this job any more.
            raise SystemExit(0)
        _, order = wire.decode(payload, messages.STAGER_ORDERS)
        if not isinstance(order, Proceed):
            raise StagingFailed(f"the stager was told {order} instead of to proceed")
