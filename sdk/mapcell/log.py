"""The package's logger, made when there is something to say: importing logging takes milliseconds."""

from __future__ import annotations

from typing import Any


def warn(message: str, *arguments: Any, exc_info: bool = False) -> None:
    """Logs a warning under the name "mapcell"."""
    import logging

    logging.getLogger("mapcell").warning(message, *arguments, exc_info=exc_info, stacklevel=2)
