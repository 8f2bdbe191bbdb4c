"""`mapcell demo` as a user runs it: right answers, the promised memory, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

MIB = 1 << 20
WORKERS = 4
EXPECTED = Path(__file__).parents[1] / "data/minilm/expected.npz"
COMMAND = [sys.executable, "-c", "import sys; from mapcell.cli import main; sys.exit(main())", "demo"]


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `mapcell demo` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], check=False, env=os.environ | environment, capture_output=True, text=True
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run."""

    document: dict[str, Any]
    embedding: np.ndarray[Any, Any]
    left: list[str]

    def way(self, name: str, cast: bool) -> dict[str, Any]:
        """The figures of one way."""
        (found,) = (w for w in self.document["ways"] if w["way"] == name and w["cast"] is cast)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short-named folder for the demo's temporary files."""
    path = Path(tempfile.mkdtemp(prefix="mc", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run with four workers."""
    work, saved = tmp_path_factory.mktemp("tmp"), tmp_path_factory.mktemp("out") / "out.npz"
    told = demo("--workers", str(WORKERS), "--json", "--save", str(saved), TMPDIR=str(work))
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    with np.load(saved) as arrays:
        return Run(json.loads(told.stdout), arrays["embedding"], os.listdir(work))


WAYS = [(name, cast) for cast in (False, True) for name in ("private", "mmap", "mapcell")]


def test_document(run: Run) -> None:
    """The JSON has all ways, in order, with the promised fields for each worker."""
    assert [(w["way"], w["cast"]) for w in run.document["ways"]] == WAYS
    for way in run.document["ways"]:
        assert len(way["workers"]) == WORKERS
        for worker in way["workers"]:
            assert 0 < worker["ready"] < worker["first_answer"]
            assert sum(worker["steps"].values()) == pytest.approx(worker["first_answer"])
            assert 0 < worker["private"] <= worker["pss"]
        assert isinstance(way["host_delta"], int)
    assert run.left == []


@pytest.mark.parametrize(("name", "cast"), WAYS)
def test_right_answers(run: Run, name: str, cast: bool) -> None:
    """Every embedding of every worker is within 1e-5 of the reference, in every way."""
    assert run.way(name, cast)["max_difference"] < 1e-5


def test_saved(run: Run) -> None:
    """--save writes float32 embeddings of all lines, within 1e-5 of what torch computed."""
    with np.load(EXPECTED) as expected:
        assert run.embedding.dtype == np.float32
        assert run.embedding.shape == expected["embedding"].shape
        assert np.abs(run.embedding - expected["embedding"]).max() < 1e-5


@pytest.mark.parametrize("cast", [False, True])
def test_memory(run: Run, cast: bool) -> None:
    """All processes together stay within one checkpoint, bare processes with 16 MiB each, and the daemon's 40 MiB."""
    bare = max(memory["pss"] for memory in run.document["bare_numpy"])
    allowed = 1.05 * run.document["checkpoint"] + WORKERS * (bare + 16 * MIB) + 40 * MIB
    way = run.way("mapcell", cast)
    assert way["total_pss"] <= allowed
    assert sum(w["pss"] for w in way["workers"]) + way["daemon"]["pss"] == way["total_pss"]
    assert way["total_pss"] < run.way("private", cast)["total_pss"] / 2
    assert all(w["private"] <= bare + 16 * MIB for w in way["workers"])


def test_cast_is_where_maps_stop_sharing(run: Run) -> None:
    """With a cast every ordinary worker holds all weights privately; mapcell's workers hold none of them."""
    for name in ("private", "mmap"):
        assert all(w["private"] > run.document["checkpoint"] for w in run.way(name, True)["workers"])
    assert all(w["private"] < run.document["checkpoint"] / 2 for w in run.way("mapcell", True)["workers"])


def test_own_sentences(tmp_path: Path) -> None:
    """More lines than one batch are shared out among the workers and come back in order."""
    lines = [f"line {number} of the file" + " and more" * (number % 7) for number in range(45)]
    lines[40] = lines[3]
    source, saved = tmp_path / "lines.txt", tmp_path / "out.npz"
    source.write_text("\n".join(lines) + "\n")
    told = demo("--workers", "2", "--sentences", str(source), "--save", str(saved), "--json")
    assert told.returncode == 0, told.stderr
    with np.load(saved) as arrays:
        embedding = arrays["embedding"]
    assert embedding.shape == (45, 384)
    assert np.abs(embedding[40] - embedding[3]).max() < 1e-6
    assert np.abs(embedding[41] - embedding[4]).max() > 1e-3
    document = json.loads(told.stdout)
    assert document["reference"] == "private"
    assert all(way["max_difference"] < 1e-5 for way in document["ways"])


BAD: list[tuple[list[str], int, str]] = [
    (["--workers", "0"], 2, "--workers"),
    (["--sentences", "/nowhere"], 2, "--sentences"),
    (["--sentences", "/dev/null"], 1, "no line to embed"),
    (["--save", "/nowhere/out.npz"], 1, "no such folder"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), BAD)
def test_wrong_usage(arguments: list[str], status: int, words: str) -> None:
    """What cannot work is refused before anything is started."""
    told = demo(*arguments)
    assert told.returncode == status
    assert words in told.stderr
    assert told.stdout == ""


def started(running: subprocess.Popen[bytes], processes: int) -> list[psutil.Process]:
    """The processes below the demo, as soon as there are that many."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert running.poll() is None, "the demo ended too early"
        found = psutil.Process(running.pid).children(recursive=True)
        if len(found) >= processes:
            return found
        time.sleep(0.002)
    raise AssertionError(f"there were never {processes} processes")


# How many processes there are when the signal comes: a worker that warms up; bare ones or workers; a daemon and its
# spawner beside four workers.
MOMENTS = [(1, signal.SIGINT, 130), (3, signal.SIGTERM, 143), (6, signal.SIGINT, 130), (6, signal.SIGTERM, 143)]


@pytest.mark.parametrize(("processes", "number", "status"), MOMENTS)
def test_signals_leave_nothing(folder: Path, processes: int, number: int, status: int) -> None:
    """Ctrl-C and SIGTERM end the demo at any moment, with its processes and its folder."""
    environment = os.environ | {"TMPDIR": str(folder)}
    with subprocess.Popen(
        [*COMMAND, "--workers", str(WORKERS)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        below = started(running, processes)
        running.send_signal(number)
        out, errors = running.communicate(timeout=60)
    assert running.returncode == status, errors.decode()
    assert out == b""
    assert b"Traceback" not in errors
    _, alive = psutil.wait_procs(below, timeout=5)
    assert alive == []
    assert os.listdir(folder) == []


def test_workers_end_with_a_killed_demo(folder: Path) -> None:
    """Even a demo that is killed takes its workers with it: they end with their stdin."""
    environment = os.environ | {"TMPDIR": str(folder)}
    with subprocess.Popen([*COMMAND, "--workers", "2"], env=environment, stdout=subprocess.DEVNULL) as running:
        below = started(running, 2)
        running.kill()
        running.wait()
        _, alive = psutil.wait_procs(below, timeout=30)
        assert alive == []
