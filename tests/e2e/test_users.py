"""Two users on one daemon: each sees what is theirs or everybody's, and nothing listens to the world."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mapcell.attaching import attach
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell_formats.messages import Attach, ListLeases, ListModels, Offer, Unload
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.users import OTHER_UID, as_user, needs_root, outcome


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="mcu", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon that every user may reach, and this process pointed at it."""
    with DaemonProcess() as running:
        running.runtime.parent.chmod(0o755)
        running.runtime.chmod(0o755)
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


def held(path: Path, name: str = "") -> Any:
    """Weights of `path` through the daemon."""
    return attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=30, name=name)


@needs_root
def test_other_users_see_what_is_theirs(shared: Path, daemon: DaemonProcess) -> None:
    """A public model is lent to all; a private one looks missing; names, pins and unloading are guarded."""
    public = write_safetensors(shared / "public.safetensors", {"a": np.ones(8, np.float32)})
    private = write_safetensors(shared / "private.safetensors", {"a": np.full(8, 2, np.float32)})
    private.chmod(0o600)
    theirs = write_safetensors(shared / "theirs.safetensors", {"a": np.full(8, 3, np.float32)})
    os.chown(theirs, OTHER_UID, OTHER_UID)
    mine = [held(public, "public"), held(private)]

    def look() -> dict[str, Any]:
        client = CONNECTIONS.client()
        own = held(theirs, "theirs")
        return {
            "own": float(own["a"].sum()),
            "public": float(attach("public")["a"].sum()),
            "path": outcome(lambda: held(private)),
            "rows": [r.name for r in client.ask(ListModels(), 5).rows],
            "leases": [r.uid for r in client.ask(ListLeases(), 5).rows],
            "unload": outcome(lambda: client.ask(Unload("public"), 5)),
            "squat": outcome(lambda: client.ask(Offer((str(theirs),), name="public"), 5)),
            "pin": outcome(lambda: client.ask(Offer((str(theirs),), name="other", pin=True), 5)),
        }

    seen = as_user(OTHER_UID, look)
    assert seen["public"] == 8.0
    assert seen["own"] == 24.0
    assert seen["path"].startswith("AccessDenied")
    assert seen["rows"] == ["public", "theirs"]
    assert set(seen["leases"]) == {OTHER_UID}
    assert [seen[k].partition(":")[0] for k in ("unload", "squat", "pin")] == ["AccessDenied"] * 3
    rows = {r.name: r for r in CONNECTIONS.client().ask(ListModels(), 5).rows}
    assert set(rows) == {"public", "theirs", str(private)}
    # The other user may write that file, so it is only lent as it lies while the kernel guards it.
    assert (rows["theirs"].residence, rows["theirs"].guard) == ("mapped", "guarded")
    assert len(CONNECTIONS.client().ask(ListLeases(), 5).rows) == len(mine)


@needs_root
def test_hidden_and_missing_look_alike(shared: Path, daemon: DaemonProcess) -> None:
    """Another user's private model and one that never was bring the same words."""
    mine = held(write_safetensors(shared / "secret.safetensors", {"a": np.ones(8, np.float32)}))
    names = (mine.name, "/never/was.safetensors")

    def look() -> list[str]:
        client = CONNECTIONS.client()
        return [outcome(lambda n=n: client.ask(Attach(n), 5)).replace(n, "NAME") for n in names]

    hidden, missing = as_user(OTHER_UID, look)
    assert hidden == missing
    assert hidden.startswith("NotFound")


@needs_root
def test_ticket_is_bound_to_its_uid(shared: Path, daemon: DaemonProcess) -> None:
    """A ticket that another user got hold of is worth nothing to them, and still works for its owner."""
    held(write_safetensors(shared / "m.safetensors", {"a": np.ones(8, np.float32)}), "m")
    ticket = CONNECTIONS.client().ask(Attach("m"), 5).ticket.hex()

    def steal() -> str:
        import socket

        from mapcell_formats import messages, wire

        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"{daemon.runtime}/handles.sock")
            sock.send(wire.encode(messages.Redeem(bytes.fromhex(ticket))))
            payload, fds, _, _ = socket.recv_fds(sock, messages.MAX_HANDLE_BYTES, 8)
            return f"{type(wire.decode(payload, messages.HANDOUTS)[1]).__name__} {len(fds)}"

    assert as_user(OTHER_UID, steal) == "Refused 0"
    assert as_user(0, steal) == "Grant 2"


def test_nothing_listens_on_the_network(daemon: DaemonProcess) -> None:
    """The daemon and what it started have no network socket."""
    process = psutil.Process(daemon.pid)
    for one in [process, *process.children(recursive=True)]:
        assert one.net_connections(kind="inet") == []
