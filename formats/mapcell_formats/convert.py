"""One checkpoint into a file of another format, tensor by tensor.

    to            tensors                                  strings of the checkpoint
    .safetensors  every dtype                              all, as its metadata
    .ckpt         no F8, no complex                        those that came from a .ckpt, at their place
    .npz          what NumPy itself has (no BF16, no F8)   none

Never kept is `crc_num`, MindSpore's checksum of the file that was converted. What is not kept is told. Rules for names
apply to tensors, and to the strings that say something about one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .atomic import write_atomically
from .checkpoint import Checkpoint, SourceTensor
from .ckpt_writer import Encryption, encode_ckpt
from .errors import NotFound, UnsupportedFormat
from .gguf import parse_type_key, type_key
from .gguf_dequantise import dequantised
from .items import DEFAULT_ALIGN, Item, StringItem, TensorItem
from .layout import cast_dtype
from .mindspore_ckpt import int4_key, parse_int4_key, parse_string_key
from .npz_writer import encode_npz
from .pieces import whole
from .renaming import Rename, renamer
from .safetensors_writer import encode_safetensors

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIXES: Mapping[str, str] = {".safetensors": "safetensors", ".ckpt": "ckpt", ".npz": "npz"}
_CHECKSUM_KEY = "crc_num"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written: the format, tensors, bytes of the file, and the checkpoint's strings that it does not hold."""

    format: str
    tensors: int
    nbytes: int
    left_out: tuple[str, ...]


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's suffix means. UnsupportedFormat for any that cannot be written."""
    name = os.fspath(path)
    for suffix, format_name in SUFFIXES.items():
        if name.endswith(suffix):
            return format_name
    expected = "a name that ends in " + " or ".join(SUFFIXES)
    raise UnsupportedFormat("is of no format that can be written", path=name, expected=expected)


def convert(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    align: int = DEFAULT_ALIGN,
    dtype: str | None = None,
    prefix: str = "",
    rename: Rename | None = None,
    encryption: Encryption | None = None,
) -> Conversion:
    """Writes `checkpoint` to `path`, in the format of its suffix, atomically; at most one tensor is held in memory.

    `align` is a power of two that tensors' offsets in the file are multiples of; safetensors allows that only for
    tensors whose size is one too. Floating tensors become `dtype`, quantised ones too. Only tensors whose names start
    with `prefix` are written, without it; `rename` as in `renaming.renamer`. `encryption` is for .ckpt only.

    Raises UnsupportedFormat for what the format cannot hold, FormatError when two tensors get one name, NotFound when
    none is left, StagingFailed when the source cannot be read, ValueError for `align`, OSError as the system has it.
    The old file stays whatever happens.
    """
    target = format_of(path)
    if encryption and target != "ckpt":
        message = f"no .{target} can be encrypted"
        raise UnsupportedFormat(message, path=os.fspath(path), expected="a name that ends in .ckpt")
    if dtype:
        checkpoint = dequantised(checkpoint)
    rule = renamer(rename, prefix)
    tensors = [(name, tensor) for tensor in checkpoint.tensors if (name := rule(tensor.name)) is not None]
    if not tensors and checkpoint.tensors:
        where = checkpoint.sources[0].path
        raise NotFound(f"{where}: no tensor is left; the names begin with {checkpoint.tensors[0].name!r}", path=where)
    items = [_item(checkpoint, tensor, name, dtype) for name, tensor in tensors]
    kept = _strings(checkpoint.metadata, target, rule)
    if target != "safetensors":
        _refuse_blocks(checkpoint, tensors, target)
    written = write_atomically(path, _encoder(target, items, kept, align, encryption))
    left_out = tuple(key for key in checkpoint.metadata if key not in kept)
    return Conversion(target, len(items), written, left_out)


def _item(checkpoint: Checkpoint, tensor: SourceTensor, name: str, dtype: str | None) -> TensorItem:
    target = cast_dtype(tensor.dtype, dtype)
    return TensorItem(name, target, tensor.shape, partial(whole, checkpoint.sources, tensor, target))


def _strings(metadata: Mapping[str, str], target: str, rule: Callable[[str], str | None]) -> dict[str, tuple[str, str]]:
    """The strings to keep: key before -> key afterwards and text."""
    kept = {}
    for key, text in metadata.items():
        if target == "safetensors" and key != _CHECKSUM_KEY:
            if (renamed := _renamed(key, rule)) is not None:
                kept[key] = renamed, text
        elif target == "ckpt" and parse_string_key(key):
            kept[key] = key, text
    return kept


def _renamed(key: str, rule: Callable[[str], str | None]) -> str | None:
    """A string's key afterwards; None when it is about a tensor that is left out."""
    for parse, make in ((parse_type_key, type_key), (parse_int4_key, int4_key)):
        if (tensor := parse(key)) is not None:
            name = rule(tensor)
            return None if name is None else make(name)
    return key


def _refuse_blocks(checkpoint: Checkpoint, tensors: list[tuple[str, SourceTensor]], target: str) -> None:
    if checkpoint.format != "gguf":
        return
    for _, tensor in tensors:
        if blocks := checkpoint.metadata.get(type_key(tensor.name)):
            message, expected = (
                f"is quantised as {blocks}, which no .{target} can tell",
                "dtype float32, or safetensors",
            )
            raise UnsupportedFormat(message, path=checkpoint.sources[0].path, tensor=tensor.name, expected=expected)


def _encoder(
    target: str,
    items: list[TensorItem],
    kept: Mapping[str, tuple[str, str]],
    align: int,
    encryption: Encryption | None,
) -> Iterator[Buffer]:
    match target:
        case "safetensors":
            return encode_safetensors(items, dict(kept.values()), align=align)
        case "ckpt":
            return encode_ckpt(_interleaved(items, kept), align=align, encryption=encryption)
        case _:
            return encode_npz(items, align=align)


def _interleaved(items: list[TensorItem], kept: Mapping[str, tuple[str, str]]) -> Iterator[Item]:
    """Tensors, and between them the strings, where they stood."""
    places = [(*place, text) for key, text in kept.values() if (place := parse_string_key(key))]
    strings = sorted(places, key=lambda place: place[0])
    for number, item in enumerate(items):
        while strings and strings[0][0] <= number:
            yield StringItem(*strings.pop(0)[1:])
        yield item
    yield from (StringItem(name, text) for _, name, text in strings)
