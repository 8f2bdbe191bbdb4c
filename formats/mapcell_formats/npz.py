"""NumPy's .npz: a zip archive whose members NAME.npy are arrays.

    zip archive (`zip_archive.py`) of members, each an array with its header (`npy.py`)

`numpy.savez` stores them, and where one happens to lie aligned it can be used in the file; `numpy.savez_compressed`
deflates them, and they are inflated while they are staged. A member that is no .npy is refused, since numpy.load would
give its bytes under its name.

Source: NumPy's numpy/lib/_npyio_impl.py.
"""

from __future__ import annotations

from functools import partial

from . import npy
from .checkpoint import Checkpoint, SourceTensor
from .errors import FormatError, UnsupportedFormat
from .joined import Joiner
from .limits import MAX_TENSORS
from .source import ByteSource
from .zip_archive import MAGIC, Archive, Member, read_archive

SUFFIX = ".npy"


class NpzReader:
    """Reads one .npz file."""

    format = "npz"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether the file is a zip archive; whether one of arrays, only its directory tells."""
        return head.startswith(MAGIC)

    def holds(self, archive: Archive) -> bool:
        """Whether an archive has an array among its members."""
        return any(name.endswith(SUFFIX) for name in archive.members)

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, tensors in the order of its directory. FormatError as the module says."""
        return self.parse_archive(read_archive(source))

    def parse_archive(self, archive: Archive) -> Checkpoint:
        """The checkpoint in an archive that was read already."""
        source = archive.source
        if not archive.members or len(archive.members) > MAX_TENSORS:
            message = f"a zip archive of {len(archive.members)} members"
            raise FormatError(message, path=source.path, offset=0, expected=f"1 to {MAX_TENSORS} arrays")
        joiner, headers = Joiner(source.path, 1), npy.Headers()
        tensors = tuple(_tensor(archive, member, joiner, headers) for member in archive.members.values())
        return Checkpoint(self.format, tensors, (source, *joiner.sources()))


READER = NpzReader()


def _tensor(archive: Archive, member: Member, joiner: Joiner, headers: npy.Headers) -> SourceTensor:
    name = member.name.removesuffix(SUFFIX)
    if name == member.name:
        raise UnsupportedFormat(
            f"the member {member.name[:80]!r} is no array",
            path=archive.source.path,
            offset=member.at,
            expected="members called NAME.npy only",
        )
    where = npy.Where(archive.source.path, member.start, name)
    array = headers.parse(partial(archive.head, member), member.size, where)
    extent = archive.extent(member, array.start, array.nbytes, joiner)
    return npy.place(array, extent, archive.source, joiner, where)
