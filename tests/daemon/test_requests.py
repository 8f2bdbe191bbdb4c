"""What requests do to names: whose they are, what else they stand for, and what goes when they go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from daemon.building import recipe, sealed_segment, user, version
from daemon.scripted import Harness
from mapcell_formats.errors import AccessDenied, MapcellError, NotFound, ProtocolError
from mapcell_formats.messages import (
    Attach,
    Event,
    Evict,
    ListModels,
    Offer,
    Pin,
    Resolve,
    Selection,
    Tag,
    Ticket,
    Unload,
)
from mapcelld.access import Access
from mapcelld.channel import Credentials
from mapcelld.config import Config, ModelConfig, Principals
from mapcelld.connections import Right
from mapcelld.holdings import Holdings
from mapcelld.registry import State, Version
from mapcelld.requests import Requests
from mapcelld.staging import Intent
from mapcelld.tickets import Tickets

ALICE, BOB, OPERATOR = user(1001), user(1002), user(1)
CONFIG = Config(
    budget=1 << 40,
    operators=Principals(frozenset({1})),
    models=(ModelConfig("known", "/models/known"), ModelConfig("secret", "/s", allow=Principals(frozenset({1002})))),
)


@dataclass
class House:
    """Holdings and requests without sockets."""

    events: list[tuple[Event, Intent]] = field(default_factory=list)

    def __post_init__(self) -> None:
        access = Access(CONFIG)
        self.holdings = Holdings(
            CONFIG, access, lambda e, i: self.events.append((e, i)), lambda: 1 << 40, lambda: None
        )  # fmt: skip
        self.tickets: Tickets[Right] = Tickets()
        desk = Harness().desk
        self.requests = Requests(CONFIG, access, self.holdings, desk, self.tickets, lambda: 0, "/run")

    def right(self, who: Credentials, ticket: Ticket) -> Right:
        """What a ticket stands for."""
        return self.tickets.redeem(ticket.ticket, who.uid, 0.0)

    def offer(self, who: Credentials, *paths: str, **fields: object) -> Right:
        """What an offer's ticket stands for."""
        return self.right(who, self.requests.offer(who, Offer(paths, **fields)))  # type: ignore[arg-type]

    def attach(self, who: Credentials, name: str, dtype: str = "") -> Right:
        """What an attach's ticket stands for."""
        return self.right(who, self.requests.attach(who, Attach(name, Selection(dtype))))

    def staged(self, number: str, **fields: object) -> Version:
        """A version that was just made."""
        made = version(number, manifest=sealed_segment(), segments=(sealed_segment(),), **fields)  # type: ignore[arg-type]
        return self.holdings.registry.add(made, recipe(number))

    def names(self, who: Credentials) -> list[str]:
        """The names that somebody sees of what is there."""
        rows = self.requests.list_models(who, ListModels()).rows
        return [row.name for row in rows if row.state != "UNLOADED"]


@pytest.fixture
def house() -> Iterator[House]:
    """An empty house, with everything closed at the end."""
    held = House()
    yield held
    held.holdings.close()


@pytest.mark.parametrize("path", ["", "m", "known", "./x", "~/x", "m:tag"])
def test_only_paths_are_paths(house: House, path: str) -> None:
    """A claimed path cannot be another model's name."""
    with pytest.raises(ProtocolError, match="has to be absolute"):
        house.requests.offer(ALICE, Offer((path,)))


@pytest.mark.parametrize(
    "name", ["/abs", "./rel", "~", "a b", "a:b", "a@b", "a\nb", "a\0b", "x" * 257], ids=lambda n: repr(n)[:20]
)
def test_only_names_are_names(house: House, name: str) -> None:
    """A name cannot look like a path, a tag or a version."""
    with pytest.raises(ProtocolError, match="cannot name a model"):
        house.requests.offer(OPERATOR, Offer(("/x",), name=name))


def test_one_path_of_two_users(house: House) -> None:
    """Two users' files of one path are two models, and neither sees the other's."""
    mine = house.staged("mine")
    assert house.holdings.name(house.offer(ALICE, "/data/x").intent, mine) == "/data/x"
    theirs = house.staged("theirs")
    label = house.holdings.name(house.offer(BOB, "/data/x").intent, theirs)
    assert house.names(ALICE) == ["/data/x"]
    assert house.names(BOB) == [label]
    assert house.attach(ALICE, "/data/x").version is mine
    assert house.attach(BOB, label).version is theirs
    with pytest.raises(NotFound):
        house.attach(ALICE, label)


