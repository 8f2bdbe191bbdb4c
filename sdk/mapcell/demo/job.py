"""What a worker is told: its job, the command that starts it and its environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

# Attention needs memory that grows with the batch: 16 sentences of 256 tokens take 50 MB.
BATCH = 16
# A worker's steps, in their order; worker.py says what each is.
STEPS = ("python", "import", "build", "load", "bind", "forward")
# What `python -c` runs, so that the time before our first import is known.
BOOT = "import time; began = time.clock_gettime(time.CLOCK_BOOTTIME); from mapcell.demo.worker import main; main(began)"


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is to do.

    `source` is a file, or for "mapcell" a model's name; `dtype` what floating weights are to become, None for as they
    are; `tokens` an .npy file, int64 (2, sentences, tokens), of ids and mask; `answer` the .npy file for the first
    batch's embeddings.
    """

    way: str
    source: str
    dtype: str | None
    config: str
    tokens: str
    answer: str

    def command(self) -> list[str]:
        """Python's arguments."""
        return ["-c", BOOT, json.dumps(asdict(self))]


def read_job(text: str) -> Job:
    """The job that a command's last argument describes."""
    return Job(**json.loads(text))


def environment(runtime: Path | None, threads: int) -> dict[str, str]:
    """The environment of a worker: its daemon, and how many threads its matrix products may use.

    OPENBLAS_NUM_THREADS is left alone where it is set.
    """
    known = {k: v for k, v in os.environ.items() if not k.startswith("MAPCELL_")}
    known.setdefault("OPENBLAS_NUM_THREADS", str(threads))
    return known | ({"MAPCELL_RUNTIME": str(runtime)} if runtime is not None else {})
