"""Views in the hands of other libraries: each takes the bytes where they lie, as docs/interop.md says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mapcell
from mapcell.cuda import upload
from mapcell_formats.errors import DeviceUnavailable

SHAPE = (64, 48)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint with tensors on 64-byte boundaries, as mapcell writes them, and in front of each kind one more."""
    rng = np.random.default_rng(5)
    weight = rng.standard_normal(SHAPE).astype(np.float32)
    tensors = {"weight": weight, "half": weight.astype(ml_dtypes.bfloat16), "steps": np.arange(64)}
    listed = [{"name": name, "data": mapcell.Tensor(array)} for name, array in tensors.items()]
    mapcell.save_checkpoint(listed, str(tmp_path / "w.safetensors"), format="safetensors")
    return tmp_path / "w.safetensors"


def attached(path: Path, mode: Any = "r") -> mapcell.Weights:
    """The checkpoint, mapped by this process."""
    return mapcell.attach(path, mode=mode, daemon="never")


class Interface:
    """Anything that has only __array_interface__."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.__array_interface__ = array.__array_interface__
        self.array = array


@pytest.mark.parametrize("name", ["weight", "steps"])
def test_protocols(path: Path, name: str) -> None:
    """DLPack, the array interface and the buffer protocol lead to the same address, and none of them lets write."""
    view = attached(path)[name]
    for taken in (np.from_dlpack(view), np.asarray(memoryview(view)), np.asarray(Interface(view))):
        assert taken.ctypes.data == view.ctypes.data
        assert not taken.flags.writeable
        np.testing.assert_array_equal(taken, view)


def test_dlpack_says_read_only_or_refuses(path: Path) -> None:
    """A consumer of before DLPack 1.0 cannot be told, so it gets nothing; a private map it may have."""
    view = attached(path)["weight"]
    with pytest.raises(BufferError, match="readonly"):
        view.__dlpack__()
    assert "dltensor_versioned" in repr(view.__dlpack__(max_version=(1, 0)))
    assert '"dltensor"' in repr(attached(path, "c")["weight"].__dlpack__())


def told_by(program: str, *arguments: object, **environment: str) -> Any:
    """What a program of tests/support prints in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | environment
    command = [sys.executable, "-W", "error", "-m", f"support.{program}", *map(str, arguments)]
    told = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_jax(path: Path) -> None:
    """On the CPU a jax.Array is the shared bytes, read-only ones too, and keeps the map; unaligned ones are copied.

    By DLPack JAX asks as before version 1.0: what it gets is a private map.
    """
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    found = told_by("jaxed", path)
    assert found.pop("DLPack") == dict.fromkeys(["aliases", "computes", "refused"], True)
    every = dict.fromkeys(["aliases", "same", "unaligned is copied", "unaligned is the same"], True)
    assert found == dict.fromkeys(["weight", "half", "steps"], every)


def test_onnxruntime(path: Path, tmp_path: Path) -> None:
    """A session computes with the bytes where they lie, private or read-only: what changes there changes its answer."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        pytest.skip("onnx and onnxruntime are not installed")
    found = told_by("onnx", path, tmp_path, HOME=str(tmp_path), ORT_DISABLE_TELEMETRY="1")
    assert found == dict.fromkeys(["right", "aliases", "follows", "read-only aliases", "bound"], True)


def test_torch(path: Path) -> None:
    """torch takes a private map by either way without a warning."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    view = attached(path, "c")["weight"]
    for tensor in (torch.from_numpy(view), torch.from_dlpack(view)):
        assert tensor.data_ptr() == view.ctypes.data


def test_cupy(path: Path) -> None:
    """A device tensor becomes a CuPy array by either protocol, without a copy."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    try:
        uploaded = upload(path)
    except DeviceUnavailable as exc:
        pytest.skip(str(exc))
    for array in (cupy.from_dlpack(uploaded["weight"]), cupy.asarray(uploaded["weight"])):
        assert array.data.ptr == uploaded["weight"].address
        np.testing.assert_array_equal(array.get(), attached(path)["weight"])
