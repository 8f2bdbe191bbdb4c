"""``upload``: weights to a device through page-locked memory, while the caller goes on."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal, get_args

from mapcell_formats.errors import DeviceFailed, DeviceUnavailable, NotFound
from mapcell_formats.manifest import near

from ..weights import Weights
from .bindings import CudaDriver
from .driver import Device, Driver, stream_handle
from .memory import DeviceMemory
from .pipeline import Pipeline, Report
from .plan import Plan, plan
from .staging import WINDOW_BYTES, Host, Registered, Ring, Stager
from .tensor import DeviceTensor
from .transfer import Transfer
from .wanted import Wanted, wanted_tensors

Strategy = Literal["auto", "register", "ring"]
CHUNK_BYTES = 8 << 20
# "auto" tries each way on so many chunks. For less than four times as many, trying costs more than it brings.
TRIAL_CHUNKS = 16


@dataclass(frozen=True, slots=True)
class UploadStatistics:
    """A snapshot: bytes of device memory, bytes that have arrived, and seconds by the way they came."""

    nbytes: int
    arrived: int
    seconds: Mapping[str, float]


class DeviceWeights(Mapping[str, DeviceTensor]):
    """The tensors of one upload by name; they may still be on their way.

    The device memory is one allocation and lives as long as this object, any of its tensors, or an array that was made
    of one. An upload that fails lets its memory go and says so to whoever waits or asks for a tensor.
    """

    def __init__(self, wanted: Iterable[Wanted], plan: Plan, transfer: Transfer, seconds: Mapping[str, float]) -> None:
        self._kinds = {w.name: (w.dtype, w.shape) for w in wanted}
        self._plan = plan
        self._transfer = transfer
        self._seconds = seconds
        self.device = transfer.memory.device

    def __getitem__(self, name: str) -> DeviceTensor:
        if name not in self._kinds:
            raise NotFound(f"no tensor {name!r}{near(name, list(self._kinds))}", tensor=name)
        return DeviceTensor(name, *self._kinds[name], self._plan.placed[name], self._transfer)

    def __contains__(self, name: object) -> bool:
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def nbytes(self) -> int:
        """Bytes of device memory."""
        return self._plan.nbytes

    def wait(self, timeout: float | None = None) -> None:
        """Waits until everything has arrived and the host's memory was let go of.

        TimeoutError after `timeout` seconds; DeviceFailed, or whatever else ended the upload.
        """
        self._transfer.wait_ended(timeout)

    def wait_on(self, stream: object) -> None:
        """What is queued on `stream` from now on runs after everything has arrived; as `DeviceTensor.wait_on`."""
        self._transfer.order(stream_handle(stream), 0, len(self._plan.chunks) - 1)

    def statistics(self) -> UploadStatistics:
        """A snapshot of how far the upload has come."""
        arrived = self._transfer.arrived
        return UploadStatistics(self.nbytes, self._plan.end_of(arrived), dict(self._seconds))

    def __repr__(self) -> str:
        return f"<DeviceWeights {len(self)} tensors, {self.nbytes} bytes on device {self.device}>"


class _Work:
    """What the uploading thread does."""

    def __init__(
        self,
        transfer: Transfer,
        plan: Plan,
        host: Host,
        strategy: Strategy,
        progress: Report | None,
        seconds: dict[str, float],
    ) -> None:
        self._transfer = transfer
        self._driver = transfer.driver
        self._device = transfer.memory.device
        self._address = transfer.memory.address
        self._plan = plan
        self._host = host
        self._strategy = strategy
        self._progress = progress
        self._seconds = seconds
        self._stagers: dict[str, Stager] = {}

    def run(self, let_go: Callable[[], None]) -> None:
        """Uploads; whoever waits for the transfer is told of every way in which that ends. Calls `let_go` then."""
        try:
            with self._driver.on(self._device), ExitStack() as resources:
                try:
                    self._bring(resources)
                # Told before anything is let go of that they may ask for.
                except BaseException as exc:
                    self._transfer.fail(exc)
                    raise
        # Raised again by whoever waits: they are in other threads.
        except BaseException as exc:
            self._transfer.fail(exc)
            # What the frames hold would stay as long as the error does.
            traceback.clear_frames(exc.__traceback__)
        self._stagers.clear()
        del self._host
        let_go()
        self._transfer.end()

    def _bring(self, resources: ExitStack) -> None:
        pipeline = Pipeline(self._driver, self._address, self._plan, self._transfer, self._progress, resources)

        def stager(way: str) -> Stager:
            if way not in self._stagers:
                self._stagers[way] = made = self._made(way, pipeline)
                resources.callback(made.close)
                # The device may still read what is let go of there.
                resources.callback(pipeline.settle)
            return self._stagers[way]

        def run(way: str, upto: int) -> float:
            seconds = pipeline.run(range(self._transfer.queued, upto), stager(way))
            self._seconds[way] = self._seconds.get(way, 0.0) + seconds
            return seconds

        if self._strategy == "auto":
            self._find_out(run)
        if self._transfer.queued < len(self._plan.chunks):
            run("register" if self._strategy == "register" else "ring", len(self._plan.chunks))
        # Registering may have failed after the last chunk was queued.
        pipeline.arrive(len(self._plan.chunks))

    def _find_out(self, run: Callable[[str, int], float]) -> None:
        """Tries both ways on the first chunks; goes on by registering where that was faster, as long as it works."""
        total = len(self._plan.chunks)
        if total < 4 * TRIAL_CHUNKS or not self._driver.describe(self._device).registers_read_only:
            return
        ring = run("ring", TRIAL_CHUNKS)
        try:
            if run("register", 2 * TRIAL_CHUNKS) < ring:
                run("register", total)
        except DeviceFailed:
            # A kind of memory that cannot be page-locked, or another upload holds it so. The ring needs neither; an
            # error that has another cause comes again there.
            return

    def _made(self, way: str, pipeline: Pipeline) -> Stager:
        if way == "ring":
            return Ring(self._driver, self._host, CHUNK_BYTES)
        return Registered(self._driver, self._host, pipeline.arrive, WINDOW_BYTES)


def devices() -> list[Device]:
    """The CUDA devices here and what is free on them. DeviceUnavailable, with the reason, when there is none."""
    driver = CudaDriver()
    found = []
    for number in range(_count(driver)):
        with driver.on(number):
            found.append(driver.describe(number))
    return found


def upload(
    weights: Weights | Mapping[str, Any] | str | os.PathLike[str],
    device: int = 0,
    keys: Iterable[str] | None = None,
    stream: object = None,
    progress: Report | None = None,
    strategy: Strategy = "auto",
    *,
    driver: Driver | None = None,
) -> DeviceWeights:
    """Weights on a CUDA device. Returns as soon as the memory is there; the tensors arrive in their order.

    The host holds no second copy: bytes go from the shared mapping through a ring of page-locked buffers, or straight
    from the mapping, page-locked a part at a time. Tensors that are the same bytes on the host are one on the device.

    Args:
        weights: what ``attach`` gives, any mapping of names to ndarrays, or what ``attach`` takes.
        device: the device's number.
        keys: only these tensors, in this order; None for all in the checkpoint's.
        stream: a CUDA stream, as a handle or as torch, CuPy and cuda.core have it. What is queued on it after this
            returns runs when everything has arrived; so this returns when everything is queued.
        progress: called with (bytes arrived, bytes of all) from the uploading thread. What it raises ends the upload.
        strategy: "ring", "register" (read-only maps only), or "auto": what was faster for the first bytes.
        driver: None for CUDA's own.

    Raises:
        DeviceUnavailable: no binding, driver or device, or no such device.
        DeviceMemoryExceeded: not enough free memory there; nothing stays allocated.
        DeviceFailed: a call of CUDA's failed.
        NotFound: a key that the weights do not have. And what ``attach`` raises.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy={strategy!r}: say 'auto', 'register' or 'ring'")
    driver = driver if driver is not None else CudaDriver()
    count = _count(driver)
    if not 0 <= device < count:
        raise DeviceUnavailable(f"there is no device {device}; devices are numbered from 0 to {count - 1}")
    chosen = tuple(keys) if keys is not None else None
    with ExitStack() as own:
        if isinstance(weights, (str, os.PathLike)):
            from ..attaching import attach

            weights = own.enter_context(attach(weights, keys=chosen))
        wanted = wanted_tensors(weights, chosen)
        layout = plan([w.item for w in wanted], CHUNK_BYTES)
        transfer = Transfer(driver, DeviceMemory(driver, device, layout.nbytes), len(layout.chunks))
        seconds: dict[str, float] = {}
        uploaded = DeviceWeights(wanted, layout, transfer, seconds)
        work = _Work(transfer, layout, Host([w.array for w in wanted]), strategy, progress, seconds)
        Thread(target=work.run, args=(own.pop_all().close,), name="mapcell-upload").start()
    if stream is not None:
        uploaded.wait_on(stream)
    return uploaded


def _count(driver: Driver) -> int:
    count = driver.count()
    if count == 0:
        raise DeviceUnavailable("no CUDA device was found: the driver answers and lists none; see CUDA_VISIBLE_DEVICES")
    return count
