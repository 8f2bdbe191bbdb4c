"""The comparison: the same workers, three ways to their weights, each with and without a change of dtype.

All workers of a way start at once and stay until all have answered; then memory is measured, of all at the same moment.
A worker that goes before them brings files and libraries into the page cache, which otherwise the first way would pay
for. The weights of the second half are rounded to bfloat16 in
a file of their own and wanted in float32: each ordinary worker converts for itself, the daemon once for all.

Sentences are tokenised here, once: a tokenizer is as large in every way, and would only blur the figures. This process
(its tokenizer, the progress bars) is not part of any sum.
"""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import assets
from .job import BATCH, Job, environment
from .measure import family, memory_available, memory_of
from .processes import Child, Workplace, messages
from .results import Comparison, Daemon, WayResult, Worker
from .signals import Signals
from .tokenize import Tokens, tokenized

Embeddings = NDArray[np.float32]
# Called with what goes on, and how much of the whole run is done, from 0 to 1.
Report = Callable[[str, float], None]

MODEL = "minilm"
WAYS = ("private", "mmap", "mapcell")
_BARE = "import numpy, sys; print('{}', flush=True); sys.stdin.read()"
_LOAD_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """How many workers, and whose sentences: None for the demo's own, which have reference embeddings."""

    workers: int
    sentences: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What all ways of a run have in common."""

    place: Workplace
    model: assets.Model
    tokens: Tokens
    workers: int
    threads: int
    report: Report

    @property
    def tokens_file(self) -> Path:
        """The tokens, as the workers read them."""
        return self.place.folder / "tokens.npy"

    def checkpoint(self, cast: bool) -> Path:
        """The file that the workers of a way start from."""
        return self.place.folder / "bfloat16.safetensors" if cast else self.model.checkpoint


def compare(options: Options, report: Report) -> tuple[Comparison, Embeddings]:
    """Runs all ways. What they cost, and the embeddings of all sentences, float32 (sentences, 384).

    Leaves no process, file or memory behind, also when a signal ends it. Main thread only. MapcellError when the model
    is not installed or a process fails.
    """
    report("reading the model", 0.0)
    model = assets.find_model()
    texts = options.sentences if options.sentences is not None else assets.sentences()
    tokens = tokenized(texts, model.tokenizer)
    threads = max(1, len(os.sched_getaffinity(0)) // options.workers)
    with Signals() as signals:
        place = Workplace(signals)
        try:
            place.open()
            setting = Setting(place, model, tokens, options.workers, threads, report)
            return _compare(setting, options.sentences is None)
        finally:
            place.close()


def _compare(setting: Setting, known: bool) -> tuple[Comparison, Embeddings]:
    np.save(setting.tokens_file, np.stack([setting.tokens.ids, setting.tokens.mask]))
    assets.write_bfloat16(setting.model.checkpoint, setting.checkpoint(True))
    _warm_up(setting)
    bare = [memory_of(pid) for pid in _bare_processes(setting)]
    reference = assets.reference() if known else None
    ways: list[WayResult] = []
    embeddings: Embeddings | None = None
    for cast in (False, True):
        expected = None if reference is None else reference.bfloat16 if cast else reference.float32
        for way in WAYS:
            setting.report(f"{setting.workers} workers, {_described(way, cast)}", _share_done(len(ways)))
            result, answer, rest = _run_way(setting, way, cast, expected)
            # Without a reference the first way is what the others are compared with.
            expected = answer if expected is None else expected
            embeddings = rest if rest is not None else embeddings
            ways.append(result)
    assert embeddings is not None
    size = setting.model.checkpoint.stat().st_size
    compared_with = "reference" if known else "private"
    return Comparison(ways, bare, size, len(setting.tokens), setting.threads, compared_with), embeddings


def _described(way: str, cast: bool) -> str:
    return f"{way}{', bfloat16 to float32' if cast else ''}"


def _share_done(ways: int) -> float:
    # The processes before the first way count as one more.
    return (ways + 1) / (2 * len(WAYS) + 1)


def _warm_up(setting: Setting) -> None:
    """Has one worker go before the others: what it reads, files and libraries, is in the page cache then."""
    setting.report("warming up", 0.02)
    workers, _ = _start_workers(replace(setting, workers=1), WAYS[0], False, None)
    _first_messages(workers)
    setting.place.end(workers)


def _bare_processes(setting: Setting) -> Iterator[int]:
    """Processes that imported NumPy and do nothing, all at once."""
    setting.report("measuring bare processes", 0.05)
    known = environment(None, setting.threads)
    children = [setting.place.start("a bare process", ["-c", _BARE], known) for _ in range(setting.workers)]
    _first_messages(children)
    yield from [child.pid for child in children]
    setting.place.end(children)


def _first_messages(children: Sequence[Child]) -> list[dict[str, Any]]:
    """The first message of every child, in the children's order."""
    heard: dict[Child, dict[str, Any]] = {}
    for child, message in messages(children):
        heard[child] = message
        if len(heard) == len(children):
            break
    return [heard[child] for child in children]


