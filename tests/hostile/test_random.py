"""Random and mutated bytes: nothing but FormatError ever comes out of reading them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell_formats import encrypted_ckpt, gguf, mindspore_ckpt, safetensors, torch_zip
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.ckpt_writer import Encryption, encode_ckpt
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError
from mapcell_formats.items import TensorItem
from mapcell_formats.source import read

from . import (
    corpus_ckpt,
    corpus_gguf,
    corpus_index,
    corpus_npy,
    corpus_safetensors,
    corpus_torch,
    corpus_zip,
    torch_building,
)
from .building import MemorySource
from .promises import check

KEY = bytes(16)


def _encrypted(mode: str) -> bytes:
    chunks = encode_ckpt([TensorItem("x", "U8", (40,), bytes(40))], encryption=Encryption(KEY, mode))
    return b"".join(bytes(chunk) for chunk in chunks)


SEEDS = {
    "safetensors": corpus_safetensors.SMALL,
    "ckpt": corpus_ckpt.SMALL,
    "gguf": corpus_gguf.SMALL,
    "gguf 1": corpus_gguf.small(version=1),
    "index": corpus_index.SMALL,
    "npy": corpus_npy.SMALL,
    "npz": corpus_zip.SMALL,
    "torch": corpus_torch.SMALL,
    **{mode: _encrypted(mode) for mode in encrypted_ckpt.KEY_BYTES},
}


def survives(parse: Callable[[MemorySource], Checkpoint], data: bytes) -> None:
    """Reads `data` with `parse`, which has to keep its promises or raise FormatError."""
    source = MemorySource(data)
    try:
        checkpoint = parse(source)
    except FormatError as error:
        if error.path != source.path:
            raise
        return
    check(checkpoint)


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    """Bytes without any sense, given to detection and to each reader."""
    survives(lambda source: read_checkpoint([source]), data)
    survives(safetensors.READER.parse, data)
    survives(mindspore_ckpt.READER.parse, data)
    survives(gguf.READER.parse, data)


@given(st.text(max_size=200))
def test_random_headers(text: str) -> None:
    """Text without any sense as the header of a safetensors file."""
    header = ("{" + text).encode(errors="replace")
    survives(safetensors.READER.parse, len(header).to_bytes(8, "little") + header)


WORDS = st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "x"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    )
)
def test_random_json(value: object) -> None:
    """JSON of any structure under the words that a header uses."""
    header = json.dumps({"x": value, "__metadata__": value}).encode()
    survives(safetensors.READER.parse, len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize("seed", SEEDS)
@given(st.data())
def test_mutations(seed: str, data: st.DataObject) -> None:
    """A sound file of each kind with some bytes changed, cut out or put in."""
    raw = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        stop = min(len(raw), start + data.draw(st.integers(0, 3)))
        raw[start:stop] = data.draw(st.binary(max_size=3) | st.sampled_from([b"\xff" * 9 + b"\x01", b"\0" * 8]))
    key = KEY if seed in encrypted_ckpt.KEY_BYTES else None
    mode = seed if key else "AES-GCM"
    survives(lambda source: read_checkpoint([source], key=key, mode=mode), bytes(raw))


@given(st.binary(max_size=200))
def test_random_plain_text(plain: bytes) -> None:
    """Sound encryption of bytes without any sense, as a wrong key makes of CBC."""
    source = encrypted_ckpt.DecryptedSource(MemorySource(_cbc(plain)), KEY, "AES-CBC")
    assert read(source, 0, source.size) == plain + b"."
    survives(lambda inner: read_checkpoint([inner], key=KEY, mode="AES-CBC"), _cbc(plain))


def _cbc(plain: bytes) -> bytes:
    data = plain + b"."
    padding = 16 - len(data) % 16
    context = encrypted_ckpt.cipher("AES-CBC", KEY, KEY).encryptor()
    body = context.update(data + bytes([padding]) * padding) + context.finalize()
    numbers = [n.to_bytes(4, "little") for n in (encrypted_ckpt.MAGIC_OF["AES-CBC"], 24 + len(body), 16, len(body))]
    return numbers[0] + numbers[1] + numbers[2] + KEY + numbers[3] + body


TOKENS = st.sampled_from(
    [
        *(bytes([code]) for code in b"()}]N.tasueRbQ\x85\x86\x87\x88\x89\x94"),
        *(b"q" + bytes([i]) for i in range(3)),
        *(b"h" + bytes([i]) for i in range(3)),
        torch_building.ORDERED_DICT,
        torch_building.V2,
        torch_building.storage(),
        torch_building.tensor(),
        torch_building.number(1),
        torch_building.text("x"),
    ]
)


@given(st.lists(TOKENS, max_size=40))
def test_random_pickles(tokens: list[bytes]) -> None:
    """Opcodes that state dicts use, in any order."""
    data = torch_building.torch_file(torch_building.pickled(b"".join(tokens)))
    survives(torch_zip.READER.parse, data)
