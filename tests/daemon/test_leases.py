"""Leases: counted on their version and their holder, ended once."""

from __future__ import annotations

from daemon.building import user, version
from mapcelld.leases import Lease, Leases


def test_counting() -> None:
    """Each lease counts once on its version and its uid, however often it is ended."""
    held, leases = version("v"), Leases()
    mine, other = Lease(user(7), "m", held, 1.0), Lease(user(8), "m", held, 1.0)
    leases.begin(mine, 5.0)
    leases.begin(other, 6.0)
    assert (list(leases), len(leases), held.leases, held.used) == ([mine, other], 2, 2, 6.0)
    assert (leases.of(7), leases.of(8), leases.of(9)) == (1, 1, 0)
    for _ in range(2):
        leases.end(mine, 9.0)
    assert (list(leases), held.leases, held.used, leases.of(7)) == ([other], 1, 9.0, 0)


def test_equal_leases_are_two() -> None:
    """A process that attaches twice holds two leases, though nothing tells them apart."""
    held, leases = version("v"), Leases()
    first, second = Lease(user(7), "m", held, 1.0), Lease(user(7), "m", held, 1.0)
    leases.begin(first, 0.0)
    leases.begin(second, 0.0)
    leases.end(first, 0.0)
    assert (list(leases), held.leases) == ([second], 1)
