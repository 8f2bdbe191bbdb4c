"""The tables of what formats can do, in ARCHITECTURE.md and README.md, hold: every cell is tried out on real files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formats.mindspore_data import ENCRYPTED, FOLDER, key_of, mode_of
from mapcell.daemon_backend import attach_path
from mapcell.opening import open_sources
from mapcell.train.loading import load_checkpoint
from mapcell.weights import Weights
from mapcell_formats.ckpt_writer import Encryption
from mapcell_formats.convert import convert
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.dtypes import FLOATING
from mapcell_formats.errors import FormatError, UnsupportedFormat
from mapcell_formats.source import FileSource
from support.daemon import DaemonProcess
from support.real_files import FILES, VALUES, Arrays

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Row:
    """A format: its real files, and the name that a file of it would be written under."""

    files: tuple[str, ...]
    target: str


ROWS: Mapping[str, Row] = {
    "safetensors": Row(("safetensors", "safetensors, unaligned", "MindSpore safetensors"), "x.safetensors"),
    "safetensors in shards": Row(
        ("transformers, sharded", "MindSpore, sharded", "shards, one unaligned"), "model.safetensors.index.json"
    ),
    "MindSpore .ckpt": Row(("MindSpore .ckpt", "MindSpore .ckpt, every dtype", "mapcell .ckpt"), "x.ckpt"),
    ".npy": Row(("npy", "npy, Fortran order"), "x.npy"),
    ".npz": Row(("npz", "npz, compressed", "mapcell .npz"), "x.npz"),
    "torch": Row(("torch", "torch, views"), "x.pt"),
    "torch in shards": Row(("torch in shards", "torch in shards, views"), "pytorch_model.bin.index.json"),
    "GGUF": Row(("GGUF", "GGUF, unaligned"), "x.gguf"),
    "GGUF, quantised": Row(("GGUF, quantised",), "x.gguf"),
}
ENCRYPTED_ROW = "MindSpore .ckpt, encrypted"
# In the order of the documents' tables.
ORDER = (*list(ROWS)[:3], ENCRYPTED_ROW, *list(ROWS)[3:])
COLUMNS = ("mapped", "staged", "partial", "slice", "derived", "write")


def table(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table beneath a heading, without its head."""
    text = (ROOT / document).read_text().partition(heading)[2].partition("\n|")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def documented(name: str) -> list[list[str]]:
    """What the documents say of a row, each in its table: of each cell the first word, "yes", "no" or "if"."""
    found = []
    for document, heading in (("ARCHITECTURE.md", "## What formats can do"), ("README.md", "## Formats")):
        rows = table(document, heading)
        assert len(rows) == len(ORDER)
        title, *cells = rows[ORDER.index(name)]
        assert re.findall(r"\w+", name)[0].lower() in title.lower()
        found.append([re.findall(r"\w+", cell)[0] for cell in cells])
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[DaemonProcess]:
    """One daemon for all."""
    with DaemonProcess() as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def pointed(running: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process asks that daemon."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))


def attached(folder: Path, residence: str = "auto", **options: Any) -> Weights:
    """The checkpoint in `folder`, by the daemon."""
    wanted: dict[str, Any] = {"dtype": None, "keys": None, "prefix": "", "mode": "r", "timeout": 30}
    return attach_path(str(folder), **wanted | options, residence=residence)


def can_be_mapped(folder: Path, arrays: Arrays) -> bool:
    try:
        attached(folder, "mapped").close()
    except UnsupportedFormat:
        return False
    return True


def can_be_staged(folder: Path, arrays: Arrays) -> bool:
    with attached(folder, "sealed") as weights:
        return weights.residence == "sealed" and set(weights) == set(arrays)


def can_be_partial(folder: Path, arrays: Arrays) -> bool:
    name = max(arrays, key=lambda name: arrays[name].nbytes)
    with attached(folder, "sealed", keys=[name]) as weights:
        return list(weights) == [name] and weights[name].tobytes() == arrays[name].tobytes()


def can_be_sliced(folder: Path, arrays: Arrays) -> bool:
    name, axis = next((n, axis) for n, a in arrays.items() for axis, dim in enumerate(a.shape) if dim and dim % 2 == 0)
    with attached(folder) as weights:
        part, half = weights.slice(name, axis, 1, 2), arrays[name].shape[axis] // 2
        wanted = np.take(arrays[name], range(half, 2 * half), axis)
        return np.shares_memory(part, weights[name]) and part.tobytes() == wanted.tobytes()


def can_be_derived(folder: Path, arrays: Arrays) -> bool:
    with attached(folder, dtype="F32") as weights:
        if "blocks" in arrays:
            return weights["blocks"].shape == VALUES.shape and weights["blocks"].dtype == np.float32
        codes = {name: weights.entry(name).dtype for name in arrays}
    with attached(folder) as before:
        floating = [name for name in arrays if before.entry(name).dtype in FLOATING]
    return bool(floating) and all(codes[name] == "F32" for name in floating)


def can_be_written(folder: Path, arrays: Arrays, target: str) -> bool:
    """Whether the checkpoint can be written as what it is."""
    sources = open_sources(str(folder))
    path = folder / f"new-{target}"
    try:
        checkpoint = read_checkpoint(sources)
        convert(checkpoint, path)
        with FileSource.open(path) as written:
            return read_checkpoint([written]).format == checkpoint.format
    except UnsupportedFormat:
        return False
    finally:
        for source in sources:
            source.close()


TRIED: dict[str, Callable[[Path, Arrays], bool]] = {
    "mapped": can_be_mapped,
    "staged": can_be_staged,
    "partial": can_be_partial,
    "slice": can_be_sliced,
    "derived": can_be_derived,
}


def word(outcomes: set[bool]) -> str:
    """What a cell begins with that says so."""
    return "if" if len(outcomes) == 2 else "yes" if True in outcomes else "no"


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, tmp_path: Path) -> None:
    """What the daemon does with a format's real files is what both tables say."""
    outcomes: dict[str, set[bool]] = {column: set() for column in COLUMNS}
    for number, file in enumerate(ROWS[name].files):
        folder = tmp_path / str(number)
        folder.mkdir()
        arrays = FILES[file].write(folder)
        for column, tried in TRIED.items():
            outcomes[column].add(tried(folder, arrays))
        outcomes["write"].add(can_be_written(folder, arrays, ROWS[name].target))
    found = [word(outcomes[column]) for column in COLUMNS]
    assert documented(name) == [found, found]


def test_encrypted_row(tmp_path: Path) -> None:
    """An encrypted .ckpt is for who has the key: neither mapped nor staged, read in parts, and written."""
    file = ENCRYPTED[0]
    for residence in ("mapped", "sealed"):
        with pytest.raises(FormatError, match="is encrypted with AES-GCM"):
            attached(FOLDER / file, residence)
    key, mode = key_of(file), mode_of(file)
    part = load_checkpoint(str(FOLDER / file), dec_key=key, dec_mode=mode, choice_func=lambda name: name[:3] == "fc1")
    assert set(part) == {"fc1.weight", "fc1.bias"}
    with closing(FileSource.open(FOLDER / file)) as source:
        convert(read_checkpoint([source], key=key, mode=mode), tmp_path / "x.ckpt", encryption=Encryption(key, mode))
    assert set(load_checkpoint(str(tmp_path / "x.ckpt"), dec_key=key, dec_mode=mode)) > set(part)
    found = ["no", "no", "yes", "no", "no", "yes"]
    assert documented(ENCRYPTED_ROW) == [found, found]
