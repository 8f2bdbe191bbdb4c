"""The daemon's figures made up, for what is computed from them."""

from __future__ import annotations

from dataclasses import replace

from mapcell.cli.rates import Sample
from mapcell_formats.messages import ModelRow, StagingRow, Status

STATUS = Status(
    pid=1,
    version="1.2.3",
    uptime=60.0,
    budget=1 << 30,
    sealed=1 << 28,
    mapped=0,
    models=1,
    leases=2,
    connections=3,
    descriptors=4,
    stagers=0,
    staging=(),
    runtime="/run/mapcell",
    bytes_read=0,
    attaches=0,
    stagings=1,
    evictions=0,
)
ROW = ModelRow(
    "minilm",
    "blake3:" + "a" * 64,
    ("latest",),
    "READY",
    "sealed",
    "F32",
    1 << 20,
    3,
    2,
    False,
    True,
    "safetensors",
    "/m",
)


def sample(
    at: float,
    attaches: int = 0,
    pid: int = 1,
    staging: tuple[StagingRow, ...] = (),
    rows: tuple[ModelRow, ...] = (ROW,),
) -> Sample:
    """What a daemon said at `at`."""
    return Sample(at, replace(STATUS, attaches=attaches, pid=pid, staging=staging), rows)


def staging(name: str, done: int, total: int = 1000, step: str = "reading") -> StagingRow:
    """One checkpoint under way."""
    return StagingRow(name, step, done, total, 1)
