"""How long it takes to list the tensors of a checkpoint, and how much memory, for each format.

    python bench/listing.py [--tensors 100000] [--repeat 5] [FORMAT ...]

Writes a checkpoint of so many small tensors in each format, and reads its header in processes of their own. `ratio` is
the time of that divided by that of `json.loads` on a safetensors header of the same tensors (for an index: on the index
itself), both the best of several in turn. `peak` is by how many bytes a process grew at most while it read the header
once, `held` by how many it is larger while it has the result.
"""

from __future__ import annotations

import argparse
import gc
import json
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common import Row, parser, row, run
from mapcell_formats.ckpt_writer import Encryption, encode_ckpt
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.index import parse_index
from mapcell_formats.items import TensorItem
from mapcell_formats.npz_writer import encode_npz
from mapcell_formats.safetensors_writer import encode_safetensors
from mapcell_formats.source import FileSource

KEY = bytes(16)
SHAPE = (2, 4)
NBYTES = 32
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "norm")


def names(count: int) -> Iterator[str]:
    """Names such as a mixture of experts has."""
    for number in range(count):
        layer, rest = divmod(number, 1024)
        expert, part = divmod(rest, len(PARTS))
        yield f"model.layers.{layer}.mlp.experts.{expert}.{PARTS[part]}.weight"


def items(count: int) -> list[TensorItem]:
    """The tensors, all of the same zeros."""
    return [TensorItem(name, "F32", SHAPE, bytes(NBYTES)) for name in names(count)]


def joined(chunks: Iterator[Any]) -> bytes:
    """What a writer makes, at once."""
    return b"".join(map(bytes, chunks))


def safetensors(count: int) -> bytes:
    """A safetensors file."""
    return joined(encode_safetensors(items(count)))


def ckpt(count: int) -> bytes:
    """A .ckpt as MindSpore writes it, without padding."""
    return joined(encode_ckpt(items(count), align=1))


def ckpt_aligned(count: int) -> bytes:
    """A .ckpt as mapcell writes it."""
    return joined(encode_ckpt(items(count)))


def ckpt_encrypted(count: int) -> bytes:
    """A .ckpt that has to be decrypted."""
    return joined(encode_ckpt(items(count), encryption=Encryption(KEY, "AES-GCM")))


def npz(count: int) -> bytes:
    """A .npz of stored members."""
    return joined(encode_npz(items(count)))


def index(count: int) -> bytes:
    """An index of 48 shards."""
    places = {name: f"model-{number % 48:05}-of-00048.safetensors" for number, name in enumerate(names(count))}
    return json.dumps({"metadata": {"total_size": count * NBYTES}, "weight_map": places}, indent=2).encode()


def gguf(count: int) -> bytes:
    """A GGUF of float32 tensors."""
    out = [struct.pack("<4sIQQ", b"GGUF", 3, count, 0)]
    for number, name in enumerate(names(count)):
        raw = name.encode()
        out.append(struct.pack("<Q", len(raw)) + raw + struct.pack("<IQQIQ", 2, 4, 2, 0, number * NBYTES))
    head = b"".join(out)
    return head + bytes(-len(head) % 32 + count * NBYTES)


def torch(count: int) -> bytes:
    """What torch.save writes of a state dict in which every tensor has its own storage."""
    with tempfile.TemporaryFile() as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", _state_dict(count))
        archive.writestr("archive/byteorder", "little")
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{number}"), bytes(NBYTES))
        archive.close()
        file.seek(0)
        return file.read()


class _Storage:
    def __init__(self, key: str) -> None:
        self.key = key


class _Tensor:
    def __init__(self, key: str) -> None:
        self.storage = _Storage(key)


