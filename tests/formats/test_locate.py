"""From a path to the files of a checkpoint, whatever a folder or an index says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.digest import content_digest
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.layout import plan
from mapcell_formats.locate import DiskFolder, choose, open_folder, open_path
from mapcell_formats.source import FileSource, read

PARTS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]

CHOICES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "one file first": (["model.safetensors", "model.safetensors.index.json", "x.safetensors"], ["model.safetensors"]),
    "then the index": (["model.safetensors.index.json", *PARTS, "a.ckpt"], ["model.safetensors.index.json"]),
    "an index of another name": (["unet.safetensors.index.json", "a.safetensors"], ["unet.safetensors.index.json"]),
    "the usual index of two": (
        ["model.safetensors.index.json", "a.safetensors.index.json"],
        ["model.safetensors.index.json"],
    ),
    "MindSpore's index": (["param_name_map.json", *PARTS, "hyper_param.safetensors"], ["param_name_map.json"]),
    "the only safetensors": (["x.safetensors", "pytorch_model.bin", "config.json"], ["x.safetensors"]),
    "parts without an index": ([PARTS[2], PARTS[0], PARTS[1], "config.json"], PARTS),
    "torch": (["pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin"], ["pytorch_model.bin"]),
    "torch's index": (
        ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
        ["pytorch_model.bin.index.json"],
    ),
    "the only other": (["lenet.ckpt", "README.md"], ["lenet.ckpt"]),
    "a part of one": (["m-00001-of-00001.gguf"], ["m-00001-of-00001.gguf"]),
    "parts of another format": (
        ["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"],
        ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"],
    ),
    "strange characters": (["a\nb-00001-of-00001.safetensors"], ["a\nb-00001-of-00001.safetensors"]),
}

REFUSED: dict[str, tuple[Sequence[str], type[FormatError], str]] = {
    "nothing": ([], UnsupportedFormat, "it holds nothing"),
    "no weights": ([f"{i}.txt" for i in range(9)], UnsupportedFormat, "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"),
    "two safetensors": (["a.safetensors", "b.safetensors"], UnsupportedFormat, "a.safetensors, b.safetensors"),
    "two of others": (["a.ckpt", "b.npz"], UnsupportedFormat, "2 checkpoints: a.ckpt, b.npz"),
    "two indices": (["a.safetensors.index.json", "b.safetensors.index.json"], UnsupportedFormat, "2 checkpoints"),
    "parts of two": ([*PARTS, "b-00001-of-00003.safetensors"], UnsupportedFormat, "4 checkpoints"),
    "a part missing": ([PARTS[0], PARTS[2]], FormatError, f"the part {PARTS[1]} is missing"),
    "only one part": ([PARTS[0]], FormatError, f"the part {PARTS[1]} is missing"),
    "part 0": (["m-00000-of-00001.gguf", "m-00001-of-00001.gguf"], UnsupportedFormat, "2 parts"),
    "of 0": (["m-00001-of-00000.gguf"], UnsupportedFormat, "1 parts"),
    "of many": (["m-00001-of-99999.gguf"], FormatError, "m-00002-of-99999.gguf is missing"),
    "300 parts": ([f"m-{i:05}-of-00300.safetensors" for i in range(1, 301)], UnsupportedFormat, "300 parts"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choice_in_a_folder(case: str) -> None:
    """Of a folder's files those are taken that its users would take."""
    names, chosen = CHOICES[case]
    assert choose("/m", names) == list(chosen)


@pytest.mark.parametrize("case", REFUSED)
def test_no_choice_in_a_folder(case: str) -> None:
    """A folder without one checkpoint, whole, is refused with what is in it and what to name."""
    names, kind, says = REFUSED[case]
    with pytest.raises(FormatError) as caught:
        choose("/m", names)
    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert caught.value.path == "/m"
    assert caught.value.expected


TENSORS = {name: np.arange(i + 3, dtype=np.float32) * (i + 1) for i, name in enumerate("abcd")}
HOMES = {"a": 1, "b": 0, "c": 1, "d": 2}


def _sharded(folder: Path, homes: Mapping[str, int] = HOMES, total: str = "metadata") -> Path:
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(PARTS):
        shard = {name: TENSORS[name] for name, home in homes.items() if home == number}
        save_file(shard, folder / part, metadata={"format": "pt"})
    names = {name: PARTS[home] for name, home in homes.items()}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({total: {"total_size": 100}, "weight_map": names}, indent=2))
    return index


def _digest(path: Path) -> str:
    sources = open_path(str(path))
    try:
        return _digest_of(read_checkpoint(sources))
    finally:
        for source in sources:
            source.close()


def _digest_of(checkpoint: Checkpoint) -> str:
    from blake3 import blake3

    digests = [
        blake3(b"".join(bytes(read(checkpoint.sources[e.source], e.offset, e.nbytes)) for e in tensor.extents)).digest()
        for tensor in checkpoint.tensors
    ]
    return content_digest(zip(plan(checkpoint.tensors).entries, digests, strict=True), checkpoint.metadata)


