"""From a configuration to a running daemon, and back: the order of starting and stopping."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping

from mapcelld import memory, runtime
from mapcelld.config import Config
from mapcelld.notify import notify
from mapcelld.runtime import RuntimeFolder
from mapcelld.service import SWEEP_SECONDS, Service

log = logging.getLogger("mapcelld")


def serve(config: Config, environment: Mapping[str, str]) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the process at once. MapcellError when it cannot start."""
    _raise_descriptor_limit()
    folder = RuntimeFolder(runtime.choose(config.runtime, environment, os.geteuid()))
    try:
        asyncio.run(_serve(config, folder))
    finally:
        folder.close()


async def _serve(config: Config, folder: RuntimeFolder) -> None:
    stop = asyncio.Event()
    _on_signals(stop)
    service = Service(config, folder, memory.available)
    try:
        await service.open()
        sweeping = asyncio.create_task(_sweep(service))
        log.info("serving: runtime=%s pid=%d budget=%d", folder.path, os.getpid(), config.budget)
        print(f"mapcelld ready: {folder.path} (pid {os.getpid()})", file=sys.stderr, flush=True)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping")
        sweeping.cancel()
    finally:
        await service.close()


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        service.sweep()


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)


def _raise_descriptor_limit() -> None:
    # Each lease is a descriptor, and the soft limit of 1,024 is a relic of select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
