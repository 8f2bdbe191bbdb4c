"""What an upload needs of CUDA: one narrow interface, which the real driver and the tests' own implement."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mapcell_formats.errors import DeviceMemoryExceeded

# DLPack's numbers for where memory lies.
DLPACK_CPU = 1
DLPACK_CUDA = 2


@dataclass(frozen=True, slots=True)
class Device:
    """A snapshot of one device: its number and name, its memory in bytes, and whether it takes read-only host pages."""

    number: int
    name: str
    nbytes: int
    free: int
    registers_read_only: bool


class Driver(Protocol):
    """Memory, streams and events of CUDA devices.

    Addresses and handles are plain integers. Every method raises DeviceFailed when CUDA refuses; `allocate` raises
    DeviceMemoryExceeded when the device has not that much. All but `count` have to be called within `on`.
    """

    @property
    def dlpack_device(self) -> int:
        """DLPack's number for the kind of memory that `allocate` gives."""
        ...

    def count(self) -> int:
        """How many devices there are. DeviceUnavailable, with the reason, when there is no driver."""
        ...

    def describe(self, device: int) -> Device:
        """The device and what is free on it now."""
        ...

    def on(self, device: int) -> AbstractContextManager[None]:
        """Makes `device` this thread's current one, and afterwards the one that was."""
        ...

    def allocate(self, device: int, nbytes: int) -> int:
        """Device memory on a 256-byte boundary."""
        ...

    def free(self, address: int) -> None:
        """Gives device memory back once all work that uses it is done."""
        ...

    def allocate_host(self, nbytes: int) -> int:
        """Page-locked host memory."""
        ...

    def free_host(self, address: int) -> None:
        """Gives page-locked host memory back."""
        ...

    def register(self, address: int, nbytes: int) -> None:
        """Page-locks host memory that is mapped read-only, for the device to read."""
        ...

    def unregister(self, address: int) -> None:
        """Ends that."""
        ...

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Lets the stream go; what is queued on it still runs."""
        ...

    def create_event(self) -> int:
        """An event without timing."""
        ...

    def destroy_event(self, event: int) -> None:
        """Lets the event go."""
        ...

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Queues a copy from host memory at `source` to device memory at `target`."""
        ...

    def record(self, event: int, stream: int) -> None:
        """`event` means from now on: all that is queued on `stream` so far."""
        ...

    def follow(self, stream: int, event: int) -> None:
        """What is queued on `stream` from now on runs after `event`."""
        ...

    def finish(self, event: int) -> None:
        """Waits for `event`."""
        ...

    def finish_stream(self, stream: int) -> None:
        """Waits for all that is queued on `stream`."""
        ...


def stream_handle(stream: object) -> int:
    """The handle of a stream given as an integer, or as torch, CuPy or cuda.core have it. TypeError for others."""
    if isinstance(stream, int) and not isinstance(stream, bool):
        return stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int(protocol()[1])
    for attribute in ("cuda_stream", "ptr"):
        handle = getattr(stream, attribute, None)
        if isinstance(handle, int):
            return handle
    raise TypeError(f"stream has to be a CUDA stream's handle or an object that has one, not {type(stream).__name__}")


def exceeded(device: Device, nbytes: int) -> DeviceMemoryExceeded:
    """The error that `nbytes` do not fit what is free on `device`."""
    short = nbytes - device.free
    why = f"{short} bytes are lacking" if short > 0 else "but not in one piece"
    return DeviceMemoryExceeded(
        f"device {device.number} ({device.name}) has {device.free} of {device.nbytes} bytes free and {nbytes} are "
        f"needed: {why}; nothing was allocated. Free memory there, choose tensors with keys=, "
        "or attach a smaller dtype",
        device=device.number,
        needed=nbytes,
        free=device.free,
        shortfall=max(short, 0),
    )
