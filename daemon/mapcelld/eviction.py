"""Which versions to drop so that another one, or the copy of a guarded file, fits. Policy only: it frees nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mapcell_formats.errors import BudgetExceeded
from mapcelld.registry import Version


def evictable(version: Version) -> bool:
    """Whether dropping it would free budget and take nothing from anybody."""
    return not version.held and not version.pinned and version.sealed_bytes > 0


@dataclass(frozen=True, slots=True)
class Room:
    """How room is made for the copy of a guarded file: whom to drop, and how many bytes it then is over the budget.

    `refused` when it may not be: a copy that nobody uses, or one of a model whose `on_change` is "refuse".
    """

    victims: tuple[Version, ...]
    over: int
    refused: bool


def room_for_rescue(
    version: Version, versions: Iterable[Version], needed: int, promised: int, budget: int, on_change: str
) -> Room:
    """How `needed` bytes of `version` get room beside `promised` ones: the longest unused go first."""
    held = list(versions)
    over = promised + sum(v.sealed_bytes for v in held) + needed - budget
    chosen: list[Version] = []
    for victim in sorted((v for v in held if v is not version and evictable(v)), key=lambda v: v.used):
        if over <= 0:
            break
        chosen.append(victim)
        over -= victim.sealed_bytes
    refused = over > 0 and (on_change == "refuse" or not (version.held or version.pinned))
    return Room(() if refused else tuple(chosen), max(over, 0), refused)


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
