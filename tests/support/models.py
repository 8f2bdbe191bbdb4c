"""Checkpoints whose every element tells which version it belongs to, and what is asked of a daemon about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mapcell.connection import CONNECTIONS, daemon_status
from mapcell.daemon_backend import attach_path
from mapcell.weights import Weights
from mapcell_formats.messages import ListModels, ModelRow, Status
from support.checkpoints import write_safetensors
from support.proc import eventually

MIB = 1 << 20


def write_model(path: Path, number: int, tensors: int = 4, mib: int = 1) -> Path:
    """Puts a checkpoint in the place of `path`: `tensors` of `mib` MiB each, every element `number`."""
    beside = path.with_name(path.name + ".new")
    values = np.full(mib * MIB // 4, number, np.float32)
    write_safetensors(beside, {f"t{i}": values for i in range(tensors)})
    beside.chmod(0o644)
    os.replace(beside, path)
    return path


def write_big(folder: Path) -> Path:
    """A checkpoint of 192 MiB and the number 5, whose staging takes long enough to come between."""
    return write_model(folder / "big.safetensors", 5, tensors=48, mib=4)


def number_of(weights: Weights) -> int:
    """The number that all tensors carry. AssertionError when they are not all of one version."""
    numbers = {float(view[i]) for view in map(weights.__getitem__, weights) for i in (0, view.size // 2, -1)}
    assert len(numbers) == 1, f"a mixture of versions: {numbers}"
    return int(numbers.pop())


def load(path: Path, name: str = "", residence: str = "sealed", timeout: float = 30, **options: Any) -> Weights:
    """Weights of `path` through the daemon, called `name` there."""
    options = {"dtype": None, "keys": None, "prefix": "", "mode": "r"} | options
    return attach_path(str(path), timeout=timeout, residence=residence, name=name, **options)


def tell(message: object) -> Any:
    """The reply to a control message that is put once."""
    return CONNECTIONS.client().ask(message, 10, repeat=False)


def looked_at() -> None:
    """Waits until the daemon looked at the source of every named model, which takes descriptors for a moment."""
    eventually(lambda: all(row.source_state or row.name.startswith("/") for row in rows()))


def rested() -> Status:
    """The daemon's figures once ten in a row agree: a look at a source may have ended for all but its descriptor."""
    seen: list[Status] = []

    def agree() -> bool:
        seen.append(daemon_status())
        return len(seen) >= 10 and len({(s.leases, s.connections, s.descriptors, s.stagers) for s in seen[-10:]}) == 1

    eventually(agree)
    return seen[-1]


def rows(name: str = "") -> list[ModelRow]:
    """The versions of `name` that are there, newest first; of all models when empty."""
    return [r for r in tell(ListModels()).rows if r.version and name in ("", r.name)]
