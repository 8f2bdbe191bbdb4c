"""Checkpoints converted from each format to each, and what may go wrong on the way."""

from __future__ import annotations

import os
import resource
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType
from safetensors.numpy import load_file, save_file

from hostile import corpus_gguf as hand
from hostile import corpus_npy, corpus_torch, corpus_zip
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.convert import SUFFIXES, Conversion, convert, format_of
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError, NotFound, StagingFailed, UnsupportedFormat
from mapcell_formats.source import FileSource

from .mindspore_data import FOLDER, contents, expected

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "enc.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "enc.0.bias": np.arange(3, dtype=np.float16),
    "enc.1.weight": np.arange(5, dtype=np.float64),
    "ids": np.arange(7, dtype=np.int64),
    "scalar": np.array(2.5, np.float32),
}


def converted(source: Path, target: Path, **options: Any) -> Conversion:
    """Reads `source` and writes `target`."""
    with FileSource.open(source) as opened:
        return convert(read_checkpoint([opened]), target, **options)


def shapes_and_bytes(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of every tensor in the file."""
    with FileSource.open(path) as source:
        return contents(read_checkpoint([source]))


def metadata(path: Path) -> dict[str, str]:
    """The file's strings."""
    with FileSource.open(path) as source:
        return dict(read_checkpoint([source]).metadata)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A safetensors file with a string in it."""
    save_file(ARRAYS, tmp_path / "source.safetensors", {"format": "pt"})
    return tmp_path / "source.safetensors"


WAYS = [(first, second) for first in SUFFIXES for second in SUFFIXES]


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_every_way(source: Path, tmp_path: Path, first: str, second: str) -> None:
    """Through any two formats tensors keep names, dtypes, shapes and bytes, and end where they can be mapped."""
    converted(source, tmp_path / f"one{first}")
    done = converted(tmp_path / f"one{first}", tmp_path / f"two{second}")
    path = tmp_path / f"two{second}"
    assert (done.format, done.tensors, done.nbytes) == (SUFFIXES[second], 5, path.stat().st_size)
    assert shapes_and_bytes(path) == {name: (array.shape, array.tobytes()) for name, array in ARRAYS.items()}
    with FileSource.open(path) as opened:
        assert read_checkpoint([opened]).mappable()


def test_the_libraries_read_it(source: Path, tmp_path: Path) -> None:
    """What is written is what numpy.load and the safetensors library read."""
    converted(source, tmp_path / "x.npz")
    converted(source, tmp_path / "x.safetensors")
    with np.load(tmp_path / "x.npz") as arrays:
        found = {"npz": dict(arrays), "safetensors": load_file(tmp_path / "x.safetensors")}
    for tensors in found.values():
        assert tensors.keys() == ARRAYS.keys()
        assert all(np.array_equal(tensors[name], array) for name, array in ARRAYS.items())


@pytest.mark.parametrize("align", [8, 256, 4096])
@pytest.mark.parametrize("suffix", [".ckpt", ".npz"])
def test_alignment(source: Path, tmp_path: Path, suffix: str, align: int) -> None:
    """Every tensor of a .ckpt or .npz lies at a multiple of the alignment."""
    path = tmp_path / f"x{suffix}"
    converted(source, path, align=align)
    with FileSource.open(path) as opened:
        tensors = read_checkpoint([opened]).tensors
    assert all(tensor.extents[0].offset % align == 0 for tensor in tensors)


def test_dtype(source: Path, tmp_path: Path) -> None:
    """Floating tensors are cast, others stay."""
    converted(source, tmp_path / "x.safetensors", dtype="BF16")
    found = load_file(tmp_path / "x.safetensors")
    for name, array in ARRAYS.items():
        wanted = array.astype(ml_dtypes.bfloat16) if array.dtype.kind == "f" else array
        assert found[name].dtype == wanted.dtype
        assert np.array_equal(found[name], wanted)


def test_names(source: Path, tmp_path: Path) -> None:
    """A prefix chooses and is cut off, expressions rename what is left."""
    rules = [(r"^(\d)\.", r"layer\1."), ("weight$", "w")]
    converted(source, tmp_path / "x.safetensors", prefix="enc.", rename=rules)
    assert sorted(load_file(tmp_path / "x.safetensors")) == ["layer0.bias", "layer0.w", "layer1.w"]


def test_strings_of_mindspore(tmp_path: Path) -> None:
    """Strings of a .ckpt survive the way through safetensors and come back at their place; an .npz has none."""
    original = FOLDER / "lenet5_append.ckpt"
    assert converted(original, tmp_path / "a.safetensors").left_out == ()
    assert converted(tmp_path / "a.safetensors", tmp_path / "b.ckpt").left_out == ()
    assert metadata(tmp_path / "b.ckpt").items() >= metadata(original).items()
    assert shapes_and_bytes(tmp_path / "b.ckpt") == shapes_and_bytes(original)
    done = converted(original, tmp_path / "c.npz")
    assert set(done.left_out) == metadata(original).keys()


def test_strings_of_others(source: Path, tmp_path: Path) -> None:
    """A .ckpt takes no strings but its own: they would turn up among the parameters."""
    assert converted(source, tmp_path / "x.ckpt").left_out == ("format",)
    assert metadata(tmp_path / "x.ckpt") == {}


def test_a_checksum_is_not_kept(tmp_path: Path) -> None:
    """MindSpore's checksum of the old file would be wrong about the new one."""
    save_file(ARRAYS, tmp_path / "x.safetensors", {"crc_num": "1", "format": "ms"})
    assert converted(tmp_path / "x.safetensors", tmp_path / "y.safetensors").left_out == ("crc_num",)
    assert metadata(tmp_path / "y.safetensors") == {"format": "ms"}


def test_mindspores_own_file(tmp_path: Path) -> None:
    """A .ckpt that MindSpore wrote becomes an .npz with the same tensors."""
    converted(FOLDER / "lenet5.ckpt", tmp_path / "x.npz")
    assert shapes_and_bytes(tmp_path / "x.npz") == expected("lenet5.ckpt")


def test_marks_follow_their_tensor(tmp_path: Path) -> None:
    """The type of a quantised tensor stands under its new name, and goes when the tensor is left out."""
    path = _quantised(tmp_path)
    converted(path, tmp_path / "x.safetensors", rename={"q": "renamed", "plain": None})
    assert metadata(tmp_path / "x.safetensors") == {"gguf.type:renamed": "Q4_0"}
    assert converted(path, tmp_path / "y.safetensors", rename={"q": None}).left_out == ("gguf.type:q",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_quantised_tensors_become_floats(tmp_path: Path, suffix: str) -> None:
    """With a dtype a GGUF model is written as floats, in any format."""
    converted(_quantised(tmp_path), tmp_path / f"x{suffix}", dtype="F16")
    shape, raw = shapes_and_bytes(tmp_path / f"x{suffix}")["q"]
    wanted = quants.dequantize(_blocks(), GGMLQuantizationType.Q4_0).astype(np.float16)
    assert (shape, raw) == ((2, 64), wanted.tobytes())


SOURCES: dict[str, tuple[bytes, list[float]]] = {
    "torch": (corpus_torch.SMALL, np.frombuffer(bytes(range(8)), np.float32).tolist()),
    "npy": (corpus_npy.SMALL, [0.0, 0.0]),
    "deflated npz": (corpus_zip.SMALL, [0.0, 0.0]),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_only_read(tmp_path: Path, name: str, suffix: str) -> None:
    """Formats that are read and not written can be converted from, whatever has to be decoded on the way."""
    data, values = SOURCES[name]
    (tmp_path / "in").write_bytes(data)
    converted(tmp_path / "in", tmp_path / f"out{suffix}")
    for shape, raw in shapes_and_bytes(tmp_path / f"out{suffix}").values():
        assert (shape, np.frombuffer(raw, np.float32).tolist()) == ((2,), values)


@pytest.mark.parametrize("suffix", [".ckpt", ".npz"])
def test_blocks_without_their_type(tmp_path: Path, suffix: str) -> None:
    """Where nothing could tell how they are packed, quantised blocks are refused."""
    with pytest.raises(UnsupportedFormat, match=r"'q': is quantised as Q4_0.*dtype"):
        converted(_quantised(tmp_path), tmp_path / f"x{suffix}")
    assert not (tmp_path / f"x{suffix}").exists()


def _blocks() -> np.ndarray[Any, Any]:
    values = np.random.default_rng(3).normal(size=(2, 64)).astype(np.float32)
    return quants.quantize(values, GGMLQuantizationType.Q4_0)


def _quantised(folder: Path) -> Path:
    path = folder / "model.gguf"
    infos = (hand.info("plain"), hand.info("q", (64, 2), hand.Q4_0, 32))
    path.write_bytes(hand.gguf_file((), infos, bytes(32) + _blocks().tobytes()))
    return path


REFUSED: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "names that become one": ("x.safetensors", {"rename": [(r".*", "same")]}, FormatError, "twice"),
    "names that become one, .ckpt": ("x.ckpt", {"rename": [(r".*", "same")]}, FormatError, "twice"),
    "a prefix of nothing": ("x.npz", {"prefix": "dec."}, NotFound, "no tensor is left"),
    "a dtype that .npz lacks": ("x.npz", {"dtype": "BF16"}, UnsupportedFormat, "cannot hold BF16"),
    "a dtype that .ckpt lacks": ("x.ckpt", {"dtype": "F8_E4M3"}, UnsupportedFormat, "cannot hold F8_E4M3"),
    "no power of two": ("x.ckpt", {"align": 24}, ValueError, "power of two"),
    "a suffix of no format": ("x.bin", {}, UnsupportedFormat, r"ends in \.safetensors or"),
    "no suffix": ("safetensors", {}, UnsupportedFormat, "no format"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(source: Path, tmp_path: Path, case: str) -> None:
    """Each wrong wish gets its error, and the file that was there stays."""
    name, options, error, says = REFUSED[case]
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(error, match=says):
        converted(source, tmp_path / name, **options)
    assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == sorted({name, source.name})


def test_format_of() -> None:
    """The suffix says the format, for a path as well."""
    assert [format_of(Path("a.b/c" + suffix)) for suffix in SUFFIXES] == list(SUFFIXES.values())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    """When the system takes no more bytes, here by a limit on file sizes, the old file stays."""
    save_file({"x": np.zeros(1 << 20)}, tmp_path / "big.safetensors")
    target = tmp_path / f"x{suffix}"
    target.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError):
            converted(tmp_path / "big.safetensors", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == sorted(["big.safetensors", target.name])


def test_a_file_onto_itself(source: Path) -> None:
    """A file may be replaced by what it is converted to."""
    converted(source, source, dtype="F16")
    assert {array.dtype for name, array in load_file(source).items() if name != "ids"} == {np.dtype(np.float16)}


def test_a_source_that_shrinks(source: Path, tmp_path: Path) -> None:
    """A source that is cut while it is read is StagingFailed, and nothing is left of the target."""
    with FileSource.open(source) as opened:
        checkpoint = read_checkpoint([opened])
        os.truncate(source, source.stat().st_size - 1)
        with pytest.raises(StagingFailed):
            convert(checkpoint, tmp_path / "x.ckpt")
    assert os.listdir(tmp_path) == [source.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_tensor_at_a_time(tmp_path: Path, suffix: str) -> None:
    """Converting a model of 16 MiB in 16 tensors holds one of them, not the model."""
    save_file({str(n): np.full(1 << 18, n, np.float32) for n in range(16)}, tmp_path / "big.safetensors")
    tracemalloc.start()
    try:
        converted(tmp_path / "big.safetensors", tmp_path / f"x{suffix}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_no_tensors(tmp_path: Path) -> None:
    """A checkpoint that holds none is written as one that holds none."""
    done = convert(Checkpoint("safetensors", (), (), {}), tmp_path / "x.safetensors")
    assert done.tensors == 0
    assert load_file(tmp_path / "x.safetensors") == {}
