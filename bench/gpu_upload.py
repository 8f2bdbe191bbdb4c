"""Weights to a GPU: what page-locked memory can do at most, ``mapcell.cuda.upload`` beside it, and torch's own way.

    python bench/gpu_upload.py [--mib 4096] [--rounds 5] [--device 0] [--out FILE]

The peak is one page-locked buffer, copied over and over on one stream. A checkpoint (tensors of 64 MiB, each with a
dozen small ones) is then brought over: by upload() from a mapped file and from a daemon's sealed memory, in each
strategy; and by torch, from pageable memory with .to("cuda"), where torch has CUDA. Times are of the whole call until
everything has arrived; allocations are part of it. Without a device each row says why, and the status is 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from common import (
    MIB,
    Repetition,
    Row,
    explained,
    failure,
    folder,
    interleaved,
    parser,
    prepared,
    private_daemon,
    row,
    run,
    summary,
)
from mapcell.cuda import Device, bindings, upload, uploading
from mapcell.cuda.memory import DeviceMemory
from mapcell.daemon_backend import attach_path
from mapcell_formats.errors import DeviceUnavailable

PEAK_COPIES = 16
STRATEGIES = ("ring", "register", "auto")
PEAK = "page-locked peak"
TORCH = "torch, pageable"
WAYS = (PEAK, *(f"mapcell, {kind}, {s}" for kind in ("mapped", "sealed") for s in STRATEGIES), TORCH)


class Peak:
    """Copies from one page-locked buffer, over and over. Holds the buffers until `close`."""

    def __init__(self, device: int, nbytes: int) -> None:
        self._driver = bindings.CudaDriver()
        self._device, self._nbytes = device, nbytes
        with self._driver.on(device):
            self._memory = DeviceMemory(self._driver, device, nbytes)
            self._source, self._stream = self._driver.allocate_host(nbytes), self._driver.create_stream()

    def __call__(self) -> None:
        with self._driver.on(self._device):
            for _ in range(PEAK_COPIES):
                self._driver.copy(self._memory.address, self._source, self._nbytes, self._stream)
            self._driver.finish_stream(self._stream)

    def close(self) -> None:
        """Gives everything back."""
        with self._driver.on(self._device):
            self._driver.destroy_stream(self._stream)
            self._driver.free_host(self._source)


def uploaded(weights: mapcell.Weights, device: int, strategy: Any) -> object:
    """One upload, from the call until everything has arrived."""
    tensors = upload(weights, device, strategy=strategy)
    tensors.wait()
    return tensors


def by_torch(path: Path, device: int) -> Repetition:
    """torch's own way, from memory that is nobody's but its own."""
    import torch
    from safetensors.torch import load_file

    tensors = [tensor.clone() for tensor in load_file(path).values()]
    torch.cuda.synchronize(device)

    def repetition() -> object:
        there = [tensor.to(f"cuda:{device}") for tensor in tensors]
        torch.cuda.synchronize(device)
        return there

    return repetition


def write_checkpoint(path: Path, mib: int, block: int) -> int:
    """Bytes of a checkpoint of large tensors, each with some small ones beside it."""
    from safetensors.numpy import save_file

    bits = np.random.default_rng(0).integers(0, 256, block, np.uint8)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for i in range(max(1, mib * MIB // block)):
        tensors[f"layer.{i}.weight"] = bits
        tensors |= {f"layer.{i}.small.{k}": bits[: 4096 + 256 * k] for k in range(12)}
    save_file(tensors, path)
    return sum(array.nbytes for array in tensors.values())


def makers(path: Path, device: Device, peak: int, held: ExitStack) -> Mapping[str, Callable[[], Repetition]]:
    """Everything that is measured, by name."""
    sealed = attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=600, residence="sealed")
    kinds = {"mapped": mapcell.attach(path, daemon="never"), "sealed": sealed}
    for weights in kinds.values():
        held.callback(weights.close)

    def prepare_peak() -> Repetition:
        repetition = Peak(device.number, peak)
        held.callback(repetition.close)
        return repetition

    def prepare(weights: mapcell.Weights, strategy: str) -> Repetition:
        if strategy == "register" and not device.registers_read_only:
            raise DeviceUnavailable("this device does not take read-only host pages")
        return partial(uploaded, weights, device.number, strategy)

    uploads = {f"mapcell, {k}, {s}": partial(prepare, w, s) for k, w in kinds.items() for s in STRATEGIES}
    return {PEAK: prepare_peak, **uploads, TORCH: partial(by_torch, path, device.number)}


def measure(options: argparse.Namespace) -> list[Row]:
    """All ways in turns, or why there is none."""
    case = {"mib": options.mib}
    try:
        device = next((d for d in uploading.devices() if d.number == options.device), None)
        if device is None:
            raise DeviceUnavailable(f"there is no device {options.device}")
    except DeviceUnavailable as exc:
        return [failure(case, way, explained(exc)) for way in WAYS]
    case |= {"device": device.name, "registers read-only pages": device.registers_read_only}
    peak, block = min(256, options.mib) * MIB, min(64, options.mib) * MIB
    with folder(options.folder) as under, private_daemon(), ExitStack() as held:
        path = under / "model.safetensors"
        nbytes = write_checkpoint(path, options.mib, block)
        ready, failed = prepared(makers(path, device, peak, held), options.only)
        found = interleaved(ready, options.rounds, limit=options.limit)
    rows = [failure(case, way, why) for way, why in failed.items()]
    for way, seconds in found.items():
        if isinstance(seconds, str):
            rows.append(failure(case, way, seconds))
        else:
            took, brought = summary(seconds), PEAK_COPIES * peak if way == PEAK else nbytes
            rows.append(row(case, way, seconds=took, nbytes=brought, bytes_per_second=round(brought / took["p50"])))
    return rows


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--mib", type=int, default=4096)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--limit", type=float, default=60.0, help="seconds after which a way sits out")
    arguments.add_argument("--device", type=int, default=0)
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
