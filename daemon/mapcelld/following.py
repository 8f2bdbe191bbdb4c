"""What became of the files that models were made from, and what is to be done about it. Pure: `now` is passed in.

A source is looked at when its folders tell of a change and have been quiet for a moment, so that an update in many
steps is one update. What is seen is compared with what the model's newest version was made from; a model that follows
its source is staged anew, once for each state of the files: what failed is tried again when they change again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mapcell_formats.digest import without_ctime
from mapcell_formats.messages import Looked, Place

# After the last change: an editor's or a downloader's steps follow each other faster.
QUIET_SECONDS = 0.25
# Where the kernel does not tell: how often a source is looked at all the same.
POLL_SECONDS = 60.0
# A writer that closes is told of, unless it came by another name of the file.
WRITING_SECONDS = 5.0
# Models whose sources are looked after; nothing is said of further ones.
MAX_SOURCES = 1024
# Watches of all sources together. The kernel's own limit for a user is usually higher.
MAX_WATCHES = 16_384

Identities = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model whose source is to be looked after.

    `known` are the file identities that its newest version was made from. A `claimed` path is what a client said, and
    believed only while it leads to the file that was offered; `uid` is who said it.
    """

    path: str
    roots: tuple[str, ...] = ()
    follow: bool = False
    claimed: bool = False
    uid: int = 0
    known: frozenset[Identities] = frozenset()


@dataclass(slots=True)
class Source:
    """One model's source: where it would show a change, when to look next, what was seen, what was tried in vain.

    `fault` is why nothing could be staged from `tried`, `blind` why nobody could look.
    """

    wanted: Wanted
    due: float | None
    looking: bool = False
    staging: bool = False
    believed: bool = False
    seen: Looked | None = None
    tried: Identities | None = None
    fault: str = ""
    blind: str = ""
    places: frozenset[Place] = frozenset()

    def same(self) -> bool:
        """Whether what was seen is what the newest version was made from, as far as size and mtime tell."""
        seen = () if self.seen is None else tuple(map(without_ctime, self.seen.identities))
        made = [tuple(map(without_ctime, k)) for k in self.wanted.known]
        # Of a claimed checkpoint in parts without an index only the first part is known by its path.
        return bool(seen) and any(k == seen or (self.wanted.claimed and k[: len(seen)] == seen) for k in made)

    def state(self) -> tuple[str, str]:
        """(state, why) as ModelRow has them."""
        seen = self.seen
        if self.blind:
            return "unwatched", self._polled(self.blind)
        if seen is None:
            return "", ""
        if not self.believed:
            return "unwatched", "the path that was said leads the daemon elsewhere"
        if seen.state in ("missing", "writing"):
            return seen.state, seen.detail
        if seen.state == "broken":
            return "failing", seen.detail
        if self.same():
            return ("unwatched" if seen.unwatched else "same"), self._polled(seen.unwatched)
        if self.tried == seen.identities:
            return "failing", self.fault
        return "changed", self._polled(seen.unwatched)

    def _polled(self, fault: str) -> str:
        how = f"is looked at every {POLL_SECONDS:.0f} s"
        if self.wanted.claimed and not self.blind:
            how = "is not looked at again"
        return f"{fault}; it {how}" if fault else ""


Index = dict[tuple[int, str | None], dict[int, Source]]


