"""What most of these tests start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.daemon import DaemonProcess


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon with nothing loaded, and this process pointed at it."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running
