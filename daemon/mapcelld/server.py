"""From a configuration to a running daemon, and back: the order of starting and stopping."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping

from mapcell_formats.errors import MapcellError
from mapcelld import memory, metrics, runtime
from mapcelld.config import Config
from mapcelld.exporter import Exporter
from mapcelld.headroom import LOOK_SECONDS
from mapcelld.manager import Manager
from mapcelld.runtime import RuntimeFolder
from mapcelld.service import SWEEP_SECONDS, Service

log = logging.getLogger("mapcelld")


def serve(config: Config, environment: Mapping[str, str], reread: Callable[[], Config]) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once. SIGHUP goes by what `reread` gives.

    MapcellError when it cannot start.
    """
    _raise_descriptor_limit()
    manager = Manager(environment, os.getpid())
    folder = RuntimeFolder(runtime.choose(config.runtime, environment, os.geteuid()))
    try:
        asyncio.run(_serve(config, folder, reread, manager))
    finally:
        folder.close()


async def _serve(config: Config, folder: RuntimeFolder, reread: Callable[[], Config], manager: Manager) -> None:
    stop = asyncio.Event()
    service = Service(config, folder, memory.available, manager)
    exporter = Exporter(config.metrics, folder.path, lambda: metrics.render(service.statistics()))
    _on_signals(stop, lambda: _reload(service, config, reread, manager))
    try:
        await service.open()
        await exporter.open()
        regular = [
            asyncio.create_task(_every(SWEEP_SECONDS, service.sweep)),
            asyncio.create_task(_every(LOOK_SECONDS, service.look)),
        ]
        if manager.watchdog_seconds is not None:
            # From the loop itself: when it hangs, so does this, and the manager restarts the daemon.
            beat = _every(manager.watchdog_seconds / 3, lambda: manager.tell("WATCHDOG=1"))
            regular.append(asyncio.create_task(beat))
        log.info("serving: runtime=%r pid=%d budget=%d", str(folder.path), os.getpid(), config.budget)
        print(f"mapcelld ready: {folder.path} (pid {os.getpid()})", file=sys.stderr, flush=True)
        manager.barrier()
        manager.tell("READY=1")
        await stop.wait()
        manager.tell("STOPPING=1")
        log.info("stopping")
        for task in regular:
            task.cancel()
    finally:
        await exporter.close()
        await service.close()


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            work()
        # Housekeeping goes on whatever one round of it met.
        except Exception:
            log.exception("housekeeping failed")


def _reload(service: Service, began: Config, reread: Callable[[], Config], manager: Manager) -> None:
    manager.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        fresh = reread()
        service.configure(fresh)
        log.info("reloaded")
        if fresh.metrics != began.metrics:
            log.warning("reloaded all but what takes effect with the next start: key=metrics")
    except MapcellError as exc:
        log.error("not reloaded: error=%r", exc.message)
    manager.tell("READY=1")


def _on_signals(stop: asyncio.Event, reload: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    loop.add_signal_handler(signal.SIGHUP, reload)


def _raise_descriptor_limit() -> None:
    # Each lease is a descriptor, and the soft limit of 1,024 is a relic of select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
