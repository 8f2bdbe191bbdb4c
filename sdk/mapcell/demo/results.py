"""What a run of the demo found out, as values, and as the JSON document of ``mapcell demo --json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .measure import Memory


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker: what its steps took in seconds (worker.STEPS), and its memory after its first answer."""

    steps: Mapping[str, float]
    memory: Memory

    @property
    def ready(self) -> float:
        """Seconds from the process's start until its network had all its weights."""
        return self.first_answer - self.steps["forward"]

    @property
    def first_answer(self) -> float:
        """Seconds from the process's start to its first embeddings."""
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True)
class Daemon:
    """What the daemon and its helper process cost: seconds to start and to load the model once, bytes of memory.

    `sealed`: what it holds in memory for all; PSS counts a page of that only where a process has touched it.
    """

    start: float
    load: float
    residence: str
    sealed: int
    pss: int
    private: int


@dataclass(frozen=True, slots=True)
class WayResult:
    """All workers of one way.

    `cast`: whether the checkpoint holds bfloat16 and the workers compute in float32. `total_pss` is of all workers and
    the daemon, `host_delta` what MemAvailable fell by, both in bytes. `max_difference` is the largest of any element of
    any worker's embeddings from the reference.
    """

    way: str
    cast: bool
    workers: Sequence[Worker]
    daemon: Daemon | None
    total_pss: int
    host_delta: int
    max_difference: float

    def mean(self, step: str) -> float:
        """The workers' mean of one step, in seconds."""
        return sum(w.steps[step] for w in self.workers) / len(self.workers)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that one run found out.

    `checkpoint`: bytes of the float32 file. `bare`: processes that only imported NumPy, as many as there are workers.
    `threads`: of each worker's matrix products. `reference`: what max_difference compares with.
    """

    ways: Sequence[WayResult]
    bare: Sequence[Memory]
    checkpoint: int
    sentences: int
    threads: int
    reference: str


def document(found: Comparison) -> dict[str, Any]:
    """The run as JSON: sizes in bytes, times in seconds."""
    return {
        "ways": [_way(way) for way in found.ways],
        "bare_numpy": [_memory(memory) for memory in found.bare],
        "checkpoint": found.checkpoint,
        "sentences": found.sentences,
        "threads": found.threads,
        "reference": found.reference,
    }


def _way(way: WayResult) -> dict[str, Any]:
    return {
        "way": way.way,
        "cast": way.cast,
        "workers": [_worker(worker) for worker in way.workers],
        "daemon": None if way.daemon is None else _daemon(way.daemon),
        "total_pss": way.total_pss,
        "host_delta": way.host_delta,
        "max_difference": way.max_difference,
    }


def _worker(worker: Worker) -> dict[str, Any]:
    times = {"ready": worker.ready, "first_answer": worker.first_answer, "steps": dict(worker.steps)}
    return times | _memory(worker.memory)


def _memory(memory: Memory) -> dict[str, int]:
    return {"pss": memory.pss, "private": memory.private, "rss": memory.rss}


def _daemon(daemon: Daemon) -> dict[str, Any]:
    return {
        "start": daemon.start,
        "load": daemon.load,
        "residence": daemon.residence,
        "sealed": daemon.sealed,
        "pss": daemon.pss,
        "private": daemon.private,
    }
