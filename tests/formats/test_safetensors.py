"""The safetensors reader against the library, MindSpore's file and unusual headers."""

from __future__ import annotations

import json
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from hostile.building import MemorySource, entry, safetensors_file
from mapcell_formats import safetensors
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.dtypes import CODES, numpy_dtype
from mapcell_formats.errors import FormatError
from mapcell_formats.safetensors import READER
from mapcell_formats.source import FileSource

from .mindspore_data import FOLDER, content, contents, expected


def parse(data: bytes) -> Checkpoint:
    """The checkpoint in `data`."""
    return READER.parse(MemorySource(data))


def test_reads_what_mindspore_wrote() -> None:
    """MindSpore's safetensors file has the shapes and bytes that MindSpore saved, and is mapped as it lies."""
    with FileSource.open(FOLDER / "lenet5.safetensors") as source:
        checkpoint = READER.parse(source)
        assert contents(checkpoint) == expected("lenet5.safetensors")
        assert {tensor.dtype for tensor in checkpoint.tensors} == {"F32"}
        assert checkpoint.metadata == {"format": "ms"}
        assert checkpoint.mappable()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4), (2, 3, 4)], ids=str)
def test_reads_what_the_library_wrote(dtype: str, shape: tuple[int, ...]) -> None:
    """Every dtype and kind of shape comes back as the library wrote it."""
    array = np.arange(prod(shape)).reshape(shape).astype(numpy_dtype(dtype))
    checkpoint = parse(save({"x": array}))
    (tensor,) = checkpoint.tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("x", dtype, shape)
    assert content(checkpoint, tensor) == array.tobytes()


USUAL = entry(0, 4, [1])
TEXT = json.dumps(USUAL)
SOUND: dict[str, tuple[str, int, list[str]]] = {
    "nothing": ("{}", 0, []),
    "only metadata": ('{"__metadata__":{}}', 0, []),
    "metadata null": ('{"__metadata__":null}', 0, []),
    "compact": (json.dumps({"x": USUAL}, separators=(",", ":")), 4, ["x"]),
    "indented": (json.dumps({"x": USUAL}, indent=4), 4, ["x"]),
    "blanks around": (f'\n {{ "x" : {TEXT} }} \t\r\n', 4, ["x"]),
    "fields in another order": ('{"x":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}', 4, ["x"]),
    "an unknown field": ('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":"1"}}', 4, ["x"]),
    "escaped name": (f'{{"\\u0078\\n\\"}}":{TEXT}}}', 4, ['x\n"}']),
    "escaped pair": (f'{{"\\ud83d\\ude00":{TEXT}}}', 4, ["😀"]),
    "other letters": (f'{{"größe.層":{TEXT}}}', 4, ["größe.層"]),
    "empty name": (f'{{"":{TEXT}}}', 4, [""]),
    "name of 4096 bytes": (f'{{"{"n" * 4096}":{TEXT}}}', 4, ["n" * 4096]),
    "metadata last": (f'{{"x":{TEXT},"__metadata__":{{"a":"b"}}}}', 4, ["x"]),
    "listed in reverse": (json.dumps({"b": entry(4, 8), "a": entry(0, 4)}), 8, ["a", "b"]),
    "empty tensors anywhere between": (
        json.dumps({"z": entry(4, 4, [0]), "a": entry(0, 4), "y": entry(0, 0, [0, 9]), "b": entry(4, 8)}),
        8,
        ["y", "a", "z", "b"],
    ),
    "rank 32": (json.dumps({"x": entry(0, 4, [1] * 32)}), 4, ["x"]),
    "usual after unusual": (
        json.dumps({"a": dict(reversed(entry(0, 1, [1], "U8").items())), "x": entry(1, 2, [1], "U8")}),
        2,
        ["a", "x"],
    ),
}


@pytest.mark.parametrize("case", SOUND)
def test_reads_unusual_headers(case: str) -> None:
    """What JSON and the specification allow is read, and tensors come in the order of their bytes."""
    text, body, names = SOUND[case]
    checkpoint = parse(safetensors_file(text.encode(), bytes(body)))
    assert [tensor.name for tensor in checkpoint.tensors] == names


def test_metadata_is_kept() -> None:
    """Metadata comes back as it was written, escapes and all."""
    metadata = {"format": "pt", "": "", "a\n": '"}', "größe": "層\0"}
    assert parse(safetensors_file({"__metadata__": metadata})).metadata == metadata


def test_reads_nothing_but_the_header() -> None:
    """The tensors' bytes are not touched."""
    source = MemorySource(safetensors_file({"x": entry(0, 4_000_000, [1_000_000])}, bytes(4_000_000)))
    READER.parse(source)
    assert source.bytes_read < 1000


def test_an_error_counts_bytes() -> None:
    """The offset in an error is one of bytes, also behind letters that take several."""
    text = json.dumps({"größe": entry(0, 4), "x": entry(0, 5)}, ensure_ascii=False).encode()
    with pytest.raises(FormatError) as caught:
        parse(safetensors_file(text, bytes(4)))
    assert caught.value.tensor == "x"
    assert caught.value.offset is not None
    assert safetensors_file(text)[caught.value.offset :].startswith(b'"x"')


def test_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors and metadata's keys are counted: the last allowed one is read, one more is refused."""
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 2)
    monkeypatch.setattr(safetensors, "MAX_METADATA_KEYS", 2)
    tensors = {name: entry(0, 0, [0]) for name in "abc"}
    metadata = dict.fromkeys("abc", "")
    two = {"a": tensors["a"], "b": tensors["b"], "__metadata__": {"a": "", "b": ""}}
    assert len(parse(safetensors_file(two)).tensors) == 2
    with pytest.raises(FormatError, match="3 tensors"):
        parse(safetensors_file(dict(tensors)))
    with pytest.raises(FormatError, match="too many keys"):
        parse(safetensors_file({"__metadata__": metadata}))


small = st.integers(0, 6)
entries = st.builds(
    lambda begin, size, shape, dtype: entry(begin, begin + size, shape, dtype),
    small,
    small,
    st.lists(st.integers(0, 3), max_size=2),
    st.sampled_from(["U8", "I16", "F32", "F4", "Q9"]),
)


@given(st.dictionaries(st.sampled_from("abc"), entries, max_size=3), st.integers(0, 8))
def test_refuses_what_the_library_refuses(header: dict[str, object], body: int) -> None:
    """Over small headers, right and wrong, library and reader accept the same ones (4-bit dtypes apart)."""
    data = safetensors_file(header, bytes(body))
    try:
        theirs = {name: (tuple(info["shape"]), bytes(info["data"])) for name, info in deserialize(data)}
    except SafetensorError:
        theirs = None
    if "F4" in json.dumps(header):
        theirs = None
    try:
        ours = contents(parse(data))
    except FormatError:
        ours = None
    assert ours == theirs