def _run_way(
    setting: Setting, way: str, cast: bool, expected: Embeddings | None
) -> tuple[WayResult, Embeddings, Embeddings | None]:
    """One way: its figures, the first batch's embeddings, and those of all sentences if this way makes them."""
    place = setting.place
    before = memory_available()
    with _daemon_for(setting, way, cast) as daemon:
        workers, answers = _start_workers(setting, way, cast, daemon)
        told = [message["steps"] for message in _first_messages(workers)]
        memories = [memory_of(worker.pid) for worker in workers]
        cost = None if daemon is None else daemon.measured()
        lost = before - memory_available()
        embedded = [np.load(answer) for answer in answers]
        every = _embed_all(setting, workers, embedded[0]) if way == WAYS[-1] and not cast else None
        place.end(workers)
    expected = embedded[0] if expected is None else expected[:BATCH]
    difference = max(float(np.abs(answer - expected).max()) for answer in embedded)
    shown = [Worker(steps, memory) for steps, memory in zip(told, memories, strict=True)]
    total = sum(m.pss for m in memories) + (cost.pss if cost else 0)
    return WayResult(way, cast, shown, cost, total, lost, difference), embedded[0], every


def _start_workers(
    setting: Setting, way: str, cast: bool, daemon: _RunningDaemon | None
) -> tuple[list[Child], list[Path]]:
    """Starts all workers of a way. They, and the files that they write their first answers to."""
    source = MODEL if daemon is not None else str(setting.checkpoint(cast))
    # What the daemon holds was cast when it was loaded.
    dtype = "float32" if cast and daemon is None else None
    known = environment(daemon.runtime if daemon else None, setting.threads)
    answers = [setting.place.folder / f"answer-{way}-{cast}-{number}.npy" for number in range(setting.workers)]
    jobs = [
        Job(way, source, dtype, str(setting.model.config), str(setting.tokens_file), str(answer)) for answer in answers
    ]
    return [setting.place.start(f"a worker ({way})", job.command(), known) for job in jobs], answers


# --- The daemon


@dataclass(frozen=True, slots=True)
class _RunningDaemon:
    process: Child
    runtime: Path
    start: float
    load: float
    residence: str
    sealed: int

    def measured(self) -> Daemon:
        """What it costs now, its helper processes included."""
        memories = [memory_of(pid) for pid in family(self.process.pid)]
        pss, private = sum(m.pss for m in memories), sum(m.private for m in memories)
        return Daemon(self.start, self.load, self.residence, self.sealed, pss, private)


@contextmanager
def _daemon_for(setting: Setting, way: str, cast: bool) -> Iterator[_RunningDaemon | None]:
    """A daemon that holds the model, for the way that needs one."""
    if way != "mapcell":
        yield None
        return
    runtime = setting.place.folder / f"run-{int(cast)}"
    began = time.monotonic()
    process = setting.place.start_daemon(runtime)
    started = time.monotonic()
    residence, nbytes = _load(runtime, setting.checkpoint(cast), "float32" if cast else None)
    loaded = time.monotonic()
    sealed = nbytes if residence == "sealed" else 0
    yield _RunningDaemon(process, runtime, started - began, loaded - started, residence, sealed)
    setting.place.end([process], signal.SIGTERM)


def _load(runtime: Path, path: Path, dtype: str | None) -> tuple[str, int]:
    """What `mapcell load` does: the daemon stages the file under a name. Where its bytes are then, and how many."""
    from mapcell.connection import disconnect
    from mapcell.daemon_backend import attach_path

    with _environment(MAPCELL_RUNTIME=str(runtime)):
        try:
            weights = attach_path(
                str(path), dtype="F32" if dtype else None, keys=None, prefix="", mode="r", timeout=_LOAD_SECONDS,
                name=MODEL,
            )  # fmt: skip
            weights.close()
        finally:
            disconnect()
    return weights.residence, weights.nbytes


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- All sentences


def _embed_all(setting: Setting, workers: Sequence[Child], first: Embeddings) -> Embeddings:
    """Embeddings of all sentences: the first batch is there, the rest is shared out among the workers."""
    count = len(setting.tokens)
    bounds = np.linspace(len(first), count, len(workers) + 1).astype(int).tolist()
    parts: list[Path] = []
    busy: set[Child] = set()
    for worker, (start, end) in zip(workers, pairwise(bounds), strict=True):
        if start < end:
            parts.append(setting.place.folder / f"part-{start}.npy")
            worker.tell([start, end, str(parts[-1])])
            busy.add(worker)
    _await_saved(setting, busy, len(first))
    return np.concatenate([first, *(np.load(part) for part in parts)])


def _await_saved(setting: Setting, busy: set[Child], done: int) -> None:
    share, count = _share_done(len(WAYS) - 1), len(setting.tokens)
    for child, message in messages(sorted(busy, key=lambda c: c.pid)) if busy else ():
        if "saved" in message:
            busy.discard(child)
            if not busy:
                break
        else:
            done += int(message["embedded"])
            setting.report(f"embedding line {done} of {count}", share)


def save(path: Path, embeddings: Embeddings) -> None:
    """Writes `embedding` to an .npz file, replacing what was there only when it is complete."""
    from mapcell_formats.atomic import write_atomically

    content = io.BytesIO()
    np.savez(content, embedding=embeddings)
    write_atomically(path, [content.getbuffer()])
