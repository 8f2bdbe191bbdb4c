"""The real driver: CUDA's runtime through cuda-bindings, which NVIDIA keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mapcell_formats.errors import DeviceFailed, DeviceUnavailable

from .driver import DLPACK_CUDA, Device, exceeded


class CudaDriver:
    """`Driver` over ``cuda.bindings.runtime``. DeviceUnavailable when that is not installed."""

    dlpack_device = DLPACK_CUDA

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as exc:
            raise DeviceUnavailable(
                f"CUDA is reached through cuda-bindings, which does not import here ({exc}); "
                "pip install 'mapcell[cuda]'"
            ) from exc
        self._cuda: Any = runtime
        self._success = runtime.cudaError_t.cudaSuccess

    def count(self) -> int:
        """See `Driver`."""
        error, count = self._cuda.cudaGetDeviceCount()
        if error == self._success:
            return int(count)
        if error == self._cuda.cudaError_t.cudaErrorNoDevice:
            return 0
        raise DeviceUnavailable(
            f"no CUDA device was found: {self._said(error)}; look at nvidia-smi, and in a container at --gpus"
        )

    def describe(self, device: int) -> Device:
        """See `Driver`."""
        cuda = self._cuda
        free, total = self._call(cuda.cudaMemGetInfo())
        properties = self._call(cuda.cudaGetDeviceProperties(device))
        read_only = cuda.cudaDeviceAttr.cudaDevAttrHostRegisterReadOnlySupported
        registers = bool(self._call(cuda.cudaDeviceGetAttribute(read_only, device)))
        return Device(device, properties.name.decode(errors="replace"), int(total), int(free), registers)

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        """See `Driver`."""
        before = self._call(self._cuda.cudaGetDevice())
        self._call(self._cuda.cudaSetDevice(device))
        try:
            yield
        finally:
            if before != device:
                self._call(self._cuda.cudaSetDevice(before))

    def allocate(self, device: int, nbytes: int) -> int:
        """See `Driver`."""
        error, address = self._cuda.cudaMalloc(nbytes)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            # CUDA remembers it otherwise, and the next to look (torch does) takes it for its own.
            self._cuda.cudaGetLastError()
            raise exceeded(self.describe(device), nbytes)
        self._check(error)
        return int(address)

    def free(self, address: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaFree(address))

    def allocate_host(self, nbytes: int) -> int:
        """See `Driver`."""
        return int(self._call(self._cuda.cudaHostAlloc(nbytes, self._cuda.cudaHostAllocPortable)))

    def free_host(self, address: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaFreeHost(address))

    def register(self, address: int, nbytes: int) -> None:
        """See `Driver`."""
        flags = self._cuda.cudaHostRegisterReadOnly | self._cuda.cudaHostRegisterPortable
        self._call(self._cuda.cudaHostRegister(address, nbytes, flags))

    def unregister(self, address: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaHostUnregister(address))

    def create_stream(self) -> int:
        """See `Driver`."""
        return int(self._call(self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking)))

    def destroy_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaStreamDestroy(stream))

    def create_event(self) -> int:
        """See `Driver`."""
        return int(self._call(self._cuda.cudaEventCreateWithFlags(self._cuda.cudaEventDisableTiming)))

    def destroy_event(self, event: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaEventDestroy(event))

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """See `Driver`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync(target, source, nbytes, kind, stream))

    def record(self, event: int, stream: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaEventRecord(event, stream))

    def follow(self, stream: int, event: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaStreamWaitEvent(stream, event, 0))

    def finish(self, event: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaEventSynchronize(event))

    def finish_stream(self, stream: int) -> None:
        """See `Driver`."""
        self._call(self._cuda.cudaStreamSynchronize(stream))

    def _call(self, result: tuple[Any, ...]) -> Any:
        """What a call of CUDA's returned besides its error code: nothing, one value, or a tuple."""
        self._check(result[0])
        return result[1] if len(result) == 2 else result[1:]

    def _check(self, error: Any) -> None:
        if error != self._success:
            self._cuda.cudaGetLastError()
            raise DeviceFailed(f"CUDA refused: {self._said(error)}", error=int(error))

    def _said(self, error: Any) -> str:
        _, text = self._cuda.cudaGetErrorString(error)
        return f"{error.name} ({text.decode(errors='replace') if text else 'no description'})"
