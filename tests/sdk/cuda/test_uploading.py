"""Uploads to a device that copies as late as CUDA may, and that checks how it is used."""

from __future__ import annotations

import ctypes
import gc
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mapcell
from mapcell.cuda import DeviceTensor, DeviceWeights, Strategy, uploading
from mapcell.cuda.staging import SLOTS, WINDOWS
from mapcell.cuda.uploading import upload
from mapcell_formats.errors import DeviceFailed, DeviceMemoryExceeded, DeviceUnavailable, NotFound
from support.checkpoints import write_safetensors
from support.device import FakeDriver
from support.proc import eventually

CHUNK = 4096
WINDOW = 8192
STRATEGIES: list[Strategy] = ["ring", "register", "auto"]
Arrays = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks and windows, so that small tensors show what large ones would."""
    monkeypatch.setattr(uploading, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(uploading, "WINDOW_BYTES", WINDOW)
    monkeypatch.setattr(uploading, "TRIAL_CHUNKS", 3)


@pytest.fixture
def tensors() -> dict[str, np.ndarray[Any, Any]]:
    """Tensors of all kinds and sizes, about 40 chunks."""
    rng = np.random.default_rng(8)
    return {
        "large": rng.standard_normal((150, 200)).astype(np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(3.5),
        "half": rng.standard_normal(77).astype(ml_dtypes.bfloat16),
        "flags": rng.integers(0, 2, 9).astype(bool),
        **{f"layer.{i}": rng.integers(-9, 9, (i + 1, 31)).astype(np.int16) for i in range(30)},
        "last": rng.standard_normal(1000),
    }


@pytest.fixture
def weights(tmp_path: Path, tensors: Arrays) -> Iterator[mapcell.Weights]:
    """The tensors in a file, mapped by this process."""
    path = write_safetensors(tmp_path / "w.safetensors", tensors)
    with mapcell.attach(path, daemon="never") as attached:
        yield attached


def bytes_of(tensor: DeviceTensor) -> bytes:
    """What lies on the device."""
    return ctypes.string_at(tensor.address, tensor.nbytes) if tensor.nbytes else b""


def check(uploaded: DeviceWeights, tensors: Arrays) -> None:
    """Everything has arrived as it was."""
    assert list(uploaded) == list(tensors)
    for name, array in tensors.items():
        tensor = uploaded[name]
        assert tensor.ready()
        assert (tensor.shape, tensor.nbytes, tensor.address % 256) == (array.shape, array.nbytes, 0)
        assert bytes_of(tensor) == array.tobytes(), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_everything_arrives(weights: mapcell.Weights, strategy: Strategy) -> None:
    """In one allocation, which goes with the last tensor; nothing else is held once the upload has ended."""
    driver = FakeDriver()
    uploaded = upload(weights, strategy=strategy, driver=driver)
    uploaded.wait()
    check(uploaded, weights)
    assert driver.live == {"device memory": 1}
    assert uploaded.statistics().arrived <= uploaded.nbytes == sum(driver.device_memory.values())
    assert set(uploaded.statistics().seconds) <= {"ring", "register"}
    tensor = uploaded["scalar"]
    del uploaded
    assert bytes_of(tensor) == weights["scalar"].tobytes()
    del tensor
    eventually(lambda: driver.live == {})


def test_ring_is_small(weights: mapcell.Weights) -> None:
    """However large the model is, page-locked are a few chunks; each chunk is one copy."""
    driver = FakeDriver()
    uploaded = upload(weights, strategy="ring", driver=driver)
    uploaded.wait()
    chunks = -(-uploaded.nbytes // CHUNK)
    assert (driver.calls["copy"], driver.calls["allocate_host"]) == (chunks, 1)
    assert chunks > 2 * SLOTS


def test_registered_windows_are_few(weights: mapcell.Weights) -> None:
    """The mapping is page-locked a part at a time, and nothing is copied on the host."""
    driver = FakeDriver()
    upload(weights, strategy="register", driver=driver).wait()
    assert driver.calls["allocate_host"] == 0
    assert 0 < driver.most_registered <= WINDOWS * WINDOW < weights.nbytes
    assert driver.calls["register"] == driver.calls["unregister"]


def test_auto_tries_both(weights: mapcell.Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way gets its trial; the ring does alone what is small, or what cannot be page-locked."""
    for driver, trial, ways in (
        (FakeDriver(), 3, {"ring", "register"}),
        (FakeDriver(), 100, {"ring"}),
        (FakeDriver(read_only=False), 3, {"ring"}),
    ):
        monkeypatch.setattr(uploading, "TRIAL_CHUNKS", trial)
        uploaded = upload(weights, driver=driver)
        uploaded.wait()
        assert set(uploaded.statistics().seconds) == ways
        check(uploaded, weights)
    monkeypatch.setattr(uploading, "TRIAL_CHUNKS", 3)
    driver = FakeDriver()
    driver.refuse_registration = True
    uploaded = upload(weights, driver=driver)
    uploaded.wait()
    check(uploaded, weights)


