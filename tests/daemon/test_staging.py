"""Staging: one job a source whoever asks, an answer for everybody who waits, and nothing left of a job that ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from daemon.building import recipe, sealed_segment, version
from daemon.scripted import VERSION, Harness, Script, Waiting, close, staged
from mapcell_formats.errors import AccessDenied, BudgetExceeded, MapcellError, NotFound, ProtocolError, StagingFailed
from mapcell_formats.messages import Identified, Proceed, Progress, Refused, Selection, Sized
from mapcelld import channel, memfd, staging
from mapcelld.registry import Registry, State, Version


def run(scene: Callable[[Harness], Awaitable[None]], **fields: Callable[[int, int], None]) -> None:
    """Plays `scene`, and sees to it that nothing is left under way."""

    async def play() -> None:
        harness = Harness(**fields)
        try:
            await scene(harness)
        finally:
            await harness.end()
        assert (len(harness.desk), harness.desk.promised()) == (0, 0)
        assert sorted(harness.stagers.spawner.killed) == [n + 1 for n in range(len(harness.stagers.scripts))]

    asyncio.run(play())


def test_from_job_to_version() -> None:
    """The whole way: identified, sized, progress, staged; the waiter hears each step and gets the version."""

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        under_way = harness.start(waiter, selection=Selection(keys=("a",)))
        script = await harness.stagers.script(0)
        await script.identify()
        assert script.job == under_way.plan.job(under_way.uid)
        await script.size()
        assert await script.hear() == Proceed()
        assert (harness.desk.promised(), harness.desk.promised(7), harness.desk.promised(8)) == (4, 4, 0)
        report = Progress("staging", 2, 4)
        script.say(report)
        script.publish()
        made = await waiter.outcome()
        assert isinstance(made, Version)
        assert waiter.heard == ["begun", report, made]
        assert (made.id, made.nbytes, os.pread(made.segments[0].fileno(), 9, 0)) == (VERSION, 4, b"data")
        assert harness.observed == ["staging", "progress"]
        assert harness.desk.bytes_read == 10

    run(scene)


def test_single_flight() -> None:
    """Who asks for what is being made waits for that, and the second stager is let go before it has read a byte."""

    async def scene(harness: Harness) -> None:
        first, second, other = Waiting(), Waiting(), Waiting()
        harness.start(first)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size()
        harness.start(second)
        joining = await harness.stagers.script(1)
        await joining.identify()
        assert await joining.hear() is None
        harness.start(other, selection=Selection(dtype="F16"))
        apart = await harness.stagers.script(2)
        await apart.identify()
        await apart.size()
        script.publish()
        apart.publish("blake3:1", b"half")
        made = await first.outcome()
        assert made is await second.outcome()
        assert await other.outcome() is not made
        assert first.heard == second.heard == ["begun", made]
        late = Waiting()
        harness.start(late)
        await (await harness.stagers.script(3)).identify()
        assert await late.outcome() is made

    run(scene)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_everybody_left(steps: int) -> None:
    """A job that nobody waits for any more is given up, wherever it is, and its stager's channel ends."""

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        if steps == 0:
            harness.desk.leave(waiter)
            await harness.end()
            assert harness.stagers.scripts == []
            return
        script = await harness.stagers.script(0)
        await script.identify()
        if steps == 2:
            await script.size()
            await script.hear()
        else:
            assert await script.hear() == Proceed()
        harness.desk.leave(waiter)
        assert await script.hear() is None
        assert waiter.heard == ["begun"]

    run(scene)


def test_one_of_two_left() -> None:
    """A job goes on for whoever still waits."""

    async def scene(harness: Harness) -> None:
        first, second = Waiting(), Waiting()
        under_way = harness.start(first)
        under_way.waiters.append(second)
        script = await harness.stagers.script(0)
        await script.identify()
        harness.desk.leave(first)
        await script.size()
        script.publish()
        assert isinstance(await second.outcome(), Version)
        assert not first.done.is_set()

    run(scene)


