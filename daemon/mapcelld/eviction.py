"""Which versions to drop so that another one fits. Policy only: it decides and frees nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mapcell_formats.errors import BudgetExceeded
from mapcelld.registry import Version


def evictable(version: Version) -> bool:
    """Whether dropping it would free budget and take nothing from anybody."""
    return version.leases == 0 and not version.pinned and version.sealed_bytes > 0


def choose(versions: Iterable[Version], needed: int, promised: int, budget: int) -> Sequence[Version]:
    """The versions to drop, longest unused first, so that `needed` bytes fit beside `promised` ones within `budget`.

    BudgetExceeded with the exact shortfall, and what holds the rest, when even dropping all would not do.
    """
    held = list(versions)
    used = promised + sum(v.sealed_bytes for v in held)
    chosen: list[Version] = []
    for version in sorted(filter(evictable, held), key=lambda v: v.used):
        if used + needed <= budget:
            break
        chosen.append(version)
        used -= version.sealed_bytes
    if used + needed <= budget:
        return chosen
    holders = [f"{min(v.names, default=v.id)} ({v.nbytes})" for v in held if v.sealed_bytes and not evictable(v)]
    raise BudgetExceeded(
        f"needs {needed} bytes of shared memory; the budget is {budget}, of which {used} are in use and cannot be "
        f"evicted ({', '.join(holders[:8]) or 'staging'}): {used + needed - budget} too many. Unload a model, or raise "
        "the daemon's --budget",
        needed=needed,
        budget=budget,
        in_use=used,
    )
