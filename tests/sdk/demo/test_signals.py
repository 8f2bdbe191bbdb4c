"""Signals become exceptions, but not in the middle of something that would leak."""

from __future__ import annotations

import os
import signal

import pytest

from mapcell.demo.signals import Signals

ENDS: list[tuple[int, type[BaseException], object]] = [
    (signal.SIGINT, KeyboardInterrupt, None),
    (signal.SIGTERM, SystemExit, 128 + 15),
    (signal.SIGHUP, SystemExit, 128 + 1),
]


@pytest.mark.parametrize(("number", "error", "code"), ENDS)
def test_raises_at_once(number: int, error: type[BaseException], code: object) -> None:
    """Outside `held` a signal raises where it arrives."""
    with Signals(), pytest.raises(error) as caught:
        os.kill(os.getpid(), number)
    assert getattr(caught.value, "code", None) == code


@pytest.mark.parametrize(("number", "error", "code"), ENDS)
def test_waits_while_held(number: int, error: type[BaseException], code: object) -> None:
    """Inside `held`, nested or not, the block runs to its end first."""
    done = []

    def work(signals: Signals) -> None:
        with signals.held():
            with signals.held():
                os.kill(os.getpid(), number)
                done.append("inner")
            done.append("outer")

    with Signals() as signals, pytest.raises(error):
        work(signals)
    assert done == ["inner", "outer"]


def test_handlers_come_back() -> None:
    """Afterwards the handlers are those of before."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_ignored_stays_ignored() -> None:
    """Under nohup SIGHUP does not end the demo."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
