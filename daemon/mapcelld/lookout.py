"""The lookout: has sources looked at when the kernel tells of a change, and models staged that follow theirs.

following.py decides; here is the inotify instance, the stagers that look (a path is never looked up on the loop: it may
hang), and what comes of it: rows and events that say how a source is, and a new version where the configuration wants
one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from mapcell_formats.errors import MapcellError, ProtocolError
from mapcell_formats.messages import Event, Job, Looked, Manner, Progress, Refused, Selection
from mapcelld import channel, inotify
from mapcelld.config import Config, ModelConfig
from mapcelld.following import Sources, Wanted, rewritten
from mapcelld.holdings import Holdings, Push
from mapcelld.registry import Model, Version
from mapcelld.stagers import LOOKING, Stagers
from mapcelld.staging import Intent, Plan, StagingDesk

log = logging.getLogger("mapcelld.lookout")

# A look opens files and reads an index at most.
LOOK_SECONDS = 15.0
# Between two reads of the instance: meanwhile a writer's many changes become one.
_PAUSE_SECONDS = 0.1
_FAILED = "the kernel gives no inotify instance: {}"


class Plans(Protocol):
    """Who knows how a configured model is staged (requests.Requests)."""

    def preload(self, model: ModelConfig) -> tuple[Plan, Intent]: ...


class Lookout:
    """Watches the sources of named models. Owns an inotify instance from the first source to `close`."""

    def __init__(
        self,
        config: Config,
        stagers: Stagers,
        holdings: Holdings,
        staging: StagingDesk,
        plans: Plans,
        push: Push,
        doubt: Callable[[Version], None],
    ) -> None:
        """`doubt` is told of versions whose mapped files were changed where they lie."""
        self._config = config
        self._stagers = stagers
        self._holdings = holdings
        self._staging = staging
        self._plans = plans
        self._push = push
        self._doubt = doubt
        self._sources = Sources()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._fault = ""
        self._watched: set[int] = set()
        self.followed = 0

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begins to look."""
        self._loop = asyncio.get_running_loop()
        self.sync()

    def configure(self, config: Config) -> None:
        """Goes by another configuration from here on, and tries again what failed under the one before."""
        self._config = config
        if self._loop is not None:
            self.sync()
            self._sources.retry(self._loop.time())
            self._schedule()

    def sync(self) -> None:
        """Goes by what models there are now."""
        if self._loop is None:
            return
        self._sources.update(self._wanted(), self._loop.time())
        self._open_instance()
        self._tell()
        self._schedule()

    async def close(self) -> None:
        """Looks no more. A second call does nothing."""
        loop, self._loop = self._loop, None
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        fd, self._fd = self._fd, -1
        if fd >= 0 and loop is not None:
            loop.remove_reader(fd)
            os.close(fd)

    def statistics(self) -> tuple[Mapping[str, int], int]:
        """How many sources are in which state, and how many folders are watched."""
        return Counter(self._sources.state(name)[0] or "new" for name in self._sources), len(self._sources.watches())

    # --- what the kernel tells --------------------------------------------------------------------------------------

    def _open_instance(self) -> None:
        if self._fd < 0 and len(self._sources) and self._loop is not None and not self._fault:
            try:
                self._fd = inotify.create()
            except OSError as exc:
                self._fault = _FAILED.format(exc.strerror)
                log.warning("sources are looked at now and then only: reason=%r", self._fault)
                return
            self._loop.add_reader(self._fd, self._on_changes)

    def _on_changes(self) -> None:
        if self._loop is None:
            return
        try:
            data = os.read(self._fd, inotify.READ_BYTES)
        except BlockingIOError:
            return
        now = self._loop.time()
        for change in dict.fromkeys(inotify.parse(data)):
            if change.mask & inotify.OVERFLOW:
                self._sources.lost(now)
            else:
                self._sources.changed(change.watch, change.name, now)
            if change.mask & inotify.IGNORED:
                self._watched.discard(change.watch)
        self._loop.remove_reader(self._fd)
        self._loop.call_later(_PAUSE_SECONDS, self._listen)
        self._schedule()

    def _listen(self) -> None:
        if self._loop is not None and self._fd >= 0:
            self._loop.add_reader(self._fd, self._on_changes)

    def _schedule(self) -> None:
        """Wakes when the next source is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._sources.next_due()
        if due is not None and self._loop is not None:
            self._timer = self._loop.call_at(due, self._look_at_due)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look_at_due(self) -> None:
        if self._loop is None:
            return
        # The loop's clock may wake a timer a moment early.
        for name in self._sources.due(self._loop.time() + 0.001):
            task = self._loop.create_task(self._look(name, self._sources.begin(name)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._schedule()

    async def _look(self, name: str, wanted: Wanted) -> None:
        seen, why = None, ""
        try:
            seen = await self._seen(wanted)
        except MapcellError as exc:
            why = exc.message
        # The boundary of one look: a bug that it meets must not end the watch.
        except Exception:
            log.exception("looking at a source failed")
            why = "the daemon failed on it; its log says why"
        if self._loop is None:
            return
        if seen is None:
            self._sources.blinded(name, wanted, why, self._loop.time())
        else:
            self._watched |= {place.watch for place in seen.places}
            if self._sources.end(name, wanted, seen, self._loop.time()):
                self._follow(name)
            self._compare(name, seen)
        self._prune()
        self._tell()
        self._schedule()

    async def _seen(self, wanted: Wanted) -> Looked:
        kind = "look-claimed" if wanted.claimed else "look"
        # Of a claimed path only the first file is known by its identity; the list has to fit a message.
        known = tuple(sorted({k[0] for k in wanted.known if k}))[:64] if wanted.claimed else ()
        job = Job(kind, (wanted.path,), wanted.roots, Selection(), "auto", "", Manner(), known)
        async with self._stagers.turn(wanted.uid if wanted.claimed else LOOKING):
            stager = await self._stagers.start()
            try:
                stager.begin(job, [self._fd] if self._fd >= 0 else [])
                told = await stager.receive(LOOK_SECONDS)
            finally:
                stager.close()
        channel.close_all(told.fds)
        if isinstance(told.message, Refused):
            raise told.message.error()
        if not isinstance(told.message, Looked):
            raise ProtocolError(f"the stager sent {type(told.message).__name__} instead of Looked")
        return told.message

    def _compare(self, name: str, seen: Looked) -> None:
        model = self._holdings.registry.models.get(name)
        for version in map(self._holdings.registry.versions.__getitem__, model.versions if model else ()):
            if version.verified and rewritten(version.identities, seen.identities):
                self._doubt(version)

    def _prune(self) -> None:
        """Ends watches that no source needs. Not while somebody looks: theirs are not known yet."""
        if not self._sources.looking():
            needed = self._sources.watches()
            for watch in self._watched - needed:
                inotify.remove(self._fd, watch)
            self._watched &= needed

    # --- what comes of it -------------------------------------------------------------------------------------------

    def _wanted(self) -> dict[str, Wanted]:
        models, found = self._holdings.registry.models, {}
        # What nobody named is told apart whenever its path is attached.
        for model in [m for m in models.values() if not m.anonymous and m.versions]:
            configured = self._config.model(model.name)
            if model.owner is None or configured is None:
                found[model.name] = self._wanted_of(model, configured)
        for configured in self._config.models:
            if configured.follow and configured.preload and configured.name not in models:
                roots = self._config.roots
                found[configured.name] = Wanted(configured.source, roots, True)
        return found

    def _wanted_of(self, model: Model, configured: ModelConfig | None) -> Wanted:
        newest = self._holdings.registry.versions[model.versions[-1]]
        known = frozenset(r.identities for r in newest.recipes)
        if configured is not None and configured.source == model.source:
            roots = self._config.roots
            return Wanted(model.source, roots, configured.follow, known=known)
        uid = newest.uid if model.owner is None else model.owner
        return Wanted(model.source, claimed=True, uid=uid, known=known)

    def _tell(self) -> None:
        """Writes into the models how their sources are, and tells those who watch of a change."""
        for name in self._sources:
            model = self._holdings.registry.models.get(name)
            if model is None:
                continue
            state, detail = self._sources.state(name)
            before, model.source_state, model.source_detail = model.source_state, state, detail
            configured = self._config.model(name)
            model.follow = configured is not None and configured.follow
            if state != before and (before or state not in ("", "same")):
                log.info("source: name=%r state=%r follow=%r detail=%r", name, state, model.follow, detail)
                event = Event(0, "source", name, model.versions[-1] if model.versions else "", 0, 0, state)
                self._push(event, Intent(name, model.owner, model.source))

    def _follow(self, name: str) -> None:
        configured = self._config.model(name)
        if configured is not None:
            plan, intent = self._plans.preload(configured)
            self._staging.start(plan, os.geteuid(), _Follower(self, intent), None)

    def took(self, intent: Intent, version: Version) -> None:
        """A model that follows its source is to mean `version` from here on, at once and for everybody."""
        model = self._holdings.registry.models.get(intent.name)
        newest = model.versions[-1] if model is not None and model.versions else ""
        # Touched only, or written anew with the same bytes.
        if newest != version.id:
            before = self._holdings.registry.versions.get(newest)
            if before is not None and intent.pin:
                # The configuration's pin is the model's: it goes over to what the name means.
                before.pinned = False
            self._holdings.name(intent, version)
            self.followed += 1
        if self._loop is not None:
            self._sources.staged(intent.name, self._loop.time())
            self.sync()

    def missed(self, name: str, error: MapcellError) -> None:
        """The source of `name` could not be staged."""
        log.error("following failed: name=%r error=%r", name, error.message)
        if self._loop is not None:
            self._sources.failed(name, error.message, self._loop.time())
            self._tell()
            self._schedule()


class _Follower:
    """Waits for the version of a changed source."""

    def __init__(self, lookout: Lookout, intent: Intent) -> None:
        self._lookout = lookout
        self.intent = intent

    def begun(self) -> None:
        """Nothing to do: there is no connection."""

    def progress(self, report: Progress) -> None:
        """Nothing to do: those who watch are told by the service."""

    def ready(self, version: Version) -> None:
        """Switches the name over."""
        self._lookout.took(self.intent, version)

    def failed(self, error: MapcellError) -> None:
        """Leaves it at what there is."""
        self._lookout.missed(self.intent.name, error)
