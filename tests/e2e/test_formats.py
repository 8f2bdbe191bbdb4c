"""Every format, as its own library writes it, comes back byte for byte: by a daemon and without, mapped and sealed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.daemon_backend import attach_path
from mapcell_formats.dtypes import numpy_dtype, parse_dtype
from mapcell_formats.errors import UnsupportedFormat
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

Arrays = Mapping[str, np.ndarray[Any, Any]]

RNG = np.random.default_rng(5)
PLAIN: Arrays = {
    "a": RNG.standard_normal((300, 500), np.float32),
    "b": RNG.integers(0, 9, (7, 3)).astype(np.int16),
    "c": np.array(2.5),
}
TURNED: Arrays = {"f": np.asfortranarray(PLAIN["a"]), **PLAIN}
TORCH = Path(__file__).parents[1] / "data" / "torch"


def _torch(*files: str) -> Arrays:
    rows = [row for file in files for row in json.loads((TORCH / "expected.json").read_text())[file]]
    return {
        name: np.frombuffer(bytes.fromhex(raw), numpy_dtype(parse_dtype(dtype))).reshape(shape)
        for name, dtype, shape, raw in rows
    }


def _index(folder: Path, name: str, **files: Arrays) -> None:
    names = {tensor: file.replace("__", ".") for file, arrays in files.items() for tensor in arrays}
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))


def _safetensors(folder: Path) -> Arrays:
    write_safetensors(folder / "model.safetensors", PLAIN)
    return PLAIN


def _shards(folder: Path) -> Arrays:
    first, second = {"a": PLAIN["a"]}, {"b": PLAIN["b"], "c": PLAIN["c"]}
    write_safetensors(folder / "1.safetensors", first, {"format": "pt"})
    write_safetensors(folder / "2.safetensors", second, {"format": "pt"})
    _index(folder, "model.safetensors.index.json", **{"1__safetensors": first, "2__safetensors": second})
    return PLAIN


def _npy(folder: Path) -> Arrays:
    np.save(folder / "x.npy", PLAIN["a"])
    return {"arr_0": PLAIN["a"]}


def _npz(folder: Path) -> Arrays:
    np.savez(folder / "x.npz", **TURNED)  # type: ignore[arg-type]
    return TURNED


def _npz_compressed(folder: Path) -> Arrays:
    np.savez_compressed(folder / "x.npz", **PLAIN)  # type: ignore[arg-type]
    return PLAIN


def _torch_dtypes(folder: Path) -> Arrays:
    shutil.copy(TORCH / "dtypes.pt", folder / "pytorch_model.bin")
    return _torch("dtypes.pt")


def _torch_views(folder: Path) -> Arrays:
    shutil.copy(TORCH / "views.pt", folder / "x.pt")
    return _torch("views.pt")


def _torch_shards(folder: Path) -> Arrays:
    for name in ("state.pt", "tensor.pt"):
        shutil.copy(TORCH / name, folder / name)
    files = {"state__pt": _torch("state.pt"), "tensor__pt": _torch("tensor.pt")}
    _index(folder, "pytorch_model.bin.index.json", **files)
    return _torch("state.pt", "tensor.pt")


FORMATS: dict[str, tuple[Callable[[Path], Arrays], bool]] = {
    "safetensors": (_safetensors, True),
    "safetensors in shards": (_shards, True),
    "npy": (_npy, True),
    "npz": (_npz, False),
    "npz, compressed": (_npz_compressed, False),
    "torch": (_torch_dtypes, True),
    "torch, views": (_torch_views, False),
    "torch in shards": (_torch_shards, True),
}


def same(found: Mapping[str, np.ndarray[Any, Any]], wanted: Arrays) -> None:
    """Both have the same names, dtypes, shapes and bytes."""
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        view = found[name]
        assert (view.dtype, view.shape, view.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
        assert not view.flags.writeable


@pytest.mark.parametrize("case", FORMATS)
def test_reads_back(case: str, daemon: DaemonProcess, tmp_path: Path) -> None:
    """In this process, sealed by a daemon, and mapped by one where the format allows."""
    write, mappable = FORMATS[case]
    folder = tmp_path / "model"
    folder.mkdir()
    wanted = write(folder)
    with attach(folder, daemon="never") as weights:
        same(weights, wanted)
    options: dict[str, Any] = {"dtype": None, "keys": None, "prefix": "", "mode": "r", "timeout": 30}
    with attach_path(str(folder), **options, residence="sealed") as weights:
        same(weights, wanted)
        assert (weights.residence, weights.verified) == ("sealed", True)
    if not mappable:
        with pytest.raises(UnsupportedFormat, match="cannot be mapped"):
            attach_path(str(folder), **options, residence="mapped")
        return
    with attach_path(str(folder), **options, residence="mapped") as weights:
        same(weights, wanted)
        assert weights.residence == "mapped"
