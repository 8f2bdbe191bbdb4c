"""The daemon under a real systemd, with the hardened unit as it is installed: life, death, and what survives it.

MAPCELL_TEST_SYSTEMD scales how often things are killed: 1 is the suite's share of patience, 10 what was promised.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.checkpoints import write_safetensors
from support.proc import eventually
from support.service import ROOT, RUNTIME, SERVICE, SOCKETS, InstalledService, finished
from support.systemd import INSIDE, needs_systemd

pytestmark = needs_systemd

SCALE = int(os.environ.get("MAPCELL_TEST_SYSTEMD", "1"))
BYTES = 64 << 20
# More than a Python process reads to start differently twice, and far less than a checkpoint.
READ_NOISE = 1 << 20


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that is the same inside and outside."""
    with tempfile.TemporaryDirectory(prefix="mcs", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def installed(folder: Path) -> Iterator[InstalledService]:
    """The service, installed once for all tests."""
    service = InstalledService(folder)
    try:
        yield service
    finally:
        service.sandbox.close()


@pytest.fixture
def service(installed: InstalledService) -> InstalledService:
    """The service with nothing loaded, its own configuration and an empty log."""
    installed.configure("# nothing\n")
    installed.fresh()
    return installed


def checkpoint(folder: Path, name: str, seed: int, nbytes: int = BYTES) -> Path:
    """A checkpoint of random floats, as it is called inside."""
    values = np.random.default_rng(seed).standard_normal(nbytes // 4, np.float32)
    path = write_safetensors(folder / f"{name}.safetensors", {"w": values})
    path.chmod(0o644)
    return INSIDE / path.name


def report(**figures: object) -> None:
    """Prints what was measured; `pytest -s` shows it."""
    print(json.dumps(figures))


def main_process(service: InstalledService) -> str:
    """The pid that systemd restarts: "0" between two."""
    return service.sandbox.show(SERVICE, "MainPID")


def test_starts_stops_and_starts_again(service: InstalledService) -> None:
    """It is active once it answers, stops with exit status 0, and leaves no store."""
    assert service.sandbox.show(SERVICE, "ActiveState") == "active"
    assert json.loads(service.command("status", "--json"))["pid"] == service.pid()
    service.systemctl("stop", SERVICE)
    assert service.sandbox.show(SERVICE, "ActiveState") == "inactive"
    assert service.sandbox.show(SERVICE, "Result") == "success"
    assert service.stored() == 0
    service.systemctl("start", SERVICE)
    assert service.command("ls", "--json").strip() == "[]"


def test_unit_is_sound_and_tight(service: InstalledService) -> None:
    """systemd knows every key of the units, and finds the service as little exposed as SECURITY.md says."""
    units = [f"/etc/systemd/system/{name}" for name in (SERVICE, *SOCKETS)]
    said = service.sandbox.run("systemd-analyze", "verify", *units, check=False)
    assert not [line for line in said.splitlines() if "mapcell" in line]
    # A threshold of 10 is an exposure of 1.0; above it the command fails.
    service.sandbox.run("systemd-analyze", "security", "--offline=true", "--threshold=10", units[0])


def test_reload(service: InstalledService, folder: Path) -> None:
    """`systemctl reload` goes by the new configuration; a wrong one is named in the log and changes nothing."""
    path, pid = checkpoint(folder, "reload", 1, 1 << 20), service.pid()
    service.configure(f'roots = ["{INSIDE}"]\n[[model]]\nname = "r"\nsource = "{path}"\n')
    service.systemctl("reload", SERVICE)
    eventually(lambda: "reloaded" in service.log())
    assert service.client("check", "r") == service.client("load", "again", path, "sealed")["sum"]
    service.configure('residense = "sealed"\n')
    service.systemctl("reload", SERVICE)
    eventually(lambda: "did you mean residence" in service.log())
    assert service.client("check", "r")
    assert service.pid() == pid
    assert service.sandbox.show(SERVICE, "ActiveState") == "active"


def test_wrong_configuration_fails_once(service: InstalledService) -> None:
    """A configuration that cannot be used makes the start fail, and systemd does not try it again and again."""
    service.configure('residense = "sealed"\n')
    service.systemctl("restart", SERVICE, check=False)
    assert service.sandbox.show(SERVICE, "ActiveState") == "failed"
    assert service.restarts() == 0
    assert "did you mean residence" in service.log()


def test_watchdog(service: InstalledService, folder: Path) -> None:
    """A daemon that hangs is restarted, and serves what it held."""
    service.drop_in("watchdog", "[Service]\nWatchdogSec=1\n")
    try:
        service.fresh()
        loaded = service.client("load", "w", checkpoint(folder, "watchdog", 2, 1 << 20), "sealed")
        pid = service.pid()
        service.sandbox.run("kill", "-STOP", str(pid))
        eventually(lambda: main_process(service) not in (str(pid), "0"), 20)
        assert service.client("check", "w") == loaded["sum"]
        assert service.restarts() == 1
    finally:
        service.drop_in("watchdog", "")


@pytest.mark.parametrize("program", ["knock_control", "knock_handles"])
def test_socket_activation(service: InstalledService, program: str) -> None:
    """With nothing but the sockets there, a first question on either starts the daemon and is answered by it."""
    service.systemctl("stop", SERVICE)
    assert [service.sandbox.show(s, "ActiveState") for s in SOCKETS] == ["active", "active"]
    assert service.pid() == 0
    answer = service.client(program)
    assert answer["pid"] == service.pid() > 0


def test_members_of_the_group_only(service: InstalledService, folder: Path) -> None:
    """A user in the group may attach what is for all; one that is not does not get past the folder."""
    loaded = service.client("load", "g", checkpoint(folder, "group", 3, 1 << 20), "sealed")
    assert service.client("check", "g", uid=41_207) == loaded["sum"]
    command = ["setpriv", "--reuid=41207", "--regid=41207", "--clear-groups", "ls", "/run/mapcell"]
    assert "Permission denied" in service.sandbox.run(*command, check=False)


def test_groups_are_known(service: InstalledService, folder: Path) -> None:
    """A model for a group is there for a process that has the group as a supplementary one, and for no other."""
    path = checkpoint(folder, "groups", 11, 1 << 20)
    service.sandbox.run("groupadd", "--force", "search")
    model = f'[[model]]\nname = "s"\nsource = "{path}"\nallow = {{ groups = ["search"] }}\n'
    service.configure(f'roots = ["{INSIDE}"]\n{model}')
    service.systemctl("restart", SERVICE)
    assert service.client("check", "s", uid=41_207, groups="mapcell,search")
    refused = service.start_client("check", "s", uid=41_208, groups="mapcell")
    assert "NotFound" in refused.communicate(timeout=60)[1]


def test_file_leases_are_granted(service: InstalledService, folder: Path) -> None:
    """The sandbox leaves the daemon the one capability that it needs: memory that is still mapped is not given back."""
    path = checkpoint(folder, "leases", 4, 1 << 20)
    seen = service.client("outlive", path)
    assert seen["mapped"] == 1 << 20
    assert seen["closed"] == 0


def unswappable(service: InstalledService) -> int:
    """KiB of the daemon's maps that stay in memory: huge pages always do, and Linux does not count them as locked."""
    lines = service.sandbox.run("grep", "-E", "VmLck|HugetlbPages", f"/proc/{service.pid()}/status").splitlines()
    return sum(int(line.split()[1]) for line in lines)


def test_every_manner_of_staging(service: InstalledService, folder: Path) -> None:
    """Locking, warming, casting, huge pages and giving back the page cache work inside the sandbox."""
    path = checkpoint(folder, "manner", 12, 1 << 20)
    common = f'source = "{path}"\nlock = true\nwarm = true\npreload = true\n'
    models = "".join(
        f'[[model]]\nname = "{name}"\n{common}{more}\n'
        for name, more in (("a", 'residence = "mapped"'), ("b", 'residence = "sealed"'), ("c", 'dtype = "float16"'))
    )
    service.configure(f'roots = ["{INSIDE}"]\nhuge_pages = "try"\ndrop_cache = true\n{models}')
    for _ in range(2):
        service.systemctl("restart", SERVICE)
        eventually(lambda: len(json.loads(service.command("ls", "--json"))) == 3)
        eventually(lambda: all(r["state"] == "READY" for r in json.loads(service.command("ls", "--json"))))
        assert service.client("check", "a") == service.client("check", "b") != service.client("check", "c")
    assert "WARNING" not in service.log()
    assert "ERROR" not in service.log()
    # Equal content is held once, whatever it is called: a megabyte, and half of it for the cast.
    eventually(lambda: unswappable(service) >= 1536)


def test_killed_over_and_over(service: InstalledService, folder: Path) -> None:
    """kill -9 while 8 workers compute: none errs, no byte is wrong, and all is served again without being read."""
    idle = service.client("status")["read"]
    sealed, mapped = checkpoint(folder, "sealed", 5), checkpoint(folder, "mapped", 6)
    sums = [service.client("load", n, p, n)["sum"] for n, p in (("sealed", sealed), ("mapped", mapped))]
    service.settled(5)
    # Gone from the disk: whatever is served from now on was not read from there.
    (folder / sealed.name).unlink()
    stop = folder / "stop"
    stop.unlink(missing_ok=True)
    expected = ",".join(map(str, sums))
    workers = [service.start_client("work", "sealed,mapped", stop, expected) for _ in range(8)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "computing\n"
    rounds = 2 * SCALE
    killed = service.client("kills", "sealed,mapped", rounds, seconds=60 + 10 * rounds)
    stop.touch()
    answers = [finished(w) for w in workers]
    seconds = sorted(k["seconds"] for k in killed)
    report(
        kills=rounds, seconds=seconds, read=[k["read"] - idle for k in killed], worked=[a["rounds"] for a in answers]
    )
    assert [a["errors"] for a in answers] == [[]] * 8
    assert [a["wrong"] for a in answers] == [0] * 8
    assert all(a["rounds"] > 0 for a in answers)
    assert max(k["read"] for k in killed) < idle + READ_NOISE
    # And once the last one has started everything that it starts.
    assert service.client("status")["read"] < idle + READ_NOISE
    assert [service.client("check", n) for n in ("sealed", "mapped")] == sums
    assert service.restarts() == rounds
    service.settled(5)
    # Not a benchmark: one that staged anew, or that waited for a timeout, would take longer.
    assert max(seconds) < 10


def test_killed_during_a_rescue(service: InstalledService, folder: Path) -> None:
    """kill -9 while somebody waits to write to a guarded file: the next daemon settles it, and no worker notices."""
    service.configure(f'roots = ["{INSIDE}"]\nguard_deadline = "6s"\n')
    service.fresh()
    path, go = checkpoint(folder, "guarded", 9, 1 << 20), folder / "go"
    go.unlink(missing_ok=True)
    loaded = service.client("load", "g", path, "auto")
    assert loaded["residence"] == "mapped"
    service.settled(3)
    worker = service.start_client("hold", "g", go)
    assert worker.stdout is not None
    inside = worker.stdout.readline().strip()
    service.sandbox.run("kill", "-STOP", inside)
    writer = threading.Thread(target=os.truncate, args=(folder / path.name, 0))
    writer.start()
    eventually(lambda: "rescued: " in service.log())
    service.sandbox.run("kill", "-KILL", str(service.pid()))
    eventually(lambda: service.log().count("rescued: ") == 2, 20)
    assert writer.is_alive()
    service.sandbox.run("kill", "-CONT", inside)
    # nsenter stops with what it runs.
    worker.send_signal(signal.SIGCONT)
    writer.join(60)
    assert not writer.is_alive()
    assert (folder / path.name).stat().st_size == 0
    go.touch()
    answer = finished(worker)
    assert answer["before"] == answer["after"] == loaded["sum"]
    assert service.client("check", "g") == loaded["sum"]
    service.settled(3)
    assert "lost: " not in service.log()


def test_killed_at_any_moment(service: InstalledService, folder: Path) -> None:
    """kill -9 in the middle of staging, publishing and evicting leaves whole versions or none, and leaks nothing."""
    path = checkpoint(folder, "churn", 7, 8 << 20)
    loaded = service.client("load", "churn", path, "sealed")
    rounds = 5 * SCALE
    left = service.client("churn", "churn", path, rounds, 8, seconds=60 + 10 * rounds)
    survivors = sum(map(len, left["sums"]))
    report(kills=rounds, survivors=survivors, errors=left["errors"])
    assert left["errors"] == []
    assert all(found in ([], [loaded["sum"]]) for found in left["sums"])
    assert service.restarts() == rounds
    service.settled(1 + 2 * len(left["sums"][-1]))
    # Nothing in the store, and the kernel agrees: what no process and no manager holds is not there.
    service.client("drop", "churn")
    service.settled(1)
    eventually(lambda: service.client("segments") == 0)


def test_following_and_digests_survive(service: InstalledService, folder: Path) -> None:
    """In the sandbox, too, a mapped file is hashed and a new one followed; the digest is kept across a restart."""
    path = checkpoint(folder, "follow", 3, 1 << 20)
    wanted = 'residence = "mapped"\nfollow = true\npreload = true'
    service.configure(f'roots = ["{INSIDE}"]\n[[model]]\nname = "f"\nsource = "{path}"\n{wanted}\n')

    def row() -> dict[str, Any]:
        rows = json.loads(service.command("ls", "--json"))
        return next((r for r in rows if r["name"] == "f" and r["version"]), {"verified": False, "source_state": ""})

    service.systemctl("reload", SERVICE)
    eventually(lambda: row()["verified"] and row()["source_state"] == "same", 60)
    before = row()
    assert before["version"].startswith("file-")
    service.settled(3)
    service.systemctl("restart", SERVICE)
    assert {k: row()[k] for k in ("version", "digest", "verified")} == {
        k: before[k] for k in ("version", "digest", "verified")
    }
    eventually(lambda: row()["source_state"] == "same", 60)
    checkpoint(folder, "new", 4, 1 << 20)
    os.rename(folder / "new.safetensors", folder / "follow.safetensors")
    eventually(lambda: row()["version"] not in ("", before["version"]) and row()["source_state"] == "same", 60)


def test_restart_under_load(service: InstalledService, folder: Path) -> None:
    """`systemctl restart` while processes attach all the time, new ones too: none fails."""
    service.client("load", "busy", checkpoint(folder, "busy", 9, 1 << 20), "sealed")
    stop = folder / "stop-busy"
    stop.unlink(missing_ok=True)
    processes = [service.start_client("attachers", "busy", stop) for _ in range(4)]
    newcomers = []
    restarts = 3 * SCALE
    for _ in range(restarts):
        newcomers.append(service.start_client("check", "busy"))
        service.systemctl("restart", SERVICE)
        newcomers.append(service.start_client("check", "busy"))
        eventually(lambda: service.pid() > 0)
        newcomers[-1].wait(60)
    stop.touch()
    answers = [finished(p) for p in processes]
    assert len({finished(p) for p in newcomers}) == 1
    count, longest = sum(a["count"] for a in answers), max(a["longest"] for a in answers)
    report(restarts=restarts, attaches=count, longest=longest)
    assert [a["errors"] for a in answers] == [[]] * 4
    assert count > 100
    service.settled(3)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("schema", "it has schema 99"),
        ("malformed", "malformed"),
        ("unsealed", "no sealed memory"),
        ("pipe", "no sealed memory"),
        ("strangers", "adopted: versions=0"),
        ("half", "descriptors are missing"),
        ("swapped", "not sealed memory of its size"),
    ],
)
def test_left_by_somebody_else(service: InstalledService, left: str, said: str) -> None:
    """A state of another schema, a broken one, and descriptors that make no sense: it starts with nothing, says so."""
    before = f"[Service]\nExecStart=\nExecStart={service.python()} -m support.leftovers {left}\n"
    environment = f"Environment=PYTHONPATH={Path(__file__).parents[1]}\n"
    service.systemctl("stop", SERVICE)
    service.drop_in("leftovers", before + environment)
    try:
        service.sandbox.run("truncate", "-s0", str(service.log_path))
        # The start job fails with the first process; systemd goes on by itself.
        service.systemctl("start", SERVICE, check=False)
        eventually(lambda: "mapcelld ready" in service.log())
    finally:
        service.drop_in("leftovers", "")
    assert said in service.log()
    assert service.command("ls", "--json").strip() == "[]"
    assert service.restarts() == 1
    service.settled(1)
    service.systemctl("restart", SERVICE)
    assert "adopted: versions=0 bytes=0" in service.log()


def test_metrics(service: InstalledService) -> None:
    """With the drop-in for the unit, figures arrive by file, socket and loopback, as a Prometheus parser reads them."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    textfile = "/var/lib/prometheus/node-exporter/mapcell.prom"
    service.sandbox.run("install", "-d", "-o", "mapcell", str(Path(textfile).parent))
    service.configure(f'[metrics]\ntextfile = "{textfile}"\nsocket = "m.sock"\nlisten = "127.0.0.1:{port}"\n')
    service.systemctl("restart", SERVICE)
    eventually(lambda: service.log().count("not delivered") == 2)
    service.drop_in("metrics", (ROOT / "systemd/mapcelld-metrics.conf").read_text())
    try:
        service.systemctl("restart", SERVICE)
        eventually(lambda: service.sandbox.run("sh", "-c", f"test -e {textfile} && echo y", check=False) == "y\n")
        found = service.client("scrape", f"{RUNTIME}/m.sock", f"127.0.0.1:{port}", textfile)
        assert [f["mapcell_restarts_total"] for f in found] == [2.0] * 3
        assert [f["mapcell_max_stored_descriptors"] for f in found] == [4096.0] * 3
    finally:
        service.drop_in("metrics", "")


def test_preload_unit(service: InstalledService, folder: Path) -> None:
    """`mapcell-preload@NAME` brings a configured model in, and fails with the reason when there is none."""
    path = checkpoint(folder, "preload", 10, 1 << 20)
    service.configure(f'roots = ["{INSIDE}"]\n[[model]]\nname = "org/p"\nsource = "{path}"\n')
    service.systemctl("reload", SERVICE)
    eventually(lambda: "reloaded" in service.log())
    unit = service.sandbox.run("systemd-escape", "--template=mapcell-preload@.service", "org/p").strip()
    service.systemctl("start", unit)
    rows = json.loads(service.command("ls", "--json"))
    assert [(r["name"], r["state"]) for r in rows] == [("org/p", "READY")]
    service.systemctl("start", "mapcell-preload@nothing.service", check=False)
    assert service.sandbox.show("mapcell-preload@nothing.service", "Result") == "exit-code"


def test_uninstall_leaves_nothing(folder: Path, installed: InstalledService) -> None:
    """What install made is gone after uninstall, the user too; changed configuration is kept and named."""
    installed.configure("# mine\n")
    said = installed.sandbox.run(str(ROOT / "systemd/uninstall"))
    assert "/etc/mapcell" in said
    found = installed.sandbox.run(
        "find", "/etc", "/opt", "/run/mapcell", "/usr/local", "-name", "*mapcell*", check=False
    )
    mine = [
        line
        for line in found.splitlines()
        if "No such file" not in line and ".d" not in line and str(INSIDE) not in line
    ]
    assert mine == ["/etc/mapcell", "/etc/mapcell/mapcelld.toml"]
    assert "mapcell" not in installed.sandbox.run("getent", "passwd") + installed.sandbox.run("getent", "group")
    units = installed.systemctl("list-units", "--all", "--plain", "--no-legend", "mapcelld*")
    assert units.strip() == ""
