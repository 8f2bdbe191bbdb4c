"""Checkpoints of any size, written in moments: the same tensors in the format of each way that is compared.

All hold `tensors` float tensors of equal size. A *sparse* one has its bytes left out: the file system answers them with
zeros and stores nothing, so that one of 8 GiB costs no more than one of 8 MiB. A *filled* one holds noise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import MIB

Array = np.ndarray[Any, np.dtype[Any]]
_BLOCK = 32 * MIB


@dataclass(frozen=True, slots=True)
class Shape:
    """So many tensors, and how many bytes they take together; each has `columns`, if it has so many elements."""

    tensors: int
    nbytes: int
    itemsize: int = 4
    columns: int = 1024

    @property
    def each(self) -> tuple[int, ...]:
        """The shape of each tensor; two-dimensional when it is large."""
        elements = max(self.nbytes // self.tensors // self.itemsize, 1)
        rows = elements // self.columns
        return (rows, self.columns) if rows else (elements,)

    @property
    def each_nbytes(self) -> int:
        """Bytes of each tensor."""
        return int(np.prod(self.each)) * self.itemsize

    def names(self) -> list[str]:
        """The tensors' names, as deep in a network as usual ones."""
        return [f"model.layers.{i // 8}.block.part_{i % 8}.weight" for i in range(self.tensors)]

    def asked(self, count: int) -> list[str]:
        """`count` of the names, from all over the model."""
        names = self.names()
        step = max(len(names) // count, 1)
        return names[::step][:count]


def noise(nbytes: int, dtype: str = "F32") -> Iterator[memoryview]:
    """Random floating numbers that take so many bytes, a block at a time; the block repeats.

    Their mean is 1 / 2048: layers so wide pass numbers on without making them larger or smaller.
    """
    values = np.random.default_rng(0).random(min(nbytes, _BLOCK) // 4 + 1, np.float32) / np.float32(1024)
    # The upper half of a float32 is a bfloat16.
    block: Array = np.tile(values.view(np.uint16)[1::2], 2) if dtype == "BF16" else values
    view = block.view(np.uint8).data
    while nbytes > 0:
        yield view[:nbytes]
        nbytes -= len(view)


def safetensors_file(
    path: Path, shape: Shape, *, filled: bool = False, dtype: str = "F32", names: Sequence[str] | None = None
) -> Path:
    """A safetensors file, aligned as safetensors' own writer does; with the shape's names unless others are given."""
    each = shape.each_nbytes
    header = {
        name: {"dtype": dtype, "shape": list(shape.each), "data_offsets": [i * each, (i + 1) * each]}
        for i, name in enumerate(names or shape.names())
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        _fill(file, each * shape.tensors, filled, dtype)
    return path


def npy_files(folder: Path, shape: Shape, names: list[str]) -> Path:
    """A folder with one sparse .npy file for each of `names`."""
    folder.mkdir()
    for name in names:
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape.each})
            _fill(file, shape.each_nbytes, False, "F32")
    return folder


def torch_file(path: Path, shape: Shape) -> Path:
    """A sparse state dict, written by torch itself."""
    import torch
    from torch.serialization import skip_data

    # Never touched, so that they take no memory.
    with skip_data():
        torch.save({name: torch.empty(shape.each) for name in shape.names()}, path)
    return path


def _fill(file: Any, nbytes: int, filled: bool, dtype: str) -> None:
    if not filled:
        file.truncate(file.tell() + nbytes)
        return
    for block in noise(nbytes, dtype):
        file.write(block)
    file.flush()
    # What is still on its way to the disk would be written while something else is measured.
    os.fdatasync(file.fileno())
