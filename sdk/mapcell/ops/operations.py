"""``mapcell.ops.operations``: the operators as classes, as in `from mapcell.ops import operations as P`.

All names of `mapcell.ops` are here too.
"""

from __future__ import annotations

from typing import Any

from .. import ops


def __getattr__(name: str) -> Any:
    return getattr(ops, name)


def __dir__() -> list[str]:
    return dir(ops)
