"""What attackers and broken disks send gets the right error, cheaply, and leaves nothing behind."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

import pytest

from mapcell_formats import gguf, mindspore_ckpt, npy, npz, safetensors, torch_zip
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError
from mapcell_formats.index import parse_index
from mapcell_formats.source import ByteSource, FileSource

from . import corpus_ckpt, corpus_gguf, corpus_index, corpus_npy, corpus_safetensors, corpus_torch, corpus_zip
from .building import PATH, Case

PEAK_BYTES = 64 * 1024 * 1024

Parse = Callable[[ByteSource], object]


class Corpus(Protocol):
    """A module of broken files."""

    @property
    def cases(self) -> Callable[[], Iterator[Case]]: ...

    @property
    def truncations(self) -> Callable[[], Iterator[Case]]: ...


# What a corpus is for, the corpus, and what has to refuse its cases.
KINDS: dict[str, tuple[Corpus, Parse]] = {
    "safetensors": (corpus_safetensors, safetensors.READER.parse),
    "mindspore": (corpus_ckpt, mindspore_ckpt.READER.parse),
    "gguf": (corpus_gguf, gguf.READER.parse),
    "index": (corpus_index, parse_index),
    "npy": (corpus_npy, npy.READER.parse),
    "zip": (corpus_zip, npz.READER.parse),
    "torch": (corpus_torch, torch_zip.READER.parse),
}


def _all() -> Iterator[tuple[str, Case]]:
    for kind, (corpus, _) in KINDS.items():
        for case in chain(corpus.cases(), corpus.truncations()):
            yield kind, case


ALL = [pytest.param(kind, case, id=f"{kind}: {case.label}") for kind, case in _all()]


def _refused(kind: str, source: ByteSource) -> FormatError:
    with pytest.raises(FormatError) as caught:
        KINDS[kind][1](source)
    return caught.value


@pytest.mark.parametrize(("kind", "case"), ALL)
def test_is_refused(kind: str, case: Case) -> None:
    """Every broken file gets a FormatError that names file and offset and says what is wrong."""
    error = _refused(kind, case.source())
    assert error.path == PATH
    assert error.offset is not None
    assert 0 <= error.offset <= case.source().size
    assert error.expected
    assert case.says in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(("kind", "case"), ALL)
def test_detection_lets_nothing_through(kind: str, case: Case) -> None:
    """Read without being told the format, every broken file is refused all the same."""
    with pytest.raises(FormatError) as caught:
        read_checkpoint([case.source()])
    assert caught.value.path == PATH


def test_memory_stays_bounded() -> None:
    """No broken file makes its reader allocate more than 64 MiB and ten times what it holds."""
    for kind, case in _all():
        source = case.source()
        tracemalloc.start()
        _refused(kind, source)
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


SOUND = {
    "safetensors": [corpus_safetensors.SMALL],
    "mindspore": [corpus_ckpt.SMALL],
    "gguf": [corpus_gguf.SMALL, corpus_gguf.small(version=1)],
    "index": [corpus_index.SMALL],
    "npy": [corpus_npy.SMALL],
    "zip": [corpus_zip.SMALL],
    "torch": [corpus_torch.SMALL],
}


@pytest.mark.parametrize("kind", SOUND)
def test_the_uncut_files_are_sound(kind: str) -> None:
    """The files that the truncations cut are read when whole, so that each cut is what breaks them."""
    for data in SOUND[kind]:
        assert KINDS[kind][1](Case("whole", data, "").source())
