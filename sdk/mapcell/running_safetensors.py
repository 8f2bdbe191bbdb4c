"""``safetensors.safe_open`` over shared bytes, for programs that call it by that name: its methods, errors and results.

Source: safetensors 0.8, Python API. Tensors are what the original gives for the CPU: torch tensors over private pages,
or NumPy arrays that may be written to; of these the original makes a copy each time, so only the first one is shared.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from mapcell_formats.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapcell_formats.manifest import TensorEntry

    from .running import Sharing
    from .weights import Weights

    Make = Callable[[Weights, TensorEntry], Any]

# What the original makes NumPy arrays of; for other dtypes it raises, in its own way.
_NUMPY = frozenset(["BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64", "C64"])


class SharedSlice:
    """What `get_slice` gives: a tensor that is made when it is indexed."""

    __slots__ = ("_entry", "_make", "_weights")

    def __init__(self, weights: Weights, entry: TensorEntry, make: Make) -> None:
        self._weights = weights
        self._entry = entry
        self._make = make

    def get_shape(self) -> list[int]:
        """The tensor's shape in elements."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """The tensor's dtype as safetensors spells it."""
        return self._entry.dtype

    def __getitem__(self, index: Any) -> Any:
        """The part that `index` names: a view for torch, a copy for NumPy."""
        part = self._make(self._weights, self._entry)[index]
        return part.copy() if self._make is _array else part


class SharedFile:
    """What `safe_open` gives. SafetensorError for a name that is not there, and once it was left."""

    def __init__(self, weights: Weights, make: Make) -> None:
        # Never closed: slices may be taken from it after it was left, as the original lets them.
        self._weights: Weights | None = weights
        self._make = make
        self._given: set[str] = set()

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._open())

    def offset_keys(self) -> list[str]:
        """The tensors' names in the order in which their bytes lie."""
        at, placed = (0, 0), []
        for entry in self._open().entries():
            # One without bytes lies behind the one before it, wherever its offset says.
            at = (entry.segment, entry.offset) if entry.nbytes else at
            placed.append((at, entry.name))
        return [name for _, name in sorted(placed, key=lambda pair: pair[0])]

    def metadata(self) -> dict[str, str] | None:
        """The file's own strings, None when it has none."""
        return dict(self._open().metadata) or None

    def get_tensor(self, name: str) -> Any:
        """The tensor."""
        tensor = self._make(self._open(), self._entry(name))
        again = name in self._given
        self._given.add(name)
        return tensor.copy() if again and self._make is _array else tensor

    def get_tensors(self) -> dict[str, Any]:
        """Every tensor by name."""
        return {name: self.get_tensor(name) for name in self.offset_keys()}

    def get_slice(self, name: str) -> SharedSlice:
        """The tensor, to be indexed first."""
        return SharedSlice(self._open(), self._entry(name), self._make)

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        self._weights = None

    def _open(self) -> Weights:
        if self._weights is None:
            raise _error("File is closed")
        return self._weights

    def _entry(self, name: str) -> TensorEntry:
        try:
            return self._open().entry(name)
        except NotFound:
            raise _error(f"File does not contain tensor {name}") from None


def replacement(original: Any, sharing: Sharing) -> type:
    """A class to stand in for `original`, safetensors' safe_open: calling it gives a SharedFile where it can."""

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, (SharedFile, original))

    # The name under which people print it.
    class safe_open(metaclass=Kind):
        __doc__ = original.__doc__

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return _shared(sharing, *args, **kwargs) or original(*args, **kwargs)

    return safe_open


def _shared(sharing: Sharing, *args: Any, **kwargs: Any) -> SharedFile | None:
    asked = dict(zip(("filename", "framework", "device"), args, strict=False)) | kwargs
    file, framework = asked.pop("filename", None), asked.pop("framework", None)
    device, backend = asked.pop("device", "cpu"), asked.pop("backend", "mmap")
    make = {"pt": _tensor, "torch": _tensor, "pytorch": _tensor, "np": _array, "numpy": _array}.get(framework)
    if asked or len(args) > 3 or make is None or str(device) != "cpu" or backend != "mmap":
        return None
    if not isinstance(file, (str, os.PathLike)) or not os.path.isfile(file):
        return None
    weights = sharing.weights(file, sharing.cast.get())
    if weights is None or weights.format != "safetensors":
        return None
    if make is _array and any(e.dtype not in _NUMPY for e in weights.entries()):
        return None
    return SharedFile(weights, make)


def _tensor(weights: Weights, entry: TensorEntry) -> Any:
    from .torch.tensors import tensor_of

    return tensor_of(weights.at(entry), entry.dtype)


def _array(weights: Weights, entry: TensorEntry) -> Any:
    return weights.at(entry)


def _error(message: str) -> Exception:
    from safetensors import SafetensorError

    error: Exception = SafetensorError(message)
    return error