def test_one_digest_however_it_is_cut(tmp_path: Path) -> None:
    """A single file, its shards by index, by folder and without an index are the same content."""
    single = tmp_path / "single.safetensors"
    save_file(TENSORS, single, metadata={"format": "pt"})
    index = _sharded(tmp_path / "shards")
    other = _sharded(tmp_path / "other", {"a": 0, "b": 0, "c": 2, "d": 1}, "anything")
    bare = _sharded(tmp_path / "bare").parent
    (bare / "model.safetensors.index.json").unlink()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "model.safetensors").symlink_to(single)
    assert {_digest(p) for p in (single, index, index.parent, other, other.parent, bare, alone)} == {_digest(single)}


def _paths(path: Path) -> list[str]:
    sources = open_path(str(path))
    for source in sources:
        source.close()
    return [source.path for source in sources]


def test_the_files_in_their_order(tmp_path: Path) -> None:
    """An index comes first, then its files by name; a shard that is named is a file like any other."""
    index = _sharded(tmp_path / "m")
    parts = [str(tmp_path / "m" / part) for part in PARTS]
    assert _paths(index) == [str(index), *parts]
    assert _paths(tmp_path / "m") == [str(index), *parts]
    assert _paths(tmp_path / "m" / PARTS[1]) == [parts[1]]


def test_links_as_in_a_cache(tmp_path: Path) -> None:
    """Files that are links into another folder, as in Hugging Face's cache, are sought beside the link."""
    index = _sharded(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "4d7a"
    snapshot.mkdir(parents=True)
    for target in (index, *(tmp_path / "blobs" / part for part in PARTS)):
        (snapshot / target.name).symlink_to(Path("../../blobs") / target.name)
    assert _digest(snapshot) == _digest(index)
    assert _digest(snapshot / index.name) == _digest(index)


def test_a_file_whose_name_has_any_bytes(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 can be named, and stand beside an index."""
    index = _sharded(tmp_path / "m")
    strange = os.path.join(os.fsencode(tmp_path), b"m", b"\xff.safetensors")
    Path(os.fsdecode(strange)).write_bytes((tmp_path / "m" / PARTS[0]).read_bytes())
    assert len(_paths(index.parent)) == 4
    assert _paths(Path(os.fsdecode(strange))) == [os.fsdecode(strange)]


def _descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


@pytest.mark.parametrize("by", ["index", "folder"])
def test_a_missing_shard(by: str, tmp_path: Path) -> None:
    """A shard that is gone, or a link to nothing, is named, and nothing stays open."""
    index = _sharded(tmp_path / "m")
    (index.parent / PARTS[2]).unlink()
    (index.parent / PARTS[2]).symlink_to("nowhere")
    before = _descriptors()
    with pytest.raises(FormatError, match=f"the file {PARTS[2]} is missing") as caught:
        open_path(str(index if by == "index" else index.parent))
    assert caught.value.path == str(index)
    assert _descriptors() == before


HOSTILE = ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "n" * 256, "ü" * 128, "./x", "\\..\\x"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_elsewhere(name: str, tmp_path: Path) -> None:
    """An index that names a file outside its folder opens nothing, even where there is one."""
    (tmp_path / "secret").write_bytes(b"x")
    folder = tmp_path / "m"
    folder.mkdir()
    index = folder / "x.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    opened: list[str] = []

    class Watched(DiskFolder):
        def open(self, name: str) -> FileSource:
            opened.append(name)
            return DiskFolder.open(self, name)

    before = _descriptors()
    with pytest.raises(FormatError):
        open_folder(Watched(str(folder)))
    assert set(opened) <= {index.name, "\\..\\x"}
    assert _descriptors() == before


@pytest.mark.parametrize("kind", ["folder", "device", "fifo"])
def test_a_shard_that_is_no_file(kind: str, tmp_path: Path) -> None:
    """A shard that is a folder, or leads to a device or pipe, is refused at once and nothing stays open."""
    index = _sharded(tmp_path / "m")
    shard = index.parent / PARTS[1]
    shard.unlink()
    if kind == "folder":
        shard.mkdir()
    elif kind == "device":
        shard.symlink_to("/dev/zero")
    else:
        os.mkfifo(shard)
    before = _descriptors()
    with pytest.raises(FormatError, match=r"is a directory|not a regular file"):
        open_path(str(index))
    assert _descriptors() == before


def test_a_broken_index_leaves_nothing_open(tmp_path: Path) -> None:
    """An index that cannot be read, also one found in a folder, is closed again."""
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}')
    before = _descriptors()
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with pytest.raises(FormatError, match="found '1'"):
            open_path(str(path))
    assert _descriptors() == before


def test_what_is_not_there(tmp_path: Path) -> None:
    """A path that leads to nothing fails as opening it does, for the caller to explain."""
    with pytest.raises(FileNotFoundError):
        open_path(str(tmp_path / "x"))
