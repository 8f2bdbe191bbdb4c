"""`DeviceTensor`: a tensor on a device that torch, CuPy and JAX take over without a copy."""

from __future__ import annotations

from typing import Any

from mapcell_formats.dtypes import numpy_dtype

from .dlpack import DTYPES, capsule
from .driver import stream_handle
from .plan import Placed
from .transfer import Transfer

# CUDA's handle of the default stream that all threads share.
_LEGACY_STREAM = 1
_NO_SYNCHRONISATION = -1
# These NumPy has a type string for; the others go by DLPack only.
_PLAIN = DTYPES.keys() - {"BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"}


class DeviceTensor:
    """One tensor in device memory, which lives as long as any tensor of its upload, or what was made of one.

    `dtype` is spelled as safetensors spells it ("BF16"), `shape` in elements; C-contiguous, on a 256-byte boundary.
    It may be used before it has arrived: DLPack orders the consumer's stream behind it.
    """

    __slots__ = ("_memory", "_placed", "_transfer", "dtype", "name", "shape")

    def __init__(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        placed: Placed,
        transfer: Transfer,
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self._placed = placed
        self._memory = transfer.memory
        self._transfer = transfer

    @property
    def device(self) -> int:
        """The device's number."""
        return self._memory.device

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self._placed.nbytes

    @property
    def address(self) -> int:
        """Its first byte on the device; 0 when it has none."""
        return self._memory.address + self._placed.offset if self._placed.nbytes else 0

    def raw(self) -> DeviceTensor:
        """Its bytes, as a tensor of U8 over the same memory: for who does not know the dtype."""
        return DeviceTensor(self.name, "U8", (self.nbytes,), self._placed, self._transfer)

    def ready(self) -> bool:
        """Whether it has arrived."""
        return self._transfer.arrived > self._placed.last

    def wait(self, timeout: float | None = None) -> None:
        """Waits until it has arrived. TimeoutError after `timeout` seconds; the upload's error when it never will."""
        self._transfer.wait(self._placed.last, timeout)

    def wait_on(self, stream: object) -> None:
        """What is queued on `stream` from now on runs after it has arrived.

        This waits itself until the copy is queued. Errors as `wait`; TypeError when `stream` is none.
        """
        self._transfer.order(stream_handle(stream), self._placed.first, self._placed.last)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._transfer.driver.dlpack_device, self.device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A DLPack capsule without a copy, safe to use on `stream` (DLPack's rules; None: the default stream)."""
        if copy:
            raise BufferError("a copy was asked for; copy what was made of this tensor")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"this tensor lies on {self.__dlpack_device__()}, not on {tuple(dl_device)}")
        if stream != _NO_SYNCHRONISATION:
            self.wait_on(_LEGACY_STREAM if stream is None else stream)
        versioned = max_version is not None and max_version[0] >= 1
        return capsule(
            self.address, self.shape, self.dtype, self.__dlpack_device__(), self._memory, versioned=versioned
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, after waiting until the tensor has arrived. AttributeError for dtypes that NumPy itself lacks."""
        if self.dtype not in _PLAIN:
            raise AttributeError(f"{self.dtype} has no type string; use DLPack")
        self.wait()
        return {
            "shape": self.shape,
            "typestr": numpy_dtype(self.dtype).str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }

    def __repr__(self) -> str:
        state = "" if self.ready() else ", on its way"
        return f"<DeviceTensor {self.name!r} {self.dtype} {self.shape} on device {self.device}{state}>"
