"""Quantised GGUF tensors as floats, compared with the gguf package's own."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType

from hostile import corpus_gguf as hand
from hostile.building import MemorySource
from mapcell_formats import gguf_dequantise
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.errors import UnsupportedFormat
from mapcell_formats.gguf import QUANTISED, READER
from mapcell_formats.gguf_dequantise import dequantised
from mapcell_formats.source import read

# What the installed package unpacks; the newest types may be missing in it.
UNPACKED = [kind for kind in QUANTISED if QUANTISED[kind].name != "Q1_0"]


def blocks_of(kind: int, rows: int, columns: int) -> bytes:
    """Random blocks; every pattern of bits is one."""
    nbytes = rows * columns // QUANTISED[kind].elements * QUANTISED[kind].nbytes
    return np.random.default_rng(kind).bytes(nbytes)


def quantised_file(kind: int, rows: int = 3, columns: int = 512) -> bytes:
    """A file with an F32 tensor "plain" of 8 and a quantised one "q"."""
    infos = (hand.info("plain"), hand.info("q", (columns, rows), kind, 32))
    return hand.gguf_file((), infos, np.arange(8, dtype=np.float32).tobytes() + blocks_of(kind, rows, columns))


def expected(kind: int, rows: int = 3, columns: int = 512) -> np.ndarray[Any, Any]:
    """What the package makes of the blocks, all at once."""
    raw = np.frombuffer(blocks_of(kind, rows, columns), np.uint8).reshape(rows, -1)
    with np.errstate(all="ignore"):
        return quants.dequantize(raw, GGMLQuantizationType(kind))


def floats(checkpoint: Checkpoint, name: str) -> np.ndarray[Any, Any]:
    """The F32 tensor called `name`."""
    tensor = next(t for t in checkpoint.tensors if t.name == name)
    assert tensor.dtype == "F32"
    (extent,) = tensor.extents
    raw = read(checkpoint.sources[extent.source], extent.offset, extent.nbytes)
    return np.frombuffer(raw, np.float32).reshape(tensor.shape)


@pytest.mark.parametrize("kind", UNPACKED, ids=lambda kind: QUANTISED[kind].name)
def test_every_type_the_package_knows(kind: int) -> None:
    """Weights, rows and columns come out as the package has them, plain tensors stay where they lie."""
    before = READER.parse(MemorySource(quantised_file(kind)))
    after = dequantised(before)
    assert np.array_equal(floats(after, "q"), expected(kind), equal_nan=True)
    assert after.tensors[0] == before.tensors[0]
    assert after.metadata == {}
    assert not after.mappable()


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(0, 4), (1, 1), (127, 130), (2047, 2), (2048, 2048), (6143, 1), (5, 6139)]
)
def test_any_piece_can_be_read(offset: int, nbytes: int) -> None:
    """A piece that begins and ends anywhere is what it is in the whole."""
    source = dequantised(READER.parse(MemorySource(quantised_file(hand.Q4_0)))).sources[1]
    assert read(source, offset, nbytes) == expected(hand.Q4_0).tobytes()[offset : offset + nbytes]


def test_pieces_across_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tensors lie one after another, however few weights are unpacked at once."""
    monkeypatch.setattr(gguf_dequantise, "_WEIGHTS_AT_ONCE", 256)
    infos = (hand.info("a", (64,), 2), hand.info("b", (0,), 2, 64), hand.info("c", (512, 2), 8, 64))
    body = blocks_of(2, 1, 64) + bytes(64 - 36) + blocks_of(8, 2, 512)
    checkpoint = dequantised(READER.parse(MemorySource(hand.gguf_file((), infos, body))))
    assert checkpoint.tensors[1].extents == ()
    whole = read(checkpoint.sources[1], 0, checkpoint.sources[1].size)
    assert whole == expected(2, 1, 64).tobytes() + expected(8, 2, 512).tobytes()


def test_what_is_not_quantised() -> None:
    """A checkpoint without quantised tensors, or of another format, is returned as it is."""
    plain = READER.parse(MemorySource(hand.gguf_file((), (hand.info(),), bytes(32))))
    assert dequantised(plain) == plain
    other = Checkpoint("safetensors", plain.tensors, plain.sources, {"gguf.type:x": "Q4_0"})
    assert dequantised(other) is other


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names tensor, type and what to install; with nothing quantised there is none."""
    for module in ("gguf", "gguf.quants", "gguf.constants"):
        monkeypatch.setitem(sys.modules, module, None)
    gguf_dequantise._unpack.cache_clear()
    try:
        with pytest.raises(UnsupportedFormat, match=r"Q4_0.*pip install 'mapcell\[gguf\]'") as caught:
            dequantised(READER.parse(MemorySource(quantised_file(hand.Q4_0))))
        assert caught.value.tensor == "q"
    finally:
        gguf_dequantise._unpack.cache_clear()


def test_a_type_the_package_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type that the installed package does not unpack is refused before anything is staged."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(quants, "dequantize", refuse)
    gguf_dequantise._unpack.cache_clear()
    try:
        with pytest.raises(UnsupportedFormat, match="no floats of Q4_0"):
            dequantised(READER.parse(MemorySource(quantised_file(hand.Q4_0))))
    finally:
        gguf_dequantise._unpack.cache_clear()
