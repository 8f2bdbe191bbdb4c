"""A real systemd as PID 1 of private namespaces, for tests of what only a service manager does.

Inside, /etc is a copy and /run, /tmp, /opt, /var/lib, /var/log and /var/tmp are empty: whatever is installed, made or
wiped there is gone with the namespaces, and the host never sees it. systemd's own clean-up of temporary files is masked
all the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

START_SECONDS = 20.0
# Where the sandbox's folder lies for services too, whose /tmp may be private.
INSIDE = Path("/opt/folder")
_PROGRAM = Path("/lib/systemd/systemd")
_TOOLS = ("unshare", "nsenter", "setpriv", "systemctl", "systemd-sysusers", "systemd-tmpfiles")
_UNSHARE = ("unshare", "--fork", "--pid", "--kill-child", "--mount-proc", "--mount", "--cgroup", "--uts", "--ipc")
_PRIVATE = ("/tmp", "/opt", "/var/lib", "/var/log", "/var/tmp")

# In a control group of its own: the namespace of groups then shows systemd nothing else. And it ends with the tests,
# however they end.
_ENTER = """
set -e
mkdir {group}
echo $$ > {group}/cgroup.procs
exec setpriv --pdeathsig=KILL {unshare} bash {folder}/boot.sh
"""

_BOOT = """
set -e
mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sandbox/etc /run/sandbox/folder
cp -a /etc/. /run/sandbox/etc
mount --bind {folder} /run/sandbox/folder
{open}
for d in {private}; do mount -t tmpfs -o mode=755 tmpfs $d; done
chmod 1777 /tmp /var/tmp
mount --bind /run/sandbox/etc /etc
mkdir -p {folder} {inside}
mount --bind /run/sandbox/folder {folder}
mount --bind /run/sandbox/folder {inside}
mkdir -p /run/systemd/system
for m in setup.service setup-dev.service clean.service clean.timer; do
  ln -s /dev/null /run/systemd/system/systemd-tmpfiles-$m
done
printf '[Unit]\\nDescription=sandbox\\nDefaultDependencies=no\\n' > /run/systemd/system/sandbox.target
for u in {units}; do
  mkdir -p /run/systemd/system/$u.d
  # Without sysinit.target, which would mount, load and clean what is the host's.
  printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/$u.d/sandbox.conf
done
export container=sandbox
exec {program} --system --unit=sandbox.target --log-target=null --show-status=0
"""


def interpreter_folders() -> list[Path]:
    """What has to be readable for this interpreter, its packages and these sources to run."""
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]}
    return sorted(p for p in found if not any(q in p.parents for q in found))


def _obstacle() -> str:
    if os.geteuid() != 0:
        return "booting systemd takes root"
    if not _PROGRAM.exists() or not all(map(shutil.which, _TOOLS)):
        return "this host has no systemd, or not all of its tools"
    if _own_group() is None:
        return "this host has no cgroup2 to put systemd into"
    hidden = [p for p in interpreter_folders() if any(p.is_relative_to(q) for q in _PRIVATE)]
    if hidden:
        # PrivateTmp=yes is one of the directives that are tested: no unit could start what lies there.
        return f"{hidden[0]} lies where the unit's sandbox sees nothing; clone elsewhere"
    if subprocess.run([*_UNSHARE, "true"], check=False, capture_output=True).returncode:
        return "this host gives root no namespaces"
    return ""


def _own_group() -> Path | None:
    """This process's folder in the hierarchy of cgroup2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((at for _, at, kind, *_ in mounts if kind == "cgroup2"), None)
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    return Path(root + path) if root is not None and path is not None else None


_MISSING = _obstacle()
needs_systemd = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "systemd is there")


class SystemdSandbox:
    """systemd, running once this object is. Owns its namespaces until `close`.

    `units` are those that will be installed; `readable` are folders that every user inside has to be able to read,
    wherever they lie.
    """

    def __init__(self, folder: Path, units: Sequence[str], readable: Sequence[Path] = ()) -> None:
        self.folder = folder
        folder.chmod(0o755)
        own = _own_group()
        assert own is not None
        self._group = own / f"mapcell-test-{os.getpid()}-{folder.name}"
        script = _BOOT.format(
            folder=folder,
            inside=INSIDE,
            private=" ".join(_PRIVATE),
            open="\n".join(_opened(readable)),
            units=" ".join(units),
            program=_PROGRAM,
        )
        (folder / "boot.sh").write_text(script)
        with (folder / "boot.log").open("wb") as log:
            self._outer = subprocess.Popen(
                ["bash", "-c", _ENTER.format(group=self._group, unshare=" ".join(_UNSHARE), folder=folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._inner = 0
        try:
            self._await_running()
        except BaseException:
            self.close()
            raise

    def popen(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """`command`, started inside, its output piped."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self._inner), "-m", "-p", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=dict(os.environ if env is None else env),
        )

    def run(
        self, *command: str, check: bool = True, seconds: float = 60.0, env: Mapping[str, str] | None = None
    ) -> str:
        """What `command` prints when it runs inside; AssertionError when it fails and `check` is set."""
        with self.popen(*command, env=env) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except BaseException:
                process.kill()
                raise
        assert process.returncode == 0 or not check, f"{command} exited with {process.returncode}: {out}{err}"
        return out if check else out + err

    def show(self, unit: str, name: str) -> str:
        """A property of `unit`."""
        return self.run("systemctl", "show", unit, "--value", "-p", name).strip()

    def close(self) -> None:
        """Ends systemd and everything that runs under it. A second call does nothing."""
        for pid in (self._inner, self._outer.pid):
            if pid and self._outer.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._outer.wait()
        self._remove_group()

    def _remove_group(self) -> None:
        if not self._group.exists():
            return
        until = time.monotonic() + START_SECONDS
        while "populated 1" in (self._group / "cgroup.events").read_text():
            assert time.monotonic() < until, "something in the sandbox does not die"
            time.sleep(0.02)
        for folder, _, _ in os.walk(self._group, topdown=False):
            os.rmdir(folder)

    def _await_running(self) -> None:
        until, log = time.monotonic() + START_SECONDS, self.folder / "boot.log"
        while not self._running():
            assert self._outer.poll() is None, f"systemd did not start:\n{log.read_text()}"
            assert time.monotonic() < until, f"systemd was not up in {START_SECONDS} s:\n{log.read_text()}"
            time.sleep(0.05)

    def _running(self) -> bool:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
            return False
        self._inner = int(children[0])
        return "active" in self.run("systemctl", "is-active", "sandbox.target", check=False).split()


def _opened(readable: Sequence[Path]) -> list[str]:
    """Lines that put an open folder in the place of each closed one above `readable`, with only these in it."""
    closed: dict[Path, list[Path]] = {}
    for leaf in readable:
        for above in reversed(leaf.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, []).append(leaf)
                break
    lines = []
    for number, (above, leaves) in enumerate(closed.items()):
        held = [(f"/run/sandbox/open-{number}-{i}", leaf) for i, leaf in enumerate(leaves)]
        lines += [f"mkdir {at}; mount --bind {leaf} {at}" for at, leaf in held]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {above}")
        lines += [f"mkdir -p {leaf}; mount --bind {at} {leaf}" for at, leaf in held]
    return lines
