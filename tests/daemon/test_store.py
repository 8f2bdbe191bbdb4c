"""The descriptor store: whatever moment the daemon dies at, the next one finds whole versions, and nothing leaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mapcell_formats.digest import content_digest, file_identity, provisional_id
from mapcell_formats.manifest import Description, Manifest, TensorEntry, encode_manifest
from mapcell_formats.messages import Selection
from mapcelld import memfd
from mapcelld.channel import close_all
from mapcelld.manager import Inherited
from mapcelld.registry import Recipe, Registry, State, Version
from mapcelld.segment import Segment
from mapcelld.store import Store
from support.notify import NotifySocket
from support.proc import eventually

from .building import sealed_segment


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    """A manager that listens."""
    with NotifySocket(tmp_path) as sock:
        yield sock


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """The number of open descriptors is the same after every test."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def sealed(*contents: bytes) -> Version:
    """A sealed version with a segment for each of `contents`, as staging makes it."""
    entries = [TensorEntry(f"t{i}", "U8", (len(c),), i, 0, len(c)) for i, c in enumerate(contents)]
    number = content_digest(((e, c.ljust(32)) for e, c in zip(entries, contents, strict=True)), {})
    data = encode_manifest(Description(number, "sealed", "safetensors", True), [len(c) for c in contents], entries)
    return made(number, "sealed", data, [sealed_segment(c) for c in contents])


def mapped(path: Path) -> Version:
    """A version over the file at `path`, mapped in place."""
    fd = os.open(path, os.O_RDONLY)
    info = os.fstat(fd)
    number = provisional_id([file_identity(info)])
    about = Description(number, "mapped", "safetensors", False, {}, number)
    entry = TensorEntry("t", "U8", (info.st_size,), 0, 0, info.st_size)
    return made(number, "mapped", encode_manifest(about, [info.st_size], [entry]), [Segment(fd, info.st_size)])


def made(number: str, residence: str, manifest: bytes, segments: Sequence[Segment]) -> Version:
    """A version of these parts."""
    return Version(
        id=number,
        residence=residence,
        format="safetensors",
        dtype="U8",
        verified=residence == "sealed",
        tensors=len(segments),
        nbytes=sum(s.nbytes for s in segments),
        manifest=sealed_segment(manifest),
        segments=tuple(segments),
        used=0.0,
    )


def publish(registry: Registry, name: str, version: Version, identity: str = "1") -> Version:
    """Takes `version` in under `name`."""
    registry.add(version, Recipe((identity,), "auto", Selection()))
    registry.name(name, None, f"/models/{name}", version)
    return version


def close(versions: Sequence[Version]) -> None:
    """Closes what `versions` own."""
    for version in versions:
        for segment in (version.manifest, *version.segments):
            segment.close()


def adopt(notify: NotifySocket, upto: int | None = None) -> Registry:
    """What the next daemon knows that finds the store as it was after `upto` datagrams. The caller closes it."""
    registry = Registry()
    Store(notify.manager()).adopt(notify.hand_over(upto), registry)
    return registry


def whole(registry: Registry) -> dict[str, list[bytes]]:
    """The bytes of every version by name, read through its descriptors."""
    found = {}
    for name, model in registry.models.items():
        for number in model.versions:
            version = registry.versions[number]
            found[name] = [os.pread(s.fileno(), s.nbytes, 0) for s in version.segments]
    return found


def told(notify: NotifySocket, count: int) -> None:
    """Waits until `count` datagrams were read."""
    eventually(lambda: len(notify.told) == count)


def test_round_trip(notify: NotifySocket, tmp_path: Path) -> None:
    """What one daemon holds the next one holds: bytes, names, tags, pins, recipes; from memory and from files."""
    (tmp_path / "f").write_bytes(b"file")
    registry = Registry()
    first = publish(registry, "m", sealed(b"one", b"two"), "1")
    second = publish(registry, "f", mapped(tmp_path / "f"), "2")
    cast = registry.add(sealed(b"cast"), Recipe((first.id,), "sealed", Selection("F16")))
    registry.derive(registry.models["m"], cast, first.id)
    registry.models["m"].tags["stable"] = first.id
    first.pinned = True
    Store(notify.manager()).sync(registry)
    told(notify, 8)
    left = adopt(notify)
    try:
        assert whole(left) == {"m": [b"one", b"two"], "f": [b"file"]}
        assert left.models["m"] == registry.models["m"]
        assert left.recipes == registry.recipes
        assert left.versions.keys() == {first.id, second.id, cast.id}
        adopted = left.versions[first.id]
        assert (adopted.pinned, adopted.state, adopted.names, adopted.leases) == (True, State.READY, {"m"}, 0)
        assert (adopted.verified, adopted.tensors, adopted.nbytes) == (True, 2, 6)
    finally:
        close([first, second, cast, *left.versions.values()])