def test_nobody_prepares_a_name_for_another(house: House) -> None:
    """Claiming the path that another's label would be, before or meanwhile, gets nobody the other's version."""
    for path in ("/data/x", f"/data/x#{BOB.uid}", f"/data/x#{BOB.uid}#{BOB.uid}"):
        house.holdings.name(house.offer(ALICE, path).intent, house.staged(f"bait {path}"))
    secret = house.staged("secret")
    label = house.holdings.name(house.offer(BOB, "/data/x").intent, secret)
    assert label not in house.names(ALICE)
    for name in house.names(ALICE):
        assert house.attach(ALICE, name).version is not secret
    assert house.attach(BOB, label).version is secret


def test_a_path_that_was_free_when_it_was_asked_for(house: House) -> None:
    """Who registers a path first while another stages it does not get the other's version."""
    asked = house.offer(BOB, "/data/x")
    house.holdings.name(house.offer(ALICE, "/data/x").intent, house.staged("bait"))
    secret = house.staged("secret")
    label = house.holdings.name(asked.intent, secret)
    assert house.attach(BOB, label).version is secret
    assert house.attach(ALICE, "/data/x").version is not secret
    assert house.names(ALICE) == ["/data/x"]


def test_a_name_that_was_free_when_it_was_asked_for(house: House) -> None:
    """Of two users who stage under one name the second is told, and its version is not the first one's."""
    asked = house.offer(BOB, "/b", name="m")
    house.holdings.name(house.offer(ALICE, "/a", name="m").intent, house.staged("first"))
    with pytest.raises(AccessDenied, match="was taken meanwhile"):
        house.holdings.name(asked.intent, house.staged("second"))
    assert house.attach(ALICE, "m").version is house.holdings.registry.versions["first"]
    with pytest.raises(AccessDenied, match="is taken; choose another"):
        house.offer(BOB, "/b", name="m")


def test_configured_names(house: House) -> None:
    """A configured name is an operator's, and a hidden one does not exist for who may not see it."""
    with pytest.raises(AccessDenied, match="is taken"):
        house.offer(ALICE, "/a", name="known")
    plan = house.attach(ALICE, "known").plan
    assert plan is not None
    assert (plan.kind, plan.paths) == ("configured", ("/models/known",))
    with pytest.raises(NotFound, match="no model 'secret'"):
        house.attach(ALICE, "secret")
    assert house.attach(BOB, "secret").plan is not None


@pytest.mark.parametrize("name", ["known:stable", "known@blake3:00"])
def test_versions_of_what_is_not_loaded(house: House, name: str) -> None:
    """A tag or version of a model that is not loaded is not answered with another one."""
    with pytest.raises(NotFound, match="not loaded"):
        house.attach(ALICE, name)
    assert house.attach(ALICE, "known:latest").plan is not None


def test_a_dtype_of_what_is_not_loaded(house: House) -> None:
    """A configured model that is not loaded is staged as configured, and cast afterwards."""
    right = house.attach(ALICE, "known", "F16")
    assert right.plan is not None
    assert (right.plan.selection.dtype, right.then) == ("", Selection("F16"))
    made = house.staged("made")
    model = house.holdings.registry.models[house.holdings.name(right.intent, made)]
    cast = house.requests.cast(model, made, right.then)
    assert cast.plan is not None
    assert (cast.plan.kind, cast.plan.base, cast.intent.role) == ("derive", made, "derived")
    assert house.requests.cast(model, made, Selection("F32")).version is made


def test_casts_find_each_other(house: House) -> None:
    """A cast that is there is handed out; a cast of what the name no longer means becomes nobody's."""
    base = house.staged("base")
    house.holdings.name(Intent("known", None, "/k", role="newest"), base)
    right = house.attach(ALICE, "known", "F16")
    assert right.plan is not None
    made = version("cast", dtype="F16", manifest=sealed_segment())
    cast = house.holdings.registry.add(made, recipe_of(right))
    house.holdings.name(right.intent, cast)
    assert house.attach(BOB, "known", "F16").version is cast
    house.requests.unload(OPERATOR, Unload("known"))
    assert cast.state is State.DROPPED
    late = house.staged("late")
    house.holdings.name(right.intent, late)
    assert house.holdings.registry.models == {}
    house.holdings.sweep()
    assert late.state is State.DROPPED


def recipe_of(right: Right) -> object:
    """The recipe that a derived version's stager would find."""
    from mapcelld.registry import Recipe

    assert right.plan is not None
    return Recipe(right.plan.paths, right.plan.residence, right.plan.selection)


def test_naming_what_is_gone(house: House) -> None:
    """A version that was dropped gets no name any more."""
    gone = house.staged("gone")
    house.holdings.drop(gone)
    with pytest.raises(NotFound, match="attach again"):
        house.holdings.name(Intent("m", None, "/m", role="newest"), gone)
    assert house.names(OPERATOR) == []


