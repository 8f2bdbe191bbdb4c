"""A file that changes under its maps kills nobody and changes no byte of what workers see.

MAPCELL_TEST_GUARD says how many rounds of changes are tried: 20 in the suite, 1,000 were promised.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mapcell
from mapcell.connection import daemon_status
from mapcell.mapping import SegmentMap
from mapcell_formats.errors import NotFound
from mapcell_formats.messages import Evict, ListLeases, ModelRow
from support.checkpoints import write_safetensors
from support.configured import Configured, model
from support.daemon import DaemonProcess
from support.guarding import DISTURBANCES, HARMLESS, Worker
from support.models import load, number_of, rows, tell, write_model
from support.proc import eventually, shared_memory
from support.users import needs_root

ROUNDS = int(os.environ.get("MAPCELL_TEST_GUARD", "20"))
SEED = int(os.environ.get("MAPCELL_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
WORKERS = 8
# Longer than any busy machine needs, and shorter than the kernel waits.
LONG = 'guard_deadline = "30s"\n'
SHORT = 'guard_deadline = "400ms"\n'


@contextlib.contextmanager
def workers(count: int, daemon: DaemonProcess) -> Iterator[list[Worker]]:
    """So many workers, ended at the end."""
    held = [Worker(daemon.env()) for _ in range(count)]
    try:
        yield held
    finally:
        for worker in held:
            worker.close()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[Callable[[], None]]:
    """Process `pid` stopped, until the call that this gives, or the block's end."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)


def meanwhile(action: Callable[[], object]) -> threading.Thread:
    """Does `action` on a thread of its own: a writer, who may have to wait."""
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def row(name: str) -> ModelRow:
    """The newest version of a model."""
    return rows(name)[0]


def guarded(path: Path, number: int, name: str = "m", **options: Any) -> mapcell.Weights:
    """Weights of a new checkpoint, mapped and guarded."""
    weights = load(write_model(path, number, tensors=2), name, residence="auto", **options)
    assert (weights.residence, row(name).guard) == ("mapped", "guarded")
    return weights


def all_right(looking: list[Worker]) -> None:
    """Every worker is alive, and sees after this what it saw before."""
    for worker in looking:
        worker.say("look")
    assert [worker.answer()["wrong"] for worker in looking] == [0] * len(looking)


def changes(daemon: DaemonProcess, folder: Path, rounds: int, change: Callable[[str, Path], object]) -> None:
    """`rounds` of changes to files that 8 workers look at without pause."""
    chance = random.Random(SEED)
    print(json.dumps({"rounds": rounds, "seed": SEED}))
    with workers(WORKERS, daemon) as looking:
        for number in range(1, rounds + 1):
            name, path = f"m{number}", folder / f"m{number}"
            guarded(path, number, name).close()
            for worker in looking:
                worker.say("attach", name, number)
            assert [worker.answer() for worker in looking] == [None] * WORKERS
            what = chance.choice(list(DISTURBANCES))
            change(what, path)
            all_right(looking)
            assert row(name).residence == ("mapped" if what in HARMLESS else "sealed"), what
            for worker in looking:
                worker.say("drop", name)
            assert [worker.answer() for worker in looking] == [None] * WORKERS
            eventually(lambda name=name: row(name).leases == 0)  # type: ignore[misc]
            tell(Evict(name))
            for left in folder.iterdir():
                left.unlink()


