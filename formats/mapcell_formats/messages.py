"""Every message that crosses a socket of mapcell, with its limits. ARCHITECTURE.md draws the sequences.

Three channels carry them:

* control (ZeroMQ ROUTER): REQUESTS from a client, one of REPLIES to each under the same request number, and EVENTS
  under number 0 to those who asked for them by Watch.
* handles (SEQPACKET): one Redeem or Attach from a client, then from the daemon any number of Progress and one Grant or
  Refused. On a guarded lease then Remap from the daemon, answered by Remapped; Extend from the client, answered by
  Extended.
* jobs (a socket pair between the daemon and one stager): Job, then what stands under the stager's half below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .errors import MapcellError, from_wire
from .record import Record
from .wire import MAX_INTEGER, MAX_STRING, MAX_TEXT

# A request holds at most MAX_ITEMS names; replies hold rows, never tensors.
MAX_CONTROL_BYTES = 1 << 20
# Redeem holds a ticket; Grant the sizes of at most MAX_DESCRIPTORS segments.
MAX_HANDLE_BYTES = 64 << 10
# The kernel passes at most 253 descriptors in one message (SCM_MAX_FD).
MAX_DESCRIPTORS = 250
_MAX_DETAIL = MAX_STRING
_MAX_DETAILS = 8
TICKET_BYTES = 16
# A ticket that nobody redeems is forgotten: the client asks again.
TICKET_SECONDS = 30.0


# --- values inside messages ---------------------------------------------------------------------------------------


class Selection(Record):
    """What of a checkpoint is wanted: floating tensors as `dtype` ("" as they are), only `keys`, only `prefix`."""

    dtype: str = ""
    keys: tuple[str, ...] | None = None
    prefix: str = ""


class ModelRow(Record):
    """One version of one model, as `mapcell ls` shows it. Sizes in bytes, `leases` a count.

    `state` is "READY" or "RETIRED"; or, without a version, "STAGING" or "UNLOADED": configured, and not asked for yet.
    `digest` is the content's ("blake3:...") once every byte was hashed, `verified` whether that still holds.
    `source_state` says of the newest version what became of its source ("" of others): "same", "changed", "writing",
    "missing", "failing" (the new one could not be staged) or "unwatched"; `source_detail` why; `follow` whether a
    changed source is staged by itself.
    `guard` is "guarded", "rescuing", "unguarded" or "lost" for a file mapped in place, "" for memory; `outlook` says in
    words what becomes of it when somebody writes to the file, or why the file was not mapped.
    """

    name: str
    version: str
    tags: tuple[str, ...]
    state: str
    residence: str
    dtype: str
    nbytes: int
    tensors: int
    leases: int
    pinned: bool
    verified: bool
    format: str
    source: str
    digest: str = ""
    source_state: str = ""
    source_detail: str = ""
    follow: bool = False
    guard: str = ""
    outlook: str = ""


class LeaseRow(Record):
    """One lease, as `mapcell ps` shows it. `since` in seconds since the epoch, `nbytes` what its version holds."""

    pid: int
    uid: int
    name: str
    version: str
    since: float
    nbytes: int


class StagingRow(Record):
    """One checkpoint being staged: bytes done of all, clients waiting for it."""

    name: str
    step: str
    done: int
    total: int
    waiting: int


# --- control: requests ----------------------------------------------------------------------------------------------


class Attach(Record):
    """Asks for a model by name ("minilm", "minilm:tag", "minilm@version"): for a ticket to it; on the handle channel,
    which holds shorter messages, for the lease itself.

    `hold` keeps staging it, if it has to be staged, when the asker leaves. `sealed` asks for memory that never changes
    its backing, for pages that are private and copied on write.
    """

    OP: ClassVar[str] = "attach"
    name: str
    selection: Selection = Selection()
    hold: bool = False
    sealed: bool = False


class Offer(Record):
    """Asks for a ticket to redeem with descriptors of one's own: a checkpoint by path.

    `paths` are what to call the files, in the order in which their descriptors will come. `name`, when not empty,
    registers the checkpoint as a model of that name; `hold` keeps staging it when the asker leaves.
    """

    OP: ClassVar[str] = "offer"
    paths: tuple[str, ...]
    selection: Selection = Selection()
    residence: str = "auto"
    name: str = ""
    tag: str = ""
    pin: bool = False
    hold: bool = False


class ListModels(Record):
    """Asks for Models: what the asker may see."""

    OP: ClassVar[str] = "list"


class Resolve(Record):
    """Asks for the row that `name` means now, without a ticket; after it come the casts of that version."""

    OP: ClassVar[str] = "resolve"
    name: str


class ListLeases(Record):
    """Asks for Leases: those the asker may see."""

    OP: ClassVar[str] = "leases"


class GetStatus(Record):
    """Asks for Status."""

    OP: ClassVar[str] = "status"


class Unload(Record):
    """Retires what `name` means and gives its memory back once no lease holds it."""

    OP: ClassVar[str] = "unload"
    name: str


class Retire(Record):
    """Stops handing out what `name` means; its leases live on, and its memory goes with the last of them."""

    OP: ClassVar[str] = "retire"
    name: str


class Evict(Record):
    """Gives the memory of what `name` means back now. Refused while a lease holds it."""

    OP: ClassVar[str] = "evict"
    name: str


class Pin(Record):
    """Never evict what `name` means (`on`), or allow it again. An operator's verb, as all that follow."""

    OP: ClassVar[str] = "pin"
    name: str
    on: bool