def changes(registry: Registry, store: Store) -> Iterator[set[str]]:
    """One change after the other, synchronised; the names that are whole before and after each."""
    publish(registry, "a", sealed(b"aaaa"), "a")
    store.sync(registry)
    yield {"a"}
    publish(registry, "b", sealed(b"bbbb", b"b2"), "b")
    store.sync(registry)
    yield {"a", "b"}
    gone = registry.versions[registry.models["a"].versions[0]]
    registry.drop(gone)
    close([gone])
    publish(registry, "c", sealed(b"cccc"), "c")
    store.sync(registry)
    yield {"b", "c"}


def test_death_after_any_datagram(notify: NotifySocket) -> None:
    """A daemon that dies between any two things that it says leaves the versions from before or after, never half."""
    registry, bounds, before = Registry(), [0], [set[str]()]
    for names in changes(registry, Store(notify.manager())):
        before.append(names)
        eventually(lambda: bool(notify.told) and notify.told[-1].values.get("FDSTOREREMOVE", "1") == "1")
        notify.manager().barrier()
        bounds.append(len(notify.told))
    close(list(registry.versions.values()))
    contents = {"a": [b"aaaa"], "b": [b"bbbb", b"b2"], "c": [b"cccc"]}
    for upto in range(bounds[-1] + 1):
        step = next(i for i, bound in enumerate(bounds) if upto <= bound)
        left = adopt(notify, upto)
        found = whole(left)
        close(list(left.versions.values()))
        assert found.keys() in ([before[step]] if upto == bounds[step] else [before[step - 1], before[step]])
        assert found == {name: contents[name] for name in found}


def verified(version: Version, digest: str) -> None:
    """Replaces the manifest of a mapped version by one that has digests, as hashing does."""
    data = os.pread(version.manifest.fileno(), version.manifest.nbytes, 0)
    manifest = Manifest(data)
    about = Description(version.id, "mapped", "safetensors", True, {}, manifest.description().identity)
    old = version.manifest
    version.manifest = sealed_segment(encode_manifest(about, manifest.segments, list(manifest.entries()), [b"d" * 32]))
    old.close()
    version.verified, version.digest = True, digest


def test_death_while_a_manifest_is_replaced(notify: NotifySocket, tmp_path: Path) -> None:
    """Whatever datagram is the last: the next daemon has the version, verified with its digest or as it was."""
    (tmp_path / "f").write_bytes(b"file")
    registry, store = Registry(), Store(notify.manager())
    held = publish(registry, "f", mapped(tmp_path / "f"))
    held.identities = ("1",)
    store.sync(registry)
    told(notify, 3)
    verified(held, "blake3:d")
    store.sync(registry)
    # The new manifest, the state that names it, the end of the state before, the end of the old manifest.
    told(notify, 7)
    for upto in range(3, 8):
        left = adopt(notify, upto)
        (found,) = left.versions.values()
        manifest = Manifest(os.pread(found.manifest.fileno(), found.manifest.nbytes, 0))
        close([found])
        assert (found.id, found.identities, found.verified) == (held.id, ("1",), bool(found.digest))
        assert found.verified is (upto >= 5)
        assert manifest.description().verified is found.verified
        assert manifest.digest(0) == (b"d" * 32 if found.verified else bytes(32))
    assert sorted(name for name, _ in notify.store(7)) == sorted([f"{held.id}.0", f"{held.id}.verified", "state-2"])
    close([held])


def test_death_while_adopting(notify: NotifySocket, tmp_path: Path) -> None:
    """A daemon that dies while it adopts, after any datagram, leaves everything to the third."""
    registry = Registry()
    publish(registry, "m", sealed(b"bytes"))
    Store(notify.manager()).sync(registry)
    # Beside it what nobody knows, and a second copy, as a daemon that died while storing leaves them.
    manager = notify.manager()
    for name, fd in notify.store():
        manager.keep(name, fd)
    manager.keep("stranger", registry.versions[next(iter(registry.versions))].manifest.fileno())
    manager.barrier()
    close(list(registry.versions.values()))
    first = len(notify.told)
    close(list(adopt(notify).versions.values()))
    notify.manager().barrier()
    for upto in range(first, len(notify.told) + 1):
        left = adopt(notify, upto)
        found = whole(left)
        close(list(left.versions.values()))
        assert found == {"m": [b"bytes"]}


