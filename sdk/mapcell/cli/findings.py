"""What `doctor` says about one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `advice` says what to do, if anything; mapcell works without what is not `required`."""

    check: str
    ok: bool
    detail: str
    advice: str = ""
    required: bool = False