class Tag(Record):
    """Makes `tag` of the model `name` mean the version whose id begins with `version`."""

    OP: ClassVar[str] = "tag"
    name: str
    version: str
    tag: str


class Watch(Record):
    """Subscribes to Events of the model `name`, or of all when empty. Answered by Models, the snapshot."""

    OP: ClassVar[str] = "watch"
    name: str = ""


# --- control: replies and events ------------------------------------------------------------------------------------


class Ticket(Record):
    """A one-time right to redeem on the handle channel, bound to the asker's uid, good for TICKET_SECONDS."""

    OP: ClassVar[str] = "ticket"
    ticket: bytes


class Models(Record):
    """Rows in the order of names, newest version first."""

    OP: ClassVar[str] = "models"
    rows: tuple[ModelRow, ...]


class Leases(Record):
    """Rows in the order in which the leases began."""

    OP: ClassVar[str] = "lease-list"
    rows: tuple[LeaseRow, ...]


class Status(Record):
    """The daemon in figures.

    `uptime` in seconds; budget, sealed and mapped in bytes; `bytes_read` what stagers that published read since the
    start, as the kernel counted it (rchar); `attaches`, `stagings` and `evictions` how many there were since the start;
    the rest are counts of what is there now.
    """

    OP: ClassVar[str] = "daemon-status"
    pid: int
    version: str
    uptime: float
    budget: int
    sealed: int
    mapped: int
    models: int
    leases: int
    connections: int
    descriptors: int
    stagers: int
    staging: tuple[StagingRow, ...]
    runtime: str
    bytes_read: int
    attaches: int
    stagings: int
    evictions: int


class Refused(Record):
    """An error of errors.py, on any channel."""

    OP: ClassVar[str] = "refused"
    code: str
    message: str
    details: dict[str, str | int | None]

    @classmethod
    def of(cls, error: MapcellError) -> Refused:
        """The message that carries `error`, cut to what a message may hold: errors quote what files claim."""
        details = {_cut(name, 64): _fitting(value) for name, value in list(error.details.items())[:_MAX_DETAILS]}
        return cls(error.code, _cut(error.message, MAX_TEXT), details)

    def error(self) -> MapcellError:
        """The error that this message carries."""
        return from_wire(self.code, self.message, self.details)


class Event(Record):
    """Something happened to a version: `kind` is "staging", "progress", "ready", "retired", "failed" or "verified" (its
    bytes were hashed); for a guarded file "rescuing", "rescued" or "lost"; or to a model's source, then it is "source",
    and `detail` the row's source_state.

    `number` counts this subscriber's events without a gap.
    """

    OP: ClassVar[str] = "event"
    number: int
    kind: str
    name: str
    version: str
    done: int
    total: int
    detail: str


# --- handles --------------------------------------------------------------------------------------------------------


class Redeem(Record):
    """A client's first message on this channel, unless that is Attach; an offer's descriptors come with it."""

    OP: ClassVar[str] = "redeem"
    ticket: bytes


class Progress(Record):
    """How far staging is: `done` of `total` bytes in `step` ("reading", "hashing" ...)."""

    OP: ClassVar[str] = "progress"
    step: str
    done: int
    total: int


class Grant(Record):
    """The lease. With it come the manifest's descriptor and one for each segment, sizes in bytes as given.

    `guarded` says that files are among the segments which may be replaced: Remap will then come on this connection.
    """

    OP: ClassVar[str] = "grant"
    name: str
    version: str
    manifest: int
    segments: tuple[int, ...]
    guarded: bool = False


class Remap(Record):
    """Segment number `segment` lies in the descriptor that comes with this from now on, byte for byte the same.

    Whoever maps the old one maps this one over it and answers Remapped; somebody is waiting to write to the old one.
    """

    OP: ClassVar[str] = "remap"
    segment: int
    nbytes: int


class Remapped(Record):
    """From the client: nothing of that segment's old file is mapped here any more."""

    OP: ClassVar[str] = "remapped"
    segment: int


class Extend(Record):
    """From the client: it is about to fork, and asks for a lease of the same version for the child."""

    OP: ClassVar[str] = "extend"


class Extended(Record):
    """The child's lease: its connection is the descriptor that comes with this."""

    OP: ClassVar[str] = "extended"


class Present(Record):
    """From the child, first on its connection: whose pid the lease is to be shown under, as the kernel tells it."""

    OP: ClassVar[str] = "present"


# --- jobs -----------------------------------------------------------------------------------------------------------

# What the datagram holds whose first descriptor is the memory that the Job lies in.
JOB_FOLLOWS = b"job"


