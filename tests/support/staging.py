"""Staging that is held up in the middle, for faults that have to come just then."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mapcell_formats.errors import MapcellError
from support.models import load, number_of
from support.proc import memory_files, stagers


@contextlib.contextmanager
def staging_stopped(daemon: int, path: Path, name: str = "") -> Iterator[tuple[int, Callable[[], Any]]]:
    """The pid of the stager, stopped in the middle of filling, and what its client gets: an error, or the number.

    The stager goes on when the block ends, unless the block let it go on before.
    """
    stopped: list[int] = []
    ready = threading.Event()
    outcome: list[Any] = []

    def on_progress(_: object) -> None:
        if not stopped:
            # Others may be looking at a source or hashing just then: they hold no segment.
            stopped.extend(pid for pid in stagers(daemon) if memory_files([pid]))
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            ready.set()

    def work() -> None:
        try:
            outcome.append(number_of(load(path, name, on_progress=on_progress)))
        except MapcellError as exc:
            outcome.append(exc)

    def result() -> Any:
        client.join()
        return outcome[0]

    client = threading.Thread(target=work)
    client.start()
    try:
        assert ready.wait(20), f"nothing was stopped midway: {outcome}"
        (pid,) = stopped
        yield pid, result
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        client.join()
