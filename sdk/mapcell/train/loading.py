"""``load_checkpoint``: a checkpoint file as a dict of Parameters that are views of it.

The file is attached, through the daemon when one answers, and each Parameter holds an entry of it: no tensor is read
before it is used.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.load_checkpoint.html
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mapcell_formats.errors import AccessDenied, FormatError, NotFound, StagingFailed

from ..common.parameter import named_parameter
from ..kernels.promotion import Array
from ..nn.cell import Cell
from ..storage import SharedView
from .matching import load_param_into_net

if TYPE_CHECKING:
    from ..weights import Weights

FORMATS = ("ckpt", "safetensors")
# What the readers call the two.
_READER_NAMES = {"ckpt": "mindspore", "safetensors": "safetensors"}
Prefixes = str | list[str] | tuple[str, ...] | None
Choice = Callable[[str], Any]


def load_checkpoint(
    ckpt_file_name: str | os.PathLike[str] | io.BytesIO,
    net: Cell | None = None,
    strict_load: bool = False,
    filter_prefix: Prefixes = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    specify_prefix: Prefixes = None,
    choice_func: Choice | None = None,
    crc_check: bool = False,
    remove_redundancy: bool = False,
    format: str | None = None,
) -> dict[str, Any]:
    """The tensors of a checkpoint by name, as Parameters that share the file's bytes, and its strings as str.

    Args:
        ckpt_file_name: path of a .ckpt or .safetensors file; a BytesIO with safetensors in it.
        net: network to load them into, with ``load_param_into_net(net, ..., strict_load, remove_redundancy)``.
        filter_prefix, specify_prefix: leave out, or take only, names that start with one of these; `choice_func` then
            counts for nothing.
        dec_key, dec_mode: key of 16, 24 or 32 bytes, and "AES-GCM", "AES-CBC" or "SM4-CBC".
        choice_func: takes a name and tells whether to load it.
        crc_check: reads the whole file and compares its checksum if it has one.
        format: "ckpt" or "safetensors"; without it the name's ending decides.

    Returns:
        A dict in the file's order (.ckpt) or sorted by name (safetensors).

    Raises:
        ValueError: whatever is wrong with the file, its name, its key or the filters, or nothing is left to load.
        TypeError: a file name or prefix of another type; what ``load_param_into_net`` raises.
        RuntimeError: shapes or dtypes that do not fit `net`.
    """
    _check_flags(dec_key, dec_mode, crc_check, choice_func)
    wanted = _filter(
        _prefixes(specify_prefix, "specify_prefix"), _prefixes(filter_prefix, "filter_prefix"), choice_func
    )
    if net is not None and not isinstance(net, Cell):
        raise TypeError(f"load_checkpoint: 'net' has to be a Cell, not {type(net).__name__}")
    try:
        weights, chosen = _opened(ckpt_file_name, format, dec_key, dec_mode, crc_check)
    except (NotFound, AccessDenied, StagingFailed, FormatError) as exc:
        # MindSpore has one exception for whatever is wrong with a file, and networks catch that one.
        raise ValueError(f"load_checkpoint: {exc}; failed to load the checkpoint file") from exc
    loaded = {name: value for name, value in _contents(weights, chosen) if wanted(name)}
    if not loaded:
        raise ValueError(f"{weights.source}: the loaded parameter dict is empty after filter or specify; check them")
    if net is not None:
        load_param_into_net(net, loaded, strict_load, remove_redundancy)
    return loaded


def load_checkpoint_async(*args: Any, **kwargs: Any) -> Any:
    """``load_checkpoint`` in a thread: an object whose ``result()`` is the dict, or raises."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(load_checkpoint, *args, **kwargs)
    pool.shutdown(wait=False)
    return future


# --- Arguments


def _check_flags(dec_key: object, dec_mode: object, crc_check: object, choice_func: object) -> None:
    if dec_key is not None and not isinstance(dec_key, bytes):
        raise ValueError(f"load_checkpoint: 'dec_key' has to be bytes or None, not {type(dec_key).__name__}")
    if not isinstance(dec_mode, str):
        raise ValueError(f"load_checkpoint: 'dec_mode' has to be a str, not {type(dec_mode).__name__}")
    if not isinstance(crc_check, bool):
        raise ValueError(f"load_checkpoint: 'crc_check' has to be a bool, not {type(crc_check).__name__}")
    if choice_func is not None and not callable(choice_func):
        raise ValueError(f"load_checkpoint: 'choice_func' has to be callable, not {type(choice_func).__name__}")


def _check_key_fits(dec_key: bytes | None, chosen: str) -> None:
    if dec_key is not None and chosen == "safetensors":
        raise ValueError("load_checkpoint: safetensors files are not encrypted; leave 'dec_key' out")