@dataclass(slots=True)
class Sources:
    """All of them, by the model's name."""

    _sources: dict[str, Source] = field(default_factory=dict)
    _by_place: Index | None = None

    def update(self, wanted: Mapping[str, Wanted], now: float) -> None:
        """Goes by `wanted` from here on: looks at new sources, forgets old ones, keeps what is known of the others."""
        for name in self._sources.keys() - wanted.keys():
            del self._sources[name]
            self._by_place = None
        for name, one in wanted.items():
            held = self._sources.get(name)
            if held is not None and _as_before(held.wanted, one):
                held.wanted = one
            elif held is not None or len(self._sources) < MAX_SOURCES:
                self._sources[name] = Source(one, now)
                self._by_place = None

    def retry(self, now: float) -> None:
        """Looks at every source anew, and tries again what failed: the configuration may be another."""
        for source in self._sources.values():
            source.tried, source.due = None, now

    def changed(self, watch: int, name: str, now: float) -> None:
        """The kernel told of `name` in the folder of `watch` ("": of the folder itself)."""
        index = self._index()
        for key in ((watch, name), (watch, "")) if name else ((watch, None),):
            for source in index.get(key, {}).values():
                source.due = now + QUIET_SECONDS

    def lost(self, now: float) -> None:
        """The kernel had more to tell than it keeps: anything may have changed."""
        for source in self._sources.values():
            source.due = now + QUIET_SECONDS

    def due(self, now: float) -> list[str]:
        """The models whose sources are to be looked at now."""
        return [n for n, s in self._sources.items() if s.due is not None and s.due <= now and not s.looking]

    def next_due(self) -> float | None:
        """When the next one is to be looked at."""
        return min((s.due for s in self._sources.values() if s.due is not None and not s.looking), default=None)

    def begin(self, name: str) -> Wanted:
        """Somebody looks at the source of `name` from here on."""
        source = self._sources[name]
        source.looking, source.due = True, None
        return source.wanted

    def end(self, name: str, wanted: Wanted, seen: Looked, now: float) -> bool:
        """What was seen at `wanted`. Whether the model is to be staged from it now."""
        source = self._sources.get(name)
        if source is None or not _as_before(source.wanted, wanted):
            return False
        source.looking, source.seen, source.blind = False, seen, ""
        source.believed = source.believed or not wanted.claimed or source.same()
        # A path that never led to what was offered: nothing there is anybody's business.
        source.places = frozenset(seen.places) if source.believed else frozenset()
        self._by_place = None
        if len(self.watches()) > MAX_WATCHES:
            source.places = frozenset()
            source.seen = replace(seen, unwatched=seen.unwatched or f"more than {MAX_WATCHES} folders are watched")
        if source.due is None:
            source.due = _again(source, now)
        return self._stages(source)

    def blinded(self, name: str, wanted: Wanted, why: str, now: float) -> None:
        """Nobody could look at `wanted`: what was seen before says nothing any more, and it is tried again later."""
        source = self._sources.get(name)
        if source is not None and _as_before(source.wanted, wanted):
            source.looking, source.blind, source.due = False, why, now + POLL_SECONDS

    def staged(self, name: str, now: float) -> None:
        """A version was staged. What was seen may be older than what was read: it is looked at once more.

        Changes that the kernel told of meanwhile have to be quiet first, as ever.
        """
        source = self._sources.get(name)
        if source is not None:
            source.staging, source.tried, source.fault = False, None, ""
            source.due = now if source.due is None else source.due

    def failed(self, name: str, fault: str, now: float) -> None:
        """Nothing could be staged from what was seen: not tried again until it is something else."""
        source = self._sources.get(name)
        if source is not None and source.seen is not None:
            source.staging, source.tried, source.fault = False, source.seen.identities, fault
            source.due = now if source.due is None else source.due

    def state(self, name: str) -> tuple[str, str]:
        """(state, why) of a model's source as ModelRow has them; empty while nothing is known."""
        source = self._sources.get(name)
        return ("", "") if source is None else source.state()

    def watches(self) -> set[int]:
        """The watches that any source needs."""
        return {p.watch for s in self._sources.values() for p in s.places}

    def looking(self) -> bool:
        """Whether anybody looks, and may have added watches that nothing here knows of yet."""
        return any(s.looking for s in self._sources.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def _index(self) -> Index:
        """Whom a change of a name in a folder concerns: by the name, "" for any name, None for the folder itself."""
        if self._by_place is None:
            self._by_place = {}
            for source in self._sources.values():
                for place in source.places:
                    for key in ((place.watch, place.name), (place.watch, None)):
                        self._by_place.setdefault(key, {})[id(source)] = source
        return self._by_place

    def _stages(self, source: Source) -> bool:
        seen = source.seen
        if seen is None or not source.wanted.follow or source.staging or seen.state != "there":
            return False
        # With an event under way what was seen is old already.
        if source.same() or not seen.identities or source.tried == seen.identities or _soon(source):
            return False
        source.staging = True
        return True


def _again(source: Source, now: float) -> float | None:
    """When to look again though the kernel told of nothing."""
    if source.wanted.claimed or source.seen is None:
        return None
    if source.seen.state == "writing":
        return now + WRITING_SECONDS
    # A file system that is mounted over a folder is not told of.
    return now + POLL_SECONDS if source.seen.unwatched or source.seen.state != "there" else None


def _soon(source: Source) -> bool:
    return source.due is not None and not (source.seen and source.seen.unwatched)


def _as_before(one: Wanted, other: Wanted) -> bool:
    """Whether both look after the same files, whatever they are compared with and whether they are followed."""
    return (one.path, one.roots, one.claimed, one.uid) == (other.path, other.roots, other.claimed, other.uid)


def rewritten(made: Identities, seen: Identities) -> bool:
    """Whether one of the files `made` was changed where it lies, as far as size and mtime tell."""
    now = {_inode(identity): without_ctime(identity) for identity in seen}
    return any(now.get(_inode(i), without_ctime(i)) != without_ctime(i) for i in made)


def _inode(identity: str) -> str:
    return ".".join(identity.split(".")[:2])
