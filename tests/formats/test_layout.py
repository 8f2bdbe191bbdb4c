"""The layout of a sealed segment: aligned, in order, without overlap, in the dtype that was asked for."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats.checkpoint import SourceTensor
from mapcell_formats.dtypes import CODES, FLOATING, ITEMSIZE
from mapcell_formats.layout import ALIGNMENT, PAGE, PAGE_ALIGNED_FROM, align, cast_dtype, common_dtype, plan

_TENSORS = st.lists(
    st.builds(
        SourceTensor,
        st.text("ab", max_size=3),
        st.sampled_from(CODES),
        st.lists(st.integers(0, 1 << 10), max_size=3).map(tuple),
        st.just(()),
    ),
    max_size=20,
)


@given(tensors=_TENSORS, target=st.none() | st.sampled_from(sorted(FLOATING)))
def test_plan(tensors: list[SourceTensor], target: str | None) -> None:
    """Every tensor has its place: in the order given, on its boundary, beside the others and within the segment."""
    layout = plan(tensors, target)
    end = 0
    for tensor, entry in zip(tensors, layout.entries, strict=True):
        assert (entry.name, entry.shape, entry.segment) == (tensor.name, tensor.shape, 0)
        assert entry.dtype == cast_dtype(tensor.dtype, target)
        assert entry.nbytes == prod(entry.shape) * ITEMSIZE[entry.dtype]
        assert entry.offset >= end
        assert entry.offset % (PAGE if entry.nbytes >= PAGE_ALIGNED_FROM else ALIGNMENT) == 0
        end = entry.offset + entry.nbytes
    assert end <= layout.nbytes < end + PAGE
    assert layout.nbytes % PAGE == 0


@pytest.mark.parametrize(
    ("shapes", "offsets", "nbytes"),
    [
        ([], [], 0),
        ([(0,)], [0], 0),
        ([(1,), (1,)], [0, 256], 4096),
        ([(64,), (1,)], [0, 256], 4096),
        ([(65,), (1,)], [0, 512], 4096),
        ([(1,), (1 << 18,)], [0, 4096], 4096 + (1 << 20)),
        ([(1,), ((1 << 18) - 1,), (1,)], [0, 256, 256 + (1 << 20)], 4096 + (1 << 20)),
    ],
    ids=["none", "empty", "two", "exactly full", "one over", "a mebibyte", "just under"],
)
def test_offsets(shapes: list[tuple[int, ...]], offsets: list[int], nbytes: int) -> None:
    """Small tensors lie on 256 bytes, those of a mebibyte or more on a page, and the segment ends on a page."""
    layout = plan([SourceTensor(str(i), "F32", shape, ()) for i, shape in enumerate(shapes)])
    assert ([e.offset for e in layout.entries], layout.nbytes) == (offsets, nbytes)


@pytest.mark.parametrize("target", [None, *sorted(FLOATING)])
@pytest.mark.parametrize("dtype", CODES)
def test_cast_dtype(dtype: str, target: str | None) -> None:
    """Only floating tensors take the dtype of a derived version."""
    assert cast_dtype(dtype, target) == (target if target and dtype in FLOATING else dtype)


@pytest.mark.parametrize(("offset", "expected"), [(0, 0), (1, 256), (255, 256), (256, 256), (257, 512), (2**63, 2**63)])
def test_align(offset: int, expected: int) -> None:
    """The first multiple at or after an offset."""
    assert align(offset, 256) == expected


@pytest.mark.parametrize(
    ("dtypes", "name"),
    [
        ({"F32"}, "F32"),
        ({"F32", "I64"}, "F32"),
        ({"I64", "U8", "BF16"}, "BF16"),
        ({"F32", "BF16"}, "mixed"),
        ({"I64"}, "I64"),
        ({"I64", "U8"}, "mixed"),
        (set(), "mixed"),
    ],
)
def test_dtype_of_a_version_is_that_of_its_floats(dtypes: set[str], name: str) -> None:
    """Integers beside floats of one kind do not make a version "mixed": a cast would leave them alone."""
    assert common_dtype(dtypes) == name
