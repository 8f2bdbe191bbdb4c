"""Tensors that do not lie in C order are read as if they did."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats.errors import StagingFailed
from mapcell_formats.source import FileSource, read
from mapcell_formats.strided import StridedSource, c_strides, in_c_order, span

ORDERS: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [
    ((), (), True),
    ((4,), (1,), True),
    ((4,), (2,), False),
    ((2, 3), (3, 1), True),
    ((2, 3), (1, 2), False),
    ((1, 3), (99, 1), True),
    ((3, 1), (1, 99), True),
    ((0, 3), (1, 1), True),
    ((2, 3), (4, 1), False),
    ((2, 3, 4), (12, 4, 1), True),
    ((2, 3, 4), (12, 1, 3), False),
]


@pytest.mark.parametrize(("shape", "strides", "wanted"), ORDERS, ids=str)
def test_order(shape: tuple[int, ...], strides: tuple[int, ...], wanted: bool) -> None:
    """C order is told by the strides of the dimensions that have more than one element."""
    assert in_c_order(shape, strides) is wanted


@given(st.lists(st.integers(0, 5), max_size=4), st.randoms())
def test_against_numpy(shape: list[int], random: object) -> None:
    """Strides and spans of transposed arrays are what NumPy has for them."""
    axes = list(range(len(shape)))
    random.shuffle(axes)  # type: ignore[attr-defined]
    array = np.zeros([shape[a] for a in axes], np.uint8).transpose(np.argsort(axes))
    assert c_strides(shape) == tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    if array.size:
        assert in_c_order(shape, array.strides) is bool(array.flags.c_contiguous)
        assert span(shape, array.strides) == array.size
    else:
        assert span(shape, c_strides(shape)) == 0


def test_threads_and_pieces(tmp_path: Path) -> None:
    """A transposed tensor far from the file's start, read in pieces and out of order, is what NumPy makes of it."""
    base = np.random.default_rng(2).integers(0, 255, 10_000, np.uint8)
    path = tmp_path / "x"
    base.tofile(path)
    wanted = base[5002:].view(np.uint16)[: 30 * 70].reshape(70, 30).T.tobytes()
    with FileSource.open(path) as file:
        source = StridedSource(file, 5002, 2, (30, 70), (1, 30))
        assert source.size == len(wanted)
        assert read(source, 0, source.size) == wanted
        for start in (4000, 0, 1, 99, 4199):
            assert read(source, start, min(77, len(wanted) - start)) == wanted[start : start + 77]


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    """A file that was cut after its header was read fails as one that cannot be read to its end."""
    path = tmp_path / "x"
    path.write_bytes(bytes(20_000))
    with FileSource.open(path) as file:
        source = StridedSource(file, 8192, 4, (10, 20), (1, 10))
        os.truncate(path, 8192)
        with pytest.raises(StagingFailed, match="became shorter"):
            read(source, 0, source.size)
