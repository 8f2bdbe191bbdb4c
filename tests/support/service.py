"""mapcelld as an operator installs it, run by a systemd of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.proc import eventually
from support.systemd import SystemdSandbox, interpreter_folders

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SERVICE = "mapcelld.service"
SOCKETS = ("mapcelld-control.socket", "mapcelld-handles.socket")
PRELOAD = "mapcell-preload@.service"
RUNTIME = "/run/mapcell"
_CONFIG = "/etc/mapcell/mapcelld.toml"


class InstalledService:
    """The units as `systemd/install` writes them, hardened as they are, with this checkout's interpreter."""

    def __init__(self, folder: Path) -> None:
        self.sandbox = SystemdSandbox(folder, (SERVICE, *SOCKETS, PRELOAD), interpreter_folders())
        self.log_path = folder / "mapcelld.log"
        self.log_path.touch()
        self.log_path.chmod(0o666)
        try:
            # No journal runs inside, so the service writes to a file; "+" of what the unit says is left as it is.
            self.drop_in("log", f"[Service]\nStandardError=append:{self.log_path}\n")
            self.installed = self.sandbox.run("env", f"BIN={BIN}", str(ROOT / "systemd/install"))
        except BaseException:
            self.sandbox.close()
            raise

    # --- what an operator does --------------------------------------------------------------------------------------

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """`systemctl arguments` inside."""
        return self.sandbox.run("systemctl", *arguments, check=check)

    def drop_in(self, name: str, text: str, unit: str = SERVICE) -> None:
        """Adds lines to the unit, or takes them away again when `text` is empty."""
        path = f"/etc/systemd/system/{unit}.d/{name}.conf"
        self.write(path, text)
        self.systemctl("daemon-reload")

    def configure(self, text: str) -> None:
        """Writes the configuration."""
        self.write(_CONFIG, text)

    def write(self, path: str, text: str) -> None:
        """Writes a file inside; removes it when `text` is empty."""
        script = 'mkdir -p "$(dirname "$1")"; if [ -n "$2" ]; then printf %s "$2" > "$1"; else rm -f "$1"; fi'
        self.sandbox.run("sh", "-c", script, "sh", path, text)

    def fresh(self) -> None:
        """Starts the service with nothing loaded and an empty log."""
        self.systemctl("stop", SERVICE, *SOCKETS)
        self.systemctl("reset-failed", check=False)
        self.log_path.write_text("")
        self.systemctl("start", SERVICE)

    # --- what can be seen -------------------------------------------------------------------------------------------

    def log(self) -> str:
        """What the daemon wrote so far."""
        return self.log_path.read_text(errors="replace")

    def stored(self) -> int:
        """Descriptors in the manager's store."""
        return int(self.sandbox.show(SERVICE, "NFileDescriptorStore"))

    def pid(self) -> int:
        """The daemon's pid, as it is inside."""
        return int(self.sandbox.show(SERVICE, "MainPID"))

    def restarts(self) -> int:
        """How often systemd restarted the daemon by itself."""
        return int(self.sandbox.show(SERVICE, "NRestarts"))

    def python(self) -> str:
        """The interpreter that the service runs on."""
        return sys.executable

    def settled(self, descriptors: int) -> None:
        """Waits until the store holds `descriptors`; AssertionError when it never does."""
        eventually(lambda: self.stored() == descriptors)

    # --- clients ----------------------------------------------------------------------------------------------------

    def start_client(
        self, program: str, *arguments: object, uid: int = 0, groups: str = "mapcell"
    ) -> subprocess.Popen[str]:
        """A program of support/clients.py, started inside; as `uid` with these supplementary groups."""
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={self._gids(groups)}"] if uid else []
        env = dict(os.environ) | {
            "MAPCELL_RUNTIME": RUNTIME,
            "PYTHONPATH": str(ROOT / "tests"),
            # Workers that share two processors compute no faster with a thread for each.
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "support.clients", program, *map(str, arguments)]
        return self.sandbox.popen(*user, *command, env=env)

    def client(
        self, program: str, *arguments: object, uid: int = 0, groups: str = "mapcell", seconds: float = 120.0
    ) -> Any:
        """What a program of support/clients.py answers; AssertionError when it fails."""
        return finished(self.start_client(program, *arguments, uid=uid, groups=groups), seconds)

    def _gids(self, groups: str) -> str:
        lines = self.sandbox.run("getent", "group", *groups.split(",")).splitlines()
        return ",".join(line.split(":")[2] for line in lines)

    def command(self, *arguments: str, check: bool = True) -> str:
        """What the command `mapcell arguments` prints inside."""
        env = dict(os.environ) | {"MAPCELL_RUNTIME": RUNTIME}
        return self.sandbox.run(str(BIN / "mapcell"), *arguments, env=env, check=check)


def finished(process: subprocess.Popen[str], seconds: float = 120.0) -> Any:
    """What a program of support/clients.py answers in the end; AssertionError when it fails."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])
