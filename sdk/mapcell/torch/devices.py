"""Tensors on a CUDA device, brought there by ``mapcell.cuda`` and taken over by torch without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.dlpack import from_dlpack

from mapcell_formats.errors import DeviceUnavailable

from ..cuda.tensor import DeviceTensor
from ..cuda.uploading import upload
from .tensors import DTYPES

if TYPE_CHECKING:
    from ..weights import Weights


def from_device(tensor: DeviceTensor) -> torch.Tensor:
    """`tensor` as a torch tensor over the same memory, safe to use on torch's current stream of that device.

    The bytes cross as bytes: not every torch takes every dtype by DLPack.
    """
    dtype = DTYPES[tensor.dtype]
    return from_dlpack(tensor.raw()).view(dtype).reshape(tensor.shape)


def uploaded(weights: Weights, names: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors `names` of `weights` on `device`. None at all where cuda-bindings is not installed.

    Raises what ``mapcell.cuda.upload`` raises for a device that is there.
    """
    number = device.index if device.index is not None else torch.cuda.current_device()
    try:
        tensors = upload(weights, number, names)
    except DeviceUnavailable:
        # torch has a way of its own, or the better words for why there is none.
        return {}
    found = {name: from_device(tensor) for name, tensor in tensors.items()}
    # What cannot arrive is an error here, and not at some later use.
    tensors.wait()
    return found
