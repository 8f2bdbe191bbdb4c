"""What Weights are told of a checkpoint that was read here is what the manifest of it would tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mapcell import contents
from mapcell.contents import Contents, ReadContents
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError, NotFound
from mapcell_formats.manifest import Description, Manifest, encode_manifest
from mapcell_formats.source import FileSource
from support.checkpoints import write_safetensors

ARRAYS = {
    "layer.weight": np.ones((2, 3), np.float32),
    "layer.half": np.ones(5, np.float16),
    "layer.empty": np.ones((0, 4), np.float64),
    "größe": np.array(3, np.int8),
}


def _npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **ARRAYS)
    return path.with_suffix(".npz")


WRITERS: dict[str, Callable[[Path], Path]] = {
    "safetensors": lambda path: write_safetensors(path, ARRAYS, {"format": "pt"}),
    "npz": _npz,
}


@pytest.fixture(params=WRITERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    """The arrays, in columns and as tensors."""
    with FileSource.open(WRITERS[request.param](tmp_path / "m")) as source:
        return read_checkpoint([source])


def both(checkpoint: Checkpoint, dtype: str | None) -> tuple[Contents, Contents]:
    """What was read, and a manifest of that."""
    about = Description("file-1", "mapped", checkpoint.format, False, checkpoint.metadata)
    read = ReadContents(about, checkpoint.tensors, dtype)
    return read, Manifest(encode_manifest(about, [s.size for s in checkpoint.sources], read.entries()))


@pytest.mark.parametrize("dtype", [None, "F32", "BF16"])
def test_as_a_manifest(checkpoint: Checkpoint, dtype: str | None) -> None:
    """Names, entries, numbers, digests and the description are the same."""
    read, manifest = both(checkpoint, dtype)
    assert len(read) == len(manifest) == len(ARRAYS)
    assert read.names() == manifest.names()
    assert read.entries() == manifest.entries()
    for number, name in enumerate(manifest.names()):
        assert read[name] == manifest[name]
        assert read.find(name) == manifest.find(name) == number
        assert read.digest(number) == manifest.digest(number)
    assert read.find("layer") == manifest.find("layer") == -1
    assert read.description() == manifest.description()


def test_an_unknown_name(checkpoint: Checkpoint) -> None:
    """It is refused in a manifest's words."""
    said = []
    for one in both(checkpoint, None):
        with pytest.raises(NotFound) as caught:
            one["layer.weigth"]
        said.append((str(caught.value), caught.value.details))
    assert said[0] == said[1]


def test_casts_are_counted_in_their_dtype(checkpoint: Checkpoint) -> None:
    """Floating entries are as large as their cast is, and do not lie whole; others do."""
    read, _ = both(checkpoint, "F64")
    sizes = {entry.name: (entry.dtype, entry.nbytes) for entry in read.entries()}
    assert sizes["layer.weight"] == ("F64", 48)
    assert sizes["größe"] == ("I8", 1)
    ready = {entry.name: read.lies_whole(entry) for entry in read.entries()}
    assert ready == {"layer.weight": False, "layer.half": False, "layer.empty": True, "größe": True}


def test_tensors_are_counted(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files hold no more than a manifest does."""
    monkeypatch.setattr(contents, "MAX_TENSORS", len(ARRAYS) - 1)
    with pytest.raises(FormatError, match="has 4 tensors"):
        both(checkpoint, None)
