"""The registry: what names mean, what casts belong to, and what is left when something goes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daemon.building import recipe, version
from mapcell_formats.errors import NotFound
from mapcelld.registry import Model, Registry, State, Version, split_name


def everybody(_: Model) -> bool:
    """Sees every model."""
    return True


def filled(*numbers: str, name: str = "m") -> tuple[Registry, Model]:
    """A registry whose model `name` has these versions."""
    registry = Registry()
    for number in numbers:
        model = registry.name(name, None, "/src", registry.add(version(number), recipe(number)))
    return registry, model


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("m", ("m", "", "")),
        ("org/m", ("org/m", "", "")),
        ("m:stable", ("m", "stable", "")),
        ("m@blake3:3f", ("m", "", "blake3:3f")),
        ("m@file-1", ("m", "", "file-1")),
        ("m:", ("m", "", "")),
        ("/a:b/c", ("/a:b/c", "", "")),
        ("/a@b/c", ("/a@b/c", "", "")),
        ("/a@b/c:d:stable", ("/a@b/c:d", "stable", "")),
        ("/a:b/c@d@blake3:3f", ("/a:b/c@d", "", "blake3:3f")),
    ],
)
def test_split_name(name: str, parts: tuple[str, str, str]) -> None:
    """A name, a tag after a colon, a version after an at sign."""
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("m", "blake3:bb"),
        ("m:latest", "blake3:bb"),
        ("m:stable", "blake3:ab"),
        ("m@blake3:b", "blake3:bb"),
        ("m@blake3:ab", "blake3:ab"),
    ],
)
def test_resolve(name: str, found: str) -> None:
    """The newest, the tagged, or the one whose id begins so."""
    registry, model = filled("blake3:aa", "blake3:ab", "blake3:bb")
    model.tags["stable"] = "blake3:ab"
    assert registry.resolve(name, everybody)[1].id == found


@pytest.mark.parametrize(
    ("name", "found"),
    [("m@blake3:f", "file-1"), ("m@file", "file-1"), ("m@blake3:a", "blake3:aa"), ("m@b", "blake3:aa")],
)
def test_digests_are_other_names(name: str, found: str) -> None:
    """What was hashed after it was mapped is found by id and by digest; where ids fit these are meant."""
    registry, _ = filled("file-1", "blake3:aa")
    registry.versions["file-1"].digest = "blake3:ff"
    assert registry.resolve(name, everybody)[1].id == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("n", "no model 'n'"),
        ("mm", "did you mean 'm'"),
        ("m:odd", "no version"),
        ("m@blake3:c", "no version"),
        ("m@blake3:a", "begins the ids of 2 versions"),
        ("@", "no model ''"),
    ],
)
def test_not_found(name: str, says: str) -> None:
    """What there is not is said to be missing, with what comes near."""
    registry, _ = filled("blake3:aa", "blake3:ab")
    with pytest.raises(NotFound, match=says):
        registry.resolve(name, everybody)


@pytest.mark.parametrize("path", ["/a:b", "/a@b", "/a:b/c@1:2"])
def test_paths_are_names(path: str) -> None:
    """A path that holds a colon or an at sign is found as it stands, and cut behind that."""
    registry, model = filled("blake3:aa", "blake3:ab", name=path)
    model.tags["stable"] = "blake3:aa"
    assert registry.resolve(path, everybody)[1].id == "blake3:ab"
    assert registry.resolve(f"{path}:stable", everybody)[1].id == "blake3:aa"
    assert registry.resolve(f"{path}@blake3:aa", everybody)[1].id == "blake3:aa"
    with pytest.raises(NotFound) as hidden:
        registry.resolve(path, lambda m: False)
    assert hidden.value.message.startswith(f"no model {split_name(path)[0]!r}")


def test_derived_versions_are_found() -> None:
    """A cast is found by its id, and by the name alone where there is nothing else."""
    registry, model = filled("blake3:aa")
    registry.derive(model, registry.add(version("blake3:dd"), recipe("f", dtype="F16")), "blake3:aa")
    assert registry.resolve("m", everybody)[1].id == "blake3:aa"
    assert registry.resolve("m@blake3:d", everybody)[1].id == "blake3:dd"
    only = registry.models.setdefault("/p", Model("/p", 0, "/p"))
    registry.derive(only, registry.versions["blake3:dd"])
    assert registry.resolve("/p", everybody)[1].id == "blake3:dd"
    assert registry.resolve("/p@blake3:d", everybody)[1].id == "blake3:dd"


def test_hidden_is_missing() -> None:
    """A model that the asker may not see and one that does not exist bring the same words, and no hint of the other."""
    registry, _ = filled("v", name="secret")
    with pytest.raises(NotFound) as hidden:
        registry.resolve("secret", lambda m: False)
    with pytest.raises(NotFound) as near:
        registry.resolve("secrets", lambda m: False)
    assert str(near.value) == str(hidden.value).replace("'secret'", "'secrets'")
    assert list(registry.rows(lambda m: False)) == []


def test_newest_again() -> None:
    """A version that comes back is the newest again, and stands there once."""
    registry, model = filled("a", "b")
    registry.name("m", None, "/src", registry.versions["a"])
    assert model.versions == ["b", "a"]


def test_recipes() -> None:
    """A recipe finds what it made as long as that is ready; the newer of two results counts."""
    registry = Registry()
    first = registry.add(version("a"), recipe("file"))
    assert registry.made_by(recipe("file")) is first
    assert registry.made_by(recipe("file", dtype="F16")) is None
    again = version("a")
    assert registry.add(again, recipe("other")) is first is not again
    second = registry.add(version("b"), recipe("file"))
    registry.drop(first)
    assert registry.made_by(recipe("file")) is second
    assert registry.made_by(recipe("other")) is None
    second.state = State.RETIRED
    assert registry.made_by(recipe("file")) is None
    assert first.state is State.DROPPED


def test_shared_by_names() -> None:
    """A version that two names stand for is retired with the last of them."""
    registry, model = filled("a")
    other = registry.name("/path", 7, "/src", registry.versions["a"])
    registry.retire(model, registry.versions["a"])
    assert registry.versions["a"].state is State.READY
    assert list(registry.models) == ["/path"]
    registry.retire(other, registry.versions["a"])
    assert registry.versions["a"].state is State.RETIRED
    assert registry.droppable(registry.versions["a"])
    assert not registry.models


def test_retired_twice() -> None:
    """Retiring what the model has no more changes nothing."""
    registry, model = filled("a", "b")
    for _ in range(2):
        registry.retire(model, registry.versions["a"])
    assert model.versions == ["b"]


def test_casts_go_with_their_base() -> None:
    """A cast stands beside the versions, is not what the name means, and goes with what it was made from."""
    registry, model = filled("base")
    cast = registry.add(version("cast"), recipe("base", dtype="F16"))
    registry.derive(model, cast, "base")
    assert registry.resolve("m", everybody)[1].id == "base"
    assert registry.resolve("m@cast", everybody)[1] is cast
    registry.retire(model, registry.versions["base"])
    assert (cast.state, model.derived, registry.models) == (State.RETIRED, [], {})


def test_one_cast_of_two_bases() -> None:
    """A cast that two models hold goes from each with that one's base."""
    registry, model = filled("base")
    other = registry.name("n", None, "", registry.add(version("mapped"), recipe("mapped")))
    cast = registry.add(version("cast"), recipe("base", dtype="F16"))
    registry.derive(model, cast, "base")
    registry.derive(other, cast, "mapped")
    registry.retire(model, registry.versions["base"])
    assert (cast.state, other.derived) == (State.READY, ["cast"])
    registry.retire(other, registry.versions["mapped"])
    assert (cast.state, registry.models) == (State.RETIRED, {})


