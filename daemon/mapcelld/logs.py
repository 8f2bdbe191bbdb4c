"""Log lines: one an event, key=value, on stderr; with priorities where journald reads them. Source: sd-daemon(3)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalFormatter(logging.Formatter):
    """Puts the syslog priority before every line, those of a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def start(level: str, environment: Mapping[str, str]) -> None:
    """Logs to stderr from `level` up; in journald's form when systemd says that it reads there."""
    handler = logging.StreamHandler(sys.stderr)
    if environment.get("JOURNAL_STREAM"):
        handler.setFormatter(_JournalFormatter("%(name)s %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
