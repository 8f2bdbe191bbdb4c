"""The client's maps: one segment's bytes in this process, alive exactly as long as the last view of them."""

from __future__ import annotations

import mmap
from typing import Any, Literal

import numpy as np

from mapcell_formats.dtypes import numpy_dtype
from mapcell_formats.manifest import TensorEntry

Mode = Literal["r", "c"]
Array = np.ndarray[Any, np.dtype[Any]]


class SegmentMap(mmap.mmap):
    """A map of one segment, which is what an array's `base` leads to.

    `lease` is whatever has to stay alive while anything still looks at these bytes: with a daemon, the connection
    that is the lease. mmap unmaps when the last buffer over it is released, and only then lets go of `lease`.
    """

    lease: object


def map_segment(fd: int, nbytes: int, mode: Mode, lease: object) -> SegmentMap | None:
    """Maps `nbytes` of `fd` (not consumed) read-only ("r"), or private and copy-on-write ("c"). None for 0 bytes.

    ValueError when the file is shorter than that, OSError when the kernel refuses.
    """
    if nbytes == 0:
        return None
    if mode == "r":
        segment = SegmentMap(fd, nbytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    else:
        segment = SegmentMap(fd, nbytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    segment.lease = lease
    return segment


def view(segment: SegmentMap | None, entry: TensorEntry, mode: Mode) -> Array:
    """The array of `entry` in `segment`, without a copy. Read-only in mode "r"."""
    dtype = numpy_dtype(entry.dtype)
    if segment is None or entry.nbytes == 0:
        empty = np.empty(entry.shape, dtype)
        empty.flags.writeable = mode == "c"
        return empty
    return np.ndarray(entry.shape, dtype, segment, entry.offset)
