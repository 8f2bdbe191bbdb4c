"""A process whose clocks the tests can set: setting the machine's own would disturb everything else on it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

_HOOK = Path(__file__).parent / "clock_hook"


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks of every Python process that is started with `environment`, by a file that holds their offsets."""

    path: Path

    def __post_init__(self) -> None:
        self.set()

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment so that its clocks can be set."""
        paths = [str(_HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths), "MAPCELL_TEST_CLOCK": str(self.path)}

    def set(self, wall: float = 0, monotonic: float = 0) -> None:
        """From now on the clocks show so many seconds more than the machine's."""
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            # In place and in one write: the process has the file mapped.
            os.pwrite(file.fileno(), struct.pack("dd", wall, monotonic), 0)
