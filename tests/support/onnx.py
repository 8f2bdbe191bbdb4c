"""ONNX Runtime with weights from a mapping, in a process of its own: it keeps files of its own open until its end.

`python -m support.onnx CHECKPOINT FOLDER` prints JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import mapcell

Array = np.ndarray[Any, Any]


def product(folder: Path, shape: tuple[int, ...]) -> str:
    """Writes a model, y = x @ weight, whose weight lies in a file beside it, and is zeros there."""
    made, float32 = onnx.helper, onnx.TensorProto.FLOAT
    (folder / "model.data").write_bytes(bytes(4 * int(np.prod(shape))))
    weight = onnx.TensorProto(name="weight", data_type=float32, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="model.data")
    graph = made.make_graph(
        [made.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [made.make_tensor_value_info("x", float32, ["n", shape[0]])],
        [made.make_tensor_value_info("y", float32, ["n", shape[1]])],
        [weight],
    )
    onnx.save(made.make_model(graph, opset_imports=[made.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    return str(folder / "model.onnx")


def session(model: str, weight: Array) -> tuple[Any, bool]:
    """A session that computes with `weight` where it lies, and whether ONNX Runtime took it from there."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(weight)
    options = onnxruntime.SessionOptions()
    options.add_initializer("weight", value)
    # Packed for a matrix product it would be a copy in each process.
    options.add_session_config_entry("session.disable_prepacking", "1")
    made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return made, value.data_ptr() == weight.ctypes.data


def main(checkpoint: str, folder: str) -> None:
    """What becomes of a private and of a read-only map."""
    private = mapcell.attach(checkpoint, mode="c", daemon="never")["weight"]
    shared = mapcell.attach(checkpoint, daemon="never")["weight"]
    model = product(Path(folder), private.shape)
    x = np.eye(3, private.shape[0], dtype=np.float32)
    mine, aliases = session(model, private)
    before = mine.run(None, {"x": x})[0]
    expected = private[:3].copy()
    private[1, 2] = 1234
    told: dict[str, Any] = {"right": bool(np.allclose(before, expected, rtol=1e-5)), "aliases": aliases}
    told["follows"] = bool(mine.run(None, {"x": x})[0][1, 2] == 1234)
    theirs, told["read-only aliases"] = session(model, shared)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x))
    binding = theirs.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("y")
    theirs.run_with_iobinding(binding)
    told["bound"] = bool(np.allclose(binding.copy_outputs_to_cpu()[0], shared[:3], rtol=1e-5))
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