def _state_dict(count: int) -> bytes:
    """The pickle of it, made without torch: stand-ins under torch's names lend theirs to the pickler."""
    stand_ins = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    kind = type("FloatStorage", (), {"__module__": "torch"})
    function = types.FunctionType((lambda: None).__code__, {}, "_rebuild_tensor_v2")
    function.__module__, function.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    stand_ins["torch"].FloatStorage = kind  # type: ignore[attr-defined]
    stand_ins["torch._utils"]._rebuild_tensor_v2 = function  # type: ignore[attr-defined]

    class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
        def persistent_id(self, value: object) -> object:
            return ("storage", kind, value.key, "cpu", NBYTES // 4) if isinstance(value, _Storage) else None

        def reducer_override(self, value: object) -> Any:
            if not isinstance(value, _Tensor):
                return NotImplemented
            # Tuples of their own: what occurs twice is pickled otherwise, and torch's are new each time.
            return function, (value.storage, 0, tuple([2, 4]), tuple([4, 1]), False, OrderedDict())  # noqa: C409

    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        with tempfile.TemporaryFile() as out:
            Pickler(out, 2).dump(OrderedDict((name, _Tensor(str(i))) for i, name in enumerate(names(count))))
            out.seek(0)
            return out.read()
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


FORMATS: Mapping[str, Callable[[int], bytes]] = {
    "safetensors": safetensors,
    "index": index,
    "gguf": gguf,
    "ckpt": ckpt,
    "ckpt-aligned": ckpt_aligned,
    "ckpt-encrypted": ckpt_encrypted,
    "npz": npz,
    "torch": torch,
}


def main() -> int:
    """Measures the formats that are asked for, all unless told."""
    arguments = parser(__doc__)
    arguments.add_argument("formats", nargs="*", metavar="FORMAT", choices=[*FORMATS, []])
    arguments.add_argument("--tensors", type=int, default=100_000)
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        what, kind, folder = options.measure
        print(json.dumps((seconds if what == "seconds" else memory)(kind, Path(folder), options.repeat)))
        return 0
    run(__file__, measure, arguments)
    return 0


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each format."""
    case = {"tensors": options.tensors}
    kinds = options.only or options.formats or FORMATS
    return [row(case, kind, **measured(kind, options.tensors, options.repeat)) for kind in kinds]


def measured(name: str, count: int, repeat: int) -> dict[str, float]:
    """What two processes of their own say about one format."""
    with tempfile.TemporaryDirectory() as folder:
        data = FORMATS[name](count)
        (Path(folder) / "file").write_bytes(data)
        text = safetensors(count)
        header = data if name == "index" else text[8 : 8 + int.from_bytes(text[:8], "little")]
        (Path(folder) / "json").write_bytes(header)
        found: dict[str, float] = {"file": len(data)}
        for what in ("seconds", "memory"):
            command = [sys.executable, __file__, "--repeat", str(repeat), "--measure", what, name, folder]
            found |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def listed(kind: str, source: FileSource) -> object:
    """What is measured."""
    if kind == "index":
        return parse_index(source)
    # All of them, also where a reader makes each only when it is asked for.
    return tuple(read_checkpoint([source], key=KEY if kind == "ckpt-encrypted" else None).tensors)


def seconds(kind: str, folder: Path, repeat: int) -> dict[str, float]:
    """The best of several: listing the file, and json.loads on the same names."""
    text = (folder / "json").read_text()
    best, best_json = float("inf"), float("inf")
    for _ in range(repeat):
        best_json = min(best_json, _took(lambda: json.loads(text)))
        with FileSource.open(folder / "file") as source:
            best = min(best, _took(lambda: listed(kind, source)))
    return {"seconds": best, "json": best_json, "ratio": best / best_json}


def _took(what: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    result = what()
    took = time.process_time() - began
    del result
    return took


def memory(kind: str, folder: Path, _repeat: int) -> dict[str, float]:
    """Bytes by which this process grows, at most and afterwards."""
    with FileSource.open(folder / "file") as source:
        # The import of what decrypts is no part of it.
        if kind == "ckpt-encrypted":
            __import__("cryptography.hazmat.primitives.ciphers.aead")
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        result = listed(kind, source)
        found: dict[str, float] = {"peak": _resident("VmHWM") - before, "held": _resident("VmRSS") - before}
        del result
    return found


def _resident(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    sys.exit(main())
