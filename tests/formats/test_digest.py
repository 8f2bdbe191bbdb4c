"""The digest that names a version: the same for the same content, another one for anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats.digest import content_digest, file_identity, provisional_id
from mapcell_formats.manifest import TensorEntry

HASHES = [bytes([i]) * 32 for i in range(3)]
ENTRIES = [
    TensorEntry("a", "F32", (2, 3), 0, 0, 24),
    TensorEntry("ab", "F32", (6,), 0, 256, 24),
    TensorEntry("é", "U8", (), 0, 512, 1),
]
TENSORS = list(zip(ENTRIES, HASHES, strict=True))
METADATA = {"format": "pt", "a": "b"}
DIGEST = content_digest(TENSORS, METADATA)


def test_golden_value() -> None:
    """The canonical form is part of what is stored and shown: a change of it would rename every version."""
    form = b"mapcell content 1\0"
    form += b"\1\0\0\0\3\2" + b"aF32" + b"\2" + bytes(7) + b"\3" + bytes(7) + HASHES[0]
    form += b"\2\0\0\0\3\1" + b"abF32" + b"\6" + bytes(7) + HASHES[1]
    form += b"\2\0\0\0\2\0" + "éU8".encode() + HASHES[2]
    form += b"metadata\0" + b"\1\0\0\0\1\0\0\0ab" + b"\6\0\0\0\2\0\0\0formatpt"
    assert "blake3:" + blake3(form).hexdigest() == DIGEST


@given(order=st.permutations(TENSORS), moved=st.integers(0, 1 << 40), segment=st.integers(0, 9))
def test_independent_of_place(order: list[tuple[TensorEntry, bytes]], moved: int, segment: int) -> None:
    """Neither the order nor where the bytes lie changes it: one file and its shards are one version."""
    shifted = [(e._replace(offset=e.offset + moved, segment=segment), d) for e, d in order]
    assert content_digest(shifted, dict(reversed(METADATA.items()))) == DIGEST


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        (TENSORS[:2], METADATA),
        ([*TENSORS[:2], (ENTRIES[2], HASHES[0])], METADATA),
        ([(ENTRIES[0]._replace(name="A"), HASHES[0]), *TENSORS[1:]], METADATA),
        ([(ENTRIES[0]._replace(shape=(3, 2)), HASHES[0]), *TENSORS[1:]], METADATA),
        ([(ENTRIES[0]._replace(dtype="I32"), HASHES[0]), *TENSORS[1:]], METADATA),
        ([(ENTRIES[0], HASHES[1]), (ENTRIES[1], HASHES[0]), TENSORS[2]], METADATA),
        (TENSORS, {}),
        (TENSORS, {"format": "pta", "": "b"}),
        (TENSORS, {"format": "np", "a": "b"}),
        ([], {}),
    ],
    ids=["fewer", "bytes", "name", "shape", "dtype", "swapped", "no metadata", "shifted", "metadata", "empty"],
)
def test_every_part_counts(tensors: list[tuple[TensorEntry, bytes]], metadata: dict[str, str]) -> None:
    """Another tensor, name, shape, dtype, byte or metadata is another version."""
    assert content_digest(tensors, metadata) != DIGEST


def test_file_identity(tmp_path: Path) -> None:
    """It follows the file, not its name, and changes with its content and times."""
    path = tmp_path / "x"
    path.write_bytes(b"1")
    first = file_identity(path.stat())
    os.link(path, tmp_path / "y")
    # The link itself moved the ctime: what counts is that both names tell the same.
    assert file_identity((tmp_path / "y").stat()) == file_identity(path.stat()) != first
    second = file_identity(path.stat())
    os.utime(path, ns=(0, 0))
    assert file_identity(path.stat()) != second
    (tmp_path / "z").write_bytes(b"1")
    assert file_identity((tmp_path / "z").stat()) != file_identity(path.stat())


@pytest.mark.parametrize("other", [[], ["a"], ["b", "a"], ["a", "b", "c"], ["ab"]], ids=repr)
def test_provisional_id(other: list[str]) -> None:
    """It depends on every file and their order, and is told from a digest by how it begins."""
    assert provisional_id(["a", "b"]).startswith("file-")
    assert provisional_id(["a", "b"]) == provisional_id(["a", "b"]) != provisional_id(other)
