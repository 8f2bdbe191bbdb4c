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
from support.checkpoints import write_safetensors

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


@pytest.mark.parametrize("name", ["weight", "half", "steps"])
def test_jax_aliases(path: Path, name: str) -> None:
    """On the CPU a jax.Array is the shared bytes, read-only ones too, and keeps the map; unaligned ones are copied."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    with jax.enable_x64(True):
        with attached(path) as weights:
            view = weights[name]
            address, copied = view.ctypes.data, view.copy()
            array = jax.device_put(view, may_alias=True)
            apart = jax.device_put(view.reshape(-1)[1:], may_alias=True)
        del view, weights
        assert (array.unsafe_buffer_pointer(), str(array.dtype)) == (address, str(copied.dtype))
        np.testing.assert_array_equal(np.asarray(array), copied)
        assert apart.unsafe_buffer_pointer() % 64 == 0 != (address + copied.itemsize) % 64
        np.testing.assert_array_equal(np.asarray(apart), copied.reshape(-1)[1:])


def test_jax_by_dlpack(path: Path) -> None:
    """JAX asks for DLPack as it was before 1.0: what it gets is a private map."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    view = attached(path, "c")["weight"]
    array = jax.dlpack.from_dlpack(view)
    assert array.unsafe_buffer_pointer() == view.ctypes.data
    np.testing.assert_allclose(jax.jit(lambda a: a @ a.T)(array), view @ view.T, rtol=1e-5, atol=1e-5)
    with pytest.raises(BufferError, match="readonly"):
        jax.dlpack.from_dlpack(attached(path)["weight"])


def test_onnxruntime(path: Path, tmp_path: Path) -> None:
    """A session computes with the bytes where they lie, private or read-only: what changes there changes its answer."""
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        pytest.skip("onnx and onnxruntime are not installed")
    env = os.environ | {
        "HOME": str(tmp_path),
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-m", "support.onnx", str(path), str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
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


def test_unaligned_files_are_copied_by_jax(tmp_path: Path) -> None:
    """A file that another program wrote may lie otherwise: the values are right all the same."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    tensors = {"flag": np.ones(9, np.uint8), "weight": np.arange(30, dtype=np.float32)}
    view = attached(write_safetensors(tmp_path / "w.safetensors", tensors))["weight"]
    np.testing.assert_array_equal(np.asarray(jax.device_put(view, may_alias=True)), tensors["weight"])
