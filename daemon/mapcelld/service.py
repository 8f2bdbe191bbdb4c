"""The service: what each request means.

It decides, through the registry, the leases and the rules of access; the desks (control, handles, staging) carry out.
All state lives on one event loop, so nothing here needs a lock.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version

from mapcell_formats import messages
from mapcell_formats.errors import AccessDenied, BudgetExceeded, MapcellError, NotFound, ProtocolError
from mapcell_formats.messages import Event, LeaseRow, ModelRow, Progress, Selection, StagingRow, Ticket
from mapcelld import eviction
from mapcelld.access import Access
from mapcelld.channel import Credentials
from mapcelld.config import RESIDENCES, Config, ModelConfig
from mapcelld.control import ControlDesk, Handlers
from mapcelld.handles import Connection, HandleDesk, Right
from mapcelld.leases import Lease, Leases
from mapcelld.registry import Model, Recipe, Registry, State, Version, split_name
from mapcelld.runtime import RuntimeFolder
from mapcelld.segment import Segment
from mapcelld.stagers import Stagers
from mapcelld.staging import Intent, Plan, Staging, StagingDesk
from mapcelld.tickets import Tickets

log = logging.getLogger("mapcelld.service")

SWEEP_SECONDS = 1.0
MAX_NAME = 256


class Service:
    """Everything the daemon knows, and the desks that it speaks through."""

    def __init__(self, config: Config, runtime: RuntimeFolder, memory_available: Callable[[], int]) -> None:
        self._config = config
        self._runtime = runtime
        self._memory_available = memory_available
        self._access = Access(config)
        self._registry = Registry()
        self._leases = Leases()
        self._tickets: Tickets[Right] = Tickets()
        self._started = time.monotonic()
        # Freeing gigabytes takes the kernel a while: not on the loop.
        self._closer = ThreadPoolExecutor(1, "closer")
        self._stagers = Stagers()
        self._staging = StagingDesk(
            self._stagers,
            self._registry.made_by,
            self._make_room,
            self._publish,
            self._close_segments,
            self._observe,
        )
        self._handles = HandleDesk(runtime.handles, self, time.monotonic)
        handlers: Handlers = {
            messages.Attach: self._attach,
            messages.Offer: self._offer,
            messages.ListModels: self._list,
            messages.Resolve: self._resolve,
            messages.ListLeases: self._list_leases,
            messages.GetStatus: self._status,
            messages.Unload: self._unload,
            messages.Watch: self._watch,
        }
        self._control = ControlDesk(runtime.control, handlers, self._access.admit, time.monotonic)

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Starts the stagers' spawner and both channels, and stages what is to be preloaded."""
        await self._stagers.open()
        self._handles.open()
        self._control.open()
        for model in self._config.models:
            if model.preload:
                self._staging.start(self._configured_plan(model), os.geteuid(), _Unattended(self, model), None)

    def sweep(self) -> None:
        """Forgets what nobody came back for: old tickets, silent connections, lost subscribers."""
        now = time.monotonic()
        self._tickets.sweep(now)
        self._handles.sweep()
        self._control.sweep()

    async def close(self) -> None:
        """Answers nothing new, gives up staging, and lets every lease go; what clients mapped stays theirs."""
        self._control.close()
        self._handles.stop()
        await self._staging.close()
        self._handles.close()
        await self._stagers.close()
        for version in list(self._registry.versions.values()):
            self._drop(version)
        self._closer.shutdown()

    # --- requests ---------------------------------------------------------------------------------------------------

    def _attach(self, who: Credentials, request: messages.Attach) -> Ticket:
        _check_selection(request.selection)
        configured = self._configured(request.name)
        if configured is not None and configured.name not in self._registry.models:
            plan = self._configured_plan(configured)
            return self._issue(who, Right(_configured_intent(configured), plan=plan))
        model, version = self._registry.resolve(request.name, lambda m: self._access.sees(who, m))
        wanted = request.selection
        if not wanted.dtype or version.dtype == wanted.dtype:
            return self._issue(who, Right(Intent(model.name), version))
        made = self._registry.made_by(Recipe((version.id,), "sealed", wanted))
        if made is not None:
            return self._issue(who, Right(Intent(model.name), made))
        plan = Plan("derive", (version.id,), wanted, "sealed", base=version)
        return self._issue(
            who, Right(Intent(model.name, model.owner, model.source, role="derived", base=version.id), plan=plan)
        )

    def _offer(self, who: Credentials, request: messages.Offer) -> Ticket:
        _check_selection(request.selection)
        if request.residence not in RESIDENCES:
            raise ProtocolError(f"residence {request.residence[:32]!r}: say {' or '.join(RESIDENCES)}")
        if not 0 < len(request.paths) <= messages.MAX_DESCRIPTORS:
            raise ProtocolError(f"{len(request.paths)} files: a checkpoint is 1 to {messages.MAX_DESCRIPTORS}")
        if request.pin and not self._access.operates(who):
            raise AccessDenied("pinning takes an operator (see operators in the configuration)")
        intent = self._offer_intent(who, request)
        plan = Plan("offer", request.paths, request.selection, request.residence)
        return self._issue(who, Right(intent, plan=plan, hold=request.hold))

    def _list(self, who: Credentials, _: object) -> messages.Models:
        return messages.Models(tuple(self._rows(who)))

    def _resolve(self, who: Credentials, request: messages.Resolve) -> messages.Models:
        model, version = self._registry.resolve(request.name, lambda m: self._access.sees(who, m))
        return messages.Models((_row(model, version),))

    def _list_leases(self, who: Credentials, _: object) -> messages.Leases:
        seen = [x for x in self._leases if self._access.operates(who) or x.holder.uid == who.uid]
        return messages.Leases(
            tuple(LeaseRow(x.holder.pid, x.holder.uid, x.name, x.version.id, x.since, x.version.nbytes) for x in seen)
        )

    def _status(self, who: Credentials, _: object) -> messages.Status:
        return messages.Status(
            pid=os.getpid(),
            version=installed_version("mapcell"),
            uptime=time.monotonic() - self._started,
            budget=self._config.budget,
            sealed=self._registry.sealed_bytes(),
            mapped=self._registry.mapped_bytes(),
            models=len(self._registry.models),
            leases=len(self._leases),
            connections=len(self._handles),
            descriptors=len(os.listdir("/proc/self/fd")),
            stagers=len(self._staging),
            staging=tuple(
                StagingRow(name, s.step, s.done, s.total, len(s.waiters))
                for s in self._staging
                for name in {w.intent.name for w in s.waiters if self._may_hear(who, w.intent)}
            ),
            runtime=str(self._runtime.path),
            bytes_read=self._staging.bytes_read,
        )

    def _unload(self, who: Credentials, request: messages.Unload) -> messages.Models:
        model, version = self._registry.resolve(request.name, lambda m: self._access.sees(who, m))
        self._access.demand_change(who, model)
        _, tag, prefix = split_name(request.name)
        chosen = [version.id] if tag or prefix else list(model.versions)
        rows = tuple(_row(model, self._registry.versions[v]) for v in chosen)
        for number in chosen:
            version = self._registry.versions[number]
            version.pinned = False
            self._retire(model, version)
            log.info("unloaded: name=%r version=%s uid=%d", model.name, version.id, who.uid)
        self._collect()
        return messages.Models(rows)

    def _watch(self, who: Credentials, request: messages.Watch) -> messages.Models:
        return messages.Models(tuple(r for r in self._rows(who) if request.name in ("", r.name)))

    # --- what the handle channel asks (handles.Rules) ---------------------------------------------------------------

    def admit(self, who: Credentials) -> None:
        """AccessDenied when the peer may not be here at all."""
        self._access.admit(who)

    def redeem(self, ticket: bytes, who: Credentials) -> Right:
        """What the ticket stands for, once."""
        right = self._tickets.redeem(ticket, who.uid, time.monotonic())
        version = right.version
        if version is not None and self._registry.versions.get(version.id) is not version:
            raise NotFound(f"{right.intent.name!r} was unloaded a moment ago; attach again", model=right.intent.name)
        return right

    def stage(self, right: Right, connection: Connection, offer: int | None) -> None:
        """Has the version staged for `connection`; `offer` is a descriptor of it when its files are still in it."""
        assert right.plan is not None
        staging = self._staging.start(right.plan, connection.peer.uid, connection, offer)
        if right.hold:
            staging.waiters.append(_Unattended(self, right.intent))

    def name(self, intent: Intent, version: Version) -> str:
        """Registers the version under what the client meant it to be called."""
        if intent.role == "newest":
            self._register(intent, version)
        elif intent.role == "derived" and (not intent.base or intent.base in self._registry.versions):
            model = Model(intent.name, intent.owner, intent.source)
            self._registry.derive(self._registry.models.setdefault(intent.name, model), version, intent.base)
        return intent.name

    def begin(self, who: Credentials, name: str, version: Version) -> Lease:
        """Begins a lease."""
        lease = Lease(who, name, version, time.time())
        self._leases.begin(lease, time.monotonic())
        return lease

    def left(self, connection: Connection) -> None:
        """The client is gone: ends its lease, or its waiting."""
        if connection.lease is not None:
            self._leases.end(connection.lease, time.monotonic())
            if connection.lease.version.leases == 0:
                self._collect()
        elif connection.redeemed:
            self._staging.leave(connection)

    # --- what staging asks ------------------------------------------------------------------------------------------

    def _make_room(self, needed: int) -> None:
        promised = self._staging.promised()
        for version in eviction.choose(self._registry.versions.values(), needed, promised, self._config.budget):
            log.info("evicted: version=%s bytes=%d", version.id, version.nbytes)
            self._drop(version)
        available = self._memory_available()
        if needed > available:
            raise BudgetExceeded(
                f"needs {needed} bytes of shared memory and the host has {available} to give", needed=needed
            )

    def _publish(self, version: Version, recipe: Recipe) -> Version:
        version.used = time.monotonic()
        held = self._registry.add(version, recipe)
        log.info(
            "ready: version=%s residence=%s bytes=%d tensors=%d", held.id, held.residence, held.nbytes, held.tensors
        )
        return held

    def _observe(self, staging: Staging, kind: str, detail: str) -> None:
        for intent in {w.intent.name: w.intent for w in staging.waiters}.values():
            event = Event(0, kind, intent.name, "", staging.done, staging.total, detail or staging.step)
            self._push(event, intent)

    def _push(self, event: Event, intent: Intent) -> None:
        self._control.push(event, lambda who, name: name in ("", intent.name) and self._may_hear(who, intent))

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _issue(self, who: Credentials, right: Right) -> Ticket:
        return Ticket(self._tickets.issue(who.uid, right, time.monotonic()))

    def _configured(self, name: str) -> ModelConfig | None:
        base, _, _ = split_name(name)
        return next((m for m in self._config.models if m.name == base), None)

    def _configured_plan(self, model: ModelConfig) -> Plan:
        selection = Selection(dtype=model.dtype)
        return Plan("configured", (model.source,), selection, model.residence, self._config.roots)

    def _offer_intent(self, who: Credentials, request: messages.Offer) -> Intent:
        name, path = request.name, request.paths[0]
        if not name:
            taken = self._registry.models.get(path)
            label = path if taken is None or taken.owner == who.uid else f"{path}#{who.uid}"
            whole = request.selection == Selection()
            return Intent(label, who.uid, path, role="newest" if whole else "derived")
        if len(name) > MAX_NAME or name.startswith(("/", ".", "~")) or set(name) & set("@:\n\r\t\0 "):
            raise ProtocolError(f"{name[:64]!r} cannot name a model: no blanks, @ or :, and nothing like a path")
        owner = None if self._access.operates(who) else who.uid
        taken = self._registry.models.get(name)
        if (taken is not None and taken.owner != owner) or (owner is not None and self._configured(name) is not None):
            raise AccessDenied(f"the name {name!r} is taken; choose another")
        return Intent(name, owner, path, request.tag, request.pin, "newest")

    def _register(self, intent: Intent, version: Version) -> None:
        model = self._registry.name(intent.name, intent.owner, intent.source, version)
        if intent.tag:
            model.tags[intent.tag] = version.id
        version.pinned = version.pinned or intent.pin
        self._push(Event(0, "ready", model.name, version.id, version.nbytes, version.nbytes, version.residence), intent)
        self._collect()

    def _collect(self) -> None:
        """Retires what newer versions replaced and drops what nobody needs."""
        for model in list(self._registry.models.values()):
            for version in self._registry.superseded(model):
                self._retire(model, version)
        for version in list(self._registry.versions.values()):
            if not version.names:
                version.state = State.RETIRED
            if self._registry.droppable(version):
                self._drop(version)

    def _retire(self, model: Model, version: Version) -> None:
        self._registry.retire(model, version)
        intent = Intent(model.name, model.owner, model.source)
        self._push(Event(0, "retired", model.name, version.id, 0, version.nbytes, version.residence), intent)

    def _drop(self, version: Version) -> None:
        for model in [self._registry.models[n] for n in version.names if n in self._registry.models]:
            self._retire(model, version)
        self._registry.drop(version)
        self._close_segments([version.manifest, *version.segments])

    def _close_segments(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._closer.submit(segment.close)

    def _may_hear(self, who: Credentials, intent: Intent) -> bool:
        model = self._registry.models.get(intent.name, Model(intent.name, intent.owner, intent.source))
        return self._access.sees(who, model)

    def _rows(self, who: Credentials) -> list[ModelRow]:
        rows = [_row(m, v) for m, v in self._registry.rows(lambda m: self._access.sees(who, m))]
        staging = {
            w.intent.name: ModelRow(
                w.intent.name, "", (), "STAGING", s.plan.residence, s.plan.selection.dtype, s.total, 0, 0, False, False,
                "", w.intent.source,
            )
            for s in self._staging
            for w in s.waiters
            if self._may_hear(who, w.intent)
        }  # fmt: skip
        return rows + list(staging.values())


class _Unattended:
    """Waits for a version on behalf of nobody: a preload, or a load whose asker left on purpose."""

    def __init__(self, service: Service, what: ModelConfig | Intent) -> None:
        self._service = service
        self.intent = _configured_intent(what) if isinstance(what, ModelConfig) else what

    def begun(self) -> None:
        """Nothing to do: there is no connection."""

    def progress(self, report: Progress) -> None:
        """Nothing to do: those who watch are told by the service."""

    def ready(self, version: Version) -> None:
        """Registers the version."""
        self._service.name(self.intent, version)

    def failed(self, error: MapcellError) -> None:
        """Leaves a line in the log: nobody else hears of it."""
        log.error("loading failed: name=%r error=%s", self.intent.name, error.message)


def _configured_intent(model: ModelConfig) -> Intent:
    return Intent(model.name, None, model.source, pin=model.pin, role="newest")


def _check_selection(selection: Selection) -> None:
    from mapcell_formats.dtypes import FLOATING

    if selection.dtype and selection.dtype not in FLOATING:
        raise ProtocolError(f"dtype {selection.dtype[:32]!r} is no floating dtype")


def _row(model: Model, version: Version) -> ModelRow:
    tags = tuple(t for t, v in model.tags.items() if v == version.id)
    newest = bool(model.versions) and model.versions[-1] == version.id
    return ModelRow(
        name=model.name,
        version=version.id,
        tags=(*tags, "latest") if newest else tags,
        state=version.state.value,
        residence=version.residence,
        dtype=version.dtype,
        nbytes=version.nbytes,
        tensors=version.tensors,
        leases=version.leases,
        pinned=version.pinned,
        verified=version.verified,
        format=version.format,
        source=model.source,
    )