def test_windows_come_and_go_in_any_order(weights: mapcell.Weights) -> None:
    """Tensors wanted in another order than they lie in: windows are let go of only when nothing reads them any more."""
    names = random.Random(8).sample(list(weights), len(weights))
    driver = FakeDriver()
    uploaded = upload(weights, keys=names, strategy="register", driver=driver)
    uploaded.wait()
    check(uploaded, {name: weights[name] for name in names})
    assert driver.live == {"device memory": 1}


def test_uploads_at_once(weights: mapcell.Weights) -> None:
    """Several of the same mapping: who finds it page-locked already takes the ring."""
    driver = FakeDriver(count=2)
    under_way = [upload(weights, device=i % 2, driver=driver) for i in range(4)]
    for uploaded in under_way:
        uploaded.wait()
        check(uploaded, weights)


def test_dropped_while_under_way(weights: mapcell.Weights) -> None:
    """An upload that nobody waits for ends by itself, and gives everything back."""
    driver = FakeDriver()
    upload(weights, driver=driver)
    eventually(lambda: driver.live == {})


def test_private_maps_are_not_registered(tmp_path: Path, tensors: Arrays) -> None:
    """Page-locking copy-on-write pages would copy them: they go through the ring, and strategy="register" says so."""
    path = write_safetensors(tmp_path / "w.safetensors", tensors)
    driver = FakeDriver()
    with mapcell.attach(path, daemon="never", mode="c") as weights:
        uploaded = upload(weights, driver=driver)
        uploaded.wait()
        check(uploaded, weights)
        assert driver.calls["register"] == 0
        with pytest.raises(DeviceFailed, match="ring"):
            upload(weights, strategy="register", driver=driver).wait()
    del uploaded
    eventually(lambda: driver.live == {})


def test_keys_choose_and_order(weights: mapcell.Weights) -> None:
    """Only those tensors, in that order; one that is not there is named."""
    driver = FakeDriver()
    uploaded = upload(weights, keys=["last", "half", "last"], driver=driver)
    assert list(uploaded) == ["last", "half"]
    uploaded.wait()
    assert uploaded.nbytes == 8192 + 256
    assert uploaded["last"].address < uploaded["half"].address
    with pytest.raises(NotFound, match=r"layer\.3"):
        upload(weights, keys=["layer.33"], driver=driver)
    with pytest.raises(NotFound, match="half"):
        uploaded["halt"]


