"""What a daemon leaves to the next one: which descriptors belong to which version, and what they are called.

Pure: bytes out of a registry, and records out of bytes. A state of another schema, or one that contradicts itself, is
refused as a whole: the next daemon then begins with nothing, which is always safe.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import msgpack
from blake3 import blake3

from mapcell_formats.messages import Selection
from mapcelld.registry import Recipe, Registry, Version

T = TypeVar("T")

# Raised whenever a record changes. An older or newer state is dropped: checkpoints are still on the disk.
SCHEMA = 3
MAX_STATE_BYTES = 64 << 20
COPY = "copy"


class StateError(ValueError):
    """A state that cannot be taken over: what is wrong with it."""


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version: what the registry knew, and what its descriptors have to look like. Sizes in bytes.

    `guards` says of each segment of a mapped version what the guarded file looked like (`guard.stamp`), or COPY for one
    that lies in memory by now, or "" for a file without a guard. Empty when that holds for all.
    """

    id: str
    residence: str
    format: str
    dtype: str
    verified: bool
    tensors: int
    nbytes: int
    uid: int
    retired: bool
    pinned: bool
    manifest: int
    manifest_digest: bytes
    segments: tuple[int, ...]
    recipes: tuple[Recipe, ...]
    identities: tuple[str, ...]
    digest: str
    guards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One model: name, owner, and the ids of its versions, oldest first."""

    name: str
    owner: int | None
    source: str
    versions: tuple[str, ...]
    derived: tuple[str, ...]
    bases: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class State:
    """All of them, and how many daemons were followed by another so far."""

    versions: tuple[VersionRecord, ...]
    models: tuple[ModelRecord, ...]
    restarts: int = 0


def of(registry: Registry, manifest_digest: Any, restarts: int = 0) -> State:
    """The state of `registry`; `manifest_digest(version)` is the blake3 of its manifest's bytes."""
    return State(
        tuple(_version(v, manifest_digest(v)) for v in registry.versions.values()),
        tuple(
            ModelRecord(m.name, m.owner, m.source, tuple(m.versions), tuple(m.derived), dict(m.bases), dict(m.tags))
            for m in registry.models.values()
        ),
        restarts,
    )


def encode(state: State) -> bytes:
    """The bytes of `state`, its schema and a digest over them first."""
    body = msgpack.packb(asdict(state))
    packed: bytes = msgpack.packb([SCHEMA, blake3(body).digest(), body])
    return packed


def decode(data: bytes) -> State:
    """The state in `data`. StateError says why there is none."""
    try:
        schema, digest, body = msgpack.unpackb(data, max_bin_len=MAX_STATE_BYTES)
        if schema != SCHEMA:
            raise StateError(f"it has schema {schema!r}, and this version of mapcell reads {SCHEMA}")
        if blake3(body).digest() != digest:
            raise StateError("its digest does not fit its bytes")
        raw = msgpack.unpackb(body)
        if not _fits(raw["restarts"], "int"):
            raise StateError(f"it was restarted {raw['restarts']!r:.40} times")
        return State(
            tuple(_version_record(v) for v in raw["versions"]),
            tuple(
                _checked(ModelRecord(**{**m, "versions": tuple(m["versions"]), "derived": tuple(m["derived"])}))
                for m in raw["models"]
            ),
            raw["restarts"],
        )
    except StateError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as exc:
        raise StateError(f"it is malformed: {exc}") from exc


def _version(version: Version, manifest_digest: bytes) -> VersionRecord:
    return VersionRecord(
        id=version.id,
        residence=version.residence,
        format=version.format,
        dtype=version.dtype,
        verified=version.verified,
        tensors=version.tensors,
        nbytes=version.nbytes,
        uid=version.uid,
        retired=version.state.value == "RETIRED",
        pinned=version.pinned,
        manifest=version.manifest.nbytes,
        manifest_digest=manifest_digest,
        segments=tuple(s.nbytes for s in version.segments),
        recipes=tuple(version.recipes),
        identities=version.identities,
        digest=version.digest,
        guards=_guards(version),
    )


def _guards(version: Version) -> tuple[str, ...]:
    guards = tuple(COPY if s.sealed else s.stamp if s.guarded else "" for s in version.lasting)
    return guards if any(guards) else ()


def _version_record(raw: Any) -> VersionRecord:
    lists = {key: tuple(raw[key]) for key in ("segments", "identities")}
    recipes = tuple(_recipe(r) for r in raw["recipes"])
    lists["guards"] = tuple(raw["guards"])
    return _checked(VersionRecord(**{**raw, **lists, "recipes": recipes}))


def _recipe(raw: Any) -> Recipe:
    wanted = raw["selection"]
    keys = None if wanted["keys"] is None else tuple(wanted["keys"])
    selection = _checked(Selection(wanted["dtype"], keys, wanted["prefix"]))
    return _checked(Recipe(tuple(raw["identities"]), raw["residence"], selection, raw["digest"]))


def _checked(record: T) -> T:
    """`record`, when every field holds what its annotation says. ValueError otherwise."""
    for field in fields(record):  # type: ignore[arg-type]
        value, kind = getattr(record, field.name), str(field.type)
        if not _fits(value, kind):
            raise ValueError(f"{type(record).__name__}.{field.name} is {value!r:.40} instead of {kind}")
    return record


def _fits(value: Any, kind: str) -> bool:
    if kind.endswith(" | None"):
        return value is None or _fits(value, kind.removesuffix(" | None"))
    if kind.startswith("tuple["):
        inner = kind.removeprefix("tuple[").removesuffix(", ...]")
        return type(value) is tuple and all(_fits(v, inner) for v in value)
    if kind == "dict[str, str]":
        return type(value) is dict and all(type(x) is str for pair in value.items() for x in pair)
    return type(value).__name__ == kind and (kind != "int" or value >= 0)
