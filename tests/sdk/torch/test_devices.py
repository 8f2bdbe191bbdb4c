"""Tensors that mapcell.cuda brought somewhere, taken over by torch: with a device that is this process's memory."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import mapcell
from mapcell.cuda import upload
from mapcell.torch import bind_module, binding, devices, from_device, load_file
from mapcell.torch.tensors import tensor_of
from mapcell_formats.errors import DeviceMemoryExceeded, DeviceUnavailable
from support.checkpoints import write_safetensors
from support.device import FakeDriver
from support.proc import eventually

TENSORS = {
    "weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "bias": np.arange(4, dtype=np.float32),
    "half": np.arange(5).astype(ml_dtypes.bfloat16),
    "eighth": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
}


def attached(tmp_path: Path, *names: str) -> mapcell.Weights:
    """Those tensors in a file, read-only."""
    path = write_safetensors(tmp_path / "w.safetensors", {n: TENSORS[n] for n in names or TENSORS})
    return mapcell.attach(path, daemon="never")


def test_every_dtype_crosses(tmp_path: Path) -> None:
    """Dtype, shape and elements, over the device's memory, which lives as long as the tensors."""
    driver = FakeDriver()
    with attached(tmp_path) as weights:
        on_device = upload(weights, driver=driver)
        tensors = {name: from_device(tensor) for name, tensor in on_device.items()}
        on_device.wait()
        for name, tensor in tensors.items():
            expected = tensor_of(TENSORS[name].copy(), weights.entry(name).dtype)
            assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
            assert tensor.reshape(-1).view(torch.uint8).tolist() == expected.reshape(-1).view(torch.uint8).tolist()
            assert tensor.numel() == 0 or tensor.data_ptr() == on_device[name].address
    del on_device, tensor
    gc.collect()
    assert driver.live == {"device memory": 1}
    tensors.clear()
    gc.collect()
    eventually(lambda: driver.live == {})


def test_bind_module_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a CUDA device named, parameters are the uploaded tensors; read-only maps will do."""
    driver = FakeDriver()
    monkeypatch.setattr(devices, "upload", partial(upload, driver=driver))
    with torch.device("meta"):
        module = torch.nn.Linear(3, 4)
    with attached(tmp_path, "weight", "bias") as weights:
        assert bind_module(module, weights, device="cuda:0") == ([], [])
    (address,) = driver.device_memory
    assert {p.data_ptr() - address for p in module.parameters()} == {0, 256}
    np.testing.assert_array_equal(module.weight.detach().numpy(), TENSORS["weight"])
    del module
    gc.collect()
    assert driver.live == {}


def test_load_file_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a CUDA device named, the dict holds the uploaded tensors."""
    driver = FakeDriver()
    monkeypatch.setattr(devices, "upload", partial(upload, driver=driver))
    path = write_safetensors(tmp_path / "w.safetensors", TENSORS)
    tensors = load_file(path, device="cuda:0", daemon="never")
    assert tensors.keys() == TENSORS.keys()
    (address,) = driver.device_memory
    assert (min(t.data_ptr() for t in tensors.values() if t.numel()) - address) in range(256)
    np.testing.assert_array_equal(tensors["weight"].numpy(), TENSORS["weight"])
    tensors.clear()
    gc.collect()
    assert driver.live == {}


def test_no_room_binds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is as it was, and nothing is left on the device."""
    driver = FakeDriver(capacity=100)
    monkeypatch.setattr(devices, "upload", partial(upload, driver=driver))
    with torch.device("meta"):
        module = torch.nn.Linear(3, 4)
    with attached(tmp_path, "weight", "bias") as weights, pytest.raises(DeviceMemoryExceeded):
        bind_module(module, weights, device="cuda:0")
    assert all(p.is_meta for p in module.parameters())
    assert driver.live == {}


def test_without_the_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is uploaded then, and what torch copies by itself may be read-only, too."""

    def nothing(*_: Any) -> None:
        raise DeviceUnavailable("no binding")

    monkeypatch.setattr(devices, "upload", nothing)
    with attached(tmp_path, "weight", "bias") as weights:
        assert devices.uploaded(weights, ["weight"], torch.device("cuda:0")) == {}
        given = {g.name: g.make() for g in binding._given(weights, copied=True)}
    assert given["weight"].clone().tolist() == TENSORS["weight"].tolist()
