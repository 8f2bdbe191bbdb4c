"""Which files make up a checkpoint: a file, an index with the files it names, or a folder.

    a file      itself, whatever its name
    an index    told by its content (`index.py`): the index, then its files in the order of their names
    a folder    the first of these that is in it:
                  model.safetensors
                  model.safetensors.index.json, or the one *.safetensors.index.json
                  param_name_map.json                                       MindSpore's index
                  the one *.safetensors
                  NAME-00001-of-00003.safetensors and the rest              all of them, where there is no index
                  pytorch_model.bin, then pytorch_model.bin.index.json
                  the one *.ckpt, *.npz, *.gguf, *.npy, *.pt, *.pth or *.bin, or such parts of one

What is in a folder's folders is not looked at. Source: the order in which transformers' `from_pretrained` looks, and
what `save_pretrained` and MindSpore's `unified_safetensors` write.

Whether a name may be opened, and what symbolic links may do, is the business of the `Folder` that a caller hands in:
a worker opens files as itself, the daemon beneath its configured roots.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from .errors import FormatError, NotFound, UnsupportedFormat
from .limits import HEAD_BYTES
from .record import Record
from .source import FileSource, opens_with_brace, read

# A model's folder holds tens of files; one with more than this is something else.
MAX_NAMES = 100_000

_FIRST = ("model.safetensors", "model.safetensors.index.json")
_MINDSPORE_INDEX = "param_name_map.json"
_TORCH = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ALONE = (".ckpt", ".npz", ".gguf", ".npy", ".pt", ".pth", ".bin")
_SHOWN = 5


class Folder(Protocol):
    """A folder as its caller may see it. `path` is what to call it in an error."""

    @property
    def path(self) -> str: ...

    def names(self) -> Iterable[str]:
        """The names in it, in any order."""
        ...

    def open(self, name: str) -> FileSource:
        """The file `name` in it. FileNotFoundError or NotFound when there is none."""
        ...


class DiskFolder(Record):
    """A folder that this process opens by its path, with its own rights."""

    path: str

    def names(self) -> Iterable[str]:
        """The names in it; OSError as `os.listdir` raises it."""
        return os.listdir(self.path)

    def open(self, name: str) -> FileSource:
        """The file `name` in it; OSError as `os.open` raises it."""
        return FileSource.open(os.path.join(self.path, name))


def open_path(path: str) -> list[FileSource]:
    """The files of the checkpoint at `path`, opened with this process's own rights; the caller owns them.

    OSError when `path` cannot be opened, else as `open_folder` and `with_neighbours`.
    """
    if os.path.isdir(path):
        return open_folder(DiskFolder(path))
    return with_neighbours(FileSource.open(path), DiskFolder(os.path.dirname(path)))


def open_folder(folder: Folder) -> list[FileSource]:
    """The files of the checkpoint in `folder`; the caller owns them.

    UnsupportedFormat, with what to name instead, when it holds none or several; FormatError when files are missing.
    """
    names = choose(folder.path, list(islice(folder.names(), MAX_NAMES)))
    if len(names) == 1:
        return with_neighbours(_open(folder, names[0], folder.path), folder)
    return _open_all([], folder, names, folder.path)


def with_neighbours(source: FileSource, folder: Folder) -> list[FileSource]:
    """`source`, and when it is an index the files of `folder` that it names; the caller owns them, also `source`.

    FormatError when one is not there. `source` is closed when this raises.
    """
    try:
        head = bytes(read(source, 0, min(HEAD_BYTES, source.size)))
        names = _named(source, head) if opens_with_brace(head) else ()
    except BaseException:
        source.close()
        raise
    return _open_all([source], folder, names, source.path)


def _named(source: FileSource, head: bytes) -> tuple[str, ...]:
    """The files that `source` names, which begins as an index does; none when it is something else."""
    # Most checkpoints are no index, and a worker in a hurry imports no parser for one.
    from .index import parse_index
    from .safetensors import READER as SAFETENSORS

    return () if SAFETENSORS.accepts(head, source.size) else parse_index(source).files


def choose(path: str, names: Sequence[str]) -> list[str]:
    """The names, of those in the folder `path`, that make up its checkpoint. Errors as `open_folder`."""
    present = set(names)
    tensors = sorted(name for name in names if name.endswith(".safetensors"))
    indices = sorted(name for name in names if name.endswith(".safetensors.index.json"))
    for group in ([n for n in _FIRST if n in present][:1], indices, [n for n in [_MINDSPORE_INDEX] if n in present]):
        if group:
            return [_only(path, group)]
    if tensors:
        return _parts(path, tensors)
    for name in _TORCH:
        if name in present:
            return [name]
    alone = sorted(name for name in names if name.endswith(_ALONE))
    if not alone:
        raise UnsupportedFormat(
            f"a folder without a checkpoint; it holds {_some(sorted(names)) or 'nothing'}",
            path=path,
            expected="model.safetensors, an index (*.index.json), or one file of weights",
        )
    return _parts(path, alone)


def _only(path: str, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise UnsupportedFormat(
            f"a folder with {len(names)} checkpoints: {_some(names)}", path=path, expected="the path of one of them"
        )
    return names[0]


def _parts(path: str, names: Sequence[str]) -> list[str]:
    """The one name, or all of `names` when they are the parts 1 to n of one checkpoint."""
    import re

    pattern = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})(\.[a-z]+)", re.DOTALL)
    found = [match for match in map(pattern.fullmatch, names) if match]
    families = {(match[1], match[3], match[4]) for match in found}
    if len(found) < len(names) or len(families) > 1:
        return [_only(path, names)]
    stem, count, suffix = families.pop()
    total, numbers = int(count), {int(match[2]) for match in found}
    if missing := next((number for number in range(1, total + 1) if number not in numbers), None):
        part = f"{stem}-{missing:05}-of-{count}{suffix}"
        raise FormatError(f"the part {part} is missing", path=path, expected=f"all {total} parts: download it again")
    from .index import MAX_FILES

    if len(names) > min(total, MAX_FILES):
        raise UnsupportedFormat(f"{len(names)} parts", path=path, expected=f"at most {min(total, MAX_FILES)}")
    return list(names)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _open_all(opened: list[FileSource], folder: Folder, names: Iterable[str], path: str) -> list[FileSource]:
    try:
        for name in names:
            opened.append(_open(folder, name, path))
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened


def _open(folder: Folder, name: str, path: str) -> FileSource:
    try:
        return folder.open(name)
    except (FileNotFoundError, NotFound) as exc:
        message = f"the file {name[:80]} is missing, or a link to it leads nowhere"
        raise FormatError(message, path=path, expected=f"it in {folder.path or 'the same folder'}") from exc
