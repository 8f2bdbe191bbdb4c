"""What every benchmark here shares: interleaved timing, the machine, a daemon of its own, and the JSON it leaves.

A *way* is one of the things that are compared; a *case* says under which circumstances. Each row of a result has both,
and either figures or the reason why there are none: a peer that is missing or fails is part of the result.

    {"bench", "script", "date", "took", "arguments", "machine", "versions",
     "rows": [{"case": {...}, "way": "mapcell", "figures": {"seconds": {"count", "p50", "p99", "min"}, "pss": 123}},
              {"case": {...}, "way": "Ray", "failed": "ModuleNotFoundError: No module named 'ray'"}]}

Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The tests' daemon is the one that also asserts a clean end.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.daemon import DaemonProcess

BENCH = Path(__file__).parent
MIB = 1 << 20
# What could change a figure.
PACKAGES = (
    "mapcell", "numpy", "safetensors", "torch", "transformers", "joblib", "ray", "pyzmq", "msgpack", "blake3",
    "ml_dtypes", "scipy",
)  # fmt: skip
# A repetition that takes more than this part of a way's time counts from the first one.
_LEAST = 4

Case = Mapping[str, object]
Row = dict[str, Any]
Repetition = Callable[[], object]
Measure = Callable[[argparse.Namespace], list[Row]]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured. `memory` in bytes; `huge_pages` that are free, of 2 MiB; `load` when it began."""

    kernel: str
    cpu: str
    cores: int
    memory: int
    python: str
    libc: str
    huge_pages: int
    transparent_huge_pages: str
    load: float


