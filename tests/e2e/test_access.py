"""What the configuration says of people and places holds: who is let in, who sees what, how much each may have."""

from __future__ import annotations

import gc
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import mapcell
from mapcell.connection import CONNECTIONS, daemon_status
from mapcell_formats import messages, wire
from mapcell_formats.errors import BudgetExceeded, StagingFailed
from mapcell_formats.messages import Attach, Evict, ListModels, Pin, Retire, Tag
from support.configured import Configured, model
from support.daemon import DaemonProcess
from support.models import MIB, load, number_of, rows, write_model
from support.proc import eventually
from support.raw import connect, hear, redeem, ticket_for
from support.users import A_GROUP, OTHER_UID, THIRD_UID, as_user, needs_root, outcome

MODEL = 4 * MIB


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="mcu", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def seen(name: str) -> str:
    """The number that `name` holds, or the class of what is raised."""
    return outcome(lambda: number_of(mapcell.attach(name, timeout=20))).partition(":")[0]


def knock(runtime: Path) -> str:
    """What the handle channel answers to an unknown ticket, or to the knock itself: its refusal's code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(f"{runtime}/handles.sock")
        with suppress(BrokenPipeError):
            sock.send(wire.encode(messages.Redeem(bytes(16))))
        _, refused = wire.decode(sock.recv(messages.MAX_HANDLE_BYTES), messages.HANDOUTS)
        return str(refused.code)


@needs_root
def test_allow_narrows_who_is_let_in(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[allow] admits users and groups, supplementary ones too, on both channels; operators always."""
    path = write_model(shared / "m.safetensors", 1)
    text = f'[allow]\nusers = ["{OTHER_UID}"]\ngroups = ["{A_GROUP}"]\n' + model("m", path)
    with Configured(shared, text, monkeypatch) as daemon:

        def look() -> list[str]:
            return [seen("m"), outcome(lambda: CONNECTIONS.client().ask(ListModels(), 5)), knock(daemon.runtime)]

        for uid, groups in ((OTHER_UID, ()), (THIRD_UID, (A_GROUP,)), (0, ())):
            admitted = as_user(uid, look, groups)
            assert (admitted[0], admitted[2]) == ("1", "protocol")
        refused = as_user(THIRD_UID, look)
        assert (refused[0], refused[2]) == ("AccessDenied", "access-denied")
        assert "not in the daemon's [allow]" in refused[1]


