"""Records that are read at once come out as if each of their fields had been walked."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from hostile.building import MemorySource, field, record, tensor
from mapcell_formats.ckpt_usual import LOOK_AHEAD, Usual
from mapcell_formats.ckpt_writer import encode_ckpt
from mapcell_formats.errors import FormatError
from mapcell_formats.items import Item, StringItem, TensorItem
from mapcell_formats.mindspore_ckpt import DTYPES, MAX_DIM, READER

ITEMS: tuple[Item, ...] = (
    TensorItem("conv.weight", "F32", (2, 3), bytes(24)),
    TensorItem("scalar", "F16", (), bytes(2)),
    StringItem("note", "text"),
    TensorItem("empty", "I8", (0,), b""),
    TensorItem("n" * 200, "BF16", (150,), bytes(300)),
    TensorItem("Größe", "F64", (1,), bytes(8)),
    TensorItem("last", "U8", (1, 1, 5), bytes(5)),
)


def written(**options: int) -> bytes:
    """The items as .ckpt."""
    return b"".join(map(bytes, encode_ckpt(ITEMS, **options)))  # type: ignore[arg-type]


FILES: dict[str, bytes] = {
    "as MindSpore writes it": written(align=1),
    "aligned": written(),
    "aligned beyond what is looked at": written(align=4096),
    "in slices": written(align=1, slice_bytes=4),
    "slices that are whole tensors": record("x") + record("x", tensor((2,))),
    "a slice after a whole tensor": record("x", tensor((2,), content=bytes(8))) + record("x", tensor((2,))),
    "one name again, later": record("x") + record("y") + record("x", tensor((2,), content=bytes(8))),
    "Int4": record("x", tensor((4,), "Int4")),
    "other fields between": record("x") + field(9, b"unknown") + record("x") + record("y"),
    "no dims and bytes": record("x", tensor((0,))) + record("y"),
}


def read_both(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """What the file holds, or the error about it: as it is read, and then field by field."""
    for walked in (False, True):
        with monkeypatch.context() as patched:
            if walked:
                patched.setattr(Usual, "record", lambda *_: None)
            try:
                checkpoint = READER.parse(MemorySource(data))
            except FormatError as exc:
                yield str(exc)
            else:
                yield checkpoint.tensors, checkpoint.metadata


@pytest.mark.parametrize("case", FILES)
def test_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same tensors in the same order, or the same error."""
    found, walked = read_both(FILES[case], monkeypatch)
    assert found == walked


@pytest.mark.parametrize("case", ["as MindSpore writes it", "aligned", "in slices"])
def test_same_when_broken(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever byte is changed, and wherever the file is cut, both ways say the same of it."""
    data, rng = FILES[case], random.Random(6)
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] = rng.choice([0, 1, 8, 10, 18, 26, 0x7A, 0x7F, 0x80, 0xFF])
        cut = rng.randrange(1, len(data)) if rng.random() < 0.3 else len(data)
        found, walked = read_both(bytes(broken[:cut]), monkeypatch)
        assert found == walked


def test_recognised() -> None:
    """What MindSpore and mapcell write is taken whole; what names no dtype is not."""
    usual = Usual(DTYPES, MAX_DIM)
    for data in (written(align=1), written()):
        found = usual.record(data[:LOOK_AHEAD], 0, 0, len(data))
        assert found is not None
        assert (found.tensor.name, found.tensor.shape) == ("conv.weight", (2, 3))
    other = record("x", tensor((1,), "Float8"))
    assert usual.record(other, 0, 0, len(other)) is None
