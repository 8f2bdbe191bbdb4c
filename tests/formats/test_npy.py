"""Arrays that NumPy saved are read with their bytes, and nothing in them is evaluated."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hostile.building import MemorySource, npy_file
from mapcell_formats import npy
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.dtypes import numpy_dtype
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.source import FileSource, read

Array = np.ndarray[Any, np.dtype[Any]]


def saved(array: Array, version: tuple[int, int] | None = None) -> bytes:
    """The bytes that NumPy writes for `array`."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=False)
    return file.getvalue()


def arrays(checkpoint: Checkpoint) -> dict[str, Array]:
    """Every tensor, read through its extents."""
    found = {}
    for tensor in checkpoint.tensors:
        raw = b"".join(bytes(read(checkpoint.sources[e.source], e.offset, e.nbytes)) for e in tensor.extents)
        found[tensor.name] = np.frombuffer(raw, numpy_dtype(tensor.dtype)).reshape(tensor.shape)
    return found


def same(found: Array, wanted: Array) -> bool:
    """Whether both are of one dtype and shape and hold the same bytes in C order."""
    return (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


@pytest.mark.parametrize("dtype", npy.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (3, 0, 2), (2, 1, 3, 1)], ids=str)
def test_every_dtype_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    """Each type of NumPy's that a checkpoint has, in several shapes, lies where the header ends."""
    array = np.frombuffer(np.random.default_rng(0).bytes(256), np.uint8)[: np.zeros(shape, dtype).nbytes]
    wanted = (array & 1 if dtype == "|b1" else array).view(dtype).reshape(shape)
    checkpoint = npy.READER.parse(MemorySource(saved(wanted)))
    assert same(arrays(checkpoint)["arr_0"], wanted)
    assert [type(source) for source in checkpoint.sources] == [MemorySource]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version(version: tuple[int, int]) -> None:
    """The three versions of the header, which differ in its length and encoding."""
    wanted = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert same(arrays(npy.READER.parse(MemorySource(saved(wanted, version))))["arr_0"], wanted)


def test_mapped_in_place(tmp_path: Path) -> None:
    """NumPy pads its header to 64 bytes, so that the array can be used where it lies."""
    np.save(tmp_path / "x.npy", np.arange(5.0))
    with FileSource.open(tmp_path / "x.npy") as source:
        assert npy.READER.parse(source).mappable()


HEADERS = {
    "keys in another order": "{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}",
    "no blanks": "{'descr':'<f4','fortran_order':False,'shape':(2,),}",
    "Python 2's integers": "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,), }\n",
    "no comma in the shape": "{'descr': '<f4', 'fortran_order': True, 'shape': (2)}",
    "long header": "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }" + " " * 9000,
    "blanks everywhere": "{  'descr' : '<f4' , 'fortran_order' :  True , 'shape' : ( 2 , ) , }   \n",
}


@pytest.mark.parametrize("case", HEADERS)
def test_other_writers(case: str) -> None:
    """Headers as other programs and old NumPys write them."""
    checkpoint = npy.READER.parse(MemorySource(npy_file(HEADERS[case], bytes(range(8)))))
    assert checkpoint.tensors[0].shape == (2,)
    assert arrays(checkpoint)["arr_0"].tobytes() == bytes(range(8))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (1, 4, 3), (300, 700)], ids=str)
def test_fortran_order(shape: tuple[int, ...], tmp_path: Path) -> None:
    """An array in Fortran order is read in C order, whole or in pieces that cut its elements."""
    wanted = np.asfortranarray(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    np.save(tmp_path / "x.npy", wanted)
    assert b"'fortran_order': True" in (tmp_path / "x.npy").read_bytes()
    with FileSource.open(tmp_path / "x.npy") as source:
        checkpoint = npy.READER.parse(source)
        assert same(arrays(checkpoint)["arr_0"], wanted)
        assert "tensor 'arr_0' is compressed, encrypted or not in C order" in str(checkpoint.obstacle())
        assert checkpoint.obstructed() == 1
        joined, expected = checkpoint.sources[1], wanted.tobytes()
        for start, stop in ((0, 0), (0, 1), (3, 9), (len(expected) - 5, len(expected)), (1, 7)):
            assert read(joined, start, stop - start) == expected[start:stop]


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1, 1), (0, 3), ()], ids=str)
def test_fortran_order_that_is_c_order(shape: tuple[int, ...]) -> None:
    """With at most one dimension that counts both orders are one, and the array stays where it lies."""
    body = bytes(range(int(np.prod(shape))))
    header = f"{{'descr': '|u1', 'fortran_order': True, 'shape': {shape}, }}"
    checkpoint = npy.READER.parse(MemorySource(npy_file(header, body)))
    assert len(checkpoint.sources) == 1
    assert arrays(checkpoint)["arr_0"].tobytes() == body


UNSUPPORTED: dict[str, tuple[Array, str]] = {
    "big-endian": (np.zeros(2, ">f4"), "big-endian"),
    "text": (np.array(["a"]), "type '<U1'"),
    "bytes": (np.array([b"a"]), "type '|S1'"),
    "dates": (np.zeros(2, "<M8[s]"), "type '<M8[s]'"),
    "complex128": (np.zeros(2, np.complex128), "type '<c16'"),
    "records": (np.zeros(2, [("a", "<f4"), ("b", "<i4", 3)]), "records"),
    "bfloat16": (np.zeros(2, ml_dtypes.bfloat16), "type <V2, as NumPy saves bfloat16"),
    "float8_e4m3fn": (np.zeros(2, ml_dtypes.float8_e4m3fn), "as NumPy saves bfloat16 and float8"),
    "float8_e5m2": (np.zeros(2, ml_dtypes.float8_e5m2), "as NumPy saves bfloat16 and float8"),
}


@pytest.mark.filterwarnings("ignore:Custom dtypes are saved:UserWarning")
@pytest.mark.parametrize("case", UNSUPPORTED)
def test_types_that_no_checkpoint_has(case: str) -> None:
    """A sound array of a type that has no name here is refused for what it is."""
    array, says = UNSUPPORTED[case]
    with pytest.raises(UnsupportedFormat) as caught:
        npy.READER.parse(MemorySource(saved(array)))
    assert says in str(caught.value)
    assert caught.value.tensor == "arr_0"


def test_objects_are_not_unpickled() -> None:
    """An object array, which NumPy would unpickle, is refused."""
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedFormat, match="a pickle"):
        npy.READER.parse(MemorySource(file.getvalue()))


def test_fortran_order_outside_a_file() -> None:
    """Fortran order in something other than a file is refused, since it cannot be mapped."""
    with pytest.raises(FormatError, match="Fortran order"):
        npy.READER.parse(MemorySource(saved(np.asfortranarray(np.zeros((2, 3))))))
