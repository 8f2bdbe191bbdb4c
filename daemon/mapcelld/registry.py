"""Which models there are, which versions they have, and what a name means. Pure: no I/O, `now` is passed in.

A version is found three ways: by its id, by the recipe that made it (what was read, and what was wanted of it), and
through a model's name. It goes through STAGING (a job of staging.py, not listed here), READY and RETIRED, and is
dropped when nothing names it and nobody holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from mapcell_formats.errors import NotFound
from mapcell_formats.manifest import near
from mapcell_formats.messages import Selection
from mapcelld.segment import Segment


class State(StrEnum):
    """READY versions are handed out; RETIRED ones only live on under the leases that they have; DROPPED ones are gone.

    A DROPPED version's descriptors are closed, and their numbers may be anybody's: nothing of it is to be used.
    """

    READY = "READY"
    RETIRED = "RETIRED"
    DROPPED = "DROPPED"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a version was made from: the source's identities, the residence asked for, what was selected, and the digest
    that it was demanded to have ("" for any)."""

    identities: tuple[str, ...]
    residence: str
    selection: Selection
    digest: str = ""


@dataclass(slots=True)
class Version:
    """One immutable version. `nbytes` counts its segments; `used` is when it was last leased; `uid` had it staged.

    `identities` are those of the files that are mapped. `digest` is the content's where the id is provisional: it is an
    alias then, and "" until the bytes were hashed.
    `unguarded` says why its files are not guarded, or why they were not mapped. `awaited` ones may be held by workers
    that an earlier daemon lent them to. `rescuing` counts its files that are being copied, `late` are the pids that did
    not let go of one in time, `replaced` the files of which the copy is lent while not all have let go.
    """

    id: str
    residence: str
    format: str
    dtype: str
    verified: bool
    tensors: int
    nbytes: int
    manifest: Segment
    segments: tuple[Segment, ...]
    used: float
    uid: int = 0
    state: State = State.READY
    pinned: bool = False
    leases: int = 0
    unguarded: str = ""
    awaited: bool = False
    rescuing: int = 0
    late: tuple[int, ...] = ()
    replaced: dict[int, Segment] = field(default_factory=dict)
    recipes: set[Recipe] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    identities: tuple[str, ...] = ()
    digest: str = ""

    @property
    def content(self) -> str:
        """The digest of its bytes; "" while nobody knows it."""
        return self.digest or (self.id if self.verified else "")

    @property
    def sealed_bytes(self) -> int:
        """What it costs the budget: its bytes when sealed; of a mapped one those that were copied, mostly none."""
        return self.nbytes if self.residence == "sealed" else sum(s.nbytes for s in self.segments if s.sealed)

    @property
    def lasting(self) -> tuple[Segment, ...]:
        """The segments that a restart goes on with: files as long as a writer waits for them, whatever is lent."""
        return tuple(self.replaced.get(number, segment) for number, segment in enumerate(self.segments))

    @property
    def guarded(self) -> bool:
        """Whether writers to any file of it wait for a copy."""
        return any(s.guarded for s in self.segments)

    @property
    def sound(self) -> bool:
        """Whether its bytes are known to be its own: none of them lies in a file that could be written to."""
        return self.residence == "sealed" or all(s.guarded or s.sealed for s in self.segments)

    @property
    def held(self) -> bool:
        """Whether anyone uses it, as far as is known."""
        return self.leases > 0 or self.awaited

    @property
    def guard(self) -> str:
        """What the guard of its files does now, as messages.ModelRow has it."""
        if self.residence == "sealed":
            return ""
        if self.rescuing:
            return "rescuing"
        if not self.sound:
            return "lost" if any(s.stamp for s in self.segments) else "unguarded"
        return "guarded" if self.guarded else ""


