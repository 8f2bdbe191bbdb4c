"""Stagers through the spawner: started in turns, killed when let go, and started anew when the spawner dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mapcell_formats.errors import MapcellError, StagingFailed
from mapcell_formats.messages import Identified, Job, Manner, Refused, Selection
from mapcelld import stagers
from mapcelld.stagers import MAX_IN_ALL, MAX_PER_UID, Spawner, Stager, Stagers, Turns


def run(scene: Callable[[Stagers], Awaitable[None]]) -> None:
    """Plays `scene` with real stagers, which end with it."""

    async def play() -> None:
        pool = Stagers()
        try:
            await pool.open()
            await asyncio.wait_for(scene(pool), 30)
        finally:
            await pool.close()

    asyncio.run(play())


def job(path: Path | str, **fields: object) -> Job:
    """A job for a configured path."""
    sound: dict[str, object] = {
        "kind": "configured",
        "paths": (str(path),),
        "roots": (),
        "selection": Selection(),
        "residence": "auto",
        "base": "",
        "manner": Manner(),
    }
    return Job(**(sound | fields))  # type: ignore[arg-type]


async def ended(pid: int) -> None:
    """Returns once the process is gone, or dead and left to whoever reaps orphans on this machine."""
    while _alive(pid):
        await asyncio.sleep(0.005)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def spawner_of(pool: Stagers) -> Spawner:
    """The one that the stagers come from."""
    return pool._spawner


def spawner_pid(pool: Stagers) -> int:
    """Its process."""
    process = spawner_of(pool)._process
    assert process is not None
    return process.pid


async def answer(stager: Stager, sent: Job) -> object:
    """What a stager says first to a job."""
    stager.begin(sent, [])
    return (await stager.receive(10)).message


def test_a_process_each(tmp_path: Path) -> None:
    """Each job has a process of its own, which ends when it is let go."""

    async def scene(pool: Stagers) -> None:
        (tmp_path / "x").write_bytes(b"not a checkpoint")
        first, second = await pool.start(), await pool.start()
        pids = {first._pid, second._pid}
        assert len(pids) == 2
        told = await answer(first, job(tmp_path / "x"))
        assert isinstance(told, Identified)
        assert told.pid == first._pid
        first.close()
        second.close()
        for pid in pids:
            await ended(pid)

    run(scene)


def test_a_job_that_names_much(tmp_path: Path) -> None:
    """A job goes through whole that is longer than what a socket's buffer takes as one message."""

    async def scene(pool: Stagers) -> None:
        stager = await pool.start()
        keys = tuple(f"{n:0200d}" for n in range(4096))
        told = await answer(stager, job(tmp_path / "gone", selection=Selection(keys=keys)))
        assert isinstance(told, Refused)
        assert "no such file" in told.message
        stager.close()

    run(scene)


def test_killed_while_idle() -> None:
    """A stager that dies is an error for whoever waits for it, and none for the spawner."""

    async def scene(pool: Stagers) -> None:
        stager = await pool.start()
        os.kill(stager._pid, signal.SIGKILL)
        with pytest.raises(StagingFailed, match="the stager died"):
            await stager.receive(10)
        with pytest.raises(StagingFailed, match="the stager is gone"):
            stager.begin(job("/x"), [])
        stager.close()
        other = await pool.start()
        other.close()

    run(scene)


def test_spawner_dies_and_comes_back() -> None:
    """With the spawner its stagers die; the next job, or several at once, find one new spawner."""

    async def scene(pool: Stagers) -> None:
        stager = await pool.start()
        old = spawner_pid(pool)
        os.kill(old, signal.SIGKILL)
        with pytest.raises(StagingFailed, match="the stager died"):
            await stager.receive(10)
        stager.close()
        started = await asyncio.gather(*(pool.start() for _ in range(5)), return_exceptions=True)
        for one in started:
            # Whoever asked in the moment of its death may be told so, and nothing else.
            assert isinstance(one, (Stager, StagingFailed))
            if isinstance(one, Stager):
                one.close()
        again = [await pool.start() for _ in range(3)]
        assert spawner_pid(pool) != old
        assert len(_children()) == 1
        for one in again:
            one.close()

    run(scene)


