"""GGUF models through the daemon and without one: as blocks, and as floats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType

from mapcell.attaching import attach
from mapcell.connection import daemon_status
from mapcell.daemon_backend import attach_path
from mapcell_formats.errors import UnsupportedFormat
from support.daemon import DaemonProcess

RNG = np.random.default_rng(11)
PLAIN = RNG.normal(size=(7, 256)).astype(np.float32)
HALF = RNG.normal(size=(33, 2)).astype(np.float16)
# More weights than are unpacked at once, in a number of rows that is no power of two.
VALUES = RNG.normal(size=(515, 256)).astype(np.float32)
KINDS = (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0)
BLOCKS = {kind.name: quants.quantize(VALUES, kind) for kind in KINDS}
FLOATS = {kind.name: quants.dequantize(BLOCKS[kind.name], kind) for kind in KINDS}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that the gguf package wrote: two plain tensors, two quantised ones."""
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"token {n}" for n in range(5000)])
    writer.add_tensor("plain", PLAIN)
    writer.add_tensor("half", HALF)
    for kind in KINDS:
        writer.add_tensor(kind.name, BLOCKS[kind.name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(file)


@pytest.fixture(params=["daemon", "process"])
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What attach is to be told: "require" beside a daemon, "never" without one."""
    if request.param == "process":
        yield "never"
        return
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield "require"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon, and this process pointed at it."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


def test_as_it_is(choice: str, path: str) -> None:
    """Plain tensors are arrays, quantised ones rows of bytes with their type beside them."""
    with attach(path, daemon=choice) as weights:
        assert weights.format == "gguf"
        assert np.array_equal(weights["plain"], PLAIN)
        assert np.array_equal(weights["half"], HALF)
        for name, blocks in BLOCKS.items():
            assert np.array_equal(weights[name], blocks)
            assert weights.metadata[f"gguf.type:{name}"] == name
        assert weights.metadata["general.architecture"] == "llama"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_as_floats(choice: str, path: str, dtype: str) -> None:
    """With a dtype every floating and every quantised tensor comes in it, in its full shape."""
    with attach(path, dtype=dtype, daemon=choice) as weights:
        wanted: dict[str, np.ndarray[Any, Any]] = {"plain": PLAIN, "half": HALF, **FLOATS}
        for name, array in wanted.items():
            found = weights[name]
            assert (found.dtype.name, found.shape) == (dtype, array.shape)
            assert np.array_equal(found, array.astype(found.dtype))
        assert not any(key.startswith("gguf.type:") for key in weights.metadata)


def test_part_as_floats(choice: str, path: str) -> None:
    """One quantised tensor can be had as floats without the others."""
    with attach(path, dtype="float32", keys=["Q4_0"], daemon=choice) as weights:
        assert list(weights) == ["Q4_0"]
        assert np.array_equal(weights["Q4_0"], FLOATS["Q4_0"])


@pytest.mark.parametrize("residence", ["mapped", "sealed"])
def test_derived_from_a_loaded_model(daemon: DaemonProcess, path: str, residence: str) -> None:
    """A model that the daemon holds as blocks, in place or sealed, is derived as floats, once for all."""
    attach_path(path, dtype=None, keys=None, prefix="", mode="r", timeout=30, name="m", residence=residence)
    with attach("m") as blocks, attach("m", dtype="float32") as floats, attach("m", dtype="float32") as again:
        assert np.array_equal(blocks["Q8_0"], BLOCKS["Q8_0"])
        assert np.array_equal(floats["Q8_0"], FLOATS["Q8_0"])
        assert np.array_equal(floats["plain"], PLAIN)
        assert floats.version == again.version != blocks.version


def test_the_budget_counts_floats(daemon: DaemonProcess, path: str) -> None:
    """What is accounted for a derived version is the size of the floats, not that of the blocks."""
    with attach(path, dtype="float32", daemon="require") as weights:
        status = daemon_status()
        assert status is not None
        assert status.sealed >= weights.nbytes == PLAIN.nbytes + 2 * HALF.nbytes + 2 * VALUES.nbytes


def test_bytes_that_are_no_blocks(choice: str, path: str, tmp_path: Path) -> None:
    """A tensor of a type that nobody knows is refused, and what is sound is read afterwards."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"Q4_0") + 4 + 4 + 16
    data[at : at + 4] = (77).to_bytes(4, "little")
    (tmp_path / "broken").write_bytes(data)
    with pytest.raises(UnsupportedFormat, match=r"'Q4_0': tensor type 77"):
        attach(tmp_path / "broken", daemon=choice)
    with attach(path, daemon=choice) as weights:
        assert len(weights) == 4
