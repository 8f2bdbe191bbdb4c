"""Archives of arrays, as NumPy and mapcell write them, are read with their bytes."""

from __future__ import annotations

import io
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hostile.building import MemorySource, deflated, npy_file
from hostile.zip_building import FULL, End, Part, zip_file
from mapcell_formats import npy, npz
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError
from mapcell_formats.source import FileSource, read

from .test_npy import arrays, same

ARRAYS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layers/0.bias": np.arange(3, dtype=np.float16),
    "steps": np.array(7, np.int64),
    "Größe": np.zeros((0, 4), np.uint8),
    "mask": np.array([True, False]),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_numpys_archives(compressed: bool, tmp_path: Path) -> None:
    """What savez and savez_compressed write holds the arrays in their order; only stored ones lie in the file."""
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, **ARRAYS)  # type: ignore[arg-type]
    with FileSource.open(path) as source:
        checkpoint = read_checkpoint([source])
        found = arrays(checkpoint)
    assert (checkpoint.format, list(found)) == ("npz", list(ARRAYS))
    assert all(same(found[name], ARRAYS[name]) for name in ARRAYS)
    assert len(checkpoint.sources) == 1 + compressed


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
            lambda name: not name.startswith("/") and ".." not in name
        ),
        npst.arrays(st.sampled_from(sorted(npy.DTYPES)), npst.array_shapes(min_dims=0, max_dims=4, min_side=0)),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_round_trip(wanted: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], compressed: bool) -> None:
    """Whatever NumPy saves under whatever names is read back."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, array in wanted.items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(name + ".npy", member.getvalue())
    found = arrays(npz.READER.parse(MemorySource(file.getvalue())))
    assert list(found) == list(wanted)
    assert all(same(found[name], wanted[name]) for name in wanted)


def test_mapped_where_aligned(tmp_path: Path) -> None:
    """Stored members that lie aligned can be used in the file; savez itself aligns none."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
    part = Part("a.npy", npy_file(header.ljust(118), bytes(8)), local_extra=b"\0\0\x19\0" + bytes(25))
    assert len(part.local()) % 8 == 0
    (tmp_path / "x.npz").write_bytes(zip_file([part]))
    with FileSource.open(tmp_path / "x.npz") as source:
        assert npz.READER.parse(source).obstacle() is None


def test_fortran_order_in_an_archive(tmp_path: Path) -> None:
    """A stored array in Fortran order is read in C order beside one that lies as it should."""
    wanted = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "c": np.arange(3.0)}
    np.savez(tmp_path / "x.npz", **wanted)  # type: ignore[arg-type]
    with FileSource.open(tmp_path / "x.npz") as source:
        checkpoint = npz.READER.parse(source)
        found = arrays(checkpoint)
        assert [t.extents[0].source for t in checkpoint.tensors] == [1, 0]
    assert all(same(found[name], wanted[name]) for name in wanted)


ARRAY = npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", b"12345678")

SOUND: dict[str, bytes] = {
    "zip64 sizes": zip_file(
        [Part("x.npy", ARRAY, FULL, FULL, extra=b"\x01\0\x10\0" + len(ARRAY).to_bytes(8, "little") * 2)]
    ),
    "zip64 offset behind another field": zip_file(
        [Part("x.npy", ARRAY, at=FULL, extra=b"\x63\x78\x01\0a\x01\0\x08\0" + bytes(8))]
    ),
    "zip64 end": zip_file([Part("x.npy", ARRAY)], End(wide=True)),
    "zip64 end that alone knows": zip_file(
        [Part("x.npy", ARRAY)], End(wide=True, count=0xFFFF, nbytes=FULL, start=FULL)
    ),
    "comment": zip_file([Part("x.npy", ARRAY, comment=b"of a member")], End(comment=b"of the archive")),
    "folder": zip_file([Part("a/"), Part("x.npy", ARRAY)]),
    "descriptor": zip_file([Part("x.npy", ARRAY, flags=8), Part("y.npy", ARRAY)]),
    "members in another order": zip_file(
        [
            Part("x.npy", ARRAY, at=len(Part("y.npy", ARRAY).local()), local_name=b"y.npy"),
            Part("y.npy", ARRAY, at=0, local_name=b"x.npy"),
        ]
    ),
}


@pytest.mark.parametrize("case", SOUND)
def test_other_writers(case: str) -> None:
    """Archives as the format allows them, though NumPy writes none such."""
    checkpoint = npz.READER.parse(MemorySource(SOUND[case]))
    assert arrays(checkpoint)["x"].tobytes() == b"12345678"


def test_python_agrees() -> None:
    """The hand-made archives are what zipfile takes them for."""
    for data in SOUND.values():
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.read("x.npy") == ARRAY


def test_a_wrong_checksum_far_in() -> None:
    """A member that is too long to be looked at whole is checked when its bytes are read."""
    plain = npy_file("{'descr': '|u1', 'fortran_order': False, 'shape': (100000,), }", bytes(100_000))
    part = Part("x.npy", deflated(plain), len(plain), crc=zlib.crc32(plain) ^ 1, method=8)
    checkpoint = npz.READER.parse(MemorySource(zip_file([part])))
    (extent,) = checkpoint.tensors[0].extents
    with pytest.raises(FormatError, match="CRC-32"):
        read(checkpoint.sources[1], extent.offset, extent.nbytes)


def test_many_members_take_little_memory() -> None:
    """Listing 5,000 deflated members keeps none of their inflaters."""
    packed, crc = deflated(ARRAY), zlib.crc32(ARRAY)
    source = MemorySource(zip_file([Part(f"{i}.npy", packed, len(ARRAY), crc=crc, method=8) for i in range(5000)]))
    tracemalloc.start()
    checkpoint = npz.READER.parse(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(checkpoint.tensors) == 5000
    assert peak < 5000 * 3000
    assert sys.getsizeof(checkpoint.sources) < 100


def test_some_other_archive() -> None:
    """A zip archive that is no checkpoint is said to be one, with what it holds."""
    with pytest.raises(FormatError, match=r"a zip archive that holds word/document\.xml"):
        read_checkpoint([MemorySource(zip_file([Part("word/document.xml", b"<x/>")]))])
