"""torch's files (.pt, .pth, .bin), as torch.save has written them since 1.6: a zip archive around a pickle.

    NAME/data.pkl     a pickle of the state dict, in which tensors refer to storages
    NAME/data/KEY     one storage: the elements of one or several tensors, little-endian
    NAME/byteorder    "little" or "big"; older files have none and are little-endian
    NAME/version, NAME/.data/serialization_id, NAME/.format_version, NAME/.storage_alignment     not looked at

The pickle is walked (`pickle_walk.py`), never executed; `torch_pickle.py` has all that it may name, `torch_names.py`
has the rule by which nested dicts become names. What the dicts hold besides tensors is not kept.

Tensors may share a storage, and then share their bytes here. One whose elements do not lie in C order is read as if
they did (`strided.py`); one that was expanded, so that elements share memory, is refused.

Source: torch 2.13, torch/serialization.py, and files that it wrote.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from .checkpoint import Checkpoint, Extent, SourceTensor
from .checks import MAX_ELEMENTS, brief, name_fault, shape_fault
from .dtypes import ITEMSIZE
from .errors import FormatError, UnsupportedFormat
from .joined import Joiner
from .pickle_walk import MAX_PICKLE_BYTES, Walk
from .source import ByteSource, FileSource
from .strided import StridedSource, in_c_order, span
from .torch_names import Pickle, named_tensors
from .torch_pickle import DTYPES, StateDicts, Tensor
from .zip_archive import MAGIC, Archive, Member, read_archive

# What a compressed pickle may inflate to: 64 KiB of them could claim as much memory as a whole checkpoint's header.
MAX_INFLATED_PICKLE_BYTES = 16 * 1024 * 1024


class TorchReader:
    """Reads one file that torch.save wrote."""

    format = "torch"

    def accepts(self, head: bytes, size: int) -> bool:
        """Whether the file is a zip archive; whether one of torch's, only its directory tells."""
        return head.startswith(MAGIC)

    def holds(self, archive: Archive) -> bool:
        """Whether an archive has a data.pkl in its outermost folder."""
        return _root(archive) is not None

    def parse(self, source: ByteSource) -> Checkpoint:
        """The checkpoint in `source`, tensors in the order of its dicts. FormatError as the module says."""
        return self.parse_archive(read_archive(source))

    def parse_archive(self, archive: Archive) -> Checkpoint:
        """The checkpoint in an archive that was read already."""
        root = _root(archive)
        if root is None:
            path, expected = archive.source.path, "NAME/data.pkl, as torch.save writes it"
            raise UnsupportedFormat("is a zip archive without a pickle", path=path, offset=0, expected=expected)
        _check_kind(archive, root)
        member, path = archive.members[f"{root}/data.pkl"], archive.source.path
        value = _walk(archive, member)
        places = _Places(archive, root)
        found = named_tensors(value, Pickle(path, member.start, member.size))
        tensors = tuple(places.tensor(name, tensor) for name, tensor in found.items())
        return Checkpoint(self.format, tensors, (archive.source, *places.joiner.sources()))


READER = TorchReader()


def _root(archive: Archive) -> str | None:
    for name in archive.members:
        folder, _, rest = name.partition("/")
        if rest == "data.pkl":
            return folder
    return None


def _check_kind(archive: Archive, root: str) -> None:
    path = archive.source.path
    if member := archive.members.get(f"{root}/constants.pkl"):
        expected = "a state dict: torch.save(torch.jit.load(path).state_dict(), other)"
        raise UnsupportedFormat("is a TorchScript program", path=path, offset=member.at, expected=expected)
    if not (member := archive.members.get(f"{root}/byteorder")):
        return
    order = archive.head(member, 8)
    if order == b"big":
        raise UnsupportedFormat("is big-endian", path=path, offset=member.start, expected="a little-endian file")
    if order != b"little":
        raise FormatError(f"byteorder says {order!r}", path=path, offset=member.start, expected="little or big")


def _walk(archive: Archive, member: Member) -> object:
    path = archive.source.path
    limit = MAX_PICKLE_BYTES if member.stored else MAX_INFLATED_PICKLE_BYTES
    if member.size > limit:
        message = f"a pickle of {member.size} bytes"
        raise UnsupportedFormat(message, path=path, offset=member.at, expected=f"at most {limit}")
    data = archive.head(member, member.size)
    return Walk(data, StateDicts(), path, member.start, in_file=member.stored).run()


class _Layout(NamedTuple):
    """What a shape and strides make: how many elements, over how many from the first, and whether in C order."""

    elements: int
    span: int
    in_c_order: bool


