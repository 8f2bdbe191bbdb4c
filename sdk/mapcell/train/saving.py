"""``save_checkpoint``: networks, Parameters and what belongs to them into a .ckpt or safetensors file.

The file is complete or not there: it is written beside its place and renamed. Tensors are aligned in it, so that it can
be mapped as it lies; MindSpore reads it too.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.save_checkpoint.html
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mapcell_formats.dtypes import code_of
from mapcell_formats.errors import FormatError
from mapcell_formats.items import Item, StringItem, TensorItem

from ..common.parameter import Parameter
from ..common.tensor import Tensor, unwrap
from ..nn.cell import Cell
from .loading import FORMATS, contents_of, safetensors_crc


def save_checkpoint(
    save_obj: Any,
    ckpt_file_name: str | os.PathLike[str],
    integrated_save: bool = True,
    async_save: bool | str = False,
    append_dict: Mapping[str, Any] | None = None,
    enc_key: bytes | None = None,
    enc_mode: str = "AES-GCM",
    choice_func: Callable[[str], Any] | None = None,
    crc_check: bool = False,
    format: str = "ckpt",
    **kwargs: Any,
) -> None:
    """Writes a checkpoint. Lazy Parameters are initialised first.

    Args:
        save_obj: a Cell (Parameters by their names), a list of Parameters, a list of ``{"name": str, "data": Tensor}``,
            or a dict of names and Parameters, Tensors, ndarrays or strings. Of equal names in a list the last counts.
        ckpt_file_name: path; ".ckpt" or ".safetensors" is added unless it ends with the format's name.
        async_save: True, "thread" or "process" write in a thread, which the interpreter waits for at exit.
        append_dict: more names and ints (Int64), floats (Float32), bools, strings (.ckpt only), Tensors, Parameters.
        enc_key, enc_mode: key of 16, 24 or 32 bytes and "AES-GCM", "AES-CBC" or "SM4-CBC" (.ckpt only).
        choice_func: takes a name and tells whether to save it.
        crc_check: adds a checksum.
        format: "ckpt" or "safetensors".
        integrated_save, kwargs: for clusters; checked or ignored.

    Raises:
        TypeError: `save_obj`, `append_dict` or a flag of another type; a dtype that no checkpoint holds.
        ValueError: a format, key or mode that there is not, a checksum together with a key, or nothing to save.
        IsADirectoryError, FileNotFoundError, PermissionError: the file cannot be written there.
    """
    del kwargs
    _check_flags(integrated_save, async_save, enc_key, crc_check, format)
    path = _path(ckpt_file_name, format)
    named = _named(save_obj) | _appended(append_dict)
    if choice_func is not None:
        named = {name: value for name, value in named.items() if choice_func(name)}
    if not named:
        raise ValueError("save_checkpoint: there is nothing to save; the file would be empty and could not be loaded")
    items = [_item(name, value) for name, value in named.items()]
    try:
        chunks = _encoder(items, format, crc_check, enc_key, enc_mode)
        if async_save is False:
            _write(path, chunks)
        else:
            _write_in_thread(path, items, lambda own: _encoder(own, format, crc_check, enc_key, enc_mode))
    except FormatError as exc:
        # As MindSpore: what cannot be written in this format, or with this key, is a plain ValueError.
        raise ValueError(f"save_checkpoint: {exc}") from exc


def _check_flags(integrated: object, async_save: object, enc_key: object, crc_check: object, format: object) -> None:
    if not isinstance(integrated, bool):
        raise TypeError(f"save_checkpoint: 'integrated_save' has to be a bool, not {type(integrated).__name__}")
    if not isinstance(async_save, bool | str):
        raise TypeError(f"save_checkpoint: 'async_save' has to be a bool or str, not {type(async_save).__name__}")
    if isinstance(async_save, str) and async_save not in ("thread", "process"):
        raise ValueError(f"save_checkpoint: 'async_save' is a bool, 'thread' or 'process', not {async_save!r}")
    if enc_key is not None and not isinstance(enc_key, bytes):
        raise ValueError(f"save_checkpoint: 'enc_key' has to be bytes or None, not {type(enc_key).__name__}")
    if not isinstance(crc_check, bool):
        raise ValueError(f"save_checkpoint: 'crc_check' has to be a bool, not {type(crc_check).__name__}")
    if format not in FORMATS:
        raise ValueError(f"save_checkpoint: 'format' is 'ckpt' or 'safetensors', not {format!r}")
    if enc_key is not None and crc_check:
        raise ValueError("save_checkpoint: give 'enc_key' or 'crc_check'; a file with both cannot be read back")
    if enc_key is not None and format == "safetensors":
        raise ValueError("save_checkpoint: safetensors files cannot be encrypted; use format='ckpt'")


def _path(name: object, format: str) -> str:
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"save_checkpoint: 'ckpt_file_name' has to be a str or path, not {type(name).__name__}")
    text = os.fspath(name)
    if not text:
        raise ValueError("save_checkpoint: 'ckpt_file_name' is empty")
    if os.path.isdir(text):
        raise IsADirectoryError(f"save_checkpoint: {text!r} is a folder; give a file name in it")
    return text if text.endswith(format) else f"{text}.{format}"


# --- What to write


def _named(save_obj: Any) -> dict[str, Any]:
    if isinstance(save_obj, Cell):
        return {p.name: p for p in save_obj.get_parameters()}
    if isinstance(save_obj, Mapping):
        return {_checked_name(name): _checked_value(name, value) for name, value in save_obj.items()}
    if isinstance(save_obj, list | tuple):
        return dict(_listed(item) for item in save_obj)
    raise TypeError(f"save_checkpoint: 'save_obj' has to be a Cell, list or dict, not {type(save_obj).__name__}")


def _listed(item: Any) -> tuple[str, Any]:
    if isinstance(item, Parameter):
        return item.name, item
    if isinstance(item, Mapping) and {"name", "data"} <= item.keys():
        return _checked_name(item["name"]), _checked_value(item["name"], item["data"])
    raise TypeError(
        "save_checkpoint: a list has to hold Parameters or {'name': ..., 'data': ...}, "
        f"not {type(item).__name__} {item!r}"
    )


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"save_checkpoint: a name has to be a str, not {type(name).__name__}")
    return name


def _checked_value(name: str, value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | str):
        return value
    raise TypeError(
        f"save_checkpoint: {name!r} has to be a Parameter, Tensor, ndarray or str, not {type(value).__name__}"
    )


def _appended(append_dict: Any) -> dict[str, Any]:
    if append_dict is None:
        return {}
    if not isinstance(append_dict, Mapping):
        raise TypeError(f"save_checkpoint: 'append_dict' has to be a dict, not {type(append_dict).__name__}")
    return {_checked_name(name): _appended_value(name, value) for name, value in append_dict.items()}


def _appended_value(name: str, value: Any) -> Any:
    if isinstance(value, Tensor | str):
        return value
    if isinstance(value, bool | int):
        return np.array(value)
    if isinstance(value, float):
        return np.array(value, np.float32)
    raise TypeError(
        f"save_checkpoint: append_dict[{name!r}] has to be an int, float, bool, str, Parameter or Tensor, "
        f"not {type(value).__name__}"
    )


def _item(name: str, value: Any) -> Item:
    if isinstance(value, str):
        return StringItem(name, value)
    array = unwrap(value) if isinstance(value, Tensor) else value
    try:
        code = code_of(array.dtype)
    except KeyError:
        raise TypeError(f"save_checkpoint: {name!r} is {array.dtype}, which no checkpoint holds") from None
    return TensorItem(name, code, array.shape, contents_of(array))


# --- Writing


def _encoder(items: list[Item], format: str, crc: bool, key: bytes | None, mode: str) -> Iterator[Any]:
    if format == "safetensors":
        from mapcell_formats.safetensors_writer import encode_safetensors

        return encode_safetensors(items, _metadata(items, crc))
    from mapcell_formats.ckpt_writer import Encryption, encode_ckpt

    return encode_ckpt(items, crc=crc, encryption=None if key is None else Encryption(key, mode))


def _metadata(items: list[Item], crc: bool) -> dict[str, str]:
    metadata = {"format": "ms"}
    if crc:
        tensors = sorted((i for i in items if isinstance(i, TensorItem)), key=lambda i: i.name)
        metadata["crc_num"] = str(safetensors_crc((i.name, i.view()) for i in tensors))
    return metadata


def _write(path: str, chunks: Iterator[Any]) -> None:
    from mapcell_formats.atomic import write_atomically

    write_atomically(path, chunks)


def _write_in_thread(path: str, items: list[Item], encode: Callable[[list[Item]], Iterator[Any]]) -> None:
    from threading import Thread

    # The caller may go on changing its arrays.
    own = [TensorItem(i.name, i.dtype, i.shape, bytes(i.view())) if isinstance(i, TensorItem) else i for i in items]
    Thread(target=lambda: _write(path, encode(own)), name="mapcell-save").start()
