"""Headers that are read at once come out as if each of their entries had been walked."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
from safetensors.numpy import save

from hostile import corpus_safetensors
from hostile.building import MemorySource, entry, safetensors_file
from mapcell_formats import safetensors, safetensors_usual
from mapcell_formats.errors import FormatError
from mapcell_formats.items import TensorItem
from mapcell_formats.safetensors import READER
from mapcell_formats.safetensors_writer import encode_safetensors
from mapcell_formats.table import TensorTable

from .test_safetensors import SOUND

ENTRIES = {
    "model.layers.0.weight": entry(0, 24, [2, 3]),
    "scalar": entry(24, 28, []),
    "empty": entry(28, 28, [0, 7], "F64"),
    "größe.層.😀": entry(28, 30, [1], "BF16"),
    "": entry(30, 31, [1, 1], "BOOL"),
    "n" * 1024: entry(31, 35),
    "last\x7f": entry(35, 51, [2, 2]),
}
BODY = bytes(51)


def compact(header: dict[str, object]) -> bytes:
    """As safetensors' own writer puts it down."""
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def spaced(header: dict[str, object]) -> bytes:
    """As Python's json does by itself."""
    return json.dumps(header, ensure_ascii=False).encode()


def shuffled(header: dict[str, object]) -> dict[str, object]:
    """The same entries in another order."""
    names = list(header)
    random.Random(3).shuffle(names)
    return {name: header[name] for name in names}


METADATA: dict[str, object] = {"__metadata__": {"format": "pt", "a": 'quote " and {"dtype":"F32"}'}}
USUAL: dict[str, bytes] = {
    f"{style.__name__}, {label}": safetensors_file(style(header) + b" " * 5, BODY)
    for style in (compact, spaced)
    for label, header in {
        "plain": dict(ENTRIES),
        "metadata": METADATA | ENTRIES,
        "in another order": shuffled(dict(ENTRIES)),
    }.items()
}
UNUSUAL: dict[str, bytes] = {
    "metadata last": safetensors_file(compact(ENTRIES | METADATA), BODY),
    "metadata between": safetensors_file(compact({"a": entry()} | METADATA | {"b": entry(4, 8)}), bytes(8)),
    "metadata twice": safetensors_file(compact(METADATA)[:-1] + b"," + compact(METADATA | ENTRIES)[1:], BODY),
    "two styles": safetensors_file(compact(ENTRIES)[:-1] + b"," + spaced({"x": entry(51, 55)})[1:], BODY + bytes(4)),
    "blanks behind the last": safetensors_file(compact({"a": entry()})[:-1] + b" \n}\t", bytes(4)),
    "escapes": safetensors_file(json.dumps(ENTRIES).encode(), BODY),
    "no comma": safetensors_file(compact({"a": entry(), "b": entry(4, 8)}).replace(b'},"', b'}"'), bytes(8)),
    "two commas": safetensors_file(compact({"a": entry(), "b": entry(4, 8)}).replace(b'},"', b'},,"'), bytes(8)),
    "comma last": safetensors_file(compact({"a": entry()})[:-1] + b",}", bytes(4)),
    "leading zero": safetensors_file(compact({"a": entry()}).replace(b"[0,", b"[00,"), bytes(4)),
    "long name": safetensors_file(compact({"é" * 2048: entry()}), bytes(4)),
    "name too long": safetensors_file(compact({"é" * 2049: entry()}), bytes(4)),
    "tensors named alike": safetensors_file(b'{"a":' + compact(entry(0, 0, [0])) + b"," + compact(ENTRIES)[1:], BODY),
    "broken at the end": safetensors_file(compact(ENTRIES | {"x": entry(51, 56)}), BODY + bytes(5)),
}
FILES = (
    USUAL
    | UNUSUAL
    | {f"sound: {label}": safetensors_file(text.encode(), bytes(size)) for label, (text, size, _) in SOUND.items()}
    | {
        f"hostile: {case.label}": case.data
        for case in chain(corpus_safetensors.cases(), corpus_safetensors.truncations())
        if case.size is None
    }
)


def read_both(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """What the file holds, or the error about it: as it is read, and then entry by entry."""
    for walked in (False, True):
        with monkeypatch.context() as patched:
            if walked:
                patched.setattr(safetensors, "usual_tensors", lambda *_: None)
            try:
                checkpoint = READER.parse(MemorySource(data))
            except FormatError as exc:
                yield type(exc), str(exc)
            else:
                yield tuple(checkpoint.tensors), checkpoint.metadata


@pytest.mark.parametrize("piece", [1, 150, 1 << 16])
@pytest.mark.parametrize("case", FILES)
def test_same(case: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same tensors in the same order, or the same error, wherever the header is cut."""
    monkeypatch.setattr(safetensors_usual, "_PIECE", piece)
    found, walked = read_both(FILES[case], monkeypatch)
    assert found == walked


@pytest.mark.parametrize("case", USUAL)
def test_same_when_broken(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever character is changed or doubled, both ways say the same of it."""
    data, rng = USUAL[case], random.Random(8)
    header = len(data) - len(BODY)
    for _ in range(400):
        broken, at = bytearray(data), rng.randrange(8, header)
        broken[at : at + rng.choice([0, 1])] = rng.choice([b'"', b",", b"}", b"{", b"0", b"9", b" ", b"\\", b"\0", b""])
        broken[:8] = (len(broken) - len(BODY) - 8).to_bytes(8, "little")
        monkeypatch.setattr(safetensors_usual, "_PIECE", rng.choice([1, 60, 1 << 16]))
        found, walked = read_both(bytes(broken), monkeypatch)
        assert found == walked


WRITTEN = USUAL | {
    "the library": save({f"t{n}": np.zeros(n % 3, np.float16) for n in range(50)}, {"format": "pt"}),
    "mapcell": b"".join(map(bytes, encode_safetensors([TensorItem("a", "F32", (2,), bytes(8))], {"format": "ms"}))),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_usual_headers_are_not_walked(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What known writers put down is read at once."""
    monkeypatch.setattr(safetensors._Walk, "run", lambda *_: pytest.fail("walked"))
    assert isinstance(READER.parse(MemorySource(WRITTEN[case])).tensors, TensorTable)


def test_keeps_nothing_to_collect() -> None:
    """The garbage collector is given nothing that grows with the number of tensors."""
    count = 5_000
    data = safetensors_file(compact({f"t{n}": entry(4 * n, 4 * n + 4) for n in range(count)}), bytes(4 * count))
    READER.parse(MemorySource(data))
    gc.collect()
    before = len(gc.get_objects())
    checkpoint = READER.parse(MemorySource(data))
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert len(checkpoint.tensors) == count
