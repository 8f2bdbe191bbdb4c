"""The two ordinary ways to a checkpoint's arrays, as they are without mapcell and without torch.

`read_copy` is ``safetensors.numpy.load_file``: every process gets arrays of its own. (It maps the file meanwhile, but
every tensor it gives is a copy; safetensors' views of its map need torch.)

`map_file` maps the file read-only and makes arrays over the map, as one does with ``numpy.memmap``: processes that map
one file share its pages in the page cache. It is the best that a single process can do by itself.

Where the weights are wanted in another dtype, either ends in a converted copy of its own, and the map goes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mapcell_formats.dtypes import numpy_dtype

from ..mapping import Array


def read_copy(path: Path, dtype: str | None = None) -> dict[str, Array]:
    """The tensors of a safetensors file in memory of this process; the floating ones as `dtype` if it is given."""
    from safetensors.numpy import load_file

    return _converted(load_file(path), dtype)


def map_file(path: Path, dtype: str | None = None) -> dict[str, Array]:
    """The tensors of a safetensors file as read-only views of a map of it, or converted copies if `dtype` is given."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    content = np.memmap(path, np.uint8, mode="r", offset=0)
    tensors = {}
    for name, about in header.items():
        first, last = (8 + size + offset for offset in about["data_offsets"])
        tensors[name] = np.asarray(content[first:last]).view(numpy_dtype(about["dtype"])).reshape(about["shape"])
    return _converted(tensors, dtype)


def _converted(tensors: dict[str, Array], dtype: str | None) -> dict[str, Array]:
    if dtype is not None:
        for name, array in tensors.items():
            # ml_dtypes' bfloat16 is of kind "V": NumPy itself does not know that it is floating.
            floating = array.dtype.kind in "fV"
            # The others are copied too: one view would keep the whole map.
            tensors[name] = array.astype(dtype if floating else array.dtype)
    return tensors
