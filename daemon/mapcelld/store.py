"""The manager's descriptor store: versions survive the daemon there, and the next one adopts them without reading disk.

Each version's descriptors lie under names made of its id; a sealed memfd called "state-N" says what belongs together.
The order of every change keeps a daemon that dies in between from leaving half a version: descriptors first, then the
state that names them, then the end of the state before it; and the other way round for a version that goes. Whatever
the newest sound state does not name is thrown out at the next start.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Sequence

from blake3 import blake3

from mapcell_formats.digest import PREFIX, file_identity, provisional_id
from mapcell_formats.errors import FormatError
from mapcell_formats.manifest import Manifest
from mapcelld import guard, memfd, state
from mapcelld.channel import close_all
from mapcelld.manager import Inherited, Manager
from mapcelld.registry import Model, Registry, State, Version
from mapcelld.segment import Segment

log = logging.getLogger("mapcelld.store")

_STATE = "state-"
# Warn while there is still time to raise FileDescriptorStoreMax.
_FULL_SHARE = 0.9


class Store:
    """What the manager keeps for this daemon. `sync` after every change; `adopt` once, at the start.

    `restarts` counts the daemons before this one that left it a state.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._kept: dict[str, tuple[str, ...]] = {}
        self._digests: dict[str, bytes] = {}
        self._number = 0
        self._warned = False
        self.restarts = 0

    @property
    def on(self) -> bool:
        """Whether there is a store at all."""
        return self._manager.store_limit > 0

    def stored(self) -> int:
        """Descriptors in the store."""
        return sum(map(len, self._kept.values())) + (1 if self._number else 0)

    def sync(self, registry: Registry) -> None:
        """Brings the store to what `registry` holds."""
        if not self.on:
            return
        before = dict(self._kept)
        for version in registry.versions.values():
            if self._kept.get(version.id) != _names_of(version):
                self._keep(version)
        for number in [i for i in self._kept if i not in registry.versions]:
            del self._kept[number]
            self._digests.pop(number, None)
        self._write_state(registry)
        # Only now: until it was written the state before named them.
        for number, names in before.items():
            for name in set(names) - set(self._kept.get(number, ())):
                self._manager.forget(name)

    def adopt(self, inherited: Sequence[Inherited], registry: Registry) -> int:
        """Takes over what the daemon before left among `inherited`, which are consumed. Bytes adopted."""
        by_name: dict[str, list[int]] = defaultdict(list)
        for one in inherited:
            by_name[one.name].append(one.fd)
        try:
            self._adopt_all(by_name, registry)
        # What an earlier daemon left must not keep this one from starting, again and again: checkpoints can be read.
        except Exception:
            log.exception("what was left is not taken over")
            self._kept.clear()
            for kept in (registry.versions, registry.models, registry.recipes):
                kept.clear()
            by_name |= {one.name: [] for one in inherited}
            close_all([one.fd for one in inherited])
        adopted = sum(v.nbytes for v in registry.versions.values())
        if inherited:
            log.info("adopted: versions=%d bytes=%d", len(registry.versions), adopted)
        if self.on:
            # The state first: a daemon that dies before the rest is thrown out leaves it to the next.
            self._write_state(registry)
        for name, fds in by_name.items():
            close_all(fds)
            self._manager.forget(name)
        return adopted

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _fits(self, version: Version) -> bool:
        # Two for the state and its successor.
        used = 2 + sum(map(len, self._kept.values())) + 1 + len(version.segments)
        if used > self._manager.store_limit * _FULL_SHARE and not self._warned:
            self._warned = True
            log.warning("the descriptor store is almost full; raise FileDescriptorStoreMax: used=%d of=%d", used,
                        self._manager.store_limit)  # fmt: skip
        if used > self._manager.store_limit:
            log.error("not kept across a restart, the descriptor store is full: version=%s", version.id)
            return False
        return True

    def _keep(self, version: Version) -> None:
        """Puts into the store what is new of `version`; takes it out of what is kept when there is no room."""
        names, held = _names_of(version), self._kept.pop(version.id, ())
        if not self._fits(version):
            return
        for name, segment in zip(names, (version.manifest, *version.lasting), strict=True):
            if name not in held:
                self._manager.keep(name, segment.fileno())
        self._kept[version.id] = names
        self._digests[version.id] = _digest(version.manifest.fileno(), version.manifest.nbytes)

    def _write_state(self, registry: Registry) -> None:
        kept = Registry(registry.models, {i: v for i, v in registry.versions.items() if i in self._kept})
        data = state.encode(state.of(kept, lambda v: self._digests[v.id], self.restarts))
        fd = memfd.sealed_copy("mapcell-state", data)
        try:
            self._manager.keep(f"{_STATE}{self._number + 1}", fd)
        finally:
            os.close(fd)
        if self._number:
            self._manager.forget(f"{_STATE}{self._number}")
        self._number += 1

    def _newest_state(self, by_name: dict[str, list[int]]) -> state.State | None:
        numbers = sorted((int(n[len(_STATE) :]) for n in by_name if _is_state(n)), reverse=True)
        self._number = numbers[0] if numbers else 0
        for number in numbers:
            try:
                return state.decode(_read_sealed(by_name[f"{_STATE}{number}"][0]))
            except (state.StateError, OSError) as exc:
                log.warning("the state that was left is not taken over: number=%d reason=%r", number, str(exc))
        return None

    def _adopt_all(self, by_name: dict[str, list[int]], registry: Registry) -> None:
        left = self._newest_state(by_name)
        if left is not None:
            self.restarts = left.restarts + 1
            for record in left.versions:
                self._adopt_version(record, by_name, registry)
            _name_models(left, registry)

    def _adopt_version(self, record: state.VersionRecord, by_name: dict[str, list[int]], registry: Registry) -> None:
        names = _names(record.id, [g == state.COPY for g in _guards(record)], record.digest, record.verified)
        fds = [by_name[name].pop(0) for name in names if by_name.get(name)]
        fault = "descriptors are missing" if len(fds) != len(names) else _fault(record, fds)
        if fault:
            log.warning("a version that was left is not taken over: version=%r reason=%r", record.id, fault)
            close_all(fds)
            return
        # A second copy under the same name is one that a daemon stored and then died: one is enough.
        for name in names:
            close_all(by_name.pop(name))
        version = _version(record, fds)
        registry.versions[version.id] = version
        registry.recipes |= dict.fromkeys(version.recipes, version.id)
        self._kept[version.id] = names
        self._digests[version.id] = record.manifest_digest


