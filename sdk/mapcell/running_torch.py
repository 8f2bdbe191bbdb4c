"""``torch.load(mmap=True)`` over shared bytes, whatever the pickle holds: only the storages come from elsewhere.

torch maps the file and cuts each storage out of that map by its offset in the file. It is given something to cut from
that looks for a tensor with exactly these bytes, and gives the shared ones; what is not there it cuts out of the map.
Source: torch 2.13, torch/serialization.py, ``load`` and ``_load(..., overall_storage=)``.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from functools import wraps
from mmap import MAP_PRIVATE
from typing import TYPE_CHECKING, Any

from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import MapcellError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .running import Sharing
    from .weights import Weights

# What torch.load was asked for, while it is at it: torch itself does not tell _load.
_FILE: ContextVar[Any] = ContextVar("mapcell_torch_file", default=None)


class SharedStorages:
    """To be cut like the map of a torch file: a storage for a slice of bytes."""

    def __init__(self, mapped: Any, weights: Weights, names: dict[tuple[int, int], str]) -> None:
        self._mapped = mapped
        self._weights = weights
        # By the first byte and the one behind the last, in the file.
        self._names = names

    def __getitem__(self, part: slice) -> Any:
        from .torch.tensors import storage_of

        name = self._names.get((part.start, part.stop))
        return self._mapped[part] if name is None else storage_of(self._weights[name])


def noting(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function to stand in for `original`, torch.load: as it is, but for noting the file."""

    @wraps(original)
    def load(*args: Any, **kwargs: Any) -> Any:
        token = _FILE.set(args[0] if args else kwargs.get("f"))
        try:
            return original(*args, **kwargs)
        finally:
            _FILE.reset(token)

    return load


def replacement(original: Callable[..., Any], sharing: Sharing) -> Callable[..., Any]:
    """A function to stand in for `original`, torch.serialization._load."""

    @wraps(original)
    def _load(*args: Any, **kwargs: Any) -> Any:
        mapped, file = kwargs.get("overall_storage"), _FILE.get()
        if mapped is not None and isinstance(file, (str, os.PathLike)):
            kwargs["overall_storage"] = _shared(mapped, file, sharing) or mapped
        return original(*args, **kwargs)

    return _load


def _shared(mapped: Any, file: str | os.PathLike[str], sharing: Sharing) -> SharedStorages | None:
    from torch.serialization import get_default_mmap_options

    # Whoever has torch map files to write into them gets the file.
    if get_default_mmap_options() != MAP_PRIVATE:
        return None
    weights = sharing.weights(file)
    if weights is None:
        return None
    try:
        return SharedStorages(mapped, weights, _places(os.path.abspath(file)))
    except (MapcellError, OSError):
        # The file was replaced after torch opened it: that one is mapped, and stays as it is.
        return None


def _places(path: str) -> dict[tuple[int, int], str]:
    from .opening import open_sources

    sources = open_sources(path)
    try:
        tensors = read_checkpoint(sources).tensors
        alone = ((t.name, t.extents[0]) for t in tensors if len(t.extents) == 1 and t.nbytes)
        return {(e.offset, e.offset + e.nbytes): name for name, e in alone if e.source == 0}
    finally:
        for source in sources:
            source.close()
