"""One checkpoint format into the other, and checkpoints in several files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..nn.cell import Cell
from .loading import load_checkpoint
from .matching import load_param_into_net
from .saving import save_checkpoint


def ckpt_to_safetensors(
    file_path: str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None = None,
    name_map: Mapping[str, str] | None = None,
    file_name_regex: str | None = None,
    processes_num: int = 1,
) -> None:
    """Converts a .ckpt file, or all in a folder, to safetensors in `save_path` (default: beside it).

    `name_map` renames tensors; `file_name_regex` chooses files of a folder; `processes_num` is accepted. Strings, which
    safetensors cannot hold, are left out. ValueError when there is nothing to convert, or as ``load_checkpoint``.
    """
    del processes_num
    _convert(file_path, save_path, name_map, file_name_regex, "ckpt", "safetensors")


def safetensors_to_ckpt(
    file_path: str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None = None,
    name_map: Mapping[str, str] | None = None,
    file_name_regex: str | None = None,
    processes_num: int = 1,
) -> None:
    """Converts a safetensors file, or all in a folder, to .ckpt; arguments as ``ckpt_to_safetensors``."""
    del processes_num
    _convert(file_path, save_path, name_map, file_name_regex, "safetensors", "ckpt")


def _convert(
    file_path: str | os.PathLike[str],
    save_path: str | os.PathLike[str] | None,
    name_map: Mapping[str, str] | None,
    file_name_regex: str | None,
    source: str,
    target: str,
) -> None:
    renamed = name_map or {}
    for path in _files(os.fspath(file_path), source, file_name_regex):
        tensors = {renamed.get(n, n): v for n, v in load_checkpoint(path).items() if not isinstance(v, str)}
        name = os.path.basename(path)[: -len(source)] + target
        save_checkpoint(tensors, os.path.join(save_path or os.path.dirname(path), name), format=target)


def _files(path: str, ending: str, regex: str | None) -> list[str]:
    """The files to convert, sorted. ValueError when there are none."""
    if not os.path.isdir(path):
        return [path]
    names = [n for n in sorted(os.listdir(path)) if n.endswith(f".{ending}") and (not regex or re.search(regex, n))]
    if not names:
        raise ValueError(f"{path}: there is no .{ending} file in this folder that fits")
    return [os.path.join(path, name) for name in names]


def load_segmented_checkpoints(
    ckpt_file_dir: str | os.PathLike[str],
    net: Cell | None = None,
    strict_load: bool = False,
    filter_prefix: Any = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    specify_prefix: Any = None,
    choice_func: Any = None,
) -> dict[str, Any]:
    """All .ckpt files of a folder as one dict, later files over earlier ones, by name. Arguments and errors as
    ``load_checkpoint``; ValueError when there is no such folder or no .ckpt in it.
    """
    folder = os.fspath(ckpt_file_dir)
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: is no folder")
    merged: dict[str, Any] = {}
    for path in _files(folder, "ckpt", None):
        merged |= load_checkpoint(
            path,
            filter_prefix=filter_prefix,
            dec_key=dec_key,
            dec_mode=dec_mode,
            specify_prefix=specify_prefix,
            choice_func=choice_func,
        )
    if net is not None:
        load_param_into_net(net, merged, strict_load)
    return merged