@dataclass(slots=True)
class Model:
    """A name and the versions it has, oldest first, and beside them those derived from these by a cast.

    `owner` is the uid that alone sees it; None for everybody. `bases` says for each derived one what it was cast or
    taken from, "" when that was never held: the same cast may come from several bases. `source_state`,
    `source_detail` and `follow` are what is known of its source now (ModelRow).
    """

    name: str
    owner: int | None
    source: str
    versions: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    bases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    source_state: str = ""
    source_detail: str = ""
    follow: bool = False

    @property
    def anonymous(self) -> bool:
        """Whether it is a path that somebody attached, not a name that somebody gave: names never look like paths."""
        return self.name.startswith("/")


Sees = Callable[[Model], bool]


def split_name(name: str) -> tuple[str, str, str]:
    """(model, tag, version) of "model", "model:tag" or "model@version"; what is not said is "".

    A path may hold both signs: it is cut only where no folder follows, and `Registry.meaning` knows better.
    """
    return [*_readings(name), (name, "", "")][1]


def _readings(name: str) -> list[tuple[str, str, str]]:
    """What `name` could say, as `split_name`: a model as it stands, a version of one, a tagged one."""
    readings = [(name, "", "")]
    model, at, version = name.rpartition("@")
    if at and "/" not in version:
        readings.append((model, "", version))
    model, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        readings.append((model, tag, ""))
    return readings


