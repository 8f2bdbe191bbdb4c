"""Checkpoints of every format as their own libraries write them, and what is in them according to those libraries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formats.mindspore_data import FOLDER as MINDSPORE
from formats.mindspore_data import expected, facts
from mapcell_formats.ckpt_writer import encode_ckpt
from mapcell_formats.dtypes import code_of, numpy_dtype, parse_dtype
from mapcell_formats.items import TensorItem
from mapcell_formats.npz_writer import encode_npz

from .checkpoints import write_safetensors

Arrays = Mapping[str, np.ndarray[Any, Any]]

DATA = Path(__file__).parents[1] / "data"
RNG = np.random.default_rng(5)
PLAIN: Arrays = {
    "a": RNG.standard_normal((300, 500), np.float32),
    "b": RNG.integers(0, 9, (8, 3)).astype(np.int16),
    "c": np.array(2.5),
}
TURNED: Arrays = {"f": np.asfortranarray(PLAIN["a"]), **PLAIN}
# Large enough that several threads fill it side by side.
MANY: Arrays = {f"layer.{i}.weight": RNG.standard_normal((64, 129), np.float32) for i in range(40)}


@dataclass(frozen=True, slots=True)
class RealFile:
    """A checkpoint: `write` puts it into a folder and says what is in it; a daemon can map it if `mapped`."""

    write: Callable[[Path], Arrays]
    mapped: bool


def of_safetensors(*files: Path) -> Arrays:
    """What the safetensors library finds in the files."""
    from safetensors import deserialize

    entries = [entry for file in files for entry in deserialize(file.read_bytes())]
    return {
        name: np.frombuffer(info["data"], numpy_dtype(info["dtype"])).reshape(info["shape"]) for name, info in entries
    }


def _single(folder: Path) -> Arrays:
    write_safetensors(folder / "model.safetensors", {**PLAIN, **MANY})
    return {**PLAIN, **MANY}


def _odd(folder: Path) -> Arrays:
    """As old writers left it: the header ends at an odd byte."""
    header = b'{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}} '
    (folder / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(8)))
    return of_safetensors(folder / "x.safetensors")


def _odd_shards(folder: Path) -> Arrays:
    """Two of them, of which the second is sound but odd."""
    write_safetensors(folder / "1.safetensors", {"b": PLAIN["b"]})
    wanted = {"b": PLAIN["b"], **_odd(folder)}
    index = {"weight_map": {"b": "1.safetensors", "a": "x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return wanted


def _copied(source: Path, *, index: str) -> Callable[[Path], Arrays]:
    def write(folder: Path) -> Arrays:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        places = json.loads((folder / index).read_text())["weight_map"]
        return of_safetensors(*(folder / file for file in sorted(set(places.values()))))

    return write


def _mindspore(name: str) -> Callable[[Path], Arrays]:
    def write(folder: Path) -> Arrays:
        shutil.copy(MINDSPORE / name, folder / name)
        dtypes = {
            tensor: numpy_dtype(parse_dtype(facts()[f"{name}|{tensor}"]["dtype"].lower())) for tensor in expected(name)
        }
        return {n: np.frombuffer(raw, dtypes[n]).reshape(shape) for n, (shape, raw) in expected(name).items()}

    return write


def _items(arrays: Arrays) -> list[TensorItem]:
    return [TensorItem(name, code_of(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()]


def _our_ckpt(folder: Path) -> Arrays:
    (folder / "x.ckpt").write_bytes(b"".join(map(bytes, encode_ckpt(_items({**PLAIN, **MANY})))))
    return {**PLAIN, **MANY}


def _our_npz(folder: Path) -> Arrays:
    (folder / "x.npz").write_bytes(b"".join(map(bytes, encode_npz(_items(PLAIN)))))
    return PLAIN


def _npy(array: np.ndarray[Any, Any]) -> Callable[[Path], Arrays]:
    def write(folder: Path) -> Arrays:
        np.save(folder / "x.npy", array)
        return {"arr_0": array}

    return write


def _npz(folder: Path) -> Arrays:
    np.savez(folder / "x.npz", **TURNED)  # type: ignore[arg-type]
    return TURNED


def _npz_compressed(folder: Path) -> Arrays:
    np.savez_compressed(folder / "x.npz", **{**PLAIN, **MANY})  # type: ignore[arg-type]
    return {**PLAIN, **MANY}


def _of_torch(*files: str) -> Arrays:
    rows = [row for file in files for row in json.loads((DATA / "torch" / "expected.json").read_text())[file]]
    return {
        name: np.frombuffer(bytes.fromhex(raw), numpy_dtype(parse_dtype(dtype))).reshape(shape)
        for name, dtype, shape, raw in rows
    }


def _torch(name: str) -> Callable[[Path], Arrays]:
    def write(folder: Path) -> Arrays:
        shutil.copy(DATA / "torch" / name, folder / "pytorch_model.bin")
        return _of_torch(name)

    return write


def _torch_shards(*files: str) -> Callable[[Path], Arrays]:
    def write(folder: Path) -> Arrays:
        for file in files:
            shutil.copy(DATA / "torch" / file, folder / file)
        places = {tensor: file for file in files for tensor in _of_torch(file)}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        return _of_torch(*files)

    return write


def _gguf(arrays: Arrays, *, quantised: bool = False, alignment: int = 32) -> Callable[[Path], Arrays]:
    def write(folder: Path) -> Arrays:
        import gguf

        writer = gguf.GGUFWriter(folder / "x.gguf", "llama")
        writer.add_custom_alignment(alignment)
        blocks = gguf.quants.quantize(VALUES, gguf.GGMLQuantizationType.Q4_0)
        for name, array in arrays.items():
            writer.add_tensor(name, array)
        if quantised:
            writer.add_tensor("blocks", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {**arrays, "blocks": blocks} if quantised else arrays

    return write


VALUES = RNG.standard_normal((64, 256), np.float32)
_HF = _copied(DATA / "transformers", index="model.safetensors.index.json")
_UNIFIED = _copied(MINDSPORE / "unified", index="param_name_map.json")

FILES: Mapping[str, RealFile] = {
    "safetensors": RealFile(_single, True),
    "safetensors, unaligned": RealFile(_odd, False),
    "transformers, sharded": RealFile(_HF, True),
    "MindSpore, sharded": RealFile(_UNIFIED, True),
    "shards, one unaligned": RealFile(_odd_shards, False),
    "MindSpore safetensors": RealFile(_mindspore("lenet5.safetensors"), True),
    "MindSpore .ckpt": RealFile(_mindspore("mixed.ckpt"), False),
    "MindSpore .ckpt, every dtype": RealFile(_mindspore("dtypes.ckpt"), False),
    "mapcell .ckpt": RealFile(_our_ckpt, True),
    "npy": RealFile(_npy(PLAIN["a"]), True),
    "npy, Fortran order": RealFile(_npy(TURNED["f"]), False),
    "npz": RealFile(_npz, False),
    "npz, compressed": RealFile(_npz_compressed, False),
    "mapcell .npz": RealFile(_our_npz, True),
    "torch": RealFile(_torch("dtypes.pt"), True),
    "torch, views": RealFile(_torch("views.pt"), False),
    "torch in shards": RealFile(_torch_shards("state.pt", "tensor.pt"), True),
    "torch in shards, views": RealFile(_torch_shards("views.pt", "tensor.pt"), False),
    "GGUF": RealFile(_gguf({"plain": PLAIN["a"], **MANY}), True),
    "GGUF, unaligned": RealFile(_gguf({"bytes": np.arange(3, dtype=np.int8), "plain": VALUES}, alignment=1), False),
    "GGUF, quantised": RealFile(_gguf({"plain": VALUES}, quantised=True), True),
}
