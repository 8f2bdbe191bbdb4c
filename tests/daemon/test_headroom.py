"""Listening stops before descriptors run out, and goes on only well above that."""

from __future__ import annotations

import os

import pytest

from mapcelld.headroom import Growth, Headroom, descriptors


@pytest.mark.parametrize(
    ("limit", "share", "stops_at", "goes_on_at"),
    [
        (400, 1.0, 272, 207),
        (400, 1.5, 208, 111),
        (1024, 1.0, 896, 831),
        (20_000, 1.0, 17_500, 16_249),
        (20_000, 1.5, 16_250, 14_374),
    ],
)
def test_look(limit: int, share: float, stops_at: int, goes_on_at: int) -> None:
    """An eighth, and never fewer than 128, stay free; with half of that between the no and the next yes."""
    room = Headroom(limit, share)
    assert room.look(stops_at - 1)
    assert not room.look(stops_at)
    assert not room.look(goes_on_at + 1)
    assert room.look(goes_on_at)
    assert room.look(stops_at - 1)


def test_limit_of_this_process() -> None:
    """Without a limit it goes by this process's own."""
    assert Headroom().look(descriptors())


def test_descriptors() -> None:
    """One more is open after opening one."""
    before = descriptors()
    fd = os.open("/", os.O_RDONLY)
    try:
        assert descriptors() == before + 1
    finally:
        os.close(fd)


def test_growth() -> None:
    """Many connections bring a look each time enough came, without waiting for the clock."""
    looks: list[int] = []
    growth = Growth(lambda: looks.append(0))
    growth.count()
    assert looks == []
    for _ in range(128):
        growth.count()
    assert 4 <= len(looks) <= 64
