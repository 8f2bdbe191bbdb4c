"""Log lines: one an event, key=value, on stderr; with priorities where journald reads them. Source: sd-daemon(3).

Whatever a record quotes, it stays one line without control characters: names and paths come from clients, and a log
is read in terminals and by programs that go by lines.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
# journald cuts lines at 48 KiB; nothing that is worth reading is as long as this.
MAX_LINE = 4096


class OneLine(logging.Formatter):
    """Puts a record on one line: priority or level, logger, message, and where an exception came from."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += _exception(record.exc_info[1])
        head = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._journal else f"{record.levelname} "
        line = f"{head}{record.name} {escaped(text)}"
        return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"


def escaped(text: str) -> str:
    """`text` with everything that does not simply print as Python's escapes: line ends, ANSI, text direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _exception(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    places = " ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in frames)
    return f": exception={f'{type(error).__name__}: {error}'!r} at={places!r}"


def start(level: str, environment: Mapping[str, str]) -> None:
    """Logs to stderr from `level` up; in journald's form when systemd says that it reads there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(bool(environment.get("JOURNAL_STREAM"))))
    logging.basicConfig(level=level, handlers=[handler], force=True)
