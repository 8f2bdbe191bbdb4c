"""The files in tests/data/mindspore and what MindSpore says is in them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mapcell_formats.checkpoint import Checkpoint, SourceTensor
from mapcell_formats.source import read

FOLDER = Path(__file__).parent.parent / "data" / "mindspore"
PLAIN = ("lenet5.ckpt", "lenet5_append.ckpt", "mixed.ckpt", "dtypes.ckpt")
ENCRYPTED = ("lenet5_aes_gcm.ckpt", "lenet5_aes_cbc.ckpt", "lenet5_sm4_cbc.ckpt")


@cache
def facts() -> dict[str, dict[str, Any]]:
    """expected.json: "FILE|TENSOR" -> dtype and shape or value; "FILE" -> key and mode."""
    return dict(json.loads((FOLDER / "expected.json").read_text()))


@cache
def _arrays() -> dict[str, bytes]:
    with np.load(FOLDER / "expected.npz") as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files}


def key_of(file: str) -> bytes:
    """The key that `file` is encrypted with."""
    return str(facts()[file]["key"]).encode()


def mode_of(file: str) -> str:
    """The mode that `file` is encrypted with."""
    return str(facts()[file]["mode"])


def expected(file: str) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of every tensor in `file`; appended values are not among them."""
    found = {}
    for name, fact in facts().items():
        if name.startswith(file + "|") and "shape" in fact:
            found[name.partition("|")[2]] = tuple(fact["shape"]), _arrays()[name]
    return found


def content(checkpoint: Checkpoint, tensor: SourceTensor) -> bytes:
    """The bytes of `tensor`."""
    return b"".join(bytes(read(checkpoint.sources[e.source], e.offset, e.nbytes)) for e in tensor.extents)


def contents(checkpoint: Checkpoint) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of every tensor."""
    return {tensor.name: (tensor.shape, content(checkpoint, tensor)) for tensor in checkpoint.tensors}