def test_cast_that_becomes_a_version() -> None:
    """A cast to what the file holds anyway becomes the file's version when that is attached whole."""
    registry = Registry()
    model = registry.models.setdefault("m", Model("m", None, ""))
    held = registry.add(version("a"), recipe("file", dtype="F32"))
    registry.derive(model, held)
    registry.name("m", None, "", held)
    assert (model.versions, model.derived) == (["a"], [])
    registry.retire(model, held)
    assert list(registry.rows(everybody)) == []


@pytest.mark.parametrize(
    ("fields", "superseded"),
    [({}, ["a", "b"]), ({"leases": 1}, ["b"]), ({"pinned": True}, ["b"])],
    ids=["idle", "leased", "pinned"],
)
def test_superseded(fields: dict[str, int], superseded: list[str]) -> None:
    """What a newer version replaced goes unless somebody holds, pins or tags it."""
    registry, model = filled("a", "b", "c")
    for key, value in fields.items():
        setattr(registry.versions["a"], key, value)
    assert [v.id for v in registry.superseded(model)] == superseded
    model.tags["kept"] = "b"
    assert [v.id for v in registry.superseded(model)] == [v for v in superseded if v != "b"]


def test_unnamed_maps_are_not_kept() -> None:
    """What a bare path maps in place goes with its last lease: holding it would keep a deleted file on the disk."""
    registry = Registry()
    held = registry.add(version("a", residence="mapped"), recipe("f"))
    model = registry.name("/data/x", 7, "/data/x", held)
    assert registry.superseded(model) == [held]
    named = registry.name("named", None, "/data/x", held)
    assert registry.superseded(named) == []


