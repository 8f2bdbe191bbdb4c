"""``load_file``: a checkpoint, or a model that the daemon knows, as a dict of tensors over shared pages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch

from ..attaching import attach
from ..mapping import Mode
from .tensors import code_of, tensors_of


def load_file(
    source: str | os.PathLike[str],
    device: str | int | torch.device = "cpu",
    *,
    dtype: Any = None,
    keys: Iterable[str] | None = None,
    prefix: str = "",
    readonly: bool = False,
    daemon: str | None = None,
    timeout: float = 30.0,
) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, without a copy: their bytes are the ones that every process here shares.

    Pages are private and copy-on-write: writing in place changes this process's own copy of the page, for this tensor
    and whatever shares memory with it here, and nobody else's. Map and lease last until the last tensor is gone. The
    arguments that are not named below are those of ``attach``.

    Args:
        source: a path as ``attach`` takes one (a str that starts with / ./ ../ ~, or an os.PathLike), else the name of
            a model that the daemon knows.
        device: where the tensors are wanted; any other than the CPU gets copies. To a CUDA device they go straight from
            the shared pages when mapcell[cuda] is installed.
        dtype: floating tensors are cast to it: once, in the daemon, for all. A torch dtype or a name.
        readonly: no private pages at all. torch cannot protect a tensor: writing into one of these, in place, by an
            optimizer or as an out=, is a segmentation fault that ends the process.

    Raises:
        What ``attach`` raises.
    """
    place = torch.device(device)
    mode: Mode = "r" if readonly or place.type != "cpu" else "c"
    with attach(source, code_of(dtype), keys, prefix, mode=mode, daemon=daemon, timeout=timeout) as weights:
        if place.type == "cuda":
            from .devices import uploaded

            if tensors := uploaded(weights, list(weights), place):
                return tensors
        tensors = dict(tensors_of(weights))
    if place.type == "cpu":
        return tensors
    return {name: tensor.to(place) for name, tensor in tensors.items()}