class Manner(Record):
    """How to stage: `huge_pages` "off", "try" or "on"; `drop_cache` gives the source's page cache back; `warm` reads a
    mapped file once; `digest`, when not empty, is the only content ("blake3:...") or file ("sha256:...") to accept.
    `deadline` in seconds is how long a writer may be kept waiting for the copy of a guarded file."""

    huge_pages: str = "off"
    drop_cache: bool = False
    warm: bool = False
    digest: str = ""
    deadline: float = 5.0


class Job(Record):
    """What a stager is to do. It comes as memory, the first descriptor of JOB_FOLLOWS; the others are what `kind` says.

    kind "offer": the client's connection, whose next message holds the checkpoint's descriptors; `paths` name them.
    kind "configured": nothing; `paths` are opened beneath `roots`.
    kind "derive": the manifest and segments of a version of ours, to be cast or selected from.
    kind "hash": the same, to be hashed where they lie.
    kind "look", "look-claimed": an inotify instance; what `paths` lead to now is looked at and watched. Whoever claimed
    a path had no right to name it, so nothing there is opened but what has one of `identities` already.
    `identities` of "derive" and "hash": what the version's files looked like when they were mapped.
    kind "rescue": one segment of a version of ours, to be copied into sealed memory at once.

    `uid` is whose job it is: files of that user, and configured ones, may be guarded. `sound` says that the base's
    bytes are its own whatever its files look like: they are guarded, or memory by now.
    """

    OP: ClassVar[str] = "job"
    kind: str
    paths: tuple[str, ...]
    roots: tuple[str, ...]
    selection: Selection
    residence: str
    base: str
    manner: Manner
    identities: tuple[str, ...] = ()
    uid: int = -1
    sound: bool = False


class Identified(Record):
    """From the stager: what the source's files look like through their descriptors (digest.file_identity)."""

    OP: ClassVar[str] = "identified"
    pid: int
    identities: tuple[str, ...]


class Sized(Record):
    """From the stager, once parsed: what it will hold and how many bytes it would allocate (0 when mapped)."""

    OP: ClassVar[str] = "sized"
    residence: str
    nbytes: int
    tensors: int


class Proceed(Record):
    """To the stager: go on after Identified or Sized."""

    OP: ClassVar[str] = "proceed"


class Staged(Record):
    """From the stager: done. The manifest's descriptor and one for each segment come with it, sizes as given.

    `read` is what this stager read in its life, as the kernel counted it (rchar in /proc/self/io). `unguarded` says why
    its files cannot be guarded, "" when they can, or when it was not asked to map any.
    """

    OP: ClassVar[str] = "staged"
    version: str
    residence: str
    format: str
    dtype: str
    verified: bool
    tensors: int
    manifest: int
    segments: tuple[int, ...]
    read: int
    unguarded: str = ""


class Copied(Record):
    """From the stager of a rescue: the sealed copy of the segment's `nbytes`, whose descriptor comes with it."""

    OP: ClassVar[str] = "copied"
    nbytes: int


class Place(Record):
    """A folder under watch, by inotify's number for it, and the name in it that matters ("" for any)."""

    watch: int
    name: str


class Looked(Record):
    """From the stager: what lies at a path now, and where changes of it will show.

    `state` is "there", "writing" (somebody has a file open for writing), "missing" or "broken" (`detail` says how).
    `unwatched` says why the kernel will not tell of changes, "" when it will.
    """

    OP: ClassVar[str] = "looked"
    state: str
    identities: tuple[str, ...]
    places: tuple[Place, ...]
    unwatched: str
    detail: str


class Hashed(Record):
    """From the stager: the content's digest; "" when the files are not what was mapped any more.

    With a manifest of `manifest` bytes that says so comes its descriptor; 0 when the old one says it already.
    """

    OP: ClassVar[str] = "hashed"
    digest: str
    manifest: int
    detail: str


def _fitting(value: str | int | None) -> str | int | None:
    if isinstance(value, str):
        return _cut(value, _MAX_DETAIL)
    return value if value is None or abs(value) <= MAX_INTEGER else None


def _cut(text: str, limit: int) -> str:
    # A name may hold half a surrogate pair, and the error about it has to arrive.
    raw = text.encode("utf-8", "backslashreplace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "..."


def _table(*classes: type[Any]) -> Mapping[str, type[Any]]:
    return {cls.OP: cls for cls in classes}


REQUESTS = _table(Attach, Offer, ListModels, Resolve, ListLeases, GetStatus, Unload, Retire, Evict, Pin, Tag, Watch)
REPLIES = _table(Ticket, Models, Leases, Status, Refused, Event)
REDEMPTIONS = _table(Redeem, Attach)
HANDOUTS = _table(Progress, Grant, Refused)
# On a guarded lease, from the daemon and from the client.
CALLS = _table(Remap, Extended, Refused)
ANSWERS = _table(Remapped, Extend, Present)
STAGER_ORDERS = _table(Job, Proceed)
STAGER_REPORTS = _table(Identified, Sized, Progress, Staged, Looked, Hashed, Copied, Refused)
