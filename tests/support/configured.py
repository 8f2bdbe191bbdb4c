"""A daemon with a configuration file, which can be changed while it runs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.daemon import DaemonProcess
from support.proc import eventually


class Configured(DaemonProcess):
    """A daemon that every user may reach, configured by `text`."""

    def __init__(self, folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = folder / "mapcelld.toml"
        self.config.write_text(text)
        super().__init__("--config", str(self.config))
        self.runtime.parent.chmod(0o755)
        self.runtime.chmod(0o755)
        monkeypatch.setenv("MAPCELL_RUNTIME", str(self.runtime))

    def reload(self, text: str) -> str:
        """Has the daemon read another configuration; the line that it then logged."""
        before = self.log().count("reloaded")
        self.config.write_text(text)
        self.send_signal(signal.SIGHUP)
        eventually(lambda: self.log().count("reloaded") > before)
        return next(line for line in reversed(self.log().splitlines()) if "reloaded" in line)


def model(name: str, source: Path, *more: str) -> str:
    """The table of one model."""
    return "\n".join(["[[model]]", f'name = "{name}"', f'source = "{source}"', *more, ""])
