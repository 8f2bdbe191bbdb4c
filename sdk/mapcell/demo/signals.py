"""Signals that end a command as exceptions, but never between making something and noting that it was made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """While entered, SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP SystemExit (128 + number).

    Inside `held` they wait until its end. Only the main thread may enter it (ValueError from `signal` elsewhere).
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._depth = 0
        self._pending: int | None = None

    def __enter__(self) -> Self:
        for number in _ENDING:
            # Whoever started us with nohup wants SIGHUP ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds signals back until the block ends; nests."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._pending is not None:
                number, self._pending = self._pending, None
                _raise(number)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if self._depth:
            self._pending = number
        else:
            _raise(number)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
