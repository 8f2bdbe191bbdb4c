"""Eviction: whom to drop, and the exact words when dropping would not do."""

from __future__ import annotations

import pytest

from daemon.building import version
from mapcell_formats.errors import BudgetExceeded
from mapcelld.eviction import Room, choose, room_for_rescue
from mapcelld.registry import Version

IDLE = [version("old", used=1.0), version("new", used=3.0), version("middle", used=2.0)]


@pytest.mark.parametrize(
    ("needed", "promised", "budget", "dropped"),
    [
        (0, 0, 300, []),
        (100, 0, 400, []),
        (1, 0, 300, ["old"]),
        (100, 0, 300, ["old"]),
        (101, 0, 300, ["old", "middle"]),
        (300, 0, 300, ["old", "middle", "new"]),
        (100, 100, 400, ["old"]),
        (0, 100, 300, ["old"]),
    ],
)
def test_longest_unused_first(needed: int, promised: int, budget: int, dropped: list[str]) -> None:
    """As many as are needed and no more, in the order of their last use; promised bytes are as good as taken."""
    assert [v.id for v in choose(IDLE, needed, promised, budget)] == dropped


@pytest.mark.parametrize(
    "spared",
    [version("x", leases=1), version("x", pinned=True), version("x", residence="mapped")],
    ids=["leased", "pinned", "mapped"],
)
def test_spared(spared: Version) -> None:
    """Nothing is taken from anybody, and nothing is dropped that would free no budget."""
    assert [v.id for v in choose([spared, version("idle", used=9.0)], 100, 0, 200)] == (
        [] if spared.residence == "mapped" else ["idle"]
    )
    if spared.residence == "sealed":
        with pytest.raises(BudgetExceeded):
            choose([spared], 101, 0, 200)


def test_shortfall() -> None:
    """The refusal says what is needed, what there is, what holds it and how much is missing."""
    held = [version("v1", leases=1, names={"m"}), version("v2", pinned=True), version("v3")]
    with pytest.raises(BudgetExceeded) as caught:
        choose(held, 150, 30, 250)
    assert caught.value.details == {"needed": 150, "budget": 250, "in_use": 230}
    for word in ("needs 150 bytes", "budget is 250", "230 are in use", "m (100)", "v2 (100)", "130 too many"):
        assert word in str(caught.value)
    assert "v3" not in str(caught.value)


def test_nothing_holds_it() -> None:
    """More than the whole budget is refused also when nothing is held, and while others are staging."""
    with pytest.raises(BudgetExceeded, match=r"\(staging\): 1 too many"):
        choose([], 101, 0, 100)


@pytest.mark.parametrize(
    ("needed", "budget", "held", "on_change", "victims", "over", "refused"),
    [
        (100, 400, True, "copy", [], 0, False),
        (100, 399, True, "refuse", ["old"], 0, False),
        (250, 300, True, "copy", ["old", "middle", "new"], 0, False),
        (350, 300, True, "copy", ["old", "middle", "new"], 50, False),
        (350, 300, True, "refuse", [], 50, True),
        (350, 300, False, "copy", [], 50, True),
        (250, 300, False, "copy", ["old", "middle", "new"], 0, False),
    ],
)
def test_room_for_a_copy(
    needed: int, budget: int, held: bool, on_change: str, victims: list[str], over: int, refused: bool
) -> None:
    """What is unused goes first; beyond the budget go only workers, and only where they come first."""
    mine = version("m", residence="mapped", leases=int(held))
    room = room_for_rescue(mine, [mine, *IDLE], needed, 0, budget, on_change)
    assert ([v.id for v in room.victims], room.over, room.refused) == (victims, over, refused)


def test_a_copy_does_not_make_room_for_itself() -> None:
    """The version that is being copied is never among those that are dropped for it."""
    mine = version("m", used=0.0)
    assert room_for_rescue(mine, [mine], 100, 0, 100, "copy") == Room((), 100, True)
