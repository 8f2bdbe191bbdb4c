"""Single keys from the terminal, without waiting for Enter and without showing them. Source: termios(3)."""

from __future__ import annotations

import os
import select
import sys
import termios
from typing import Any, Self

CTRL_C, CTRL_L, CTRL_Z = "\x03", "\x0c", "\x1a"
_LOCAL_FLAGS = 3
_MAX_KEYS = 64


class Keyboard:
    """The terminal on stdin in a mode of single keys, until the end of the `with`. Without a terminal nobody types."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *exc: object) -> None:
        self.give_back()

    def take(self) -> None:
        """Takes the terminal: keys come one by one, and Ctrl-C and Ctrl-Z as keys too."""
        if self._fd >= 0:
            self._before = termios.tcgetattr(self._fd)
            raw = list(self._before)
            raw[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)

    def give_back(self) -> None:
        """Leaves the terminal as it was. A second call does nothing."""
        before, self._before = self._before, []
        if before:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, before)

    def typed(self) -> str:
        """What was typed since the last call; Ctrl-C when the terminal is gone."""
        if self._fd < 0 or not select.select([self._fd], [], [], 0)[0]:
            return ""
        try:
            return os.read(self._fd, _MAX_KEYS).decode("ascii", "replace") or CTRL_C
        except OSError:
            return CTRL_C