def test_no_change_is_noticed(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Whatever is done to a file, by one process or another: nobody dies, and no byte is wrong."""
    with workers(1, daemon) as (writer,):
        turns = itertools.cycle(
            [DISTURBANCES.__getitem__, lambda what: lambda path: writer.tell("disturb", what, path)]
        )
        changes(daemon, tmp_path, ROUNDS, lambda what, path: next(turns)(what)(path))
    assert "ERROR" not in daemon.log()


def test_a_worker_changes_its_own_file(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A worker that writes to the file that it maps itself waits for its own thread, and goes on with the old bytes."""
    with guarded(tmp_path / "m", 3), workers(1, daemon) as (worker,):
        worker.tell("attach", "m", 3)
        worker.tell("disturb", "rewrite", tmp_path / "m")
        all_right([worker])


@needs_root
def test_through_another_mount(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Writers that see the file through a bind mount of another namespace wait just the same."""
    files, other = tmp_path / "files", tmp_path / "other"
    files.mkdir()
    other.mkdir()
    script = f'mount --make-rprivate / && mount --bind {files} {other} && exec "$@"'
    writer = Worker(daemon.env(), "unshare", "--mount", "sh", "-c", script, "sh")
    try:
        rounds = max(ROUNDS // 4, 3)
        changes(daemon, files, rounds, lambda what, path: writer.tell("disturb", what, other / path.name))
    finally:
        writer.close()


def numpys(array: np.ndarray[Any, Any]) -> int:
    """The address of an array's first element."""
    return int(array.ctypes.data)


def torchs(array: np.ndarray[Any, Any]) -> int:
    """The same, as a tensor over the array has it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with warnings.catch_warnings():
        # It says that nobody stops its user from writing: the kernel does.
        warnings.simplefilter("ignore")
        return int(torch.from_numpy(array).data_ptr())


@pytest.mark.parametrize("address", [numpys, torchs])
def test_addresses_stay(daemon: DaemonProcess, tmp_path: Path, address: Callable[[np.ndarray[Any, Any]], int]) -> None:
    """What holds raw pointers into the weights reads the same bytes there before and after, and no map is left over."""
    path = write_safetensors(tmp_path / "m", {"w": np.arange(300_000, dtype=np.float32)})
    weights = load(path, "m", residence="auto")
    view = weights["w"]
    pointer, before = address(view), view.tobytes()
    os.truncate(path, 0)
    assert row("m").residence == "sealed"
    assert ctypes.string_at(pointer, len(before)) == before
    assert address(weights["w"]) == address(view) == pointer
    assert str(path) not in Path("/proc/self/maps").read_text()
    del view
    weights.close()
    gc.collect()
    assert "mapcell-segment" not in Path("/proc/self/maps").read_text()


def test_one_thread_while_it_is_needed(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Sealed weights start no thread, mapped ones one for all, and the last of them ends it."""
    sealed = load(write_model(tmp_path / "s", 1), "s", residence="sealed")
    before = threading.active_count()
    held = [guarded(tmp_path / "m", 2), mapcell.attach("m"), guarded(tmp_path / "n", 3, "n")]
    assert threading.active_count() == before + 1
    for weights in held:
        weights.close()
    held.clear()
    gc.collect()
    eventually(lambda: threading.active_count() == before)
    assert number_of(sealed) == 1


# --- private pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_path", [True, False], ids=["path", "name"])
def test_private_pages_lie_over_memory(daemon: DaemonProcess, tmp_path: Path, by_path: bool) -> None:
    """mode="c" of a file that could be mapped: what was written stays, what was not stays too, and nobody waits."""
    path = write_model(tmp_path / "m", 4)
    held = None if by_path else load(path, "m", residence="mapped")
    mine = mapcell.attach(path if by_path else "m", mode="c", daemon="require")
    assert mine.residence == "sealed"
    mine["t0"][:] = 9
    os.truncate(path, 0)
    assert (float(mine["t0"][0]), float(mine["t0"][-1]), float(mine["t1"][0])) == (9, 9, 4)
    assert held is None or number_of(held) == 4


# --- forks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["parent", "child"])
def test_forks(daemon: DaemonProcess, tmp_path: Path, first: str) -> None:
    """A child has a lease of its own under its own pid, and keeps its bytes whoever of the two is gone first."""
    path = tmp_path / "m"
    weights = guarded(path, 5)
    go, gone, seen = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            if first == "child":
                os._exit(0)
            os.read(go[0], 1)
            assert number_of(weights) == 5
            os.write(seen[1], b"x")
            status = 0
        os._exit(status)
    try:
        if first == "child":
            os.waitpid(pid, 0)
            os.truncate(path, 0)
            assert number_of(weights) == 5
        else:
            eventually(lambda: {x.pid for x in tell(ListLeases()).rows} == {os.getpid(), pid})
            weights.close()
            del weights
            gc.collect()
            eventually(lambda: [x.pid for x in tell(ListLeases()).rows] == [pid])
            os.truncate(path, 0)
            os.write(go[1], b"x")
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            eventually(lambda: tell(ListLeases()).rows == ())
    finally:
        for fd in (*go, *gone, *seen):
            os.close(fd)


def test_grandchildren(daemon: DaemonProcess, tmp_path: Path) -> None:
    """What a child forks has a lease as well, and all three map the copy."""
    path = tmp_path / "m"
    weights = guarded(path, 6)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            own = os.fork()
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            status = 0 if number_of(weights) == 6 else 1
            if own:
                status |= os.waitstatus_to_exitcode(os.waitpid(own, 0)[1])
        os._exit(status)
    try:
        assert len(os.read(ready[0], 1) + os.read(ready[0], 1)) == 2
        eventually(lambda: len(tell(ListLeases()).rows) == 3)
        os.truncate(path, 0)
        os.write(go[1], b"xx")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert number_of(weights) == 6
    finally:
        for fd in (*ready, *go):
            os.close(fd)


# --- processes that stop and die ------------------------------------------------------------------------------------


def test_what_happens_during_a_rescue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a writer waits for one worker, others attach and see right bytes, and leases end; then it goes on."""
    with Configured(tmp_path, LONG, monkeypatch) as daemon, workers(3, daemon) as (slow, leaving, late):
        path = tmp_path / "m"
        guarded(path, 7).close()
        for worker in (slow, leaving):
            worker.tell("attach", "m", 7)
        with stopped(slow.pid) as go_on:
            writer = meanwhile(lambda: os.truncate(path, 0))
            eventually(lambda: row("m").guard == "rescuing" and row("m").residence == "sealed")
            assert late.tell("attach", "m", 7) is None
            with mapcell.attach("m") as weights:
                assert number_of(weights) == 7
            leaving.tell("drop", "m")
            leaving.process.kill()
            eventually(lambda: {x.pid for x in tell(ListLeases()).rows} == {slow.pid, late.pid})
            assert writer.is_alive()
            go_on()
            writer.join(20)
        assert not writer.is_alive()
        all_right([slow, late])
        assert path.stat().st_size == 0
        assert row("m").guard == ""


def test_who_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stopped holds a writer up to the deadline; log and show name it. It follows when it goes on."""
    with Configured(tmp_path, SHORT, monkeypatch) as daemon, workers(2, daemon) as (slow, other):
        path = tmp_path / "m"
        guarded(path, 8).close()
        for worker in (slow, other):
            worker.tell("attach", "m", 8)
        with stopped(slow.pid):
            os.truncate(path, 0)
            assert f"pids={slow.pid}" in daemon.log()
            assert row("m").outlook == f"did not let go of the file in time: pid {slow.pid}"
            all_right([other])


def test_killed_workers_hold_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the worker that a writer waits for lets it go on, and nothing of the worker stays."""
    with Configured(tmp_path, LONG, monkeypatch) as daemon, workers(1, daemon) as (worker,):
        path = tmp_path / "m"
        guarded(path, 9).close()
        worker.tell("attach", "m", 9)
        with stopped(worker.pid):
            writer = meanwhile(lambda: os.truncate(path, 0))
            eventually(lambda: row("m").residence == "sealed")
            assert writer.is_alive()
            worker.process.kill()
            writer.join(20)
        assert not writer.is_alive()
        assert "did not follow" not in daemon.log()
        eventually(lambda: daemon_status().leases == 0)
        tell(Evict("m"))
        eventually(lambda: shared_memory(daemon.pid) == 0)


def test_a_dead_daemon_guards_nothing(daemon: DaemonProcess, tmp_path: Path) -> None:
    """kill -9 of a daemon that no service manager looks after: views stay, and writers wait for nobody."""
    path = tmp_path / "m"
    weights = guarded(path, 1)
    with pytest.raises(BlockingIOError):
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    assert number_of(weights) == 1
    path = tmp_path / "n"
    weights = guarded(path, 2, "n")
    daemon.kill()
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    assert number_of(weights) == 2


def test_several_files_at_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    """All shards of a checkpoint written to in the same moment: each is copied, none is mixed up."""
    folder, names = tmp_path / "shards", [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    folder.mkdir()
    for number, name in enumerate(names, 1):
        write_safetensors(folder / name, {f"t{number}": np.full(400_000, number, np.float32)})
    index = {"weight_map": {f"t{n}": name for n, name in enumerate(names, 1)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with load(folder, "m", residence="mapped") as weights:
        assert row("m").guard == "guarded"
        views = {n: weights[f"t{n}"] for n in (1, 2, 3)}
        # The index is a file of the checkpoint, too.
        writers = [meanwhile(lambda path=path: os.truncate(path, 0)) for path in folder.iterdir()]  # type: ignore[misc]
        for writer in writers:
            writer.join(30)
        assert all(bool((view == n).all()) for n, view in views.items())
        assert (row("m").guard, row("m").residence) == ("", "sealed")
        del views


# --- room -----------------------------------------------------------------------------------------------------------


def test_room_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """show says what a writer will bring about, and so it comes: the unused is evicted, then the budget is passed."""
    with Configured(tmp_path, 'budget = "7MiB"\n', monkeypatch):
        load(write_model(tmp_path / "s", 1), "idle").close()
        gc.collect()
        held = guarded(tmp_path / "m", 2)
        more = guarded(tmp_path / "n", 3, "n")
        third = guarded(tmp_path / "o", 4, "o")
        assert row("m").outlook == "copied if written to: 2097304 bytes"
        os.truncate(tmp_path / "m", 0)
        assert row("n").outlook == "copied if written to: 2097304 bytes, for which idle is evicted"
        os.truncate(tmp_path / "n", 0)
        assert {r.name for r in rows()} == {"m", "n", "o"}
        os.truncate(tmp_path / "o", 0)
        assert [number_of(w) for w in (held, more, third)] == [2, 3, 4]
        fourth = guarded(tmp_path / "p", 5, "p")
        assert "bytes over the budget" in row("p").outlook
        os.truncate(tmp_path / "p", 0)
        assert number_of(fourth) == 5
        assert daemon_status().sealed > 7 << 20


def test_the_budget_comes_first_where_so_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """on_change = "refuse": without room the writer waits its time and goes on; the version is handed out no more."""
    path = write_model(tmp_path / "m", 6, tensors=2)
    text = SHORT + 'budget = "1MiB"\n' + model("m", path, 'on_change = "refuse"')
    with Configured(tmp_path, text, monkeypatch) as daemon:
        weights = mapcell.attach("m")
        assert row("m").outlook.startswith("not copied if written to, ")
        os.truncate(path, 0)
        assert f"pids={os.getpid()}" in daemon.log()
        assert rows("m") == []
        with pytest.raises(NotFound):
            mapcell.attach(f"m@{weights.version}")
        weights.close()


def test_an_unused_copy_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody uses a version its copy never passes the budget: the version goes instead."""
    with Configured(tmp_path, SHORT + 'budget = "1MiB"\n', monkeypatch):
        guarded(tmp_path / "m", 7).close()
        gc.collect()
        eventually(lambda: daemon_status().leases == 0)
        os.truncate(tmp_path / "m", 0)
        assert rows("m") == []


# --- what is not guarded --------------------------------------------------------------------------------------------


def told(daemon: DaemonProcess, *arguments: str) -> str:
    """What a command prints."""
    command = [str(Path(sys.executable).parent / "mapcell"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=daemon.env()).stdout


def test_a_file_that_is_open_for_writing(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The kernel guards no file that somebody writes to: `auto` seals, `mapped` does not, and both say why."""
    path = write_model(tmp_path / "m", 1)
    with path.open("r+b"):
        assert load(path, "a", residence="auto").residence == "sealed"
        assert load(path, "b", residence="mapped").residence == "mapped"
        assert (row("a").guard, row("a").outlook) == ("", "not guarded: it is open for writing")
        assert (row("b").guard, row("b").outlook) == ("unguarded", "not guarded: it is open for writing")
    assert daemon.log().count("reason='it is open for writing'") == 2
    assert "not guarded: it is open for writing" in told(daemon, "show", "b")
    (found,) = [f for f in json.loads(told(daemon, "doctor", "--json")) if f["check"] == "guarded files"]
    assert (found["ok"], found["detail"]) == (False, "b: not guarded: it is open for writing")


def test_a_file_that_takes_too_long_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be copied in the writer's time is not mapped."""
    with Configured(tmp_path, 'guard_deadline = "1ms"\n', monkeypatch):
        assert load(write_model(tmp_path / "m", 1), "m", residence="auto").residence == "sealed"
        assert row("m").outlook.startswith("not guarded: a writer would wait too long for the copy of 4194592 bytes")


@needs_root
def test_a_file_system_without_leases(daemon: DaemonProcess, tmp_path: Path) -> None:
    """On an overlay, whose lower folder is written to behind the kernel's back, `auto` seals and says so."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    write_model(tmp_path / "lower" / "m", 1)
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount = f'mount --make-rprivate / && mount -t overlay overlay -o {layers} {tmp_path}/merged && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-m", "support.clients", "load", "m"]
    ran = subprocess.run(
        [*command, f"{tmp_path}/merged/m", "auto"], env=daemon.env() | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mount" in ran.stderr:
        pytest.skip(f"this machine mounts no overlay: {ran.stderr.strip()}")
    assert json.loads(ran.stdout)["residence"] == "sealed", ran.stderr
    assert row("m").outlook.startswith("not guarded: it lies on a file system (overlay)")


def test_not_every_map_can_be_replaced(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A map is replaced by what is as long, at its own addresses, and not once it is closed."""
    weights = guarded(tmp_path / "m", 1)
    segment = weights["t0"].base
    assert isinstance(segment, SegmentMap)
    with pytest.raises(OSError, match="mapping at an address"):
        segment.replace(-1)
    assert number_of(weights) == 1