def _is_state(name: str) -> bool:
    number = name[len(_STATE) :]
    return name.startswith(_STATE) and number.isascii() and number.isdecimal()


def _names_of(version: Version) -> tuple[str, ...]:
    return _names(version.id, [s.sealed for s in version.lasting], version.digest, version.verified)


def _names(version: str, copies: Sequence[bool], digest: str, verified: bool) -> tuple[str, ...]:
    """What the descriptors of a version are called; those of `copies` not as the files that they were made of."""
    # A manifest that has digests by now, or none any more, is another than the one that was published.
    doubted = version.startswith(PREFIX) and not verified
    kind = "verified" if digest else "doubted" if doubted else "manifest"
    # A store's names hold no colon.
    stem = version.replace(":", "-")
    return (f"{stem}.{kind}", *(f"{stem}.{i}{'.copy' if copy else ''}" for i, copy in enumerate(copies)))


def _guards(record: state.VersionRecord) -> tuple[str, ...]:
    return record.guards or ("",) * len(record.segments)


def _digest(fd: int, nbytes: int) -> bytes:
    return blake3(os.pread(fd, nbytes, 0)).digest()


def _read_sealed(fd: int) -> bytes:
    nbytes = os.fstat(fd).st_size
    if nbytes > state.MAX_STATE_BYTES or not memfd.is_sealed(fd, nbytes):
        raise state.StateError("it is no sealed memory of a sensible size")
    return os.pread(fd, nbytes, 0)


def _fault(record: state.VersionRecord, fds: Sequence[int]) -> str:
    """What is wrong with the descriptors of a version, "" when they are what the record says."""
    if not memfd.is_sealed(fds[0], record.manifest):
        return "the manifest is not sealed memory of its size"
    data = os.pread(fds[0], record.manifest, 0)
    if blake3(data).digest() != record.manifest_digest:
        return "the manifest has another digest"
    try:
        manifest = Manifest(data)
        about = manifest.description()
    except FormatError as exc:
        return f"the manifest is malformed: {exc}"
    if about.version != record.id or manifest.segments != record.segments:
        return "the manifest describes another version"
    if record.residence == "sealed":
        sound = all(memfd.is_sealed(fd, n) for fd, n in zip(fds[1:], record.segments, strict=True))
        return "" if sound else "a segment is not sealed memory of its size"
    return _mapped_fault(record, fds[1:], about.identity)


def _mapped_fault(record: state.VersionRecord, fds: Sequence[int], identity: str) -> str:
    if not record.guards:
        same = provisional_id(file_identity(os.fstat(fd)) for fd in fds) == identity
        return "" if same else "its file was changed meanwhile"
    if len(record.guards) != len(fds):
        return "its guards are not those of its segments"
    for fd, nbytes, stamp in zip(fds, record.segments, record.guards, strict=True):
        # Under the guard that the manager kept nobody can have written, whatever was renamed or had its mode changed.
        if stamp == state.COPY and not memfd.is_sealed(fd, nbytes):
            return "the copy of a file is not sealed memory of its size"
        if stamp != state.COPY and stamp != guard.stamp(fd):
            return "its file was changed meanwhile"
    return ""


def _version(record: state.VersionRecord, fds: Sequence[int]) -> Version:
    segments = [Segment(fd, n) for fd, n in zip(fds, (record.manifest, *record.segments), strict=True)]
    for segment, stamp in zip(segments[1:], _guards(record), strict=True):
        segment.sealed = stamp == state.COPY
        if stamp and not segment.sealed:
            segment.regard(stamp)
    return Version(
        id=record.id,
        residence=record.residence,
        format=record.format,
        dtype=record.dtype,
        verified=record.verified,
        tensors=record.tensors,
        nbytes=record.nbytes,
        manifest=segments[0],
        segments=tuple(segments[1:]),
        used=time.monotonic(),
        uid=record.uid,
        state=State.RETIRED if record.retired else State.READY,
        pinned=record.pinned,
        recipes=set(record.recipes),
        identities=record.identities,
        digest=record.digest,
    )


def _name_models(left: state.State, registry: Registry) -> None:
    for record in left.models:
        model = Model(
            record.name,
            record.owner,
            record.source,
            [v for v in record.versions if v in registry.versions],
            [v for v in record.derived if v in registry.versions],
            {v: base for v, base in record.bases.items() if v in registry.versions},
            {t: v for t, v in record.tags.items() if v in registry.versions},
        )
        if model.versions or model.derived:
            registry.models[model.name] = model
        for number in (*model.versions, *model.derived):
            registry.versions[number].names.add(model.name)
