"""What attackers and broken disks send gets the right error, cheaply, and leaves nothing behind."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from mapcell_formats import gguf, mindspore_ckpt, safetensors
from mapcell_formats.checkpoint import Reader
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError
from mapcell_formats.source import ByteSource, FileSource

from . import corpus_ckpt, corpus_gguf, corpus_safetensors
from .building import PATH, Case

PEAK_BYTES = 64 * 1024 * 1024


def _all() -> Iterator[tuple[Reader, Case]]:
    for case in chain(corpus_safetensors.cases(), corpus_safetensors.truncations()):
        yield safetensors.READER, case
    for case in chain(corpus_ckpt.cases(), corpus_ckpt.truncations()):
        yield mindspore_ckpt.READER, case
    for case in chain(corpus_gguf.cases(), corpus_gguf.truncations()):
        yield gguf.READER, case


ALL = [pytest.param(reader, case, id=f"{reader.format}: {case.label}") for reader, case in _all()]


def _refused(reader: Reader, source: ByteSource) -> FormatError:
    with pytest.raises(FormatError) as caught:
        reader.parse(source)
    return caught.value


@pytest.mark.parametrize(("reader", "case"), ALL)
def test_is_refused(reader: Reader, case: Case) -> None:
    """Every broken file gets a FormatError that names file and offset and says what is wrong."""
    error = _refused(reader, case.source())
    assert error.path == PATH
    assert error.offset is not None
    assert 0 <= error.offset <= case.source().size
    assert error.expected
    assert case.says in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(("reader", "case"), ALL)
def test_detection_lets_nothing_through(reader: Reader, case: Case) -> None:
    """Read without being told the format, every broken file is refused all the same."""
    with pytest.raises(FormatError) as caught:
        read_checkpoint([case.source()])
    assert caught.value.path == PATH


def test_memory_stays_bounded() -> None:
    """No broken file makes its reader allocate more than 64 MiB and ten times what it holds."""
    for reader, case in _all():
        source = case.source()
        tracemalloc.start()
        _refused(reader, source)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < PEAK_BYTES, case.label
        assert peak < 1_000_000 + 10 * len(case.data), case.label


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Reading broken files from disk leaves no descriptor open."""
    path = tmp_path / "case"
    before = os.listdir("/proc/self/fd")
    for _, case in _all():
        if case.size is not None:
            continue
        path.write_bytes(case.data)
        with pytest.raises(FormatError), FileSource.open(path) as source:
            read_checkpoint([source])
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        (safetensors.READER, corpus_safetensors.SMALL),
        (mindspore_ckpt.READER, corpus_ckpt.SMALL),
        (gguf.READER, corpus_gguf.SMALL),
        (gguf.READER, corpus_gguf.small(version=1)),
    ],
    ids=["safetensors", "ckpt", "gguf", "gguf 1"],
)
def test_the_uncut_files_are_sound(reader: Reader, data: bytes) -> None:
    """The files that the truncations cut are read when whole, so that each cut is what breaks them."""
    assert reader.parse(Case("whole", data, "").source()).tensors[0].shape[0] == 2
