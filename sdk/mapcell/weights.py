"""`Weights`: a mapping of tensor names to arrays over shared, or at worst this process's own, memory."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar, overload

from mapcell_formats.digest import PREFIX
from mapcell_formats.errors import BindError, MapcellError, NotFound
from mapcell_formats.manifest import NO_DIGEST, Description, TensorEntry, near
from mapcell_formats.record import Record

if TYPE_CHECKING:
    from .contents import Contents
    from .mapping import Array


D = TypeVar("D")
# Up to so many entries are kept once they were listed: a name is found faster in them than in the manifest.
_REMEMBERED = 10_000


class Backing(Protocol):
    """Where the arrays come from: a lease of the daemon's, or files that this process opened itself."""

    @property
    def backend(self) -> Literal["daemon", "process"]: ...

    def array(self, entry: TensorEntry) -> Array:
        """The array of `entry`. Called for any entry of the manifest, from any thread."""
        ...

    def newer(self) -> str | None:
        """The version that the name means now, if it is another one."""
        ...

    def close(self) -> None:
        """Lets go; arrays that were handed out stay valid."""
        ...


def select(manifest: Contents, keys: tuple[str, ...] | None, prefix: str) -> frozenset[str] | None:
    """The names that `keys` and `prefix` choose, None for all. NotFound with near names for a key that is missing.

    A key that does not begin with `prefix` is not looked for: the daemon has staged none.
    """
    if keys is None:
        return frozenset(n for n in manifest.names() if n.startswith(prefix)) if prefix else None
    chosen = frozenset(k for k in keys if k.startswith(prefix))
    for key in chosen:
        if manifest.find(key) < 0:
            raise NotFound(f"no tensor {key!r}{near(key, manifest.names())}", tensor=key)
    return chosen


class WeightsStatistics(Record):
    """A snapshot: tensors there are, tensors viewed so far, bytes of all, bytes of those viewed."""

    tensors: int
    viewed: int
    nbytes: int
    nbytes_viewed: int


