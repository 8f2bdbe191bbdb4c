"""What each control message means: the handlers that the control channel dispatches to.

A handler gets who asks and the message, and answers at once or raises. Nothing here waits: what takes time is a plan
in a ticket, carried out when it is redeemed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version as installed_version

from mapcell_formats import messages
from mapcell_formats.dtypes import FLOATING
from mapcell_formats.errors import AccessDenied, MapcellError, NotFound, ProtocolError
from mapcell_formats.messages import LeaseRow, Manner, ModelRow, Selection, StagingRow, Ticket
from mapcelld.access import Access
from mapcelld.channel import Credentials
from mapcelld.config import RESIDENCES, Config, ModelConfig
from mapcelld.connections import Right
from mapcelld.control import Handlers
from mapcelld.headroom import descriptors
from mapcelld.holdings import Holdings
from mapcelld.registry import Model, Recipe, Version, split_name
from mapcelld.rows import absent_row, row_of
from mapcelld.staging import Intent, Plan, StagingDesk
from mapcelld.tickets import Tickets

MAX_NAME = 256

MAX_TAG = 128


class Requests:
    """The handlers, over what the daemon holds and has under way. `connections` counts those on the handle channel."""

    def __init__(
        self,
        config: Config,
        access: Access,
        holdings: Holdings,
        staging: StagingDesk,
        tickets: Tickets[Right],
        connections: Callable[[], int],
        runtime: str,
    ) -> None:
        self._config = config
        self._access = access
        self._holdings = holdings
        self._registry = holdings.registry
        self._staging = staging
        self._tickets = tickets
        self._connections = connections
        self._runtime = runtime
        self._started = time.monotonic()

    def configure(self, config: Config, access: Access) -> None:
        """Goes by another configuration from here on."""
        self._config, self._access = config, access

    def handlers(self) -> Handlers:
        """What answers each class of request."""
        return {
            messages.Attach: self.attach,
            messages.Offer: self.offer,
            messages.ListModels: self.list_models,
            messages.Resolve: self.resolve,
            messages.ListLeases: self.list_leases,
            messages.GetStatus: self.status,
            messages.Unload: self.unload,
            messages.Retire: self.unload,
            messages.Evict: self.evict,
            messages.Pin: self.pin,
            messages.Tag: self.tag,
            messages.Watch: self.watch,
        }

    # --- tickets ----------------------------------------------------------------------------------------------------

    def attach(self, who: Credentials, request: messages.Attach) -> Ticket:
        """A ticket to a model by name."""
        return self._issue(who, self.right(who, request))

    def right(self, who: Credentials, request: messages.Attach) -> Right:
        """The right to a model by name: to a version that is there, or to a plan that stages it."""
        _check_selection(request.selection)
        held = self._registry.models.get(request.name)
        if held is not None and self._access.sees(who, held):
            model, version = held, self._registry.choose(held, "", "")
        else:
            plan, intent = self._unloaded(who, request.name)
            if plan is not None:
                then, sealed = request.selection, request.sealed
                return Right(intent, plan=plan, hold=request.hold, then=then, sealed=sealed)
            model, version = self._resolve(who, request.name)
        right = self.cast(model, version, request.selection, request.sealed)
        return replace(right, hold=True) if request.hold else right

    def cast(self, model: Model, version: Version, wanted: Selection, sealed: bool = False) -> Right:
        """The right to `version` of `model` as `wanted`: to itself, to a cast that is there, or to a plan for one.

        With `sealed` a version whose files are mapped is copied like one that is cast.
        """
        as_it_is = not wanted.dtype or version.dtype == wanted.dtype
        if as_it_is and not (sealed and version.residence == "mapped"):
            return Right(Intent(model.name), version)
        if as_it_is:
            wanted = Selection()
        made = self._registry.made_by(Recipe((version.id,), "sealed", wanted))
        if made is not None:
            return Right(Intent(model.name), made)
        plan = Plan("derive", (version.id,), wanted, "sealed", base=version, manner=self._manner())
        return Right(Intent(model.name, model.owner, model.source, role="derived", base=version.id), plan=plan)

    def offer(self, who: Credentials, request: messages.Offer) -> Ticket:
        """A ticket to redeem with descriptors of one's own."""
        _check_selection(request.selection)
        if request.residence not in RESIDENCES:
            raise ProtocolError(f"residence {request.residence[:32]!r}: say {' or '.join(RESIDENCES)}")
        if not all(path.startswith("/") for path in request.paths):
            raise ProtocolError("a path that is offered has to be absolute: what is called otherwise is a model's name")
        if not 0 < len(request.paths) <= messages.MAX_DESCRIPTORS:
            raise ProtocolError(f"{len(request.paths)} files: a checkpoint is 1 to {messages.MAX_DESCRIPTORS}")
        if request.pin:
            self._demand_operator(who, "pinning")
        intent = self._offer_intent(who, request)
        plan = Plan("offer", request.paths, request.selection, request.residence, manner=self._manner())
        return self._issue(who, Right(intent, plan=plan, hold=request.hold))

    def preload(self, model: ModelConfig) -> tuple[Plan, Intent]:
        """How a configured model is staged, and what it is called then."""
        manner = self._manner(warm=model.warm, digest=model.digest)
        selection = Selection(dtype=model.dtype)
        plan = Plan("configured", (model.source,), selection, model.residence, self._config.roots, manner=manner)
        return plan, Intent(model.name, None, model.source, pin=model.pin, role="newest")

    # --- looking ----------------------------------------------------------------------------------------------------

    def list_models(self, who: Credentials, _: object) -> messages.Models:
        """Every version that the asker may see, what is being staged, and what could be."""
        return messages.Models(tuple(self._rows(who)))

    def resolve(self, who: Credentials, request: messages.Resolve) -> messages.Models:
        """The row that a name means now, and its casts; one without a version while there is none."""
        for row in self._absent(who):
            if row.name == request.name and row.name not in self._registry.models:
                return messages.Models((row,))
        model, version = self._resolve(who, request.name)
        casts = [self._registry.versions[d] for d, base in model.bases.items() if base == version.id]
        return messages.Models(tuple(self._row(model, v) for v in (version, *casts)))

    def list_leases(self, who: Credentials, _: object) -> messages.Leases:
        """The asker's leases; an operator sees all."""
        seen = [x for x in self._holdings.leases if self._access.operates(who) or x.holder.uid == who.uid]
        return messages.Leases(
            tuple(LeaseRow(x.holder.pid, x.holder.uid, x.name, x.version.id, x.since, x.version.nbytes) for x in seen)
        )

    def status(self, who: Credentials, _: object) -> messages.Status:
        """The daemon in figures."""
        return messages.Status(
            pid=os.getpid(),
            version=installed_version("mapcell"),
            uptime=time.monotonic() - self._started,
            budget=self._config.budget,
            sealed=self._holdings.in_use(),
            mapped=self._registry.mapped_bytes(),
            models=len(self._registry.models),
            leases=len(self._holdings.leases),
            connections=self._connections(),
            descriptors=descriptors(),
            stagers=len(self._staging),
            staging=tuple(
                StagingRow(name, s.step, s.done, s.total, len(s.waiters))
                for s in self._staging
                for name in {w.intent.name for w in s.waiters if self.may_hear(who, w.intent)}
            ),
            runtime=self._runtime,
            bytes_read=self._staging.bytes_read,
            attaches=self._holdings.leases.begun,
            stagings=self._holdings.published,
            evictions=self._holdings.evicted,
        )

    def watch(self, who: Credentials, request: messages.Watch) -> messages.Models:
        """The snapshot that a subscription begins with: nothing has happened to what is not loaded."""
        rows = (r for r in self._rows(who) if r.state != "UNLOADED")
        return messages.Models(tuple(r for r in rows if request.name in ("", r.name)))

    # --- changing ---------------------------------------------------------------------------------------------------

    def unload(self, who: Credentials, request: messages.Unload | messages.Retire) -> messages.Models:
        """Retires what the name means; memory goes with the last lease, at once when there is none."""
        model, versions = self._meant(who, request.name)
        rows = tuple(self._row(model, v) for v in versions)
        for version in versions:
            self._holdings.retire(model, version)
        self._holdings.collect()
        return messages.Models(rows)

    def evict(self, who: Credentials, request: messages.Evict) -> messages.Models:
        """Drops what the name means, unless a lease holds it."""
        model, versions = self._meant(who, request.name)
        if any(v.pinned for v in versions):
            raise MapcellError(f"{request.name!r} is pinned, so it is not evicted; `mapcell unpin` it first")
        held = {x.holder.pid for x in self._holdings.leases if x.version in versions}
        if held:
            raise MapcellError(
                f"{request.name!r} is held by {len(held)} process{'es' * (len(held) > 1)} (pid "
                f"{', '.join(map(str, sorted(held)[:8]))}); `mapcell retire` stops handing it out and lets them finish"
            )
        rows = tuple(self._row(model, v) for v in versions)
        for version in versions:
            self._holdings.retire(model, version)
            # What another name stands for is not this one's to drop.
            if not version.names:
                self._holdings.evict(version)
        return messages.Models(rows)

    def pin(self, who: Credentials, request: messages.Pin) -> messages.Models:
        """Keeps the version that the name means from eviction; or no longer it, nor any other of the name alone."""
        self._demand_operator(who, "pinning")
        if request.on:
            model, version = self._resolve(who, request.name)
            _demand_whole(model, version, "pin")
            versions = [version]
        else:
            model, versions = self._meant(who, request.name)
        for version in versions:
            version.pinned = request.on
        self._holdings.changed()
        self._holdings.collect()
        return messages.Models(tuple(self._row(model, v) for v in versions))

    def tag(self, who: Credentials, request: messages.Tag) -> messages.Models:
        """Moves a tag to a version of the model."""
        self._demand_operator(who, "tagging")
        _check_tag(request.tag)
        model, _, _ = self._find(who, request.name)
        version = self._registry.choose(model, "", request.version)
        _demand_whole(model, version, "tag")
        model.tags[request.tag] = version.id
        self._holdings.changed()
        self._holdings.collect()
        return messages.Models((self._row(model, version),))

    # --- helpers ----------------------------------------------------------------------------------------------------

    def may_hear(self, who: Credentials, intent: Intent) -> bool:
        """Whether `who` may learn of something that is called so."""
        model = self._registry.models.get(intent.name, Model(intent.name, intent.owner, intent.source))
        return self._access.sees(who, model)

    def _issue(self, who: Credentials, right: Right) -> Ticket:
        return Ticket(self._tickets.issue(who.uid, right, time.monotonic()))

    def _find(self, who: Credentials, name: str) -> tuple[Model, str, str]:
        """The model, tag and version that `name` means. NotFound says what to do about one that is not there yet."""
        try:
            return self._registry.meaning(name, lambda m: self._access.sees(who, m))
        except NotFound:
            base = split_name(name)[0]
            state = next((r.state for r in self._absent(who) if r.name == base), "")
            if state == "STAGING":
                raise NotFound(f"{base!r} is being loaded; `mapcell status` shows how far it is", model=name) from None
            if state:
                raise NotFound(f"{base!r} is not loaded; `mapcell load {base}` loads it", model=name) from None
            raise

    def _resolve(self, who: Credentials, name: str) -> tuple[Model, Version]:
        model, tag, prefix = self._find(who, name)
        return model, self._registry.choose(model, tag, prefix)

    def _meant(self, who: Credentials, name: str) -> tuple[Model, list[Version]]:
        """The model, and all its versions, or the one that a tag or a version in `name` chooses."""
        model, tag, prefix = self._find(who, name)
        if tag or prefix:
            chosen = [self._registry.choose(model, tag, prefix)]
        else:
            chosen = [self._registry.versions[v] for v in [*model.versions, *model.derived]]
        self._access.demand_change(who, model)
        return model, chosen

    def _unloaded(self, who: Credentials, name: str) -> tuple[Plan | None, Intent]:
        """The plan to stage a configured model that is not there yet."""
        base, tag, version = split_name(name)
        configured = self._config.model(base)
        if configured is None or configured.name in self._registry.models:
            return None, Intent(name)
        if not self._access.sees(who, Model(configured.name, None, configured.source)):
            return None, Intent(name)
        if version or tag not in ("", "latest"):
            raise NotFound(f"{base!r} is not loaded, so it has no {name!r} yet; attach {base!r} first", model=name)
        return self.preload(configured)

    def _manner(self, warm: bool = False, digest: str = "") -> Manner:
        config = self._config
        return Manner(config.huge_pages, config.drop_cache, warm, digest, config.guard_deadline)

    def _demand_operator(self, who: Credentials, what: str) -> None:
        if not self._access.operates(who):
            raise AccessDenied(f"{what} takes an operator (see operators in the configuration)")

    def _offer_intent(self, who: Credentials, request: messages.Offer) -> Intent:
        name, path = request.name, request.paths[0]
        if not name:
            taken = self._registry.models.get(path)
            label = path if taken is None or taken.owner == who.uid else f"{path}#{who.uid}"
            whole = request.selection == Selection()
            return Intent(label, who.uid, path, role="newest" if whole else "derived")
        _check_name(name)
        if request.tag:
            _check_tag(request.tag)
        owner = None if self._access.operates(who) else who.uid
        taken = self._registry.models.get(name)
        if (taken is not None and taken.owner != owner) or (owner is not None and self._config.model(name) is not None):
            raise AccessDenied(f"the name {name!r} is taken; choose another")
        return Intent(name, owner, path, request.tag, request.pin, "newest")

    def _rows(self, who: Credentials) -> list[ModelRow]:
        held = [self._row(m, v) for m, v in self._registry.rows(lambda m: self._access.sees(who, m))]
        return sorted([*self._absent(who), *held], key=lambda row: row.name)

    def _row(self, model: Model, version: Version) -> ModelRow:
        return row_of(model, version, self._holdings.outlook(version))

    def _absent(self, who: Credentials) -> list[ModelRow]:
        """What the asker may see that has no version: being staged, or configured and not there."""
        rows = []
        for staging in self._staging:
            for intent in {w.intent.name: w.intent for w in staging.waiters}.values():
                if self.may_hear(who, intent):
                    rows.append(absent_row(intent, "STAGING", staging.plan, staging.total))
        taken = {row.name for row in rows} | self._registry.models.keys()
        for model in self._config.models:
            plan, intent = self.preload(model)
            if model.name not in taken and self.may_hear(who, intent):
                rows.append(absent_row(intent, "UNLOADED", plan, 0))
        return rows


def _check_selection(selection: Selection) -> None:
    if selection.dtype and selection.dtype not in FLOATING:
        raise ProtocolError(f"dtype {selection.dtype[:32]!r} is no floating dtype")


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or name.startswith(("/", ".", "~")) or set(name) & set("@:\n\r\t\0 "):
        raise ProtocolError(f"{name[:64]!r} cannot name a model: no blanks, @ or :, and nothing like a path")


def _check_tag(tag: str) -> None:
    if not tag or len(tag) > MAX_TAG or set(tag) & set("@:/\n\r\t\0 ") or tag == "latest":
        raise ProtocolError(f"{tag[:64]!r} cannot be a tag: no blanks, @, : or /, and 'latest' moves by itself")


def _demand_whole(model: Model, version: Version, verb: str) -> None:
    base = model.bases.get(version.id)
    if base:
        raise MapcellError(f"{version.id} was cast from {base} and goes with it; {verb} that version")