@needs_root
def test_a_model_is_shown_to_its_users_and_groups(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not listed for a model finds neither it nor a trace, loaded or not; who is in a listed group does."""
    source = write_model(shared / "m.safetensors", 1)
    text = model("users", source, f'allow = {{ users = ["{OTHER_UID}"] }}')
    text += model("groups", source, f'allow = {{ groups = ["{A_GROUP}"] }}') + model("all", source)
    with Configured(shared, text, monkeypatch):

        def look() -> dict[str, Any]:
            client = CONNECTIONS.client()
            words = {n: outcome(lambda n=n: client.ask(Attach(n), 5)).replace(n, "NAME") for n in ("users", "nobody")}
            return {
                **{name: seen(name) for name in ("users", "groups", "all")},
                "alike": words["users"] == words["nobody"],
                "rows": sorted({r.name for r in client.ask(ListModels(), 5).rows if r.version}),
                "heard": sorted({e.name for e in mapcell.watch(timeout=0.3)}),
            }

        # The stranger first, while nothing is loaded; then whoever loads; then the stranger again.
        for _ in range(2):
            stranger = as_user(THIRD_UID, look)
            assert [stranger[n] for n in ("users", "groups", "all")] == ["NotFound", "NotFound", "1"]
            assert stranger["alike"]
            assert stranger["rows"] == stranger["heard"] == ["all"]
            listed = as_user(OTHER_UID, look, (A_GROUP,))
            assert [listed[n] for n in ("users", "groups", "all")] == ["1", "1", "1"]
            assert listed["rows"] == listed["heard"] == ["all", "groups", "users"]
        assert as_user(THIRD_UID, look, (A_GROUP,))["rows"] == ["all", "groups"]


@needs_root
def test_operators_verbs(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin, tag, evict and retire are refused to everybody but operators, who may be a group."""
    path = write_model(shared / "m.safetensors", 1)
    text = f'allow = {{ operators = {{ groups = ["{A_GROUP}"] }} }}\n' + model("m", path)
    with Configured(shared, text, monkeypatch):

        def act() -> list[str]:
            client, version = CONNECTIONS.client(), mapcell.attach("m").version
            verbs = [Pin("m", True), Pin("m", False), Tag("m", version, "t"), Evict("m"), Retire("m")]
            gc.collect()
            eventually(lambda: daemon_status().leases == 0)
            return [outcome(lambda v=v: client.ask(v, 5)).partition("(")[0].partition(":")[0] for v in verbs]

        assert as_user(OTHER_UID, act) == ["AccessDenied"] * 5
        # The last two of an operator: gone is gone.
        assert as_user(OTHER_UID, act, (A_GROUP,)) == ["Models"] * 4 + ["NotFound"]


@needs_root
def test_quotas_bound_each_user(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases, staged bytes and connections are counted for each uid, refused by name, and free again when closed."""
    path = write_model(shared / "m.safetensors", 1)
    big = write_model(shared / "big.safetensors", 2, tensors=8)
    text = f'[quota]\nleases = 2\nconnections = 4\nstaged = "{MODEL}"\n' + model("m", path)
    with Configured(shared, text, monkeypatch) as daemon:
        mine = [mapcell.attach("m") for _ in range(6)]

        def leases() -> list[str]:
            held = [mapcell.attach("m") for _ in range(2)]
            third = outcome(lambda: mapcell.attach("m"))
            held.pop()
            gc.collect()
            time.sleep(0.1)
            return [third, seen("m"), str(number_of(held[0]))]

        def staged() -> list[str]:
            first = load(path, "mine")
            return [outcome(lambda: load(big, "more")), str(number_of(first))]

        def connections() -> list[str]:
            with ExitStack() as stack:
                for _ in range(4):
                    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                    sock.connect(f"{daemon.runtime}/handles.sock")
                return [knock(daemon.runtime), outcome(lambda: mapcell.attach("m"))]

        third, *others = as_user(OTHER_UID, leases)
        assert third.startswith("AccessDenied: uid 41207 has 2 leases, as many as its quota allows")
        assert others == ["1", "1"]
        refused, first = as_user(THIRD_UID, staged)
        assert refused.startswith("BudgetExceeded")
        assert "uid 41208 has" in refused
        assert first == "1"
        knocked, attached = as_user(OTHER_UID, connections)
        assert knocked == "access-denied"
        assert attached.startswith("AccessDenied: uid 41207 has 4 connections, as many as its quota allows")
        assert as_user(OTHER_UID, lambda: knock(daemon.runtime)) == "protocol"
        # An operator has no quota.
        assert [number_of(w) for w in mine] == [1] * 6


@needs_root
def test_quota_of_requests(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has as many requests being staged as the quota allows is refused more until they are done."""
    paths = [write_model(shared / f"{i}.safetensors", i) for i in range(8)]
    with Configured(shared, "[quota]\nrequests = 1\n", monkeypatch) as daemon:

        def crowd() -> list[str]:
            with ExitStack() as stack:
                socks = [stack.enter_context(connect(daemon.runtime)) for _ in paths]
                tickets = [ticket_for(daemon.runtime, messages.Offer((str(p),), residence="sealed")) for p in paths]
                files = [stack.enter_context(p.open("rb")) for p in paths]
                for sock, ticket, file in zip(socks, tickets, files, strict=True):
                    redeem(sock, ticket, [file.fileno()])
                return [type(hear(sock)[0]).__name__ for sock in socks]

        answers = as_user(OTHER_UID, crowd)
        assert set(answers) == {"Grant", "Refused"}
        assert answers[0] == "Grant"
        assert as_user(OTHER_UID, lambda: [number_of(load(p)) for p in paths]) == list(range(8))
        # An operator may have any number of them.
        assert as_user(0, crowd) == ["Grant"] * 8


def digests(path: Path, daemon: DaemonProcess) -> dict[str, str]:
    """Both digests of a checkpoint: of its content, as the daemon finds it, and of its file."""
    content = load(path).version
    return {"blake3": content, "sha256": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}


@pytest.mark.parametrize("residence", ["sealed", "mapped"])
@pytest.mark.parametrize("kind", ["blake3", "sha256"])
def test_a_demanded_digest(kind: str, residence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has the digest is lent, anything else is refused before a lease, by a message that names both digests."""
    right, wrong = write_model(tmp_path / "r.safetensors", 1), write_model(tmp_path / "w.safetensors", 2)
    with DaemonProcess() as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        wanted, other = digests(right, daemon)[kind], digests(wrong, daemon)[kind]
        mapcell.disconnect()
    lines = (f'digest = "{wanted}"', f'residence = "{residence}"')
    text = model("right", right, *lines) + model("wrong", wrong, *lines)
    with Configured(tmp_path, text, monkeypatch):
        weights = mapcell.attach("right")
        assert number_of(weights) == 1
        assert weights.residence == residence
        if kind == "blake3":
            assert (weights.version, weights.verified) == (wanted, True)
        with pytest.raises(StagingFailed, match=f"is {other}, but its digest has to be {wanted}"):
            mapcell.attach("wrong")
        assert [r.name for r in rows()] == ["right"]
        assert daemon_status().leases == 1
        # The same file by path asks for no digest, and gives the name nothing.
        assert number_of(load(wrong)) == 2
        with pytest.raises(StagingFailed):
            mapcell.attach("wrong")


def outside(folder: Path) -> Path:
    """A link beneath the root that leads out of it."""
    (folder / "root" / "out.safetensors").symlink_to(write_model(folder / "secret.safetensors", 3))
    return folder / "root" / "out.safetensors"


def inside(folder: Path) -> Path:
    """A link to a link beneath the root, as Hugging Face's cache has them."""
    blobs = folder / "root" / "blobs"
    blobs.mkdir()
    write_model(blobs / "0123", 1)
    (folder / "root" / "snapshot").symlink_to("blobs")
    (folder / "root" / "in.safetensors").symlink_to("snapshot/0123")
    return folder / "root" / "in.safetensors"


def climbing(folder: Path) -> Path:
    """A link that climbs above the root by dots, and comes back."""
    write_model(folder / "root" / "real.safetensors", 1)
    (folder / "root" / "up.safetensors").symlink_to("../root/real.safetensors")
    return folder / "root" / "up.safetensors"


def elsewhere(folder: Path) -> Path:
    """A file beneath no root."""
    return write_model(folder / "secret.safetensors", 3)


def fifo(folder: Path) -> Path:
    """A fifo that nobody writes to."""
    os.mkfifo(folder / "root" / "fifo")
    return folder / "root" / "fifo"


def missing(folder: Path) -> Path:
    """Nothing."""
    return folder / "root" / "nothing.safetensors"


def magic(folder: Path) -> Path:
    """A link through /proc, which the kernel follows without looking at its text."""
    (folder / "root" / "magic").symlink_to(f"/proc/{os.getpid()}/root/etc/passwd")
    return folder / "root" / "magic"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (inside, "1"),
        (outside, "AccessDenied"),
        (climbing, "AccessDenied"),
        (elsewhere, "AccessDenied"),
        (magic, "AccessDenied"),
        (fifo, "FormatError"),
        (missing, "NotFound"),
    ],
)
def test_roots(make: Callable[[Path], Path], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configured source is opened beneath its root: links inside are followed, and nothing else gets out."""
    (tmp_path / "root").mkdir()
    source = make(tmp_path)
    with Configured(tmp_path, f'roots = ["{tmp_path}/root"]\n' + model("m", source), monkeypatch) as daemon:
        assert seen("m") == expected
        assert daemon.alive()
        assert daemon_status().stagers == 0


@needs_root
def test_sighup_changes_what_can_change(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budget, [allow], models, their lists and quotas follow the file at SIGHUP; a mistake in it changes nothing."""
    path = write_model(shared / "m.safetensors", 1)
    with Configured(shared, model("m", path), monkeypatch) as daemon:
        held = mapcell.attach("m")
        assert as_user(OTHER_UID, lambda: seen("m")) == "1"
        text = 'budget = "5MiB"\n[quota]\nleases = 1\n' + model("m", path, 'allow = { users = ["0"] }')
        text += model("also", write_model(shared / "also.safetensors", 2), 'residence = "sealed"')
        assert daemon.reload(text).endswith("reloaded")
        assert as_user(OTHER_UID, lambda: [seen("m"), seen("also")]) == ["NotFound", "2"]
        assert daemon_status().budget == 5 * MIB
        with pytest.raises(BudgetExceeded):
            load(write_model(shared / "big.safetensors", 3, tensors=8), "big")
        two = as_user(OTHER_UID, lambda: [seen("also"), outcome(lambda: [mapcell.attach("also") for _ in range(2)])])
        assert two[0] == "2"
        assert "quota" in two[1]
        assert f"{daemon.config}, line 1: unknown key bugdet; did you mean budget?" in daemon.reload(
            'bugdet = "1GiB"\n'
        )
        assert daemon_status().budget == 5 * MIB
        assert as_user(OTHER_UID, lambda: seen("m")) == "NotFound"
        assert daemon.reload(f'[allow]\nusers = ["{THIRD_UID}"]\n' + model("m", path)).endswith("reloaded")
        assert as_user(OTHER_UID, lambda: seen("m")) == "AccessDenied"
        assert as_user(THIRD_UID, lambda: seen("m")) == "1"
        assert number_of(held) == 1
