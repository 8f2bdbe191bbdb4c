"""Dtype objects."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import mapcell as ms
from mapcell.common import dtype as mstype

NAMES = [
    ("bool_", "Bool", np.bool_),
    ("int8", "Int8", np.int8),
    ("uint16", "UInt16", np.uint16),
    ("int64", "Int64", np.int64),
    ("float16", "Float16", np.float16),
    ("float32", "Float32", np.float32),
    ("float64", "Float64", np.float64),
    ("bfloat16", "BFloat16", ml_dtypes.bfloat16),
    ("float8_e4m3fn", "Float8E4M3FN", ml_dtypes.float8_e4m3fn),
    ("float8_e5m2", "Float8E5M2", ml_dtypes.float8_e5m2),
    ("complex64", "Complex64", np.complex64),
]


@pytest.mark.parametrize(("name", "title", "scalar"), NAMES)
def test_names_and_numpy_types(name, title, scalar):
    """A dtype prints its title, has its import path as repr, and knows NumPy's type."""
    dtype = getattr(ms, name)
    assert (str(dtype), repr(dtype)) == (title, f"mapcell.{name}")
    assert ms.dtype_to_nptype(dtype) is scalar
    assert ms.Tensor(np.zeros(1, scalar)).dtype is dtype


@pytest.mark.parametrize("dtype", mstype.all_types, ids=str)
def test_there_is_one_object_of_each(dtype):
    """Copies and pickles are the dtype itself, and it equals nothing else."""
    assert copy.deepcopy(dtype) is copy.copy(dtype) is pickle.loads(pickle.dumps(dtype)) is dtype
    assert dtype != str(dtype)
    assert len({dtype, dtype}) == 1


def test_python_types():
    """Python's types map as MindSpore maps them."""
    assert ms.pytype_to_dtype(float) is ms.float64
    assert ms.pytype_to_dtype(int) is ms.int64
    assert ms.pytype_to_dtype(bool) is ms.bool_
    assert ms.pytype_to_dtype(np.float16) is ms.float16
    assert [ms.dtype_to_pytype(t) for t in (ms.bool_, ms.uint8, ms.bfloat16, ms.complex64)] == [
        bool,
        int,
        float,
        complex,
    ]
    with pytest.raises(NotImplementedError):
        ms.pytype_to_dtype(str)


def test_import_paths_are_one_module():
    """`mapcell.dtype` and `mapcell.common.dtype` are the same."""
    import mapcell.dtype

    assert mapcell.dtype is mstype is ms.dtype


def test_foreign_types_are_refused():
    """NumPy's dtypes are no mapcell dtypes, and some cannot be held."""
    with pytest.raises(TypeError, match="mapcell dtype"):
        ms.Tensor([1], np.float32)
    with pytest.raises(TypeError, match="cannot hold"):
        ms.Tensor(np.array(["a"]))
    with pytest.raises(TypeError, match="cannot hold"):
        ms.Tensor(np.zeros(1, np.longdouble))