@dataclass(slots=True)
class Registry:
    """All models and versions."""

    models: dict[str, Model] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    recipes: dict[Recipe, str] = field(default_factory=dict)

    def add(self, version: Version, recipe: Recipe) -> Version:
        """Takes `version` in under `recipe`, or answers with the one of that id that is there already.

        When the answer is another object, the caller closes the segments of the one it brought.
        """
        held = self.versions.setdefault(version.id, version)
        held.recipes.add(recipe)
        held.state = State.READY
        self.recipes[recipe] = held.id
        return held

    def made_by(self, recipe: Recipe) -> Version | None:
        """The READY version that `recipe` made, if it is still there."""
        found = self.versions.get(self.recipes.get(recipe, ""))
        return found if found is not None and found.state is State.READY else None

    def name(self, name: str, owner: int | None, source: str, version: Version) -> Model:
        """Makes `version` the newest of the model `name`, which is made if need be."""
        model = self.models.setdefault(name, Model(name, owner, source))
        # It may have stood beside the versions so far: a cast to what the file holds anyway is the file's version.
        for held in (model.versions, model.derived):
            if version.id in held:
                held.remove(version.id)
        model.bases.pop(version.id, None)
        model.versions.append(version.id)
        model.source = source
        version.names.add(name)
        return model

    def derive(self, model: Model, version: Version, base: str = "") -> None:
        """Puts `version` beside the versions of `model`: it is asked for by a cast or a part, not by name alone.

        With the id of its `base` it goes when that one is retired.
        """
        if version.id not in model.versions and version.id not in model.derived:
            model.derived.append(version.id)
            model.bases[version.id] = base
            version.names.add(model.name)

    def model(self, name: str, sees: Sees) -> Model:
        """The model called `name`. NotFound, with near names, when there is none that the asker sees."""
        model = self.models.get(name)
        if model is None or not sees(model):
            known = [m.name for m in self.models.values() if sees(m)]
            raise NotFound(f"no model {name!r}{near(name, known)}; `mapcell ls` lists them", model=name)
        return model

    def meaning(self, name: str, sees: Sees) -> tuple[Model, str, str]:
        """The model, tag and version that `name` means, as `split_name` cuts it. NotFound as `model` raises it."""
        for base, tag, prefix in _readings(name):
            model = self.models.get(base)
            if model is not None and sees(model):
                return model, tag, prefix
        return self.model(split_name(name)[0], sees), "", ""

    def resolve(self, name: str, sees: Sees) -> tuple[Model, Version]:
        """The model and READY version that `name` means: the newest, the tagged, or the one whose id begins so."""
        model, tag, prefix = self.meaning(name, sees)
        return model, self.choose(model, tag, prefix)

    def choose(self, model: Model, tag: str, prefix: str) -> Version:
        """The newest READY version of `model`, the one tagged so, or the one whose id begins so. NotFound otherwise.

        A derived one is meant by its id alone, unless the model has no others.
        """
        known = [*model.derived, *model.versions] if prefix or not model.versions else model.versions
        if not prefix and tag in ("", "latest"):
            for newest in map(self.versions.__getitem__, reversed(known)):
                if newest.state is State.READY:
                    return newest
        ready = [v for v in map(self.versions.__getitem__, known) if v.state is State.READY]
        if tag and tag != "latest":
            ready = [v for v in ready if model.tags.get(tag) == v.id]
        ready = [v for v in ready if v.id.startswith(prefix)] or [v for v in ready if v.digest.startswith(prefix)]
        name = model.name
        if not ready:
            asked = f"{name}:{tag}" if tag else f"{name}@{prefix}" if prefix else name
            raise NotFound(f"model {name!r} has no version {asked!r}; `mapcell show {name}` lists them", model=asked)
        if prefix and len(ready) > 1:
            raise NotFound(f"{prefix!r} begins the ids of {len(ready)} versions of {name!r}; give more digits")
        return ready[-1]

    def retire(self, model: Model, version: Version) -> None:
        """Takes `version` from `model`; the version is RETIRED once no other model has it. Nothing when it has not."""
        if model.name not in version.names:
            return
        (model.versions if version.id in model.versions else model.derived).remove(version.id)
        model.bases.pop(version.id, None)
        model.tags = {t: v for t, v in model.tags.items() if v != version.id}
        version.names.discard(model.name)
        if not version.names:
            version.state = State.RETIRED
        for derived in [d for d, base in model.bases.items() if base == version.id]:
            self.retire(model, self.versions[derived])
        if not model.versions and not model.derived:
            self.models.pop(model.name, None)

    def superseded(self, model: Model) -> list[Version]:
        """The versions of `model` that nobody holds, tagged or pinned and nobody will miss.

        Those are the ones that a newer one replaced, and what a path that was never named maps in place: mapping it
        again costs nothing, and holding it would keep a deleted file on the disk.
        """
        known = list(map(self.versions.__getitem__, model.versions))
        expendable = [v for v in known if model.anonymous and v.residence == "mapped"] or known[:-1]
        tagged = set(model.tags.values())
        return [v for v in expendable if not v.held and not v.pinned and v.id not in tagged]

    def outdated(self, model: Model, version: Version) -> bool:
        """Whether `version` is one of the `superseded` of `model`."""
        # For almost all whose leases end, this tells without looking through the others.
        newest = bool(model.versions) and model.versions[-1] == version.id
        if newest and not (model.anonymous and version.residence == "mapped"):
            return False
        return any(one is version for one in self.superseded(model))

    def droppable(self, version: Version) -> bool:
        """Whether nothing needs `version` any more."""
        return version.state is State.RETIRED and not version.held and not version.pinned

    def drop(self, version: Version) -> None:
        """Forgets `version` and every name of it. The caller closes its segments."""
        for name in list(version.names):
            if name in self.models:
                self.retire(self.models[name], version)
        for recipe in version.recipes:
            if self.recipes.get(recipe) == version.id:
                del self.recipes[recipe]
        del self.versions[version.id]
        version.state = State.DROPPED

    def rows(self, sees: Sees) -> Iterator[tuple[Model, Version]]:
        """Every (model, version) that the asker sees, by name, newest version first."""
        for name in sorted(self.models):
            model = self.models[name]
            if sees(model):
                for version in [*reversed(model.versions), *reversed(model.derived)]:
                    yield model, self.versions[version]

    def sealed_bytes(self) -> int:
        """Bytes of all sealed versions: what counts against the budget."""
        return sum(v.sealed_bytes for v in self.versions.values())

    def mapped_bytes(self) -> int:
        """Bytes of all mapped versions, less what was copied of them."""
        return sum(v.nbytes - v.sealed_bytes for v in self.versions.values() if v.residence == "mapped")
