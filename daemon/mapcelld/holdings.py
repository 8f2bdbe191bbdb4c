"""What the daemon holds: versions, leases, and memory that is on its way back. Registering, retiring, making room.

The registry decides what a name means, eviction.py whom to drop; here it is done, and those who watch are told.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mapcell_formats.digest import file_identity
from mapcell_formats.errors import AccessDenied, BudgetExceeded, NotFound, StagingFailed
from mapcell_formats.messages import Event
from mapcelld import eviction, memory, quotas
from mapcelld.access import Access
from mapcelld.channel import Credentials
from mapcelld.config import Config
from mapcelld.leases import Lease, Leases
from mapcelld.lingering import Lingering
from mapcelld.locking import Locker
from mapcelld.registry import Model, Recipe, Registry, State, Version
from mapcelld.segment import Segment
from mapcelld.staging import Intent, Staging

log = logging.getLogger("mapcelld.holdings")

Push = Callable[[Event, Intent], None]


class Holdings:
    """Every version and every lease.

    `push` tells those who watch, `available` is the memory that the host can give, and `changed` is called whenever a
    restart would have to know something new.
    """

    def __init__(
        self, config: Config, access: Access, push: Push, available: Callable[[], int], changed: Callable[[], None]
    ) -> None:
        self._config = config
        self._access = access
        self._push = push
        self._available = available
        self.changed = changed
        self.registry = Registry()
        self.leases = Leases()
        # Freeing gigabytes takes the kernel a while: not on the loop.
        self._closer = ThreadPoolExecutor(1, "closer")
        self._lingering = Lingering(self._close_later)
        self._locker = Locker()
        self.published = 0
        self.evicted = 0

    def configure(self, config: Config, access: Access) -> None:
        """Goes by another configuration from here on."""
        self._config, self._access = config, access
        self.lock_configured()

    def lock_configured(self) -> None:
        """Locks what the configuration wants locked and is there: adopted, or loaded under another one."""
        for configured in self._config.models:
            model = self.registry.models.get(configured.name)
            if configured.lock and model is not None:
                for version in map(self.registry.versions.__getitem__, model.versions):
                    self._locker.lock(version.id, version.segments)

    # --- versions ---------------------------------------------------------------------------------------------------

    def publish(self, version: Version, recipe: Recipe, staging: Staging) -> Version:
        """Takes a staged version in. StagingFailed when it is not what the configuration demands."""
        wanted = staging.plan.manner.digest
        if wanted.startswith("blake3:") and version.id != wanted:
            self.discard([version.manifest, *version.segments])
            raise StagingFailed(f"{staging.plan.paths[0]} is {version.id}, but its digest has to be {wanted}")
        if version.residence == "mapped":
            self._guard(version, recipe, staging)
        self.published += 1
        version.used, version.uid = time.monotonic(), staging.uid
        held = self.registry.add(version, recipe)
        if held is not version:
            self.discard([version.manifest, *version.segments])
        log.info(
            "ready: version=%s residence=%s bytes=%d tensors=%d", held.id, held.residence, held.nbytes, held.tensors
        )
        if held.unguarded:
            log.warning("not guarded: version=%s residence=%s reason=%r", held.id, held.residence, held.unguarded)
        return held

    def name(self, intent: Intent, version: Version) -> str:
        """Registers the version under what the client meant it to be called. The name that it got.

        AccessDenied when somebody else took that name while the version was being staged, NotFound when it is gone.
        """
        if version.state is State.DROPPED:
            raise NotFound(f"{version.id} was unloaded a moment ago; attach again")
        if intent.role == "known":
            return intent.name
        intent = self._own(intent)
        model = self.registry.models.get(intent.name)
        if intent.role == "newest":
            self._register(intent, version)
        # A cast of what the name no longer means would be a name without a version of its own.
        elif not intent.base or (model is not None and intent.base in model.versions):
            model = model or Model(intent.name, intent.owner, intent.source)
            self.registry.derive(self.registry.models.setdefault(intent.name, model), version, intent.base)
            self.changed()
        return intent.name

    def retire(self, model: Model, version: Version) -> None:
        """Takes `version` from `model` and tells those who watch."""
        # A pin is kept as long as anyone else calls the version something.
        version.pinned = version.pinned and version.names != {model.name}
        self.registry.retire(model, version)
        intent = Intent(model.name, model.owner, model.source)
        self.changed()
        self._push(Event(0, "retired", model.name, version.id, 0, version.nbytes, version.residence), intent)

    def collect(self) -> None:
        """Retires what newer versions replaced and drops what nobody needs."""
        for model in list(self.registry.models.values()):
            for version in self.registry.superseded(model):
                self.retire(model, version)
        for version in list(self.registry.versions.values()):
            if not version.names:
                version.state = State.RETIRED
            if self.registry.droppable(version):
                self.drop(version)

    def drop(self, version: Version) -> None:
        """Forgets `version` under every name and gives its memory back as soon as nobody maps it; writers go on."""
        for segment in (*version.segments, *version.replaced.values()):
            segment.let_go()
        self._forget(version)

    def _forget(self, version: Version) -> None:
        for model in [self.registry.models[n] for n in version.names if n in self.registry.models]:
            self.retire(model, version)
        if version.id in self.registry.versions:
            self.registry.drop(version)
            self.changed()
        self._locker.unlock(version.id)
        self.discard([version.manifest])
        self.discard(version.replaced.values())
        memory = [s for s in version.segments if s.sealed or version.residence == "sealed"]
        self._lingering.add(memory)
        self.discard(s for s in version.segments if s not in memory)

    def evict(self, version: Version) -> None:
        """Drops `version` to make room."""
        self.evicted += 1
        self.drop(version)

    def discard(self, segments: Iterable[Segment]) -> None:
        """Closes segments that nobody was given."""
        for segment in segments:
            self._close_later(segment)

    # --- room -------------------------------------------------------------------------------------------------------

    def in_use(self) -> int:
        """Sealed bytes that count against the budget: versions, and what was dropped but is still mapped."""
        return self.registry.sealed_bytes() + self._lingering.nbytes

    def make_room(self, uid: int, needed: int, promised: int, promised_to_uid: int) -> None:
        """Evicts until `needed` bytes fit. BudgetExceeded when they cannot; nothing is dropped then.

        `promised` bytes were allowed to other jobs already, `promised_to_uid` of them to this user's.
        """
        versions = self.registry.versions.values()
        if not self._access.operates(Credentials(0, uid, -1)):
            quotas.check_staged(self._config.quota, uid, versions, promised_to_uid, needed)
        self._lingering.sweep()
        victims = eviction.choose(versions, needed, promised + self._lingering.nbytes, self._config.budget)
        available = self._available() + sum(v.sealed_bytes for v in victims) - promised
        huge = self._config.huge_pages != "off" and needed <= memory.free_huge_pages()
        if needed > available and not huge:
            raise BudgetExceeded(
                f"needs {needed} bytes of shared memory, and the host or the service's control group has only "
                f"{max(available, 0)} to give; free some memory or raise the limit",
                needed=needed,
                budget=self._config.budget,
                in_use=self.in_use(),
            )
        for version in victims:
            log.info("evicted: version=%s bytes=%d", version.id, version.nbytes)
            self.evict(version)

    # --- guarded files ----------------------------------------------------------------------------------------------

    def room_for_rescue(self, version: Version, needed: int, promised: int) -> None:
        """Makes room for the copy of a file of `version`. BudgetExceeded when it may not have any, or there is none."""
        self._lingering.sweep()
        room = self._room(version, needed, promised + self._lingering.nbytes)
        available = self._available() + sum(v.sealed_bytes for v in room.victims) - promised
        if room.refused or needed > available:
            raise BudgetExceeded(
                f"{needed} bytes of a guarded file find no room: {room.over} too many for the budget, and the host or "
                f"the service's control group has {max(available, 0)} to give"
            )
        for victim in room.victims:
            log.info("evicted: version=%s bytes=%d", victim.id, victim.nbytes)
            self.evict(victim)

    def rescued(self, version: Version, number: int, copy: Segment) -> None:
        """Lends `copy` instead of the file from here on."""
        version.replaced[number] = version.segments[number]
        version.segments = (*version.segments[:number], copy, *version.segments[number + 1 :])
        log.info("rescued: version=%s segment=%d bytes=%d", version.id, number, copy.nbytes)
        if self._locker.unlock(version.id):
            self._locker.lock(version.id, version.segments)
        self.report(version, "rescued", copy.nbytes, "")

    def lost(self, version: Version, reason: str) -> None:
        """Hands `version` out no more: somebody writes to its file, and there is no copy."""
        pids = sorted({x.holder.pid for x in self.leases if x.version is version})
        version.unguarded = reason
        log.error("lost: version=%s reason=%r pids=%s", version.id, reason, ",".join(map(str, pids)) or "-")
        self.report(version, "lost", 0, reason)
        for model in [self.registry.models[n] for n in version.names if n in self.registry.models]:
            self.retire(model, version)

    def report(self, version: Version, kind: str, done: int, detail: str) -> None:
        """Tells those who watch."""
        for model in [self.registry.models[n] for n in version.names if n in self.registry.models]:
            event = Event(0, kind, model.name, version.id, done, version.nbytes, detail or version.residence)
            self._push(event, Intent(model.name, model.owner, model.source))

    def outlook(self, version: Version) -> str:
        """What becomes of a mapped version when somebody writes to its file now; why a version is not guarded."""
        if version.late:
            return f"did not let go of the file in time: pid {', '.join(map(str, version.late))}"
        if not version.guarded:
            return f"not guarded: {version.unguarded}" if version.unguarded else ""
        needed = version.nbytes - version.sealed_bytes
        room = self._room(version, needed, self._lingering.nbytes)
        if room.refused:
            return f"not copied if written to, {room.over} bytes too many for the budget: the writer waits and goes on"
        whom = ", ".join(min(v.names, default=v.id) for v in room.victims)
        after = f", for which {whom} is evicted" if whom else ""
        beyond = f", {room.over} bytes over the budget" if room.over else ""
        return f"copied if written to: {needed} bytes{beyond}{after}"

    def _room(self, version: Version, needed: int, promised: int) -> eviction.Room:
        configured = [self._config.model(name) for name in version.names]
        on_change = "refuse" if any(c is not None and c.on_change == "refuse" for c in configured) else "copy"
        versions = self.registry.versions.values()
        return eviction.room_for_rescue(version, versions, needed, promised, self._config.budget, on_change)

    def _guard(self, version: Version, recipe: Recipe, staging: Staging) -> None:
        """Guards the files of a version that was staged a moment ago. StagingFailed when somebody came before."""
        held = self.registry.versions.get(version.id, version)
        if not version.unguarded:
            loose = [s for s in held.segments if not (s.guarded or s.sealed)]
            version.unguarded = held.unguarded = next((r for s in loose if (r := s.guard())), "")
        if version.unguarded:
            for segment in held.segments:
                segment.let_go()
            if staging.plan.residence == "mapped":
                return
        now = tuple(file_identity(os.fstat(s.fileno())) for s in version.segments)
        if version.unguarded or now != recipe.identities:
            self.discard([version.manifest, *version.segments])
            raise StagingFailed(f"{staging.plan.paths[0]} changed while it was being read; ask again")

    # --- leases -----------------------------------------------------------------------------------------------------

    def begin(self, who: Credentials, name: str, version: Version) -> Lease:
        """Begins a lease. AccessDenied when the user's quota has no room for it."""
        if not self._access.operates(who):
            quotas.check_leases(self._config.quota, who.uid, self.leases.of(who.uid))
        lease = Lease(who, name, version, time.time())
        self.leases.begin(lease, time.monotonic())
        return lease

    def end(self, lease: Lease) -> None:
        """Ends a lease, and with the last one of a version whatever only lived for it."""
        self.leases.end(lease, time.monotonic())
        # Looking through all models for each client that leaves would cost more than its attach did.
        if lease.version.leases == 0 and self._expendable(lease.version):
            self.collect()

    def sweep(self) -> None:
        """Drops what nobody took in the end, and asks whether memory that was given back is free by now."""
        self.collect()
        self._lingering.sweep()

    def close(self) -> None:
        """Drops everything. Clients keep what they mapped."""
        for version in list(self.registry.versions.values()):
            # Not `drop`: a guard that the manager keeps a description of is the next daemon's.
            self._forget(version)
        self._locker.close()
        self._lingering.close()
        self._closer.shutdown()

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _expendable(self, version: Version) -> bool:
        """Whether `collect` would do something about `version`."""
        if not version.names or self.registry.droppable(version):
            return True
        models = self.registry.models
        return any(self.registry.outdated(models[name], version) for name in version.names if name in models)

    def _register(self, intent: Intent, version: Version) -> None:
        model = self.registry.name(intent.name, intent.owner, intent.source, version)
        if intent.tag:
            model.tags[intent.tag] = version.id
        version.pinned = version.pinned or intent.pin
        configured = self._config.model(model.name)
        if configured is not None and configured.lock:
            self._locker.lock(version.id, version.segments)
        self.changed()
        self._push(Event(0, "ready", model.name, version.id, version.nbytes, version.nbytes, version.residence), intent)
        self.collect()

    def _own(self, intent: Intent) -> Intent:
        """`intent` under a name that is nobody else's: whoever owns a model sees every version that is put into it."""
        name = intent.name
        while (taken := self.registry.models.get(name)) is not None and taken.owner != intent.owner:
            if not taken.anonymous:
                raise AccessDenied(f"the name {name!r} was taken meanwhile; choose another")
            name = f"{name}#{intent.owner}"
        return replace(intent, name=name)

    def _close_later(self, segment: Segment) -> None:
        self._closer.submit(segment.close)
