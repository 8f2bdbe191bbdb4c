"""An index names the files of a checkpoint, and is believed only as far as they bear it out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from hostile.building import MemorySource, entry, record, safetensors_file
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.index import MAX_FILES, is_index, parse_index

from .mindspore_data import contents

INDEX = "/models/x/model.safetensors.index.json"


def _index(weight_map: object, **aside: object) -> MemorySource:
    return MemorySource(json.dumps({**aside, "weight_map": weight_map}).encode(), INDEX)


def _shard(name: str, *tensors: str) -> MemorySource:
    header = {tensor: entry(4 * i, 4 * i + 4) for i, tensor in enumerate(tensors)}
    body = b"".join(tensor.encode() * 4 for tensor in tensors)
    return MemorySource(safetensors_file({"__metadata__": {"format": "pt"}, **header}, body), f"/models/x/{name}")


def _read(weight_map: object, *shards: MemorySource) -> Checkpoint:
    return read_checkpoint([_index(weight_map), *shards])


def test_hugging_face() -> None:
    """Files come in the order of their names, each once; what stands beside the map is skipped."""
    source = _index({"c": "2", "a": "1", "b": "2"}, metadata={"total_size": 12, "more": [{"deep": None}]}, note="x")
    index = parse_index(source)
    assert index.files == ("1", "2")
    assert dict(index.file_of) == {"c": 1, "a": 0, "b": 1}


@pytest.mark.parametrize("inner", [False, True], ids=["bare", "under weight_map"])
def test_mindspore(inner: bool) -> None:
    """MindSpore's param_name_map.json maps tensors to files with or without an object around."""
    names = {"a": "part0.safetensors", "b": "part1.safetensors"}
    index = parse_index(MemorySource(json.dumps({"weight_map": names} if inner else names).encode()))
    assert index.files == ("part0.safetensors", "part1.safetensors")


def test_shards_are_read_as_one() -> None:
    """The index and its files give one checkpoint, which says of each tensor in which source it lies."""
    checkpoint = _read({"a": "1", "b": "2", "c": "2"}, _shard("1", "a"), _shard("2", "b", "c"))
    assert contents(checkpoint) == {name: ((1,), name.encode() * 4) for name in "abc"}
    assert [source.path for source in checkpoint.sources] == [INDEX, "/models/x/1", "/models/x/2"]
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.mappable() is False


DISAGREE: dict[str, tuple[dict[str, str], Sequence[MemorySource], str, str, str]] = {
    "missing": ({"a": "1", "b": "2"}, [_shard("1", "a"), _shard("2")], "b", "/models/x/2", "not in this file"),
    "extra": ({"a": "1"}, [_shard("1", "a", "b")], "b", "/models/x/1", "does not list it"),
    "elsewhere": (
        {"a": "1", "b": "1", "c": "2"},
        [_shard("1", "a"), _shard("2", "b", "c")],
        "b",
        "/models/x/2",
        "lists it in 1",
    ),
    "in both": ({"a": "1", "b": "2"}, [_shard("1", "a"), _shard("2", "a", "b")], "a", "/models/x/2", "lists it in 1"),
    "files swapped": ({"a": "1", "b": "2"}, [_shard("2", "b"), _shard("1", "a")], "b", "/models/x/2", "lists it in 2"),
}


@pytest.mark.parametrize("case", DISAGREE)
def test_index_and_files_disagree(case: str) -> None:
    """A tensor that the index or a file lacks, or that lies elsewhere, is refused with its name and file."""
    weight_map, shards, tensor, path, says = DISAGREE[case]
    with pytest.raises(FormatError, match=says) as caught:
        _read(weight_map, *shards)
    assert (caught.value.tensor, caught.value.path) == (tensor, path)


def test_files_that_did_not_come() -> None:
    """An index without its files, as a client may send it, is refused."""
    with pytest.raises(FormatError, match="names 2 files, of which 1 came") as caught:
        _read({"a": "1", "b": "2"}, _shard("1", "a"))
    assert caught.value.path == INDEX


def test_files_of_two_formats() -> None:
    """The files of one checkpoint are of one format."""
    ckpt = MemorySource(record("b"), "/models/x/2")
    with pytest.raises(FormatError, match="is a mindspore file") as caught:
        _read({"a": "1", "b": "2"}, _shard("1", "a"), ckpt)
    assert caught.value.path == "/models/x/2"


@pytest.mark.parametrize("count", [MAX_FILES - 1, MAX_FILES])
def test_number_of_files(count: int) -> None:
    """As many files as fit one message beside the index, and not one more."""
    source = _index({str(i): f"{i}.safetensors" for i in range(count)})
    if count < MAX_FILES:
        assert len(parse_index(source).files) == count
        return
    with pytest.raises(UnsupportedFormat, match=f"{MAX_FILES} files and more"):
        parse_index(source)


@pytest.mark.parametrize(
    "text",
    [b'{"model_type": "bert", "layers": 12, "act": ["gelu"]}', b"{}", b'{"weight_map": {}}', b' {"metadata": {}}'],
    ids=["config.json", "nothing", "an empty map", "no map"],
)
def test_other_json(text: bytes) -> None:
    """JSON that names no tensors is no index, and is said to be text."""
    assert is_index(text)
    with pytest.raises(UnsupportedFormat, match="looks like text"):
        read_checkpoint([MemorySource(text)])
