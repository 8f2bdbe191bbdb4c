"""Short turns, read back from the kernel."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys

import pytest

from mapcelld.scheduling import TURN_NANOSECONDS, take_short_turns

_READ_BACK = {"x86_64": 315, "aarch64": 275, "riscv64": 275}
_FIRST_RELEASE = (6, 12)


def turn() -> int:
    """Nanoseconds of this thread's turn, as sched_getattr(2) has it."""
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(_READ_BACK[platform.machine()], 0, attributes, len(attributes), 0) == 0
    return int(struct.unpack("<IIQiIQQQ", attributes.raw)[5])


def niced_turn() -> None:
    """Prints what a niced process has after it asked."""
    os.nice(3)
    print(take_short_turns(), turn(), os.nice(0))


@pytest.mark.skipif(platform.machine() not in _READ_BACK, reason="the numbers of the calls are not known here")
@pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < _FIRST_RELEASE, reason="this kernel has one turn for all"
)
def test_short_turns() -> None:
    """The kernel knows the turn afterwards, and the niceness is what it was."""
    code = f"import runpy; runpy.run_path({__file__!r})['niced_turn']()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", str(TURN_NANOSECONDS), "3"]


def test_unknown_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the call's number is not known, nothing is called."""
    monkeypatch.setattr(platform, "machine", lambda: "other")
    assert take_short_turns() is False
