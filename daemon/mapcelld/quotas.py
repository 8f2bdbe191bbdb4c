"""What one user may have at once. Pure: figures in, AccessDenied or BudgetExceeded out. Operators are exempt."""

from __future__ import annotations

from collections.abc import Iterable

from mapcell_formats.errors import AccessDenied, BudgetExceeded
from mapcelld.config import Quota
from mapcelld.registry import Version


def check_leases(quota: Quota, uid: int, held: int) -> None:
    """AccessDenied when `uid`, who has `held` leases, may not have another."""
    if held >= quota.leases:
        raise AccessDenied(f"uid {uid} has {held} leases, as many as its quota allows; close some", quota=quota.leases)


def check_connections(quota: Quota, uid: int, held: int) -> None:
    """AccessDenied when `uid`, who has `held` connections, may not have another."""
    if held >= quota.connections:
        raise AccessDenied(f"uid {uid} has {held} connections, as many as its quota allows", quota=quota.connections)


def check_requests(quota: Quota, uid: int, waiting: int) -> None:
    """AccessDenied when `uid`, who has `waiting` requests that are being staged, may not have another."""
    if waiting >= quota.requests:
        raise AccessDenied(
            f"uid {uid} has {waiting} requests under way, as many as its quota allows; wait for some",
            quota=quota.requests,
        )


def check_staged(quota: Quota, uid: int, versions: Iterable[Version], promised: int, needed: int) -> None:
    """BudgetExceeded when `needed` more bytes would take `uid` over its share of sealed memory."""
    used = promised + sum(v.sealed_bytes for v in versions if v.uid == uid)
    if used + needed > quota.staged:
        raise BudgetExceeded(
            f"needs {needed} bytes of shared memory; uid {uid} has {used} staged of the {quota.staged} that its quota "
            "allows; unload something, or ask an operator to load it",
            needed=needed,
            budget=quota.staged,
            in_use=used,
        )
