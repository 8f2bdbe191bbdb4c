"""`safe_open`: the safetensors call of that name, for any checkpoint, without its copies.

Source: safetensors, Python API, `safe_open`. There `get_tensor` copies into a new array each time (framework "np");
here it is a view of shared memory, so it is read-only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from mapcell_formats.manifest import TensorEntry

from .attaching import attach
from .weights import Weights

if TYPE_CHECKING:
    from .mapping import Array


class TensorSlice:
    """One tensor that is indexed before it is looked at: the result of `get_slice`."""

    def __init__(self, weights: Weights, entry: TensorEntry) -> None:
        self._weights = weights
        self._entry = entry

    def get_shape(self) -> list[int]:
        """The tensor's shape in elements."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """The tensor's dtype as safetensors spells it."""
        return self._entry.dtype

    def __getitem__(self, index: Any) -> Array:
        """The part that `index` names, as NumPy has it: a view."""
        part: Array = self._weights[self._entry.name][index]
        return part


class safe_open:  # the name is safetensors', and people import it as a function
    """A checkpoint opened for reading: `with safe_open(path, framework="np") as f: f.get_tensor(name)`.

    ValueError for a framework other than NumPy or a device other than the CPU; errors as `mapcell.attach`.
    """

    def __init__(
        self, filename: str | os.PathLike[str], framework: str = "np", device: str | int = "cpu", **attaching: Any
    ) -> None:
        if framework not in ("np", "numpy"):
            raise ValueError(f"framework={framework!r}: mapcell.safe_open gives NumPy arrays; say 'np'")
        if device != "cpu":
            raise ValueError(f"device={device!r}: mapcell.safe_open gives arrays in host memory; say 'cpu'")
        self._weights = attach(os.path.abspath(os.path.expanduser(os.fspath(filename))), **attaching)

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._weights)

    def offset_keys(self) -> list[str]:
        """The tensors' names in the order in which their bytes lie."""
        return [e.name for e in sorted(self._weights.entries(), key=lambda e: (e.segment, e.offset))]

    def metadata(self) -> dict[str, str] | None:
        """The checkpoint's own strings, None when it has none."""
        return self._weights.metadata or None

    def get_tensor(self, name: str) -> Array:
        """The tensor, a read-only view. NotFound with near names when there is none."""
        return self._weights[name]

    def get_slice(self, name: str) -> TensorSlice:
        """The tensor, to be indexed: `f.get_slice(name)[:, 10:20]` is a view of that part."""
        return TensorSlice(self._weights, self._weights.entry(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._weights.close()