def machine() -> Machine:
    """This one."""
    return Machine(
        kernel=platform.release(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        libc=" ".join(platform.libc_ver()),
        huge_pages=int(_read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") or 0),
        transparent_huge_pages=_chosen(_read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        load=round(os.getloadavg()[0], 2),
    )


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _chosen(text: str) -> str:
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else ""


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The installed versions; "" for what is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


# --- timing -----------------------------------------------------------------------------------------------------------


def timed(repetition: Repetition) -> float:
    """Seconds that one repetition takes; what it gives is let go of after the clock stopped.

    A repetition that has a `before` gets that called first, outside of the time.
    """
    before = getattr(repetition, "before", None)
    if before is not None:
        before()
    began = time.perf_counter()
    result = repetition()
    took = time.perf_counter() - began
    del result
    return took


def interleaved(
    ways: Mapping[str, Repetition], rounds: int, *, burst: int = 1, limit: float = 10.0
) -> dict[str, list[float] | str]:
    """Seconds of each repetition of each way, which take turns; or why there are none.

    Each turn is `burst` repetitions after one that does not count, so that nobody pays for what the way before left in
    the caches. A way sits out once it has used `limit` seconds.
    """
    results: dict[str, list[float] | str] = {way: [] for way in ways}
    gc.collect()
    # What was imported is not looked through again after each way.
    gc.freeze()
    for _ in range(-(-rounds // burst)):
        for way, repetition in ways.items():
            result = results[way]
            if not isinstance(result, str) and sum(result) < limit:
                try:
                    _turn(repetition, result, burst, limit)
                except Exception as exc:
                    # Whatever a peer raises is its result.
                    results[way] = explained(exc)
            gc.collect()
    gc.unfreeze()
    return results


def _turn(repetition: Repetition, result: list[float], burst: int, limit: float) -> None:
    first = timed(repetition)
    if first > limit / _LEAST:
        # Too slow to be thrown away.
        result.append(first)
        return
    for _ in range(burst):
        result.append(timed(repetition))
        if sum(result) > limit:
            return


def summary(values: Sequence[float]) -> dict[str, float]:
    """How many, the median, the 99th percentile and the least."""
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
        "min": round(ordered[0], 9),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, between its neighbours in proportion, as numpy.percentile has it."""
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return round(ordered[below] + (ordered[above] - ordered[below]) * (place - below), 9)


def explained(exc: BaseException) -> str:
    """One line that says what failed."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[-1] if lines else ''}"[:300]


def row(case: Case, way: str, **figures: object) -> Row:
    """A row that has figures."""
    return {"case": dict(case), "way": way, "figures": figures}


def failure(case: Case, way: str, why: str) -> Row:
    """A row that says why there are none."""
    return {"case": dict(case), "way": way, "failed": why}


def timing_rows(case: Case, results: Mapping[str, list[float] | str]) -> list[Row]:
    """The rows of what `interleaved` found."""
    return [
        failure(case, way, found) if isinstance(found, str) else row(case, way, seconds=summary(found))
        for way, found in results.items()
    ]


def prepared(
    ways: Mapping[str, Callable[[], Repetition]], only: Sequence[str] | None
) -> tuple[dict[str, Repetition], dict[str, str]]:
    """The ways that can be measured, and why the others cannot; of those in `only`, when it is given."""
    ready: dict[str, Repetition] = {}
    failed: dict[str, str] = {}
    for way, prepare in ways.items():
        if only is not None and way not in only:
            continue
        try:
            ready[way] = prepare()
        except Exception as exc:
            # A missing package or a file that cannot be written is what there is to say of this peer.
            failed[way] = explained(exc)
    return ready, failed


def compare(
    case: Case,
    ways: Mapping[str, Callable[[], Repetition]],
    rounds: int,
    only: Sequence[str] | None = None,
    *,
    burst: int = 1,
    limit: float = 10.0,
) -> list[Row]:
    """Prepares the ways, measures them in turns, and gives a row for each."""
    ready, failed = prepared(ways, only)
    rows = timing_rows(case, interleaved(ready, rounds, burst=burst, limit=limit))
    return rows + [failure(case, way, why) for way, why in failed.items()]


# --- surroundings -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def private_daemon(*arguments: str) -> Iterator[DaemonProcess]:
    """A daemon that nobody else uses, and that the SDK in this process finds; both end with the block."""
    from mapcell.connection import disconnect

    known = {k: v for k, v in os.environ.items() if k.startswith("MAPCELL_")}
    with DaemonProcess(*arguments) as daemon:
        os.environ["MAPCELL_RUNTIME"] = str(daemon.runtime)
        os.environ.pop("MAPCELL_DAEMON", None)
        try:
            yield daemon
        finally:
            gc.collect()
            disconnect()
            os.environ.pop("MAPCELL_RUNTIME")
            os.environ.update(known)


@contextlib.contextmanager
def folder(under: Path | None) -> Iterator[Path]:
    """A temporary folder for models; on the disk that `under` is on, when it is given."""
    with tempfile.TemporaryDirectory(prefix="mapcell-bench-", dir=under) as name:
        yield Path(name)


def worker_environment(threads: int | None = None) -> dict[str, str]:
    """What processes that are measured run with: compiled modules, as in production, and so many threads for BLAS."""
    known = dict(os.environ)
    if "PYTHONPYCACHEPREFIX" in known:
        known.pop("PYTHONDONTWRITEBYTECODE", None)
    if threads is not None:
        known |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return known


@contextlib.contextmanager
def compiled_modules() -> Iterator[None]:
    """Keeps compiled modules in a folder of this run's where the user wants none beside the sources.

    Without any, each worker would compile what it imports, and that would be what is measured.
    """
    if not os.environ.get("PYTHONDONTWRITEBYTECODE") or "PYTHONPYCACHEPREFIX" in os.environ:
        yield
        return
    name = tempfile.mkdtemp(prefix="mapcell-bench-")
    os.environ["PYTHONPYCACHEPREFIX"] = name
    try:
        yield
    finally:
        del os.environ["PYTHONPYCACHEPREFIX"]
        shutil.rmtree(name)


# --- scripts ----------------------------------------------------------------------------------------------------------


def parser(document: str | None) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    made = argparse.ArgumentParser(
        description=(document or "").partition("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--out", type=Path, help="where the JSON goes; printed when it is not given")
    made.add_argument("--folder", type=Path, help="where models are put meanwhile; a disk, not memory")
    made.add_argument("--only", nargs="+", metavar="WAY", help="measure these ways alone")
    return made


def run(
    script: str, measure: Callable[[argparse.Namespace], list[Row]], arguments: argparse.ArgumentParser
) -> list[Row]:
    """Parses the command line, measures, and leaves the JSON. The rows."""
    options = arguments.parse_args()
    began, before = time.time(), machine()
    with compiled_modules():
        rows = measure(options)
    leave(script, rows, options, before, began)
    return rows


def leave(script: str, rows: list[Row], options: argparse.Namespace, before: Machine, began: float) -> None:
    """Writes the JSON to `options.out`, or prints it."""
    document = {
        "bench": Path(script).stem,
        "script": f"bench/{Path(script).name}",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "took": round(time.time() - began, 1),
        "arguments": {k: v for k, v in vars(options).items() if k not in ("out", "folder")},
        "machine": asdict(before),
        "versions": versions(),
        "rows": rows,
    }
    text = json.dumps(document, indent=1, default=str) + "\n"
    if options.out is None:
        sys.stdout.write(text)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    beside = options.out.with_name(options.out.name + ".new")
    beside.write_text(text)
    os.replace(beside, options.out)
