"""What is decided about sources: when to look, what is said, when a model is staged. Events and time are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mapcell_formats.messages import Looked, Place
from mapcelld.following import MAX_SOURCES, MAX_WATCHES, POLL_SECONDS, QUIET_SECONDS, Sources, Wanted, rewritten

OLD, NEW, NEWER = "1.2.3.4.5", "1.9.3.7.8", "1.10.3.8.9"
TOUCHED = "1.2.3.4.99"
WANTED = Wanted("/models/m", follow=True, known=frozenset({(OLD,)}))
PLACES = (Place(1, "m"), Place(2, "models"))


def there(*identities: str, **fields: object) -> Looked:
    """What a stager sees of files that are there."""
    return replace(Looked("there", identities, PLACES, "", ""), **fields)  # type: ignore[arg-type]


def gone(state: str = "missing") -> Looked:
    """What it sees of files that are not."""
    return Looked(state, (), PLACES, "", "why")


class Case:
    """One source "m", looked at once at time 0, and a clock."""

    def __init__(self, wanted: Wanted = WANTED, first: Looked | None = None) -> None:
        self.sources = Sources()
        self.now = 0.0
        self.wanted = wanted
        self.sources.update({"m": wanted}, 0.0)
        self.look(there(OLD) if first is None else first)

    def look(self, seen: Looked) -> bool:
        """Looks, as is due now. Whether the model is to be staged."""
        assert self.sources.due(self.now) == ["m"]
        return self.sources.end("m", self.sources.begin("m"), seen, self.now)

    def change(self, watch: int = 1, name: str = "m") -> None:
        """The kernel tells of a change, and time goes on until it has been quiet."""
        self.sources.changed(watch, name, self.now)
        self.now += QUIET_SECONDS

    @property
    def state(self) -> str:
        """What is said of it."""
        return self.sources.state("m")[0]


@pytest.mark.parametrize(
    ("seen", "state", "stages"),
    [
        (there(OLD), "same", False),
        (there(TOUCHED), "same", False),
        (there(NEW), "changed", True),
        (there(OLD, NEW), "changed", True),
        (there(NEW, state="writing"), "writing", False),
        (gone(), "missing", False),
        (gone("broken"), "failing", False),
        (there(OLD, unwatched="nfs"), "unwatched", False),
        (there(NEW, unwatched="nfs"), "changed", True),
    ],
)
@pytest.mark.parametrize("follow", [True, False])
def test_what_is_seen(seen: Looked, state: str, stages: bool, follow: bool) -> None:
    """Each thing that a look can find has one state; only whole changed files of a model that follows are staged."""
    case = Case(replace(WANTED, follow=follow))
    case.change()
    assert case.look(seen) is (stages and follow)
    assert case.state == state


@pytest.mark.parametrize(
    ("watch", "name", "concerns"),
    [(1, "m", True), (1, "x", False), (2, "models", True), (2, "m", False), (3, "m", False), (1, "", True)],
)
def test_which_changes_concern_it(watch: int, name: str, concerns: bool) -> None:
    """Only the names on the way to it, and what happens to the folders themselves."""
    case = Case()
    case.change(watch, name)
    assert case.sources.due(case.now) == (["m"] if concerns else [])


def test_any_name_of_a_folder() -> None:
    """In a folder that is the source every name matters."""
    case = Case(first=there(OLD, places=(Place(1, ""),)))
    case.change(1, "whatever")
    assert case.look(there(NEW, places=(Place(1, ""),)))


def test_quiet_first() -> None:
    """As long as changes come nobody looks; then once."""
    case = Case()
    for _ in range(5):
        case.sources.changed(1, "m", case.now)
        case.now += QUIET_SECONDS / 2
        assert case.sources.due(case.now) == []
        assert case.sources.next_due() == pytest.approx(case.now + QUIET_SECONDS / 2)
    case.now += QUIET_SECONDS
    assert case.look(there(NEW))
    assert case.sources.next_due() is None


def test_one_look_at_a_time() -> None:
    """A change while somebody looks is looked at after that; what was seen is old, and nothing is staged from it."""
    case = Case()
    case.change()
    wanted = case.sources.begin("m")
    case.change()
    assert case.sources.due(case.now) == []
    assert not case.sources.end("m", wanted, there(NEW), case.now)
    assert case.look(there(NEWER))


def test_one_staging_at_a_time() -> None:
    """A change while a version is staged waits for its end, and is then looked at."""
    case = Case()
    case.change()
    assert case.look(there(NEW))
    case.change()
    assert not case.look(there(NEWER))
    case.sources.update({"m": replace(WANTED, known=frozenset({(NEW,)}))}, case.now)
    case.sources.staged("m", case.now)
    assert case.look(there(NEWER))


def test_quiet_after_staging_too() -> None:
    """What changed just before a staging ends is not looked at before it has been quiet."""
    case = Case()
    case.change()
    assert case.look(there(NEW))
    case.sources.changed(1, "m", case.now)
    case.sources.staged("m", case.now)
    assert case.sources.due(case.now) == []
    case.sources.failed("m", "", case.now)
    assert case.sources.due(case.now) == []
    case.now += QUIET_SECONDS
    assert case.sources.due(case.now) == ["m"]


def test_failures_are_not_repeated() -> None:
    """What failed is looked at once more and left alone; other files, and another configuration, are tried."""
    case = Case()
    case.change()
    assert case.look(there(NEW))
    case.sources.failed("m", "is broken", case.now)
    assert not case.look(there(NEW))
    assert case.sources.state("m") == ("failing", "is broken")
    case.change()
    assert not case.look(there(NEW))
    case.sources.retry(case.now)
    assert case.look(there(NEW))
    case.sources.failed("m", "is broken", case.now)
    assert case.look(there(NEWER))
    case.sources.update({"m": replace(WANTED, known=frozenset({(NEWER,)}))}, case.now)
    case.sources.staged("m", case.now)
    assert not case.look(there(NEWER))
    assert case.state == "same"


def test_lost_events() -> None:
    """When the kernel dropped events everything is looked at."""
    case = Case()
    case.sources.lost(case.now)
    case.now += QUIET_SECONDS
    assert case.look(there(NEW))


@pytest.mark.parametrize("seen", [there(OLD, unwatched="nfs"), gone(), gone("broken")])
def test_looked_at_all_the_same(seen: Looked) -> None:
    """Where no event may come there is a look every minute; not at a path that was merely claimed."""
    case = Case()
    case.change()
    case.look(seen)
    assert case.sources.next_due() == case.now + POLL_SECONDS
    claimed = Case(replace(WANTED, claimed=True, follow=False))
    claimed.change()
    claimed.look(seen)
    assert claimed.sources.next_due() is None


def test_nobody_could_look() -> None:
    """A look that failed is said, takes no watch away, and is repeated later."""
    case = Case()
    case.change()
    case.sources.blinded("m", case.sources.begin("m"), "no stager", case.now)
    assert case.sources.state("m")[0] == "unwatched"
    assert "no stager" in case.sources.state("m")[1]
    assert case.sources.watches() == {1, 2}
    case.now += POLL_SECONDS
    assert case.look(there(NEW))
    assert case.state == "changed"


@pytest.mark.parametrize("first", [there(NEW), gone(), there(NEW, "1.3.3.4.5")])
def test_claims_are_not_believed(first: Looked) -> None:
    """A path that never led to what was offered says nothing, has nothing watched, and can be believed later."""
    case = Case(replace(WANTED, claimed=True, follow=False), first)
    assert case.state == "unwatched"
    assert case.sources.watches() == set()
    case.sources.retry(case.now)
    assert not case.look(there(OLD))
    assert case.state == "same"
    case.change()
    case.look(gone())
    assert case.state == "missing"


def test_a_claimed_part() -> None:
    """Of a claimed checkpoint in parts the first one stands for all; of a configured one it does not."""
    known = frozenset({(OLD, NEW)})
    assert Case(replace(WANTED, claimed=True, known=known)).state == "same"
    assert Case(replace(WANTED, known=known)).state == "changed"


def test_goes_by_what_is_wanted() -> None:
    """Another path is looked at anew, a name that is gone is forgotten, and what is late for it does nothing."""
    case = Case()
    wanted = case.sources.begin("m")
    case.sources.update({"m": replace(WANTED, path="/other")}, case.now)
    assert not case.sources.end("m", wanted, there(NEW), case.now)
    case.sources.blinded("m", wanted, "late", case.now)
    assert case.state == ""
    assert case.look(there(NEW))
    case.sources.update({}, case.now)
    case.sources.staged("m", case.now)
    case.sources.failed("m", "late", case.now)
    assert (case.state, len(case.sources), case.sources.watches()) == ("", 0, set())


def test_following_is_switched_on() -> None:
    """A source that changed before is staged when following is configured, since everything is looked at then."""
    case = Case(replace(WANTED, follow=False))
    case.change()
    assert not case.look(there(NEW))
    case.sources.update({"m": WANTED}, case.now)
    case.sources.retry(case.now)
    assert case.look(there(NEW))


def test_bounded() -> None:
    """At most so many sources, and so many folders: what is beyond is not watched, and says so."""
    sources = Sources()
    sources.update({str(i): WANTED for i in range(MAX_SOURCES + 3)}, 0.0)
    assert len(sources) == MAX_SOURCES
    assert sources.state(str(MAX_SOURCES + 1)) == ("", "")
    many = Case(first=there(OLD, places=tuple(Place(i, "x") for i in range(MAX_WATCHES + 1))))
    assert many.sources.watches() == set()
    assert many.state == "unwatched"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((OLD,), False),
        ((TOUCHED,), False),
        ((NEW,), False),
        (("1.2.3.5.6",), True),
        (("1.2.4.4.5",), True),
        ((), False),
    ],
)
def test_rewritten(seen: tuple[str, ...], expected: bool) -> None:
    """Another file in its place is no change of the one that is mapped; another size or mtime of it is."""
    assert rewritten((OLD,), seen) is expected