def test_store_holds_nothing_else(notify: NotifySocket) -> None:
    """After adoption and after every change the store holds one state and the descriptors of what is there."""
    registry = Registry()
    store = Store(notify.manager())
    for names in changes(registry, store):
        notify.manager().barrier()
        kept = [name for name, _ in notify.store()]
        expected = sum(1 + len(v.segments) for v in registry.versions.values())
        assert len(kept) == len(set(kept)) == expected + 1
        assert len(registry.models) == len(names)
    left = adopt(notify)
    notify.manager().barrier()
    assert sorted(n for n, _ in notify.store() if not n.startswith("state-")) == sorted(
        n for n in kept if not n.startswith("state-")
    )
    assert sum(n.startswith("state-") for n, _ in notify.store()) == 1
    close([*registry.versions.values(), *left.versions.values()])


Spoil = Callable[[list[Inherited]], None]


def exchange(suffix: str, make: Callable[[], int]) -> Spoil:
    """Puts another descriptor in the place of the one whose name ends so."""

    def spoil(found: list[Inherited]) -> None:
        for i, one in enumerate(found):
            if one.name.endswith(suffix):
                os.close(one.fd)
                found[i] = Inherited(one.name, make())

    return spoil


def without(suffix: str) -> Spoil:
    """Takes away the descriptor whose name ends so."""

    def spoil(found: list[Inherited]) -> None:
        close_all([one.fd for one in found if one.name.endswith(suffix)])
        found[:] = [one for one in found if not one.name.endswith(suffix)]

    return spoil


def unsealed() -> int:
    """Memory of the right size that anybody could change."""
    fd = memfd.create("open", 5)
    memfd.write(fd, 0, b"bytes")
    return fd


def folder() -> int:
    """A descriptor of a folder."""
    return os.open("/", os.O_RDONLY)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without(".manifest"), "descriptors are missing"),
        (without(".0"), "descriptors are missing"),
        (exchange(".0", unsealed), "segment is not sealed"),
        (exchange(".0", folder), "segment is not sealed"),
        (exchange(".0", lambda: memfd.sealed_copy("x", b"longer than that")), "segment is not sealed"),
        (exchange(".manifest", folder), "manifest is not sealed"),
        (exchange("state-1", unsealed), "no sealed memory"),
        (exchange("state-1", folder), "no sealed memory"),
        (exchange("state-1", lambda: memfd.sealed_copy("x", b"\xc1")), "malformed"),
        (exchange("state-1", lambda: memfd.sealed_copy("x", b"")), "malformed"),
    ],
)
def test_spoilt(notify: NotifySocket, caplog: pytest.LogCaptureFixture, spoil: Spoil, said: str) -> None:
    """What is not what the state says is dropped with the reason, closed, and thrown out of the store."""
    registry = Registry()
    publish(registry, "m", sealed(b"bytes"))
    Store(notify.manager()).sync(registry)
    notify.manager().barrier()
    close(list(registry.versions.values()))
    inherited = notify.hand_over()
    spoil(inherited)
    gone = {name for name, _ in notify.store()} - {one.name for one in inherited}
    left = Registry()
    Store(notify.manager()).adopt(inherited, left)
    notify.manager().barrier()
    assert said in caplog.text
    assert (left.versions, left.models, left.recipes) == ({}, {}, {})
    assert {name for name, _ in notify.store()} - gone == {"state-2"}


def test_manifest_of_another_version(notify: NotifySocket, caplog: pytest.LogCaptureFixture) -> None:
    """A manifest that was exchanged for a sound one of the same size is noticed by its digest."""
    registry = Registry()
    publish(registry, "m", sealed(b"bytes"))
    other = sealed(b"other")
    Store(notify.manager()).sync(registry)
    notify.manager().barrier()
    inherited = notify.hand_over()
    exchange(".manifest", other.manifest.reopen)(inherited)
    left = Registry()
    Store(notify.manager()).adopt(inherited, left)
    close([other, *registry.versions.values()])
    assert "another digest" in caplog.text
    assert left.versions == {}


