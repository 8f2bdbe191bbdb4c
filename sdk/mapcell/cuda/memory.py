"""Device memory with one owner, alive as long as the last tensor or capsule that looks at it."""

from __future__ import annotations

import contextlib

from mapcell_formats.errors import DeviceFailed

from .driver import Driver, exceeded


class DeviceMemory:
    """One allocation on `device`, freed when the last reference to this object is gone.

    DeviceMemoryExceeded, with the shortfall, when it does not fit; then nothing is allocated.
    """

    def __init__(self, driver: Driver, device: int, nbytes: int) -> None:
        self._driver = driver
        self.device = device
        self.nbytes = nbytes
        self._address = 0
        with driver.on(device):
            now = driver.describe(device)
            if nbytes > now.free:
                raise exceeded(now, nbytes)
            if nbytes:
                self._address = driver.allocate(device, nbytes)

    @property
    def address(self) -> int:
        """The first byte on the device; 0 for an allocation of none."""
        return self._address

    def __del__(self) -> None:
        address, self._address = getattr(self, "_address", 0), 0
        if address:
            # A finaliser has nobody to tell; at the process's end CUDA may be gone before its memory is.
            with contextlib.suppress(DeviceFailed), self._driver.on(self.device):
                self._driver.free(address)
