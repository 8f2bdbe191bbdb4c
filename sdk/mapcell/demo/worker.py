"""One worker process: builds the network, gets its weights in one of three ways, answers, and stays to be measured.

It is started with a Job as JSON in its first argument and writes JSON lines to stdout: one when it has its first
answer, with what each step took, then one for each batch that a line on stdin asks for. It ends with its stdin.

The steps, in seconds, follow each other from the moment at which the kernel made the process (known to 10 ms):

    python      the interpreter starts
    import      mapcell, the network's modules, and the libraries that this way needs
    build       the network, under no_init_parameters(): the same in all ways
    load        private: the file is read; mmap: it is mapped; mapcell: attach(). Conversion of dtypes included
    bind        each Parameter gets its tensor
    forward     the first batch, from token ids to embeddings
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mapcell import Tensor
from mapcell.attaching import attach
from mapcell.binding import bind
from mapcell.nn.utils import no_init_parameters

from .job import BATCH, Job, read_job
from .measure import since_boot, started_at
from .minilm import RENAME, Config, MiniLM
from .ordinary import map_file, read_copy
from .tokenize import Tokens


class Laps:
    """What each step took, without gaps between them."""

    def __init__(self, start: float) -> None:
        self._start = self._last = start
        self.seconds: dict[str, float] = {}

    def note(self, step: str, now: float | None = None) -> None:
        """Ends `step` now."""
        now = since_boot() if now is None else now
        self.seconds[step] = max(now - self._last, 0.0)
        self._last = now


def _private(job: Job) -> Mapping[str, Any]:
    return read_copy(Path(job.source), job.dtype)


def _mmap(job: Job) -> Mapping[str, Any]:
    return map_file(Path(job.source), job.dtype)


def _mapcell(job: Job) -> Mapping[str, Any]:
    return attach(job.source, dtype=job.dtype, daemon="require")


LOADERS: Mapping[str, Callable[[Job], Mapping[str, Any]]] = {"private": _private, "mmap": _mmap, "mapcell": _mapcell}


def main(began: float) -> None:
    """Does the job in the first argument. `began`: when the interpreter was ready, in seconds since boot."""
    job = read_job(sys.argv[1])
    laps = Laps(started_at())
    laps.note("python", began)
    _import_for(job.way)
    laps.note("import")
    with no_init_parameters():
        net = MiniLM(Config.read(Path(job.config)))
    laps.note("build")
    weights = LOADERS[job.way](job)
    laps.note("load")
    bind(net, weights, rename=RENAME)
    laps.note("bind")
    tokens = Tokens(*np.load(job.tokens, mmap_mode="r"))
    answer = embed(net, tokens.batch(0, BATCH))
    laps.note("forward")
    np.save(job.answer, answer)
    _say(steps=laps.seconds, backend=getattr(weights, "backend", ""), residence=getattr(weights, "residence", ""))
    _serve(net, tokens, sys.stdin)


def embed(net: MiniLM, tokens: Tokens) -> Any:
    """Embeddings of one batch, float32 (sentences, 384)."""
    return net(Tensor(tokens.ids), Tensor(tokens.mask)).asnumpy()


def _import_for(way: str) -> None:
    import ml_dtypes

    _ = ml_dtypes
    if way == "mapcell":
        import zmq

        import mapcell.daemon_backend

        _ = (zmq, mapcell.daemon_backend)
    elif way == "private":
        import safetensors.numpy

        _ = safetensors.numpy


def _serve(net: MiniLM, tokens: Tokens, orders: IO[str]) -> None:
    for line in orders:
        first, last, path = json.loads(line)
        parts = []
        for start in range(first, last, BATCH):
            parts.append(embed(net, tokens.batch(start, min(start + BATCH, last))))
            _say(embedded=len(parts[-1]))
        np.save(path, np.concatenate(parts))
        _say(saved=path)


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
