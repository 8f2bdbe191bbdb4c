"""Runs in the place of the daemon once: leaves something in the manager's store, dies, and is the daemon ever after.

`python -m support.leftovers KIND`; the kinds are the functions below.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from mapcell_formats.messages import Selection
from mapcelld import memfd, state
from mapcelld.manager import Manager
from mapcelld.registry import Recipe
from mapcelld.state import ModelRecord, State, VersionRecord

_ID = f"blake3:{'7' * 64}"
_STEM = _ID.replace(":", "-")


def schema(manager: Manager) -> None:
    """A sound state of another schema."""
    packed = bytearray(state.encode(_state()))
    packed[1:2] = bytes([99])
    manager.keep("state-3", memfd.sealed_copy("state", bytes(packed)))
    manager.keep(f"{_STEM}.0", memfd.sealed_copy("segment", b"weights"))


def malformed(manager: Manager) -> None:
    """Sealed memory that holds no state."""
    manager.keep("state-3", memfd.sealed_copy("state", b"\xc1 not msgpack"))


def unsealed(manager: Manager) -> None:
    """A state that could change while it is read."""
    fd = memfd.create("state", 100)
    manager.keep("state-18446744073709551616", fd)


def pipe(manager: Manager) -> None:
    """A descriptor that would never deliver."""
    manager.keep("state-1", os.pipe()[0])


def strangers(manager: Manager) -> None:
    """Descriptors under names that mean nothing, one of them twice, and some without a name."""
    for name in ("state-", "state-x", "blake3-77.manifest", "mapcell", "mapcell"):
        manager.keep(name, memfd.sealed_copy("stranger", name.encode()))
    manager.tell("FDSTORE=1\nFDPOLL=0", [memfd.sealed_copy("stranger", b"x")])
    manager.keep("folder", os.open("/", os.O_RDONLY))


def half(manager: Manager) -> None:
    """A state that names a version of which a segment is missing."""
    manager.keep("state-3", memfd.sealed_copy("state", state.encode(_state())))
    manager.keep(f"{_STEM}.manifest", memfd.sealed_copy("manifest", b"manifest"))


def swapped(manager: Manager) -> None:
    """A state whose version has descriptors of other things."""
    manager.keep("state-3", memfd.sealed_copy("state", state.encode(_state())))
    manager.keep(f"{_STEM}.manifest", os.open("/", os.O_RDONLY))
    manager.keep(f"{_STEM}.0", os.pipe()[0])


def _state() -> State:
    recipe = Recipe(("1-2-3-4-5",), "sealed", Selection())
    version = VersionRecord(
        id=_ID,
        residence="sealed",
        format="safetensors",
        dtype="F32",
        verified=True,
        tensors=1,
        nbytes=7,
        uid=0,
        retired=False,
        pinned=False,
        manifest=8,
        manifest_digest=blake3(b"manifest").digest(),
        segments=(7,),
        recipes=(recipe,),
        identities=(),
        digest="",
    )
    return State((version,), (ModelRecord("m", None, "/m", (_ID,), (), {}, {}),))


_KINDS: dict[str, Callable[[Manager], None]] = {
    f.__name__: f for f in (schema, malformed, unsealed, pipe, strangers, half, swapped)
}

if __name__ == "__main__":
    once = Path(os.environ["MAPCELL_RUNTIME"]) / "leftovers"
    if once.exists():
        once.unlink()
        os.execv(Path(sys.executable).parent / "mapcelld", ["mapcelld"])
    once.touch()
    left = Manager(os.environ, os.getpid())
    _KINDS[sys.argv[1]](left)
    left.barrier()
    os.kill(os.getpid(), signal.SIGKILL)