class Weights(Mapping[str, "Array"]):
    """The tensors of one version, each a view made when it is first asked for.

    `w[name]` is a NumPy array without a copy: read-only, or copy-on-write when attached with mode="c". Raises
    NotFound (a LookupError) with near names for an unknown one. `close()` ends this object's own hold; arrays that
    were handed out keep their memory, and with it the lease, until the last one is gone. `verified` says whether every
    byte had been hashed when this was attached: files that are mapped as they lie are hashed a moment after they came.
    """

    def __init__(
        self,
        manifest: Contents,
        backing: Backing,
        *,
        name: str,
        source: str | None,
        selected: frozenset[str] | None = None,
        version: str | None = None,
    ) -> None:
        """`version` where it is known already: the rest of the description is read when somebody asks for it."""
        self._manifest = manifest
        self._backing: Backing | None = backing
        self._array = backing.array
        self._selected = selected
        self._known: dict[str, TensorEntry] = {}
        self._complete = False
        self._viewed: dict[str, int] = {}
        self._told: Description | None = None
        self._metadata: dict[str, str] | None = None
        self.name = name
        self.source = source
        self.version = version or self._about.version
        self.backend = backing.backend

    @property
    def _about(self) -> Description:
        # Not functools.cached_property: in Python 3.11 it has one lock for all, which a child may inherit taken.
        about = self._told
        if about is None:
            about = self._told = self._manifest.description()
        return about

    @property
    def verified(self) -> bool:
        """Whether every byte had been hashed when this was attached."""
        return self._about.verified

    @property
    def residence(self) -> str:
        """ "mapped" or "sealed"."""
        return self._about.residence

    @property
    def format(self) -> str:
        """The name of the checkpoint's format."""
        return self._about.format

    @property
    def metadata(self) -> dict[str, str]:
        """The checkpoint's own strings."""
        if self._metadata is None:
            self._metadata = dict(self._about.metadata)
        return self._metadata

    def entry(self, name: str) -> TensorEntry:
        """Where the tensor lies. NotFound with near names when there is none of that name."""
        return self._known.get(name) or self._look_up(name)

    def _look_up(self, name: str) -> TensorEntry:
        if self._selected is not None and name not in self._selected:
            raise NotFound(f"no tensor {name!r}{near(name, sorted(self._selected))}", tensor=name)
        entry = self._known[name] = self._manifest[name]
        return entry

    def digest(self, name: str) -> str | None:
        """ "blake3:" and the hex digits of the tensor's bytes as they were staged; None when they were not hashed.

        NotFound as `entry`.
        """
        digest = self._manifest.digest(self._manifest.find(self.entry(name).name))
        return None if digest == NO_DIGEST else PREFIX + digest.hex()

    def entries(self) -> Iterator[TensorEntry]:
        """All entries in the checkpoint's order."""
        if self._complete or len(self) <= _REMEMBERED:
            return iter(self._all().values())
        return iter(self._chosen())

    def _chosen(self) -> list[TensorEntry]:
        every = self._manifest.entries()
        return every if self._selected is None else [e for e in every if e.name in self._selected]

    def _all(self) -> dict[str, TensorEntry]:
        """All entries by name, from here on without looking into the manifest."""
        if not self._complete:
            self._known = {entry[0]: entry for entry in self._chosen()}
            self._complete = True
        return self._known

    def __getitem__(self, name: str) -> Array:
        entry = self._known.get(name) or self._look_up(name)
        array = self._array(entry)
        self._viewed[name] = entry[5]
        return array

    def at(self, entry: TensorEntry) -> Array:
        """The tensor of one of `entries()`, for callers that have it: as ``self[entry.name]`` without looking it up."""
        array = self._array(entry)
        self._viewed[entry.name] = entry.nbytes
        return array

    @overload
    def get(self, key: str, /) -> Array | None: ...
    @overload
    def get(self, key: str, /, default: Array | D) -> Array | D: ...
    def get(self, key: str, /, default: Any = None) -> Any:
        """The tensor, or `default` when there is none of that name."""
        try:
            return self[key]
        except NotFound:
            return default

    def items(self) -> ItemsView[str, Array]:
        """(name, array) of every tensor in the checkpoint's order; no name is looked up for it."""
        return _Items(self)

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._chosen()) if len(self) > _REMEMBERED else iter(self._all())

    def __len__(self) -> int:
        return len(self._manifest) if self._selected is None else len(self._selected)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or (self._selected is not None and name not in self._selected):
            return False
        return name in self._known or self._manifest.find(name) >= 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(e.nbytes for e in self.entries())

    def slice(self, name: str, axis: int, rank: int, world: int) -> Array:
        """Part number `rank` of `world` equal parts of the tensor along `axis`: a strided view, no copy.

        BindError when the axis does not exist or cannot be cut into `world` equal parts.
        """
        array = self[name]
        if not -array.ndim <= axis < array.ndim:
            raise BindError(f"tensor {name!r} of shape {array.shape} has no axis {axis}")
        size = array.shape[axis]
        if not 0 <= rank < world or size % world:
            raise BindError(f"axis {axis} of {name!r} has {size} elements: there is no part {rank} of {world}")
        part = size // world
        index: list[slice] = [slice(None)] * array.ndim
        index[axis] = slice(rank * part, (rank + 1) * part)
        return array[tuple(index)]

    def newer(self) -> str | None:
        """None, or the version that the name means now."""
        return self._open().newer()

    def statistics(self) -> WeightsStatistics:
        """A snapshot of what was viewed so far."""
        return WeightsStatistics(len(self), len(self._viewed), self.nbytes, sum(self._viewed.values()))

    def close(self) -> None:
        """Ends this object's hold; a second call does nothing. Arrays that were handed out stay valid."""
        backing, self._backing = self._backing, None
        if backing is not None:
            # Not a method of this object's, which it would keep alive until the garbage collector comes.
            self._array = partial(_refuse, self.name)
            backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Weights {self.name!r} {self.version} {len(self)} tensors, {self.residence}, "
            f"through the {self.backend}{'' if self._backing else ', closed'}>"
        )

    def _open(self) -> Backing:
        if self._backing is None:
            raise _closed(self.name)
        return self._backing


def _closed(name: str) -> MapcellError:
    return MapcellError(f"these weights of {name!r} were closed; attach again")


def _refuse(name: str, entry: TensorEntry) -> Array:
    raise _closed(name)


class _Items(ItemsView[str, "Array"]):
    """What `Weights.items` gives."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self._weights = weights

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        at = self._weights.at
        return ((entry.name, at(entry)) for entry in self._weights.entries())
