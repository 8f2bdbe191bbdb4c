"""The real driver: what it says without a device, that CUDA takes its calls, and a whole upload where there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mapcell.cuda import devices, upload
from mapcell.cuda.bindings import CudaDriver
from mapcell.cuda.driver import Device, exceeded, stream_handle
from mapcell_formats.errors import DeviceFailed, DeviceMemoryExceeded, DeviceUnavailable


def present() -> bool:
    """Whether this host has a device."""
    try:
        return bool(devices())
    except DeviceUnavailable:
        return False


without_device = pytest.mark.skipif(present(), reason="this host has a CUDA device")
with_device = pytest.mark.skipif(not present(), reason="this host has no CUDA device")

CALLS: dict[str, Callable[[CudaDriver], Any]] = {
    "describe": lambda d: d.describe(0),
    "on": lambda d: d.on(0).__enter__(),
    "allocate": lambda d: d.allocate(0, 256),
    "free": lambda d: d.free(4096),
    "allocate_host": lambda d: d.allocate_host(4096),
    "free_host": lambda d: d.free_host(4096),
    "register": lambda d: d.register(4096, 4096),
    "unregister": lambda d: d.unregister(4096),
    "create_stream": lambda d: d.create_stream(),
    "destroy_stream": lambda d: d.destroy_stream(4096),
    "create_event": lambda d: d.create_event(),
    "destroy_event": lambda d: d.destroy_event(4096),
    "copy": lambda d: d.copy(4096, 8192, 16, 1),
    "record": lambda d: d.record(4096, 1),
    "follow": lambda d: d.follow(1, 4096),
    "finish": lambda d: d.finish(4096),
    "finish_stream": lambda d: d.finish_stream(4096),
}


@without_device
def test_says_that_there_is_no_device() -> None:
    """Both functions say so, with CUDA's own reason, before anything is allocated."""
    for function in (devices, lambda: upload({"w": np.ones(3, np.float32)})):
        with pytest.raises(DeviceUnavailable, match="no CUDA device was found"):
            function()


@without_device
@pytest.mark.parametrize("name", CALLS)
def test_cuda_takes_every_call(name: str) -> None:
    """Names and arguments are those of the installed binding: CUDA itself answers, with its error."""
    with pytest.raises(DeviceFailed, match="CUDA refused: cudaError"):
        CALLS[name](CudaDriver())


def test_every_call_is_tried() -> None:
    """The table above has all that the interface asks for."""
    public = {name for name in vars(CudaDriver) if not name.startswith("_")}
    assert public == {*CALLS, "count", "dlpack_device"}


def test_without_the_binding() -> None:
    """The package imports, and says what to install."""
    program = (
        "import sys; sys.modules['cuda.bindings'] = None\n"
        "import mapcell.cuda\n"
        "try: mapcell.cuda.devices()\n"
        "except mapcell.DeviceUnavailable as exc: print(exc)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'mapcell[cuda]'" in told.stdout


def test_importing_costs_no_binding() -> None:
    """CUDA's libraries are looked for when a device is."""
    program = "import sys, mapcell.cuda; print([m for m in sys.modules if m.split('.')[0] in ('cuda', 'torch')])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize(("free", "said"), [(100, "156 bytes are lacking"), (300, "not in one piece")])
def test_shortfall(free: int, said: str) -> None:
    """How much is missing, or that there is enough but not together."""
    error = exceeded(Device(0, "x", 1000, free, True), 256)
    assert isinstance(error, DeviceMemoryExceeded)
    assert said in str(error)
    assert error.details["shortfall"] == max(256 - free, 0)


class Torch:
    """A stream as torch has it."""

    cuda_stream = 7


class CuPy:
    """A stream as CuPy has it."""

    ptr = 8


class Core:
    """A stream as cuda.core has it."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 9


@pytest.mark.parametrize(("stream", "handle"), [(6, 6), (Torch(), 7), (CuPy(), 8), (Core(), 9)])
def test_stream_handles(stream: object, handle: int) -> None:
    """Streams of other libraries are known by what they carry."""
    assert stream_handle(stream) == handle


@pytest.mark.parametrize("stream", [True, None, "7", Torch])
def test_no_stream(stream: object) -> None:
    """Anything else is a TypeError."""
    if stream is Torch:
        stream = object()
    with pytest.raises(TypeError, match="stream has to be"):
        stream_handle(stream)


@with_device
@pytest.mark.parametrize("strategy", ["ring", "register", "auto"])
def test_upload_to_a_device(strategy: Any, tmp_path: Any) -> None:
    """Bytes come back from the device as they went there."""
    from cuda.bindings import runtime

    import mapcell
    from support.checkpoints import write_safetensors

    rng = np.random.default_rng(3)
    tensors = {f"w{i}": rng.standard_normal((1000, 2000 + i), np.float32) for i in range(80)}
    path = write_safetensors(tmp_path / "w.safetensors", tensors)
    with mapcell.attach(path, daemon="never") as weights:
        if strategy == "register" and not devices()[0].registers_read_only:
            pytest.skip("this device does not take read-only host pages")
        uploaded = upload(weights, strategy=strategy)
        uploaded.wait()
    for name, array in tensors.items():
        back = np.empty_like(array)
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        (error,) = runtime.cudaMemcpy(back.ctypes.data, uploaded[name].address, back.nbytes, kind)
        assert error == runtime.cudaError_t.cudaSuccess
        np.testing.assert_array_equal(back, array)
