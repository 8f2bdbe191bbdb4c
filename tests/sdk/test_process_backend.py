"""Weights without a daemon: whatever was opened is closed, whoever forgets to."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.process_backend import attach_in_process
from mapcell_formats import manifest
from mapcell_formats.errors import FormatError, MapcellError
from mapcell_formats.manifest import Manifest
from mapcell_formats.source import FileSource
from mapcell_formats.table import TensorTable
from support.checkpoints import write_safetensors

DATA = Path(__file__).parent.parent / "data" / "mindspore"


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("close", [True, False], ids=["closed", "forgotten"])
@pytest.mark.parametrize("kind", ["plain", "cast", "encrypted"])
def test_nothing_stays_open(tmp_path: Path, kind: str, close: bool) -> None:
    """With the weights go their files, also the one behind an encrypted checkpoint."""
    before = descriptors()
    if kind == "encrypted":
        weights = attach_in_process(
            str(DATA / "lenet5_aes_gcm.ckpt"),
            dtype=None,
            keys=None,
            prefix="",
            mode="r",
            decryption=(b"0123456789abcdef", "AES-GCM"),
        )
    else:
        file = write_safetensors(tmp_path / "x.safetensors", {"w": np.ones(4, np.float16)})
        weights = attach(file, daemon="never", dtype="float32" if kind == "cast" else None)
    first = weights[next(iter(weights))]
    value = first.copy()
    if close:
        weights.close()
        with pytest.raises(MapcellError, match="were closed"):
            weights[next(iter(weights))]
    del weights
    gc.collect()
    np.testing.assert_array_equal(first, value)
    del first
    gc.collect()
    assert descriptors() == before


def test_nothing_stays_open_of_what_is_broken(tmp_path: Path) -> None:
    """A checkpoint that is refused leaves no descriptor."""
    (tmp_path / "x").write_bytes(b"\x08\0\0\0\0\0\0\0{       ")
    before = descriptors()
    with pytest.raises(FormatError):
        attach(tmp_path / "x", daemon="never")
    assert descriptors() == before


MANY = {f"block.{n}.weight": np.full(2, n, np.float32) for n in range(1_000)}


def test_reads_the_header_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside it only the beginning is read, to tell the format; tensors are mapped."""
    file = write_safetensors(tmp_path / "x.safetensors", MANY)
    header = int.from_bytes(file.read_bytes()[:8], "little")
    read: list[int] = []
    original = FileSource.read_into

    def counted(self: FileSource, offset: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        original(self, offset, buffer)

    monkeypatch.setattr(FileSource, "read_into", counted)
    with attach(file, daemon="never") as weights:
        assert all(weights[name][0] == MANY[name][0] for name in list(MANY)[::100])
    assert header < sum(read) < header + 300


def test_makes_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of many tensors by name make no more than ten, and nothing for the garbage collector to walk through."""
    file = write_safetensors(tmp_path / "x.safetensors", MANY)
    attach(file, daemon="never").close()
    monkeypatch.setattr(TensorTable, "__iter__", lambda self: pytest.fail("all tensors were made"))
    monkeypatch.setattr(TensorTable, "__getitem__", lambda self, number: pytest.fail("a tensor was made"))
    gc.collect()
    before = len(gc.get_objects())
    with attach(file, daemon="never") as weights:
        arrays = [weights[name] for name in list(MANY)[::100]]
        gc.collect()
        assert len(gc.get_objects()) - before < 100
        assert len(arrays) == 10


def test_makes_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else looks at what was read here."""
    monkeypatch.setattr(manifest, "encode_manifest", lambda *_: pytest.fail("encoded"))
    monkeypatch.setattr(Manifest, "__init__", lambda *_: pytest.fail("decoded"))
    with attach(write_safetensors(tmp_path / "x.safetensors", MANY), daemon="never") as weights:
        assert len(weights) == len(dict(weights.items())) == len(MANY)
