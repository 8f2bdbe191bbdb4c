"""Files that torch wrote are read with their bytes, and nothing in them is executed."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from hostile.building import MemorySource, deflated
from hostile.torch_building import V3, dict_of, number, pickled, state, storage, tensor, torch_file, tuple_of
from hostile.zip_building import Part, zip_file
from mapcell_formats import torch_zip
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import UnsupportedFormat
from mapcell_formats.source import FileSource

from .test_npy import arrays

FOLDER = Path(__file__).parents[1] / "data" / "torch"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


@pytest.mark.parametrize("file", EXPECTED)
def test_torchs_files(file: str) -> None:
    """Every tensor that torch saved, of every dtype, view and nesting, in order and with its bytes."""
    with FileSource.open(FOLDER / file) as source:
        checkpoint = read_checkpoint([source])
        found = arrays(checkpoint)
    assert checkpoint.format == "torch"
    assert [(n, str(a.dtype), list(a.shape), a.tobytes().hex()) for n, a in found.items()] == [
        tuple(row) for row in EXPECTED[file]
    ]


def test_mapped_in_place() -> None:
    """torch aligns storages to 64 bytes, so that a file of contiguous tensors can be used where it lies."""
    for file in EXPECTED:
        with FileSource.open(FOLDER / file) as source:
            assert read_checkpoint([source]).mappable() is (file != "views.pt"), file


def test_tied_tensors_share_their_bytes() -> None:
    """Two names of one storage, whole or in part, lead to the same bytes of the file."""
    with FileSource.open(FOLDER / "views.pt") as source:
        tensors = {t.name: t for t in read_checkpoint([source]).tensors}
    assert tensors["base"].extents == tensors["tied"].extents
    assert tensors["slice"].extents[0].offset == tensors["base"].extents[0].offset + 24
    assert tensors["one by one"].extents[0].source == 0
    assert tensors["transposed"].extents[0].source == 1


REFUSED = {
    "refused_module.pt": r"names 'torch\.nn\.modules\.linear\.Linear'; it is not executed",
    "refused_expanded.pt": r"tensor 'x': was expanded",
    "refused_complex128.pt": r"tensor 'x': elements of torch\.complex128",
    "refused_sparse.pt": r"names 'torch\._utils\._rebuild_sparse_tensor'",
    "refused_conjugate.pt": "calls _rebuild_tensor_v2 with",
    "refused_legacy.pt": r"before torch 1\.6; save it again",
    "refused_script.pt": "is a TorchScript program",
}


@pytest.mark.parametrize("file", REFUSED)
def test_what_torch_saves_besides(file: str) -> None:
    """Sound files of torch's that are no state dict are refused for what they are, with path and offset."""
    with FileSource.open(FOLDER / file) as source, pytest.raises(UnsupportedFormat, match=REFUSED[file]) as caught:
        read_checkpoint([source])
    assert caught.value.path == str(FOLDER / file)
    assert caught.value.offset is not None


def test_all_refused_files_are_listed() -> None:
    """No file of the folder is left out of these tests."""
    assert {path.name for path in FOLDER.glob("*.pt")} == {*EXPECTED, *REFUSED}


def _read(**tensors: bytes) -> dict[str, bytes]:
    return {k: a.tobytes() for k, a in arrays(torch_zip.READER.parse(MemorySource(state(**tensors)))).items()}


def test_other_calls() -> None:
    """The calls of older and newer versions of torch, assembled by hand."""
    data = bytes(range(8))
    parameter = b"ctorch._utils\n_rebuild_parameter\n" + tuple_of(tensor(), b"\x88", b"}") + b"R"
    stated = b"ctorch._utils\n_rebuild_parameter_with_state\n" + tuple_of(tensor(), b"\x88", b"}", b"}") + b"R"
    old = b"ctorch._utils\n_rebuild_tensor\n" + tuple_of(storage(), number(1), b"K\x01\x85", b"K\x01\x85") + b"R"
    untyped = storage(elements=8, kind=b"ctorch.storage\nUntypedStorage\n")
    found = _read(
        parameter=parameter,
        stated=stated,
        old=old,
        noted=tensor(more=(b"N",)),
        bytes=tensor((4,), inner=untyped, function=V3, more=(b"ctorch\nbfloat16\n",)),
    )
    assert found == {"parameter": data, "stated": data, "old": data[4:], "noted": data, "bytes": data}
    checkpoint = torch_zip.READER.parse(
        MemorySource(state(x=tensor((4,), inner=untyped, function=V3, more=(b"ctorch\nbfloat16\n",))))
    )
    assert arrays(checkpoint)["x"].dtype == ml_dtypes.bfloat16


def test_compressed_archives() -> None:
    """An archive that somebody packed again with compression is read, its storages inflated once for all tensors."""
    pickle = pickled(dict_of({"a": tensor(), "b": tensor((1,), offset=1), "c": tensor((1, 2), (2, 1))}))
    body = np.array([1.5, -2.5], np.float32).tobytes()
    parts = [
        Part("m/data.pkl", deflated(pickle), len(pickle), crc=zlib.crc32(pickle), method=8),
        Part("m/data/0", deflated(body), len(body), crc=zlib.crc32(body), method=8),
    ]
    checkpoint = torch_zip.READER.parse(MemorySource(zip_file(parts)))
    assert {k: a.tobytes() for k, a in arrays(checkpoint).items()} == {"a": body, "b": body[4:], "c": body}
    assert checkpoint.sources[1].size == 8


def test_byteorder() -> None:
    """Files say since torch 2.1 that they are little-endian; others are."""
    pickle = pickled(dict_of({"x": tensor()}))
    for others in ({}, {"byteorder": b"little"}):
        assert torch_zip.READER.parse(MemorySource(torch_file(pickle, others=others))).tensors[0].nbytes == 8


def test_nothing_of_torch_or_pickle_is_loaded() -> None:
    """Reading a file imports neither torch nor pickle."""
    code = (
        "import sys\n"
        "from mapcell_formats.detect import read_checkpoint\n"
        "from mapcell_formats.source import FileSource\n"
        f"read_checkpoint([FileSource.open({str(FOLDER / 'training.pt')!r})])\n"
        "print(sorted({'torch', 'pickle', '_pickle', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
