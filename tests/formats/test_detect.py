"""Files are told apart by content, and others are named for what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hostile.building import MemorySource, entry, record, safetensors_file, tensor
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.source import FileSource

from .mindspore_data import FOLDER, PLAIN, contents, expected


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"data")
    return file.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "zip": (_zip("a.txt", "b.txt", "c.txt", "d.txt"), "zip archive that holds a.txt, b.txt, c.txt"),
    "empty zip": (_zip(), "empty zip"),
    "big-endian GGUF": (b"FUGG" + bytes(60), "big-endian GGUF"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
    "gzip": (gzip.compress(b"x"), "gzip"),
    "bzip2": (bz2.compress(b"x"), "bzip2"),
    "xz": (lzma.compress(b"x"), "xz"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "HTML": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "text": ("Ein Modell, größer als das vorige, mit noch mehr Gewichten als bisher".encode(), "text"),
    "text that ends within a letter": (("x" * 63 + "ö").encode(), "text"),
    "JSON": (b'{"abc": {"def": 1}}', "text"),
    "JSON with an index": (b'{\n  "metadata": {\n    "total_size": 100\n  }\n}', "text"),
    "line feed and text": (b"\n# A model\n\nIt is large.", "text"),
    "zeros": (bytes(100), "zeros only"),
    "nothing": (b"", "is empty"),
    "one byte": (b"\xff", "no known format"),
    "noise": (bytes(range(200, 256)), "c8 c9 ca cb"),
    "ELF": (b"\x7fELF" + bytes(60), "a program"),
} | {f"pickle {n}": (pickle.dumps({"a": [1]}, protocol=n), "pickle") for n in (2, 3, 4, 5)}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_named(case: str) -> None:
    """What mapcell does not read is refused with what it looks like and what to do."""
    data, says = OTHERS[case]
    with pytest.raises(UnsupportedFormat, match=says) as caught:
        read_checkpoint([MemorySource(data)])
    assert caught.value.path == "/models/case"
    assert caught.value.offset == 0


@pytest.mark.parametrize("file", [*PLAIN, "lenet5.safetensors"])
def test_mindspores_files_are_recognised(file: str, tmp_path: Path) -> None:
    """MindSpore's files are read whatever their name says."""
    path = tmp_path / "model.bin"
    path.write_bytes((FOLDER / file).read_bytes())
    with FileSource.open(path) as source:
        checkpoint = read_checkpoint([source])
        assert contents(checkpoint) | expected(file) == contents(checkpoint)
    assert checkpoint.format == ("safetensors" if file.endswith("safetensors") else "mindspore")


SOUND = {
    "header of 10 bytes": (safetensors_file(b"{        }"), "safetensors"),
    "header of 0x0a0a bytes": (safetensors_file(b"{}" + b" " * 0x0A08), "safetensors"),
    "blank first": (safetensors_file(b" {}"), "safetensors"),
    "brace in the first name": (record("w{ight"), "mindspore"),
    "brace at offset 8 of a .ckpt": (record("abc{e", tensor((100,), content=bytes(400))), "mindspore"),
    "long printable name": (record("n" * 64, tensor((), content=bytes(4))), "mindspore"),
    "empty name": (record(""), "mindspore"),
}


@pytest.mark.parametrize("case", SOUND)
def test_close_calls(case: str) -> None:
    """Files whose first bytes could be of the other format, or text, are told apart."""
    data, name = SOUND[case]
    assert read_checkpoint([MemorySource(data)]).format == name


def test_shards_are_one_checkpoint() -> None:
    """Several files make one checkpoint, whose extents say in which source they lie."""
    first = safetensors_file({"__metadata__": {"a": "1", "b": "1"}, "x": entry()}, b"1111")
    second = safetensors_file({"__metadata__": {"b": "2", "c": "2"}, "y": entry()}, b"2222")
    checkpoint = read_checkpoint([MemorySource(first), MemorySource(second)])
    assert contents(checkpoint) == {"x": ((1,), b"1111"), "y": ((1,), b"2222")}
    assert [item.extents[0].source for item in checkpoint.tensors] == [0, 1]
    assert checkpoint.metadata == {"a": "1", "b": "1", "c": "2"}


def test_a_tensor_in_two_shards() -> None:
    """A name that two shards hold is refused, with the second's path."""
    data = safetensors_file({"x": entry()}, bytes(4))
    with pytest.raises(FormatError, match="earlier shard") as caught:
        read_checkpoint([MemorySource(data), MemorySource(data, path="/models/second")])
    assert (caught.value.path, caught.value.tensor) == ("/models/second", "x")


def test_no_sources() -> None:
    """No file at all is an error of the caller's."""
    with pytest.raises(FormatError, match="no file"):
        read_checkpoint([])


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_no_regular_file(kind: str, tmp_path: Path) -> None:
    """Directories and pipes are refused at once, and leave no descriptor."""
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FormatError, match=r"is a directory|not a regular file"):
        FileSource.open(path)
    assert os.listdir("/proc/self/fd") == before


def test_importing_is_cheap() -> None:
    """Reading plain files loads neither NumPy nor cryptography nor the safetensors library."""
    heavy = "{'numpy', 'cryptography', 'safetensors', 'ml_dtypes'}"
    code = f"import sys, mapcell_formats.detect; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