def test_file_that_changed(notify: NotifySocket, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mapped file that was written to while no daemon ran is not lent as the version that it was."""
    path = tmp_path / "f"
    path.write_bytes(b"before")
    registry = Registry()
    publish(registry, "f", mapped(path))
    Store(notify.manager()).sync(registry)
    notify.manager().barrier()
    path.write_bytes(b"behind")
    left = adopt(notify)
    close(list(registry.versions.values()))
    assert "file was changed" in caplog.text
    assert left.models == {}


def test_a_guard_that_was_kept(notify: NotifySocket, tmp_path: Path) -> None:
    """Under a guard that the manager kept a file is what it was, whatever its mode and name are by now."""
    path = tmp_path / "f"
    path.write_bytes(b"before")
    registry = Registry()
    version = publish(registry, "f", mapped(path))
    assert version.segments[0].guard() == ""
    Store(notify.manager()).sync(registry)
    notify.manager().barrier()
    path.chmod(0o600)
    path.rename(tmp_path / "g")
    left = adopt(notify)
    try:
        assert whole(left) == {"f": [b"before"]}
        (adopted,) = left.versions[version.id].segments
        assert adopted.guarded
        assert not adopted.broken()
    finally:
        close([*registry.versions.values(), *left.versions.values()])


def test_a_copy_takes_the_place_of_a_file(notify: NotifySocket, tmp_path: Path) -> None:
    """While not all have let go of a file it stays in the store; then its copy is there, and the file is not."""
    path = tmp_path / "f"
    path.write_bytes(b"before")
    registry, store = Registry(), Store(notify.manager())
    version = publish(registry, "f", mapped(path))
    store.sync(registry)
    copy = sealed_segment(b"before")
    copy.sealed = True
    version.replaced[0], version.segments = version.segments[0], (copy,)
    store.sync(registry)
    notify.manager().barrier()
    assert ".copy" not in str(notify.told)
    file = version.replaced.pop(0)
    store.sync(registry)
    notify.manager().barrier()
    path.write_bytes(b"behind")
    after = adopt(notify)
    try:
        assert whole(after) == {"f": [b"before"]}
        assert after.versions[version.id].segments[0].sealed
        assert after.sealed_bytes() == 6
        assert store.stored() == 3
    finally:
        file.close()
        close([*registry.versions.values(), *after.versions.values()])


def test_bug_in_adoption_starts_clean(
    notify: NotifySocket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with what was left, the daemon starts, with nothing, and the store is emptied."""
    registry = Registry()
    publish(registry, "m", sealed(b"bytes"))
    Store(notify.manager()).sync(registry)
    notify.manager().barrier()
    close(list(registry.versions.values()))

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mapcelld.store._name_models", broken)
    left = adopt(notify)
    notify.manager().barrier()
    assert "ZeroDivisionError" in caplog.text
    assert (left.versions, left.models, left.recipes) == ({}, {}, {})
    assert [name for name, _ in notify.store()] == ["state-2"]


def test_restarts_are_counted(notify: NotifySocket) -> None:
    """Each daemon that finds what one before it left counts one more, with versions or without."""
    seen = []
    for _ in range(3):
        store = Store(notify.manager())
        inherited = notify.hand_over()
        store.adopt(inherited, Registry())
        notify.manager().barrier()
        seen.append((store.restarts, store.stored(), len(notify.store())))
    assert seen == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]


def test_full_store(notify: NotifySocket, caplog: pytest.LogCaptureFixture) -> None:
    """Before the store is full there is a warning, once; what does not fit is named, and nothing of it is stored."""
    registry = Registry()
    store = Store(notify.manager(limit=7))
    versions = []
    for number in range(4):
        versions.append(publish(registry, f"m{number}", sealed(b"%d" % number), str(number)))
        store.sync(registry)
    notify.manager().barrier()
    assert caplog.text.count("almost full") == 1
    assert [v.id in caplog.text for v in versions] == [False, False, True, True]
    assert len(notify.store()) == 5
    left = adopt(notify)
    assert left.models.keys() == {"m0", "m1"}
    close([*versions, *left.versions.values()])


def test_off_without_a_store(notify: NotifySocket) -> None:
    """Where the manager has no store nothing is said at all."""
    registry = Registry()
    publish(registry, "m", sealed(b"bytes"))
    store = Store(notify.manager(limit=0))
    store.sync(registry)
    store.adopt([], Registry())
    close(list(registry.versions.values()))
    notify.manager().barrier()
    assert [t.values for t in notify.told] == [{"BARRIER": "1"}]