def test_unloading_with_casts(house: House) -> None:
    """A model goes with all its casts, also when it has nothing else."""
    house.holdings.name(Intent("m", ALICE.uid, "/m", role="newest"), house.staged("base"))
    house.holdings.name(Intent("m", ALICE.uid, "/m", role="derived", base="base"), house.staged("cast"))
    house.holdings.name(Intent("m", ALICE.uid, "/m", role="derived"), house.staged("part"))
    rows = house.requests.unload(ALICE, Unload("m")).rows
    assert sorted(row.version for row in rows) == ["base", "cast", "part"]
    assert house.holdings.registry.versions == {}
    assert [e.kind for e, _ in house.events].count("retired") >= 2


@pytest.fixture
def shared(house: House) -> Version:
    """A version that an operator pinned under a name, and that a user has under a path."""
    held = house.staged("shared")
    house.holdings.name(Intent("m", None, "/m", pin=True, role="newest"), held)
    house.holdings.name(Intent("/m", ALICE.uid, "/m", role="newest"), held)
    return held


def test_unloading_one_of_two_names(house: House, shared: Version) -> None:
    """One's own name can go; what another name stands for stays, pinned as it was."""
    house.requests.unload(ALICE, Unload("/m"))
    assert (shared.state, shared.pinned, shared.names) == (State.READY, True, {"m"})
    house.requests.unload(OPERATOR, Unload("m"))
    assert shared.state is State.DROPPED


def test_evicting_one_of_two_names(house: House, shared: Version) -> None:
    """Nobody evicts what another name stands for."""
    house.requests.pin(OPERATOR, Pin("m", False))
    house.requests.evict(ALICE, Evict("/m"))
    assert (shared.state, shared.names) == (State.READY, {"m"})
    house.requests.evict(OPERATOR, Evict("m"))
    assert shared.state is State.DROPPED


def test_leased(house: House, shared: Version) -> None:
    """What is leased is not evicted, and lives on when it is unloaded until the lease ends."""
    house.requests.pin(OPERATOR, Pin("m", False))
    lease = house.holdings.begin(BOB, "m", shared)
    with pytest.raises(MapcellError, match=f"pid {BOB.pid}"):
        house.requests.evict(OPERATOR, Evict("m"))
    for name in ("m", "/m"):
        house.requests.unload(OPERATOR, Unload(name))
    assert shared.state is State.RETIRED
    assert shared.segments[0].fileno() >= 0
    house.holdings.end(lease)
    assert shared.state is State.DROPPED


@pytest.mark.parametrize(
    ("who", "request_", "error"),
    [
        (BOB, Unload("/m"), NotFound),
        (BOB, Evict("/m"), NotFound),
        (ALICE, Unload("m"), AccessDenied),
        (ALICE, Evict("m"), AccessDenied),
        (ALICE, Pin("/m", True), AccessDenied),
        (ALICE, Tag("/m", "shared", "t"), AccessDenied),
        (OPERATOR, Tag("m", "shared", "latest"), ProtocolError),
        (OPERATOR, Tag("m", "shared", "a:b"), ProtocolError),
        (OPERATOR, Tag("m", "other", "t"), NotFound),
        (BOB, Resolve("/m"), NotFound),
    ],
    ids=repr,
)
def test_not_theirs(
    house: House,
    shared: Version,
    who: Credentials,
    request_: Unload | Evict | Pin | Tag | Resolve,
    error: type[MapcellError],
) -> None:
    """Who may not change a model is refused; who may not see it is told that there is none."""
    handler = house.requests.handlers()[type(request_)]
    with pytest.raises(error):
        handler(who, request_)
    assert shared.state is State.READY


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"residence": "maped"}, "residence 'maped': say auto or mapped or sealed"),
        ({"selection": Selection("I8")}, "no floating dtype"),
        ({"paths": ()}, "0 files"),
        ({"paths": ("/x",) * 251}, "251 files"),
        ({"name": "m", "tag": "latest"}, "cannot be a tag"),
    ],
)
def test_odd_offers(house: House, fields: dict[str, object], says: str) -> None:
    """An offer that means nothing is refused before anybody stages it."""
    with pytest.raises(ProtocolError) as caught:
        house.requests.offer(ALICE, Offer(**({"paths": ("/x",)} | fields)))  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_pinning_an_offer(house: House) -> None:
    """Pinning is an operator's."""
    with pytest.raises(AccessDenied, match="pinning takes an operator"):
        house.offer(ALICE, "/x", name="m", pin=True)
    assert house.offer(OPERATOR, "/x", name="m", pin=True).intent.pin