def test_joining_a_job_that_was_given_up() -> None:
    """Who asks at the moment in which the last one left gets a job of its own, not the other's failure."""

    async def scene(harness: Harness) -> None:
        first, second = Waiting(), Waiting()
        harness.start(first)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size()
        await script.hear()
        harness.start(second)
        joining = await harness.stagers.script(1)
        # Before the first job has heard that it was given up.
        second.on_begun = lambda: harness.desk.leave(first)
        await joining.identify()
        await joining.size()
        joining.publish()
        assert isinstance(await second.outcome(), Version)

    run(scene)


def _wrong_count(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest")]) as fds:
        script.say(staged(), fds)


def _too_many(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest")]) as fds:
        script.say(staged(), [*fds] * 200)


def _unsealed(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest"), memfd.create("s", 4)]) as fds:
        script.say(staged(), fds)


def _unsealed_manifest(script: Script) -> None:
    with channel.owned([memfd.create("m", 8), memfd.sealed_copy("s", b"data")]) as fds:
        script.say(staged(), fds)


def _other_size(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest"), memfd.sealed_copy("s", b"dat")]) as fds:
        script.say(staged(), fds)


def _more_than_allowed(script: Script) -> None:
    script.publish(data=b"much more")


def _negative(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest"), memfd.sealed_copy("s", b"data")]) as fds:
        script.say(staged(segments=(-4,)), fds)


def _descriptors_with_progress(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest")]) as fds:
        script.say(Progress("staging", 1, 2), [*fds] * 3)


def _descriptors_with_garbage(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest")]) as fds:
        script.say(b"\xc1\xc1", [*fds] * 3)


def _refusal(script: Script) -> None:
    script.say(Refused.of(NotFound("no tensor 'x'", tensor="x")))


def _refusal_with_descriptors(script: Script) -> None:
    with channel.owned([memfd.sealed_copy("m", b"manifest")]) as fds:
        script.say(Refused.of(NotFound("no tensor 'x'")), fds)


def _out_of_order(script: Script) -> None:
    script.say(Identified(1, ("file",)))


def _death(script: Script) -> None:
    script.close()


@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        (_wrong_count, StagingFailed, "not what it said"),
        (_too_many, StagingFailed, "not what it said"),
        (_unsealed, StagingFailed, "not what it said"),
        (_unsealed_manifest, StagingFailed, "not what it said"),
        (_other_size, StagingFailed, "not what it said"),
        (_more_than_allowed, StagingFailed, "not what it said"),
        (_negative, StagingFailed, "not what it said"),
        (_descriptors_with_progress, ProtocolError, "3 descriptors with Progress"),
        (_descriptors_with_garbage, ProtocolError, "not msgpack"),
        (_refusal, NotFound, "no tensor 'x'"),
        (_refusal_with_descriptors, ProtocolError, "1 descriptors with Refused"),
        (_out_of_order, ProtocolError, "Identified instead of Staged"),
        (_death, StagingFailed, "the stager died"),
    ],
)
def test_odd_endings(act: Callable[[Script], None], error: type[MapcellError], says: str) -> None:
    """Whatever a stager says or sends instead of a version becomes its waiters' error, and leaves no descriptor."""
    before = len(os.listdir("/proc/self/fd"))

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size()
        await script.hear()
        act(script)
        outcome = await waiter.outcome()
        assert type(outcome) is error
        assert says in str(outcome)
        assert harness.observed[-1] == "failed"

    run(scene)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("expected", ["Identified", "Sized"])
def test_a_version_too_early(expected: str) -> None:
    """Descriptors that come with a message out of turn are closed."""
    before = len(os.listdir("/proc/self/fd"))

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        script = await harness.stagers.script(0)
        if expected == "Sized":
            await script.identify()
        await script.hear()
        script.publish()
        assert f"Staged instead of {expected}" in str(await waiter.outcome())

    run(scene)
    assert len(os.listdir("/proc/self/fd")) == before


def test_killed_with_unread_orders() -> None:
    """A stager that dies before it read what it was told resets its channel, which is a death like any other."""

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        script = await harness.stagers.script(0)
        await script.identify()
        while "begun" not in waiter.heard:
            await asyncio.sleep(0)
        script.close()
        assert "the stager" in str(await waiter.outcome())
        assert type(await waiter.outcome()) is StagingFailed

    run(scene)


def test_no_room() -> None:
    """What does not fit is refused before the stager allocates anything."""

    def full(uid: int, nbytes: int) -> None:
        raise BudgetExceeded(f"needs {nbytes}", needed=nbytes)

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size(1 << 50)
        assert str(await waiter.outcome()) == f"needs {1 << 50}"
        assert await script.hear() is None

    run(scene, make_room=full)


def test_one_may_not_have_it() -> None:
    """A waiter that is refused the version in the end takes it from nobody else."""

    async def scene(harness: Harness) -> None:
        denied, lucky = Waiting(refuse=AccessDenied("taken")), Waiting()
        harness.start(denied).waiters.append(lucky)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size()
        script.publish()
        assert isinstance(await lucky.outcome(), Version)
        assert await denied.outcome() is denied.refuse

    run(scene)


def test_gone_again_before_the_last_has_it() -> None:
    """What the first waiter had and let go of is still there for the second."""

    async def scene(harness: Harness) -> None:
        leases: list[int] = []
        first, second = Waiting(), Waiting()
        first.on_ready = lambda made: leases.append(made.leases)
        harness.start(first).waiters.append(second)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size()
        script.publish()
        made = await second.outcome()
        assert isinstance(made, Version)
        assert leases == [1]
        assert made.leases == 0

    run(scene)


def test_a_bug_is_answered() -> None:
    """A failure that nobody foresaw still ends in an answer for everybody who waits."""

    def broken(uid: int, nbytes: int) -> None:
        raise ZeroDivisionError

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        script = await harness.stagers.script(0)
        await script.identify()
        await script.size()
        assert "its log says why" in str(await waiter.outcome())

    run(scene, make_room=broken)


def test_stopping() -> None:
    """At the daemon's end every waiter is told, and every stager let go."""

    async def scene(harness: Harness) -> None:
        waiters = [Waiting() for _ in range(3)]
        for number, waiter in enumerate(waiters):
            harness.start(waiter, selection=Selection(prefix=str(number)))
        await (await harness.stagers.script(0)).identify()
        await harness.stagers.script(2)
        await harness.desk.close()
        for waiter in waiters:
            assert "given up" in str(await waiter.outcome())

    run(scene)


def test_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stager that a descriptor hangs is given up at its deadline."""
    monkeypatch.setattr(staging, "IDENTIFY_SECONDS", 0.01)

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter)
        assert "delivered nothing" in str(await waiter.outcome())

    run(scene)


def test_a_base_that_went() -> None:
    """A cast of what was dropped meanwhile is refused: its descriptors' numbers may be anybody's by now."""
    registry, segment = Registry(), sealed_segment()
    base = registry.add(version("base", manifest=segment), recipe("base"))
    registry.drop(base)
    assert base.state is State.DROPPED

    async def scene(harness: Harness) -> None:
        waiter = Waiting()
        harness.start(waiter, kind="derive", base=base)
        assert isinstance(await waiter.outcome(), NotFound)

    run(scene)
    close(base)


def test_no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no stager can be had for want of descriptors, the waiter is told and the job is gone."""

    async def scene(harness: Harness) -> None:
        async def start() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(harness.stagers, "start", start)
        waiter = Waiting()
        harness.start(waiter)
        assert isinstance(await waiter.outcome(), StagingFailed)

    run(scene)


def test_sized_is_what_a_stager_says() -> None:
    """Nothing is asked of the budget for a version that is mapped in place."""

    async def scene(harness: Harness) -> None:
        asked.clear()
        waiter = Waiting()
        harness.start(waiter)
        script = await harness.stagers.script(0)
        await script.identify()
        assert await script.hear() == Proceed()
        script.say(Sized("mapped", 0, 1))
        await script.hear()
        assert asked == [(7, 0)]
        harness.desk.leave(waiter)

    asked: list[tuple[int, int]] = []
    run(scene, make_room=lambda uid, nbytes: asked.append((uid, nbytes)))