def test_sources(tmp_path: Path, tensors: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is attached and let go of; a mapping may hold strided arrays; equal arrays are one on the device."""
    monkeypatch.setenv("MAPCELL_DAEMON", "never")
    path = write_safetensors(tmp_path / "w.safetensors", tensors)
    driver = FakeDriver()
    uploaded = upload(path, driver=driver)
    uploaded.wait()
    assert str(path) not in Path("/proc/self/maps").read_text()
    check(uploaded, {name: tensors[name] for name in uploaded})
    given = {"w": tensors["large"], "tied": tensors["large"], "part": tensors["large"][:, 50:100]}
    uploaded = upload(given, driver=driver)
    uploaded.wait()
    check(uploaded, given)
    assert uploaded["w"].address == uploaded["tied"].address != uploaded["part"].address
    assert uploaded.nbytes == -(-120_000 // 256) * 256 + -(-30_000 // 256) * 256


@pytest.mark.parametrize(
    "bad", [[1.0], np.ones(2, ">f4"), np.ones(2, np.complex128)], ids=["list", "big", "complex128"]
)
def test_what_is_no_tensor(bad: Any) -> None:
    """A mapping's values have to be arrays that a checkpoint could hold; nothing is allocated before."""
    driver = FakeDriver()
    with pytest.raises(TypeError, match="'x'"):
        upload({"x": bad}, driver=driver)
    assert driver.live == {}


def test_out_of_memory(weights: mapcell.Weights) -> None:
    """A typed error with the shortfall, and nothing stays allocated."""
    driver = FakeDriver(capacity=100_000)
    with pytest.raises(DeviceMemoryExceeded) as caught:
        upload(weights, driver=driver)
    needed = caught.value.details["needed"]
    assert caught.value.details == {"device": 0, "needed": needed, "free": 100_000, "shortfall": needed - 100_000}
    assert isinstance(caught.value, MemoryError)
    assert driver.live == {}


@pytest.mark.parametrize(
    ("driver", "device", "said"),
    [
        (FakeDriver(count=-1), 0, "no driver"),
        (FakeDriver(count=0), 0, "no CUDA device"),
        (FakeDriver(count=2), 2, "0 to 1"),
        (FakeDriver(), -1, "0 to 0"),
    ],
)
def test_no_device(weights: mapcell.Weights, driver: FakeDriver, device: int, said: str) -> None:
    """It is said plainly what is not there."""
    with pytest.raises(DeviceUnavailable, match=said):
        upload(weights, device=device, driver=driver)


def test_second_device(weights: mapcell.Weights) -> None:
    """Everything happens with that device current, which the driver checks."""
    uploaded = upload(weights, device=1, driver=FakeDriver(count=2))
    uploaded.wait()
    assert (uploaded.device, uploaded["half"].device) == (1, 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_call_may_fail(weights: mapcell.Weights, strategy: Strategy) -> None:
    """Whichever call of CUDA's fails: a typed error, or the ring instead, and in the end nothing is held."""
    driver = FakeDriver()
    upload(weights, strategy=strategy, driver=driver).wait()
    gc.collect()
    calls = driver.calls.total()
    raised = 0
    for number in range(1, calls + 1):
        driver = FakeDriver(fail_at=number)
        try:
            uploaded = upload(weights, strategy=strategy, driver=driver)
        except DeviceFailed:
            assert driver.live == {}
            raised += 1
            continue
        try:
            uploaded.wait()
        except DeviceFailed as exc:
            raised += 1
            said = str(exc)
        else:
            said = ""
        if said:
            assert (driver.live, said.split(",")[0]) == ({}, f"call {number}")
            with pytest.raises(DeviceFailed):
                uploaded["large"]
        else:
            check(uploaded, weights)
            del uploaded
            eventually(lambda driver=driver: driver.live == {})
    assert raised >= calls - 1 if strategy != "auto" else raised > 0


def test_a_failed_upload_frees_what_nobody_uses(weights: mapcell.Weights) -> None:
    """A tensor that arrived before the failure stays valid for who has it; the rest of the world gets the error."""
    driver, asked = FakeDriver(), Event()

    def progress(done: int, total: int) -> None:
        if done > 10 * CHUNK:
            assert asked.wait(60.0)
            raise ZeroDivisionError

    uploaded = upload(weights, keys=["half", "large"], progress=progress, driver=driver)
    tensor = uploaded["half"]
    asked.set()
    with pytest.raises(ZeroDivisionError):
        uploaded.wait()
    assert bytes_of(tensor) == weights["half"].tobytes()
    assert driver.live == {"device memory": 1}
    with pytest.raises(ZeroDivisionError):
        uploaded["large"]
    del tensor
    eventually(lambda: driver.live == {})


def test_progress(weights: mapcell.Weights) -> None:
    """Bytes that have arrived, rising to all of them."""
    seen: list[tuple[int, int]] = []
    uploaded = upload(weights, progress=lambda done, total: seen.append((done, total)), driver=FakeDriver())
    uploaded.wait()
    assert seen == sorted(set(seen))
    assert seen[-1][0] == seen[-1][1] == uploaded.statistics().arrived


def test_streams_and_waiting(weights: mapcell.Weights) -> None:
    """What follows on the caller's stream finds everything there; a tensor can be waited for alone."""
    driver = FakeDriver()
    with driver.on(0):
        mine = driver.create_stream()
    uploaded = upload(weights, stream=mine, driver=driver)
    with driver.on(0):
        driver.finish_stream(mine)
    for name in weights:
        assert bytes_of(uploaded[name]) == weights[name].tobytes()
    uploaded["large"].wait(60.0)
    assert uploaded["large"].ready()
    uploaded.wait()
    # Afterwards there is nothing to wait for, and no event to ask.
    uploaded.wait_on(mine)
    with driver.on(0):
        driver.destroy_stream(mine)
    with pytest.raises(TypeError, match="str"):
        uploaded.wait_on("stream")


@pytest.mark.parametrize("name", ["large", "scalar", "flags", "empty", "last"])
def test_dlpack(weights: mapcell.Weights, name: str) -> None:
    """An array over the device's memory, ordered behind the copy, which holds that memory when all else is gone."""
    driver = FakeDriver()
    uploaded = upload(weights, driver=driver)
    taken = np.from_dlpack(uploaded[name])
    np.testing.assert_array_equal(taken, weights[name])
    uploaded.wait()
    del uploaded
    gc.collect()
    assert driver.live == {"device memory": 1}
    np.testing.assert_array_equal(taken, weights[name])
    del taken
    eventually(lambda: driver.live == {})


def test_dlpack_refusals(weights: mapcell.Weights) -> None:
    """What DLPack asks for and is not given is a BufferError, as its protocol says."""
    tensor = upload(weights, driver=FakeDriver())["large"]
    for arguments in ({"copy": True}, {"dl_device": (2, 3)}):
        with pytest.raises(BufferError):
            tensor.__dlpack__(**arguments)
    assert "dltensor_versioned" in repr(tensor.__dlpack__(max_version=(1, 0), stream=-1))
    assert '"dltensor"' in repr(tensor.__dlpack__())
    tensor.wait()


def test_cuda_array_interface(weights: mapcell.Weights) -> None:
    """Address, shape and type, once the tensor is there; what NumPy cannot spell has none."""
    uploaded = upload(weights, driver=FakeDriver())
    told = uploaded["large"].__cuda_array_interface__
    assert told == {
        "shape": (150, 200), "typestr": "<f4", "data": (uploaded["large"].address, False), "version": 3,
        "strides": None, "stream": None,
    }  # fmt: skip
    assert uploaded["large"].ready()
    assert not hasattr(uploaded["half"], "__cuda_array_interface__")
    uploaded.wait()
