"""The programs in docs/examples, run as their readers would run them."""

from __future__ import annotations

import difflib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from mapcell.connection import CONNECTIONS
from mapcell.demo.assets import find_model, reference, sentences
from mapcell.demo.measure import memory_of
from mapcell_formats.messages import LeaseRow, ListLeases
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.models import load
from support.proc import eventually

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
WORKERS = 4
CLIENTS = 6
# So many before the kill, and as many after it.
REQUESTS = 12
PATIENCE = 60.0
# Their matrices are small: more threads only wait for each other.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(example: str, *arguments: object, **environment: str) -> str:
    """What an example prints; AssertionError, with what it complained of, when it fails."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *map(str, arguments)]
    env = os.environ | ONE_THREAD | environment
    told = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert (told.returncode, told.stderr) == (0, ""), told.stderr
    return told.stdout


def leases() -> list[LeaseRow]:
    """The daemon's leases."""
    rows: tuple[LeaseRow, ...] = CONNECTIONS.client().ask(ListLeases(), PATIENCE).rows
    return list(rows)


def shared(pids: list[int]) -> tuple[int, int]:
    """Bytes of segments that are resident in the processes: all counts added up, and each page counted once."""
    rss = pss = 0
    for pid in pids:
        inside = False
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-", line):
                inside = "/memfd:mapcell-segment" in line
            elif inside and line.startswith(("Rss:", "Pss:")):
                kib = int(line.split()[1])
                rss, pss = (rss + kib, pss) if line.startswith("Rss:") else (rss, pss + kib)
    return rss * 1024, pss * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it began and ended, and the worker that answered, or what went wrong."""

    began: float
    ended: float
    worker: int = 0
    wrong: str = ""


@dataclass(slots=True)
class Load:
    """Clients that ask one thing after the other, each on a connection of its own."""

    port: int
    expected: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
    requests: list[Request] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def ask(self, sentence: str) -> Request:
        """One request and its answer, compared."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/", json.dumps([sentence]))
            response = connection.getresponse()
            (answer,) = json.loads(response.read())
            np.testing.assert_allclose(answer, self.expected[sentence], atol=1e-5)
            return Request(began, time.monotonic(), int(response.headers["x-worker"]))
        # Whatever it is, the test counts it.
        except Exception as exc:
            return Request(began, time.monotonic(), wrong=f"{type(exc).__name__}: {exc}")
        finally:
            connection.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """All clients ask while the block runs."""
        threads = [Thread(target=self._client, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def answered(self) -> list[Request]:
        """What was answered so far."""
        return [r for r in list(self.requests) if r.worker]

    def ask_each(self, workers: set[int]) -> None:
        """One request to each worker: whoever is free takes the next, so the others are held meanwhile."""
        for worker in workers:
            for other in workers - {worker}:
                os.kill(other, signal.SIGSTOP)
            try:
                answer = self.ask(next(iter(self.expected)))
            finally:
                for other in workers - {worker}:
                    os.kill(other, signal.SIGCONT)
            assert (answer.worker, answer.wrong) == (worker, "")

    def _client(self, number: int) -> None:
        texts = list(self.expected)
        while not self.over.is_set():
            number += 1
            self.requests.append(self.ask(texts[number % len(texts)]))


@contextmanager
def service(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The embedding service with its workers, ended as operators do."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "embeddings:app", "--port", str(port)]
    command += ["--workers", str(WORKERS), "--log-level", "warning", "--no-access-log"]
    # So long uvicorn waits for an answer of each worker in turn, also of one that was killed just then; it kills those
    # that give none, and on a busy machine its five seconds are not much.
    command += ["--timeout-worker-healthcheck", "15"]
    process = subprocess.Popen(command, env=os.environ | ONE_THREAD | {"MODEL": "minilm"})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_service_survives_a_killed_worker(daemon: DaemonProcess) -> None:
    """Four workers serve from one copy under load; one is killed and replaced, and only its own requests fail."""
    size = load(find_model().checkpoint, "minilm").nbytes
    texts = sentences()[:16]
    under = Load(free_port(), dict(zip(texts, reference().float32, strict=False)))
    with service(under.port):
        eventually(lambda: len(leases()) == WORKERS, PATIENCE)
        workers = {row.pid for row in leases()}
        under.ask_each(workers)
        rss, pss = shared(list(workers))
        held = {pid: memory_of(pid).pss for pid in workers}
        with under.running():
            eventually(lambda: len(under.answered()) > REQUESTS, PATIENCE)
            victim = under.answered()[-1].worker
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: victim not in {row.pid for row in leases()}, PATIENCE)
            dead = time.monotonic()
            eventually(lambda: len(leases()) == WORKERS, PATIENCE)
            count = len(under.answered())
            eventually(lambda: len(under.answered()) > count + REQUESTS, PATIENCE)
        under.ask_each({row.pid for row in leases()})
    print(f"{size >> 20} MiB of weights; Pss of all workers' maps {pss >> 20} MiB, Rss {rss >> 20} MiB; {held}")
    assert pss <= size + (1 << 20) < rss
    failed = [r for r in under.requests if r.wrong]
    assert len(failed) <= CLIENTS
    assert [r for r in failed if r.began > dead] == []
    eventually(lambda: leases() == [], PATIENCE)


def test_pool(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Every tensor once, by the processes of the pool, and right."""
    rng = np.random.default_rng(1)
    tensors = {f"t{i}": rng.standard_normal(1000).astype(np.float32) for i in range(20)}
    path = write_safetensors(tmp_path / "w.safetensors", tensors)
    lines = [line.split("\t") for line in run("pool.py", path, 2).splitlines()]
    assert {name: float(largest) for name, largest, _ in lines} == pytest.approx(
        {name: abs(array).max() for name, array in tensors.items()}, rel=1e-5
    )


def test_torch_processes(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Two processes, one copy, and the classes that NumPy finds."""
    rng = np.random.default_rng(2)
    shapes = {"0.weight": (32, 20), "0.bias": (32,), "2.weight": (5, 32), "2.bias": (5,)}
    w = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    path = write_safetensors(tmp_path / "w.safetensors", w)
    rows = np.linspace(-1, 1, 64 * 20, dtype=np.float32).reshape(64, 20)
    scores = np.maximum(rows @ w["0.weight"].T + w["0.bias"], 0) @ w["2.weight"].T + w["2.bias"]
    assert json.loads(run("torch_processes.py", path, 2)) == scores.argmax(axis=1).tolist()


def ported(tmp_path: Path) -> tuple[Path, list[list[float]]]:
    """A checkpoint of the network that is ported, and what it computes."""
    import mapcell as ms

    rng = np.random.default_rng(3)
    shapes = {"hidden.weight": (128, 784), "hidden.bias": (128,), "scores.weight": (10, 128), "scores.bias": (10,)}
    w = {name: (rng.standard_normal(shape) * 0.05).astype(np.float32) for name, shape in shapes.items()}
    w |= {"norm.gamma": np.ones(128, np.float32), "norm.beta": np.zeros(128, np.float32)}
    path = tmp_path / "net.ckpt"
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in w.items()], str(path))
    x = np.linspace(-1, 1, 2 * 784, dtype=np.float32).reshape(2, 784) @ w["hidden.weight"].T + w["hidden.bias"]
    x = np.maximum((x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True), 0) @ w["scores.weight"].T
    x = np.exp(x + w["scores.bias"])
    return path, (x / x.sum(-1, keepdims=True)).tolist()


def test_port(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The ported program computes what it should, and its imports are all that changed."""
    path, expected = ported(tmp_path)
    np.testing.assert_allclose(json.loads(run("port_after.py", path)), expected, atol=2e-4)
    before, after = ((EXAMPLES / f"port_{when}.py").read_text().splitlines()[4:] for when in ("before", "after"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert all("import" in line for line in changed)
    assert [line.replace("mindspore", "mapcell") for line in before] == after
