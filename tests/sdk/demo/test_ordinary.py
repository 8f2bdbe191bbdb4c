"""The two ordinary ways give the right arrays, and take the memory that they are said to take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mapcell.demo.measure import mapping_at
from mapcell.demo.ordinary import map_file, read_copy

Reader = Callable[[Path, str | None], dict[str, NDArray[np.generic]]]
TENSORS = {
    "f32": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "bf16": np.array([1.5, -2.25], ml_dtypes.bfloat16),
    "f16": np.array([[0.5]], np.float16),
    "i64": np.arange(5),
    "empty": np.empty((0, 3), np.float32),
    "scalar": np.array(3.0, np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint with metadata and several dtypes."""
    path = tmp_path / "m.safetensors"
    save_file(TENSORS, path, metadata={"format": "np"})
    return path


@pytest.mark.parametrize("read", [read_copy, map_file])
def test_as_it_is(path: Path, read: Reader) -> None:
    """Names, dtypes, shapes and elements are those that were written."""
    got = read(path, None)
    assert got.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert type(got[name]) is np.ndarray
        assert got[name].dtype == array.dtype
        assert np.array_equal(got[name], array)


@pytest.mark.parametrize("read", [read_copy, map_file])
def test_converted(path: Path, read: Reader) -> None:
    """Floating tensors are converted, bfloat16 among them; integers are not."""
    got = read(path, "float32")
    assert {name: array.dtype.name for name, array in got.items()} == {
        name: "int64" if name == "i64" else "float32" for name in TENSORS
    }
    assert got["bf16"].tolist() == [1.5, -2.25]


def test_map_is_of_the_file(path: Path) -> None:
    """The mapped arrays lie in a map of the file and are read-only; the copies lie elsewhere."""
    mapped, copied = map_file(path)["f32"], read_copy(path)["f32"]
    assert mapping_at(mapped.ctypes.data).name == str(path)
    assert not mapped.flags.writeable
    assert mapping_at(copied.ctypes.data).name != str(path)