def test_figures() -> None:
    """Sealed bytes count against the budget, mapped ones beside it."""
    registry = Registry()
    registry.add(version("a", nbytes=5), recipe("a"))
    registry.add(version("b", nbytes=7, residence="mapped"), recipe("b"))
    assert (registry.sealed_bytes(), registry.mapped_bytes()) == (5, 7)


NUMBERS = st.sampled_from(["a", "b", "c", "d"])
NAMES = st.sampled_from(["m", "n", "/p"])


class Life(RuleBasedStateMachine):
    """Anything may happen to versions in any order; what has to hold always holds."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()

    def known(self, number: str) -> Version:
        """The version of that id, made if it is not there."""
        return self.registry.add(version(number), recipe(number))

    @rule(name=NAMES, number=NUMBERS)
    def register(self, name: str, number: str) -> None:
        """A version becomes the newest of a name."""
        self.registry.name(name, None, "", self.known(number))

    @rule(name=NAMES, number=NUMBERS, base=NUMBERS)
    def derive(self, name: str, number: str, base: str) -> None:
        """A cast is put beside the versions of a name that holds its base."""
        model = self.registry.models.get(name)
        if model is not None and base in model.versions and base != number:
            self.registry.derive(model, self.known(number), base)

    @rule(name=NAMES, number=NUMBERS)
    def retire(self, name: str, number: str) -> None:
        """A name lets a version go."""
        if name in self.registry.models and number in self.registry.versions:
            self.registry.retire(self.registry.models[name], self.registry.versions[number])

    @rule(number=NUMBERS)
    def drop(self, number: str) -> None:
        """A version goes altogether."""
        if number in self.registry.versions:
            self.registry.drop(self.registry.versions[number])

    @invariant()
    def names_and_versions_agree(self) -> None:
        """Every model lists versions that are there and know its name, once; whatever has no name is not ready."""
        for name, model in self.registry.models.items():
            listed = [*model.versions, *model.derived]
            assert listed
            assert len(listed) == len(set(listed))
            assert all(name in self.registry.versions[number].names for number in listed)
            assert set(model.bases) == set(model.derived)
        for held in self.registry.versions.values():
            for name in held.names:
                model = self.registry.models[name]
                assert held.id in [*model.versions, *model.derived]
        for made, number in self.registry.recipes.items():
            assert made in self.registry.versions[number].recipes
        assert len(list(self.registry.rows(everybody))) == sum(len(v.names) for v in self.registry.versions.values())


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
