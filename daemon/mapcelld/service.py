"""The service: everything the daemon knows, and the desks that it speaks through, tied together.

requests.py says what a question means, holdings.py what is held; the desks (control, handles, staging) carry out. All
state lives on one event loop, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version as installed_version

from mapcell_formats.errors import MapcellError, NotFound
from mapcell_formats.messages import Attach, Event, Progress, Selection
from mapcelld import guard, quotas
from mapcelld.access import Access
from mapcelld.channel import Credentials, supplementary_groups
from mapcelld.config import Config
from mapcelld.connections import Connection, Right
from mapcelld.control import ControlDesk
from mapcelld.figures import Statistics
from mapcelld.handles import HandleDesk
from mapcelld.hashing import Hashing
from mapcelld.headroom import Growth, Headroom, descriptors
from mapcelld.holdings import Holdings
from mapcelld.leases import Lease
from mapcelld.lookout import Lookout
from mapcelld.manager import Manager
from mapcelld.metrics import PRIVATE
from mapcelld.registry import Model, Version
from mapcelld.requests import Requests
from mapcelld.rescue import RescueDesk
from mapcelld.runtime import RuntimeFolder
from mapcelld.stagers import Stagers
from mapcelld.staging import Intent, Staging, StagingDesk
from mapcelld.store import Store
from mapcelld.tickets import Tickets

log = logging.getLogger("mapcelld.service")

SWEEP_SECONDS = 1.0
# What the socket units call their descriptors (FileDescriptorName=).
CONTROL_UNIT = "mapcell-control"
HANDLES_UNIT = "mapcell-handles"


class Service:
    """The daemon without its process: open, sweep now and then, close. It is what the handle channel asks (Rules)."""

    def __init__(
        self, config: Config, runtime: RuntimeFolder, memory_available: Callable[[], int], manager: Manager
    ) -> None:
        """Binds the sockets, or takes those that `manager` bound, and adopts what an earlier daemon left with it."""
        self._config = config
        self._store = Store(manager)
        self._sync_due = False
        self._started = time.time()
        self._manager = manager
        self._access = Access(config)
        growth = Growth(self.look)
        self._tickets: Tickets[Right] = Tickets()
        self._stagers = Stagers()
        self._holdings = Holdings(config, self._access, self._push, memory_available, self._changed)
        self._staging = StagingDesk(
            self._stagers,
            self._holdings.registry.made_by,
            self._make_room,
            self._holdings.publish,
            self._observe,
        )
        self._requests = Requests(
            config,
            self._access,
            self._holdings,
            self._staging,
            self._tickets,
            lambda: len(self._handles),
            str(runtime.path),
        )
        self._hashing = Hashing(self._stagers, self._holdings, lambda: len(self._staging) == 0, self._push)
        self._lookout = Lookout(
            config, self._stagers, self._holdings, self._staging, self._requests, self._push, self._hashing.doubt
        )
        inherited = manager.take()
        sockets = {one.name: one.fd for one in inherited if one.name in (CONTROL_UNIT, HANDLES_UNIT)}
        runtime.keeps_sockets = bool(sockets)
        # What is adopted may be written to from now on; what is missed until `open` is found then.
        guard.expect()
        # Before libzmq has threads, which could get the numbers of descriptors that are closed here.
        self.adopted = self._store.adopt([one for one in inherited if one.name not in sockets], self._holdings.registry)
        self._handles = HandleDesk(runtime.handles, self, time.monotonic, sockets.get(HANDLES_UNIT), growth.count)
        self._control = ControlDesk(
            runtime.control,
            self._requests.handlers(),
            self._admit_control,
            time.monotonic,
            sockets.get(CONTROL_UNIT),
            growth.count,
        )
        self._rescues = RescueDesk(
            self._stagers,
            self._holdings,
            self._handles,
            lambda: self._store.sync(self._holdings.registry),
            lambda: self._config.guard_deadline,
            self._staging.promised,
        )
        self._room = {"handles": Headroom(share=1.5), "control": Headroom()}

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Starts the stagers' spawner and both channels, and stages what is to be preloaded."""
        await self._stagers.open()
        self._holdings.lock_configured()
        self._rescues.open()
        self._handles.open()
        self._control.open()
        for model in self._config.models:
            if model.preload:
                plan, intent = self._requests.preload(model)
                self._staging.start(plan, os.geteuid(), _Unattended(self, intent), None)
        self._lookout.open()

    def configure(self, config: Config) -> None:
        """Goes by another configuration from here on: budget, models, access and quotas; what is held stays."""
        self._config, self._access = config, Access(config)
        self._requests.configure(config, self._access)
        self._holdings.configure(config, self._access)
        self._lookout.configure(config)

    def sweep(self) -> None:
        """Forgets what nobody came back for: old tickets, silent connections, lost subscribers, freed memory."""
        self._tickets.sweep(time.monotonic())
        self._handles.sweep()
        self._control.sweep()
        self._holdings.sweep()
        self._hashing.sweep()
        self._rescues.scan()

    def look(self) -> None:
        """Stops listening while descriptors are short, and goes on when there are enough."""
        used = descriptors()
        desks: dict[str, HandleDesk | ControlDesk] = {"handles": self._handles, "control": self._control}
        for name, desk in desks.items():
            room = self._room[name]
            before = room.open
            if room.look(used) is not before:
                log.warning("%s: channel=%s descriptors=%d", "listens again" if room.open else "pauses", name, used)
                desk.listen(room.open)

    async def close(self) -> None:
        """Answers nothing new, gives up staging, and lets every lease go; what clients mapped stays theirs."""
        # What the store holds is for the next daemon: nothing that ends here is taken out of it.
        self._sync_due = True
        self._control.close()
        self._handles.stop()
        await self._lookout.close()
        await self._hashing.close()
        await self._staging.close()
        await self._rescues.close()
        self._handles.close()
        await self._stagers.close()
        self._holdings.close()

    def statistics(self) -> Statistics:
        """Everything that is counted, at this moment."""
        held, registry = self._holdings, self._holdings.registry
        sources, watches = self._lookout.statistics()
        return Statistics(
            version=installed_version("mapcell"),
            started=self._started,
            budget=self._config.budget,
            models=len(registry.models),
            versions=Counter((v.residence, v.state.value) for v in registry.versions.values()),
            held={"sealed": registry.sealed_bytes(), "mapped": registry.mapped_bytes()},
            lingering=held.in_use() - registry.sealed_bytes(),
            leases=Counter((self._public(lease.name), lease.holder.uid) for lease in held.leases),
            connections=len(self._handles),
            subscriptions=self._control.subscribers(),
            descriptors=descriptors(),
            descriptor_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            staging=len(self._staging),
            attaches=self._handles.attaches.statistics(),
            stagings=self._staging.stagings.statistics(),
            read=self._staging.bytes_read,
            published=held.published,
            evictions=held.evicted,
            refusals=self._handles.refusals + self._control.refusals,
            restarts=self._store.restarts,
            adopted=self.adopted,
            stored=self._store.stored(),
            store_limit=self._manager.store_limit,
            sources=sources,
            watches=watches,
            followed=self._lookout.followed,
            unverified=self._hashing.unverified(),
            hashed=self._hashing.hashed,
        )

    # --- what the handle channel asks (handles.Rules) ---------------------------------------------------------------

    def admit(self, who: Credentials) -> None:
        """AccessDenied when the peer may not be here at all, or has too many connections already."""
        self._access.admit(who)
        if not self._access.operates(who):
            quotas.check_connections(self._config.quota, who.uid, self._handles.of(who.uid) - 1)

    def redeem(self, ticket: bytes, who: Credentials) -> Right:
        """What the ticket stands for, once, if its holder may have it now that the kernel named all its groups."""
        right = self._tickets.redeem(ticket, who.uid, time.monotonic())
        version, name = right.version, right.intent.name
        gone = version is not None and self._holdings.registry.versions.get(version.id) is not version
        if gone or not self._requests.may_hear(who, right.intent):
            raise NotFound(f"no model {name!r} any more; attach again, or see `mapcell ls`", model=name)
        return right

    def attach(self, request: Attach, who: Credentials) -> Right:
        """What the peer gets of the model that it asks for without a ticket."""
        return self._requests.right(who, request)

    def stage(self, right: Right, connection: Connection, offer: int | None) -> None:
        """Has the version staged for `connection`; `offer` is a descriptor of it when its files are still in it."""
        assert right.plan is not None
        if not self._access.operates(connection.peer):
            quotas.check_requests(self._config.quota, connection.peer.uid, self._handles.waiting(connection.peer.uid))
        staging = self._staging.start(right.plan, connection.peer.uid, connection, offer)
        if right.hold:
            staging.waiters.append(_Unattended(self, right.intent))

    def cast(self, connection: Connection, version: Version) -> Version | None:
        """What the client gets of `version`; None when it has to be staged first, and `connection` waits for it."""
        wanted, connection.then = connection.then, Selection()
        sealed, connection.sealed = connection.sealed, False
        name = self._holdings.name(connection.intent, version)
        right = self._requests.cast(self._holdings.registry.models[name], version, wanted, sealed)
        connection.intent = right.intent
        if right.plan is not None:
            self._staging.start(right.plan, connection.peer.uid, connection, None)
        return right.version

    def name(self, intent: Intent, version: Version) -> str:
        """Registers the version under what the client meant it to be called."""
        return self._holdings.name(intent, version)

    def begin(self, who: Credentials, name: str, version: Version) -> Lease:
        """Begins a lease."""
        return self._holdings.begin(who, name, version)

    def pass_on(self, lease: Lease, pid: int) -> Lease:
        """The lease is held by process `pid` from here on."""
        return self._holdings.leases.pass_on(lease, pid)

    def left(self, connection: Connection) -> None:
        """The client is gone: ends its lease, or its waiting."""
        if connection.lease is not None:
            self._holdings.end(connection.lease)
        elif connection.redeemed:
            self._staging.leave(connection)

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _admit_control(self, who: Credentials) -> Credentials:
        if self._config.mentions_groups():
            who = who._replace(groups=who.groups | supplementary_groups(who.pid, who.uid))
        self._access.admit(who)
        return who

    def _public(self, name: str) -> str:
        """`name` when everybody may know the model: it is nobody's own, and not kept for some."""
        model = self._holdings.registry.models.get(name)
        if model is None or model.owner is not None:
            return PRIVATE
        configured = self._config.model(name)
        return name if configured is None or configured.allow is None else PRIVATE

    def _changed(self) -> None:
        # Once for all changes of one turn of the loop.
        if not self._sync_due:
            self._sync_due = True
            asyncio.get_running_loop().call_soon(self._sync)

    def _sync(self) -> None:
        self._sync_due = False
        self._store.sync(self._holdings.registry)
        self._lookout.sync()

    def _make_room(self, uid: int, needed: int) -> None:
        promised = self._staging.promised() + self._rescues.promised()
        self._holdings.make_room(uid, needed, promised, self._staging.promised(uid))

    def _observe(self, staging: Staging, kind: str, detail: str) -> None:
        for intent in {w.intent.name: w.intent for w in staging.waiters}.values():
            self._push(Event(0, kind, intent.name, "", staging.done, staging.total, detail or staging.step), intent)

    def _push(self, event: Event, intent: Intent) -> None:
        model = Model(intent.name, intent.owner, intent.source)
        self._control.push(event, lambda who, name: name in ("", intent.name) and self._access.sees(who, model))


class _Unattended:
    """Waits for a version on behalf of nobody: a preload, or a load whose asker left on purpose."""

    def __init__(self, service: Service, intent: Intent) -> None:
        self._service = service
        self.intent = intent

    def begun(self) -> None:
        """Nothing to do: there is no connection."""

    def progress(self, report: Progress) -> None:
        """Nothing to do: those who watch are told by the service."""

    def ready(self, version: Version) -> None:
        """Registers the version."""
        self._service.name(self.intent, version)

    def failed(self, error: MapcellError) -> None:
        """Leaves a line in the log: nobody else hears of it."""
        log.error("loading failed: name=%r error=%r", self.intent.name, error.message)