class _Places:
    """Finds the tensors' bytes among the archive's members."""

    def __init__(self, archive: Archive, root: str) -> None:
        self.joiner = Joiner(archive.source.path, 1)
        self._archive = archive
        self._root = root
        self._inflated: dict[str, Extent] = {}
        self._layouts: dict[tuple[tuple[int, ...], tuple[int, ...]], _Layout] = {}

    def tensor(self, name: str, tensor: Tensor) -> SourceTensor:
        """The tensor and where it lies. FormatError when its numbers do not fit its storage."""
        code = DTYPES[tensor.dtype.name]
        if code is None:
            raise self._unsupported(
                name, tensor, f"elements of torch.{tensor.dtype.name}", "a dtype that safetensors has"
            )
        extent = self._extent(name, tensor, self._check(name, tensor), ITEMSIZE[code])
        return SourceTensor(name, code, tensor.shape, (extent,) if extent.nbytes else ())

    def _layout(self, name: str, tensor: Tensor) -> _Layout:
        """What shape and strides make together; FormatError when they do not fit."""
        known = self._layouts.get((tensor.shape, tensor.strides))
        if known is not None:
            return known
        if fault := shape_fault(tensor.shape):
            raise self._broken(name, tensor, fault.message, fault.expected)
        sound = all(type(stride) is int and 0 <= stride <= MAX_ELEMENTS for stride in tensor.strides)
        if not sound or len(tensor.strides) != len(tensor.shape):
            message = f"strides {brief(tensor.strides)} for shape {brief(tensor.shape)}"
            raise self._broken(name, tensor, message, "one from 0 up for each dimension")
        reach, in_order = span(tensor.shape, tensor.strides), in_c_order(tensor.shape, tensor.strides)
        layout = self._layouts[tensor.shape, tensor.strides] = _Layout(prod(tensor.shape), reach, in_order)
        return layout

    def _check(self, name: str, tensor: Tensor) -> _Layout:
        if fault := name_fault(name):
            raise self._broken(name[:80], tensor, fault.message, fault.expected)
        layout = self._layout(name, tensor)
        end = (tensor.offset + layout.span) * tensor.dtype.itemsize
        if tensor.offset < 0 or end > tensor.storage.nbytes:
            message = f"reaches from element {tensor.offset} to byte {end} of its storage"
            raise self._broken(name, tensor, message, f"0 to {tensor.storage.nbytes}")
        return layout

    def _extent(self, name: str, tensor: Tensor, layout: _Layout, itemsize: int) -> Extent:
        member = self._member(name, tensor)
        start, nbytes = tensor.offset * itemsize, layout.elements * itemsize
        if layout.in_c_order:
            return self._within(member, start, nbytes)
        if layout.elements > layout.span:
            message = "was expanded: its elements share memory"
            raise self._unsupported(name, tensor, message, "tensor.contiguous(), saved again")
        source = self._archive.source
        if not member.stored or not isinstance(source, FileSource):
            message = f"lies with strides {brief(tensor.strides)} in a compressed storage"
            raise self._unsupported(name, tensor, message, "tensor.contiguous(), or an archive that is not compressed")
        strided = StridedSource(source, member.start + start, itemsize, tensor.shape, tensor.strides)
        return self.joiner.add(strided, 0, nbytes)

    def _member(self, name: str, tensor: Tensor) -> Member:
        wanted = f"{self._root}/data/{tensor.storage.key}"
        member = self._archive.members.get(wanted)
        if member is None:
            raise self._broken(name, tensor, f"its storage {brief(wanted)} is not there", "it in the archive")
        if member.size != tensor.storage.nbytes:
            message = f"its storage {brief(wanted)} has {member.size} bytes"
            raise self._broken(name, tensor, message, f"{tensor.storage.nbytes}, as the pickle says")
        return member

    def _within(self, member: Member, offset: int, nbytes: int) -> Extent:
        if member.stored:
            return Extent(0, member.start + offset, nbytes)
        # Tensors that share a storage share what inflates it.
        whole = self._inflated.get(member.name)
        if whole is None:
            whole = self._inflated[member.name] = self._archive.extent(member, 0, member.size, self.joiner)
        return Extent(whole.source, whole.offset + offset, nbytes)

    def _broken(self, name: str, tensor: Tensor, message: str, expected: str) -> FormatError:
        return FormatError(message, path=self._archive.source.path, tensor=name, offset=tensor.at, expected=expected)

    def _unsupported(self, name: str, tensor: Tensor, message: str, expected: str) -> UnsupportedFormat:
        path = self._archive.source.path
        return UnsupportedFormat(message, path=path, tensor=name[:80], offset=tensor.at, expected=expected)
