"""Maps of segments: where they lie, how they end, and how one file takes another's place under views."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mapcell.mapping import ManifestFile, Mode, SegmentMap, map_memory, map_segment, view
from mapcell_formats.manifest import TensorEntry

HUGE_PAGE = 2 << 20
LARGE = (16 << 20) + 4096
ENTRY = TensorEntry("t", "F32", (2, 512), 0, 8192, 4096)
Map = Callable[[int, int, Mode, object], SegmentMap | None]


class Lease:
    """Something that a map keeps alive."""


def memory(nbytes: int, fill: int = 1) -> int:
    """A memfd whose element at ENTRY's place is `fill`."""
    fd = os.memfd_create("mapped", os.MFD_CLOEXEC)
    os.ftruncate(fd, nbytes)
    os.pwrite(fd, np.full(1024, fill, np.float32).tobytes(), ENTRY.offset)
    return fd


@pytest.fixture
def large() -> Iterator[int]:
    """Memory of a size that is given a place."""
    fd = memory(LARGE)
    yield fd
    os.close(fd)


def maps() -> list[str]:
    """The lines of this process's maps that are of a memory of ours."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:mapped" in line]


@pytest.mark.parametrize("mode", ["r", "c"])
@pytest.mark.parametrize(("make", "nbytes"), [(map_segment, LARGE), (map_memory, LARGE), (map_memory, 64 << 10)])
def test_life(make: Map, nbytes: int, mode: Mode) -> None:
    """A map and what it keeps alive end with the last array that looks at them, and no descriptor is needed for it."""
    fd, lease = memory(nbytes), Lease()
    held, ended = weakref.ref(lease), make(fd, nbytes, mode, lease)
    del lease
    os.close(fd)
    array = view(ended, ENTRY, mode)[1]
    del ended
    gc.collect()
    assert array.tolist() == [1.0] * 512
    assert array.flags.writeable == (mode == "c")
    assert held() is not None
    assert len(maps()) == 1
    del array
    assert held() is None
    assert maps() == []


@pytest.mark.parametrize("mode", ["r", "c"])
def test_large_memory_begins_where_a_huge_page_can(large: int, mode: Mode) -> None:
    """Large memory is mapped at a multiple of 2 MiB, all of it and no more; what is smaller lies anywhere."""
    segment = map_memory(large, LARGE, mode, None)
    assert segment is not None
    (line,) = maps()
    first, last = (int(address, 16) for address in line.split()[0].split("-"))
    assert first % HUGE_PAGE == 0
    assert last - first == LARGE
    assert view(segment, ENTRY, mode).__array_interface__["data"][0] == first + ENTRY.offset
    last_page = TensorEntry("end", "U8", (4096,), 0, LARGE - 4096, 4096)
    assert not view(segment, last_page, mode).any()


def test_it_takes_no_memory(large: int) -> None:
    """The room that is left around it is never touched."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    held = [map_memory(large, LARGE, "r", None) for _ in range(50)]
    assert resident() - before < HUGE_PAGE
    assert len(maps()) == len(held)


def test_copy_on_write(large: int) -> None:
    """Mode "c" writes to pages of its own."""
    array = view(map_memory(large, LARGE, "c", None), ENTRY, "c")
    array[:] = 5
    assert view(map_memory(large, LARGE, "r", None), ENTRY, "r").max() == 1


@pytest.mark.parametrize("make", [map_segment, map_memory])
def test_replace(large: int, make: Map) -> None:
    """Another memory of the same bytes takes the first one's place under views that are there."""
    segment = make(large, LARGE, "r", None)
    assert segment is not None
    array, other = view(segment, ENTRY, "r"), memory(LARGE, 2)
    segment.replace(other)
    os.close(other)
    assert array.min() == array.max() == 2
    assert len(maps()) == 1


def test_refused(tmp_path: Path) -> None:
    """What the kernel does not map raises OSError and leaves nothing behind."""
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
    os.ftruncate(fd, LARGE)
    for make in (map_segment, map_memory):
        with pytest.raises(OSError, match="denied"):
            make(fd, LARGE, "r", None)
    os.close(fd)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_manifest_file() -> None:
    """Reads what there is at a place, and closes its descriptor in the end."""
    fd = os.memfd_create("manifest", os.MFD_CLOEXEC)
    os.write(fd, b"0123456789")
    file = ManifestFile(fd, 10)
    assert (file.size, file.read(2, 3), file.read(8, 5), file.read(10, 1)) == (10, b"234", b"89", b"")
    del file
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_a_descriptor_is_not_copied(copied: Callable[[object], object]) -> None:
    """Whoever copies what owns a descriptor is told, and the descriptor stays open."""
    fd = os.memfd_create("manifest", os.MFD_CLOEXEC)
    os.write(fd, b"0123456789")
    file = ManifestFile(fd, 10)
    with pytest.raises(TypeError, match="descriptor"):
        copied(file)
    gc.collect()
    assert file.read(0, 2) == b"01"


@pytest.mark.parametrize("make", [map_segment, map_memory])
def test_too_short(make: Map) -> None:
    """What is shorter than it has to be is refused when it is mapped, not when it is looked at."""
    fd = memory(LARGE - 4096)
    with pytest.raises(ValueError, match=r"size|bytes"):
        make(fd, LARGE, "r", None)
    os.close(fd)


def test_a_place_is_given_back(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel maps nothing into it, the room goes at once, while somebody still holds the error."""
    before = Path("/proc/self/statm").read_text().split()[0]

    def refuse(*_: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(SegmentMap, "align", refuse)
    with pytest.raises(OSError, match="no memory") as error:
        map_memory(large, LARGE, "c", None)
    assert int(Path("/proc/self/statm").read_text().split()[0]) - int(before) < LARGE // 4096
    assert error.value