def _checked_path(name: object, format: str | None) -> tuple[str, str]:
    """The absolute path and the format. TypeError for what is no path, ValueError for an ending that does not fit."""
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"load_checkpoint: 'ckpt_file_name' has to be a str or path, not {type(name).__name__}")
    text = os.fspath(name)
    if not isinstance(text, str):
        raise TypeError(f"load_checkpoint: 'ckpt_file_name' has to be a str or path, not {type(text).__name__}")
    if format is not None and format not in FORMATS:
        raise ValueError(f"load_checkpoint: 'format' is 'ckpt' or 'safetensors', not {format!r}")
    fitting = [known for known in FORMATS if text.endswith(known) and format in (None, known)]
    if not fitting:
        expected = f"'{format}'" if format else "'.ckpt' or '.safetensors'"
        raise ValueError(
            f"load_checkpoint: the file format must be the same as 'format': {text!r} ends not in {expected}"
        )
    return os.path.abspath(text), fitting[0]


def _prefixes(given: object, argument: str) -> tuple[str, ...]:
    if given is None:
        return ()
    items = (given,) if isinstance(given, str) else given
    if not isinstance(items, tuple | list) or not all(isinstance(item, str) for item in items):
        raise TypeError(f"load_checkpoint: {argument!r} has to be a str or a list or tuple of these, not {given!r}")
    if not items or not all(items):
        raise ValueError(f"load_checkpoint: {argument!r} has to be something that a name can start with, not {given!r}")
    return tuple(items)


def _filter(only: tuple[str, ...], without: tuple[str, ...], choice: Choice | None) -> Callable[[str], bool]:
    if only or without:
        return lambda name: (not only or name.startswith(only)) and not (without and name.startswith(without))
    if choice is None:
        return lambda name: True
    return lambda name: _chosen(choice, name)


def _chosen(choice: Choice, name: str) -> bool:
    try:
        return bool(choice(name))
    except Exception as exc:  # whatever the caller's function raises, MindSpore answers with a ValueError
        raise ValueError(f"{exc}; 'choice_func' failed for {name!r}: failed to load the checkpoint file") from exc


# --- The file


def _opened(
    name: object, format: str | None, dec_key: bytes | None, dec_mode: str, crc_check: bool
) -> tuple[Weights, str]:
    """The attached file and its format."""
    if isinstance(name, io.BytesIO):
        return _attached_buffer(name, format), "safetensors"
    path, chosen = _checked_path(name, format)
    _check_key_fits(dec_key, chosen)
    weights = _attached(path, chosen, dec_key, dec_mode)
    if crc_check:
        _verify_crc(path, weights, chosen)
    return weights, chosen


def _attached(path: str, chosen: str, dec_key: bytes | None, dec_mode: str) -> Weights:
    from ..attaching import attach

    if dec_key is None:
        weights = attach(path)
    else:
        weights = attach(path, daemon="never", _decryption=(dec_key, dec_mode))
    if weights.format != _READER_NAMES[chosen]:
        weights.close()
        raise FormatError(f"holds {weights.format}; its name says otherwise", path=path, expected=chosen)
    return weights


def _attached_buffer(buffer: io.BytesIO, format: str | None) -> Weights:
    if format != "safetensors":
        raise TypeError("load_checkpoint: a BytesIO has to hold safetensors, and format='safetensors' has to say so")
    fd = os.memfd_create("mapcell-bytes", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(buffer.getbuffer())
        from ..attaching import attach

        return attach(f"/proc/self/fd/{fd}", daemon="never")
    finally:
        os.close(fd)


def _contents(weights: Weights, chosen: str) -> Iterator[tuple[str, Any]]:
    """(name, Parameter or str) in the order that MindSpore has."""
    if chosen == "safetensors":
        for entry in sorted(weights.entries(), key=lambda e: e.name):
            yield entry.name, named_parameter(SharedView(weights, entry), entry.name)
        return
    strings = _strings(weights.metadata) if weights.metadata else {}
    number = -1
    for number, entry in enumerate(weights.entries()):
        yield from strings.get(number, ())
        yield entry.name, named_parameter(SharedView(weights, entry), entry.name.strip())
    yield from strings.get(number + 1, ())


def _strings(metadata: Mapping[str, str]) -> dict[int, list[tuple[str, str]]]:
    """The (name, text) of a .ckpt's strings by how many tensors stand before them."""
    from mapcell_formats.mindspore_ckpt import parse_string_key

    strings: dict[int, list[tuple[str, str]]] = {}
    for key, text in metadata.items():
        parsed = parse_string_key(key)
        if parsed is not None:
            strings.setdefault(parsed[0], []).append((parsed[1], text))
    return strings


def _verify_crc(path: str, weights: Weights, chosen: str) -> None:
    if chosen == "ckpt":
        from mapcell_formats.mindspore_ckpt import verify_crc
        from mapcell_formats.source import FileSource

        with FileSource.open(path) as source:
            verify_crc(source)
        return
    stored = weights.metadata.get("crc_num")
    if stored is None:
        return
    found = str(safetensors_crc((name, contents_of(weights[name])) for name in sorted(weights)))
    if stored != found:
        raise FormatError(f"the CRC-32 of the contents is {found}", path=path, expected=f"{stored}, as it says")


def safetensors_crc(tensors: Iterable[tuple[str, memoryview]]) -> int:
    """The checksum that MindSpore keeps in the metadata: zlib.crc32 over each name and its bytes, sorted by name."""
    import zlib

    crc = 0
    for name, contents in tensors:
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(contents, crc)
    return crc


def contents_of(array: Array) -> memoryview:
    """The bytes of an array, row by row; copied only if they do not lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