def test_spawner_dies_while_asked() -> None:
    """A fork that was asked for and will not come is an error at once, not at a deadline."""

    async def scene(pool: Stagers) -> None:
        os.kill(spawner_pid(pool), signal.SIGSTOP)
        asked = asyncio.create_task(pool.start())
        while not spawner_of(pool)._answers:
            await asyncio.sleep(0)
        os.kill(spawner_pid(pool), signal.SIGKILL)
        with pytest.raises(StagingFailed, match="the spawner died; ask again"):
            await asked
        (await pool.start()).close()

    run(scene)


def test_given_up_while_asked() -> None:
    """A fork whose asker has left leaves nothing behind, and the next answer goes to the next asker."""

    async def scene(pool: Stagers) -> None:
        os.kill(spawner_pid(pool), signal.SIGSTOP)
        asked = asyncio.create_task(pool.start())
        while not spawner_of(pool)._answers:
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        os.kill(spawner_pid(pool), signal.SIGCONT)
        stager = await pool.start()
        stager.begin(job("/nothing/there"), [])
        assert isinstance((await stager.receive(10)).message, Refused)
        stager.close()

    run(scene)


def test_a_spawner_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer is given up at a deadline."""
    monkeypatch.setattr(stagers, "START_SECONDS", 0.01)

    async def scene(pool: Stagers) -> None:
        os.kill(spawner_pid(pool), signal.SIGSTOP)
        with pytest.raises(StagingFailed, match="no stager could be started"):
            await pool.start()
        os.kill(spawner_pid(pool), signal.SIGCONT)

    run(scene)


def test_nothing_outlives_the_pool() -> None:
    """Closing ends the spawner and every stager, idle or not, and can be done twice."""
    pids: list[int] = []

    async def scene(pool: Stagers) -> None:
        for _ in range(3):
            stager = await pool.start()
            pids.append(stager._pid)
            held.append(stager)
        pids.append(spawner_pid(pool))

    held: list[Stager] = []
    run(scene)
    for stager in held:
        stager.close()
    asyncio.run(asyncio.wait_for(_all_ended(pids), 10))


async def _all_ended(pids: list[int]) -> None:
    for pid in pids:
        await ended(pid)


def test_turns() -> None:
    """One user has so many at once, all users so many together, and who leaves lets the next one in."""

    async def scene() -> None:
        pool = Turns()
        inside: list[int] = []
        leave = asyncio.Event()

        async def stay(uid: int) -> None:
            async with pool.turn(uid):
                inside.append(uid)
                await leave.wait()

        tasks = [asyncio.create_task(stay(uid)) for uid in range(6) for _ in range(MAX_PER_UID + 1)]
        await asyncio.sleep(0.01)
        assert len(inside) == MAX_IN_ALL
        assert max(map(inside.count, range(6))) == MAX_PER_UID
        tasks[0].cancel()
        await asyncio.sleep(0.01)
        assert len(inside) == MAX_IN_ALL + 1
        leave.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(inside) == sorted(uid for uid in range(6) for _ in range(MAX_PER_UID + 1))
        assert pool._per_uid == {}

    asyncio.run(scene())


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_errors_are_typed(tmp_path: Path) -> None:
    """A job that cannot be done brings the error that says why, as itself."""

    async def scene(pool: Stagers) -> None:
        for path, says in ((tmp_path / "gone", "no such file"), (tmp_path, "no checkpoint")):
            stager = await pool.start()
            told = await answer(stager, job(path))
            assert isinstance(told, Refused)
            assert isinstance(told.error(), MapcellError)
            assert says in told.message or str(path) in told.message
            stager.close()

    run(scene)
