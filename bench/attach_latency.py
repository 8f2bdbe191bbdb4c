"""How long until a few tensors of a model are arrays, by number of tensors and by size.

    python bench/attach_latency.py [--tensors 10 1000 100000] [--mib 8 8192] [--asked 10] [--rounds 1000]

Each repetition opens the checkpoint (or attaches to it), finds `--asked` tensors by name and has each as an array or
torch tensor; none of their elements is read. Files are warm in the page cache. What each way does:

    mapcell                attach(name) through a daemon, to which this process is connected
    mapcell, connecting    the same with a new connection to the daemon each time
    mapcell, no daemon     attach(path) in this process: the safetensors file is mapped
    safetensors numpy      safe_open(framework="numpy"), get_tensor of each: copies those
    safetensors torch      safe_open(framework="pt"), get_tensor of each
    torch.load mmap        torch.load(mmap=True, weights_only=True) of a zip file: makes all tensors
    numpy mmap             np.load(mmap_mode="r") of one .npy file for each tensor that is asked for, names known
    joblib mmap            joblib.load(mmap_mode="r") of a dict: makes all arrays
    shared_memory          multiprocessing.shared_memory by name, with a pickled table of names in front
    Ray                    ray.get of a dict of arrays in the object store, connected

First, models of different sizes and numbers of tensors take turns with one another, mapcell alone: minutes lie
between the cases, and a machine is not the same then.

Models are sparse: their bytes were never written. joblib and Ray know nothing sparse, so they take part up to
`--written` MiB; torch and joblib up to `--most` tensors, since they need minutes to write more.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from common import MIB, Repetition, Row, compare, folder, parser, private_daemon, run
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell_formats.messages import Unload
from models import Array, Shape, npy_files, safetensors_file, torch_file

# With this many tensors the size is varied, with this size the number.
USUAL_TENSORS = 1000
USUAL_MIB = 64
BURST = 50


class LeftOut(Exception):
    """Why a way takes no part in a case."""


class Ways:
    """One model, and each way to its tensors: a method prepares it and gives what is repeated."""

    def __init__(self, place: Path, shape: Shape, asked: int, limits: tuple[int, int], name: str = "model") -> None:
        self._place = place
        self._name = name
        self._shape = shape
        self._asked = shape.asked(asked)
        self._written, self._most = limits
        self._path = safetensors_file(place / f"{name}.safetensors", shape)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Ways:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def all(self) -> Mapping[str, Callable[[], Repetition]]:
        """Every way by its name."""
        return {
            "mapcell": self.mapcell,
            "mapcell, connecting": self._connecting,
            "mapcell, no daemon": self._in_process,
            "safetensors numpy": lambda: self._safetensors("numpy"),
            "safetensors torch": lambda: self._safetensors("pt"),
            "torch.load mmap": self._torch,
            "numpy mmap": self._numpy,
            "joblib mmap": self._joblib,
            "shared_memory": self._shared_memory,
            "Ray": self._ray,
        }

    def mapcell(self) -> Repetition:
        """Through a daemon, to which this process is connected."""
        attach_path(
            str(self._path), dtype=None, keys=None, prefix="", mode="r", timeout=60, name=self._name, residence="mapped"
        )
        self._stack.callback(lambda: CONNECTIONS.client().ask(Unload(self._name), 10, repeat=False))
        return lambda: self._chosen(mapcell.attach(self._name, daemon="require"))

    def _connecting(self) -> Repetition:
        def repetition() -> object:
            return self._chosen(mapcell.attach(self._name, daemon="require"))

        return Fresh(repetition)

    def _in_process(self) -> Repetition:
        return lambda: self._chosen(mapcell.attach(self._path, daemon="never"))

    def _safetensors(self, framework: str) -> Repetition:
        from safetensors import safe_open

        if framework == "pt":
            import torch  # noqa: F401

        def repetition() -> object:
            with safe_open(self._path, framework=framework) as file:
                return [file.get_tensor(name) for name in self._asked]

        return repetition

    def _torch(self) -> Repetition:
        self._bound_tensors()
        import torch

        path = torch_file(self._place / "model.pt", self._shape)
        return lambda: self._chosen(torch.load(path, mmap=True, weights_only=True))

    def _numpy(self) -> Repetition:
        place = npy_files(self._place / "npy", self._shape, self._asked)
        return lambda: [np.load(place / f"{name}.npy", mmap_mode="r") for name in self._asked]

    def _joblib(self) -> Repetition:
        self._bound_tensors()
        self._bound_bytes()
        import joblib

        path = self._place / "model.joblib"
        joblib.dump(self._arrays(), path)
        return lambda: self._chosen(joblib.load(path, mmap_mode="r"))

    def _shared_memory(self) -> Repetition:
        from multiprocessing.shared_memory import SharedMemory

        table = {name: i * self._shape.each_nbytes for i, name in enumerate(self._shape.names())}
        text = pickle.dumps(table)
        start = -(-(8 + len(text)) // 4096) * 4096
        owner = SharedMemory(create=True, size=start + self._shape.nbytes)
        self._stack.callback(owner.unlink)
        self._stack.callback(owner.close)
        header = len(text).to_bytes(8, "little") + text
        np.frombuffer(memoryview(owner.buf or b""), np.uint8)[: len(header)] = np.frombuffer(header, np.uint8)

        def repetition() -> object:
            block = SharedMemory(name=owner.name)
            view = memoryview(block.buf or b"")
            length = int.from_bytes(view[:8], "little")
            offsets = pickle.loads(view[8 : 8 + length])
            arrays = [np.ndarray(self._shape.each, np.float32, view, start + offsets[n]) for n in self._asked]
            del view
            return Closing(block, arrays)

        return repetition

    def _ray(self) -> Repetition:
        self._bound_tensors()
        self._bound_bytes()
        import ray

        reference = ray_session(self._written).put(self._arrays())
        return lambda: self._chosen(ray.get(reference))

    def _chosen(self, tensors: Mapping[str, Any]) -> list[Any]:
        return [tensors[name] for name in self._asked]

    def _arrays(self) -> dict[str, Array]:
        return {name: np.zeros(self._shape.each, np.float32) for name in self._shape.names()}

    def _bound_bytes(self) -> None:
        if self._shape.nbytes > self._written * MIB:
            raise LeftOut(f"would have to write every byte; see the cases up to {self._written} MiB (--written)")

    def _bound_tensors(self) -> None:
        if self._shape.tensors > self._most:
            raise LeftOut(f"needs minutes to write so many tensors; see the cases up to {self._most} (--most)")


class Fresh:
    """A repetition by a process that has no connection to the daemon yet: `before` is not part of what is timed."""

    def __init__(self, repetition: Repetition) -> None:
        self._repetition = repetition

    def before(self) -> None:
        """Forgets the connection."""
        mapcell.disconnect()

    def __call__(self) -> object:
        return self._repetition()


class Closing:
    """Arrays in a block of shared memory, which is closed after them."""

    def __init__(self, block: Any, arrays: list[Array]) -> None:
        self._block = block
        self._arrays = arrays

    def __del__(self) -> None:
        self._arrays.clear()
        self._block.close()


def ray_session(mib: int) -> Any:
    """Ray with an object store of its own, started once; main() ends it."""
    import ray

    if not ray.is_initialized():
        ray.init(
            num_cpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False,
            object_store_memory=max(2 * mib * MIB, 128 * MIB),
        )  # fmt: skip
    return ray


def cases(options: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """Tensors and MiB of each model."""
    for tensors in options.tensors:
        # Below 256 bytes each, alignment would be what is measured.
        yield tensors, max(USUAL_MIB, tensors * 256 // MIB)
    for mib in options.mib:
        yield USUAL_TENSORS, mib


def in_turns(options: argparse.Namespace) -> list[Row]:
    """Attaching to the smallest and the largest model, and to the ones of fewest and most tensors, in turns."""
    if options.only is not None and "mapcell" not in options.only:
        return []
    extremes = dict.fromkeys(
        [(USUAL_TENSORS, min(options.mib)), (USUAL_TENSORS, max(options.mib)), max(cases(options))]
    )
    with folder(options.folder) as place, contextlib.ExitStack() as stack:
        makers = {}
        for number, (tensors, mib) in enumerate(extremes):
            shape = Shape(tensors, mib * MIB)
            limits = (options.written, options.most)
            ways = stack.enter_context(Ways(place, shape, options.asked, limits, f"model-{number}"))
            makers[f"{tensors:,} tensors, {mib:,} MiB"] = ways.mapcell
        case = {"what": "in turns", "asked": options.asked}
        # What is to be told apart is a few hundredths.
        found = compare(case, makers, 3 * options.rounds, burst=BURST, limit=3 * options.limit)
    return [each | {"case": each["case"] | {"model": each["way"]}, "way": "mapcell"} for each in found]


def measure(options: argparse.Namespace) -> list[Row]:
    """Every case in turn, with one daemon."""
    rows: list[Row] = []
    try:
        with private_daemon():
            # Before Ray is there, whose processes go on in the background.
            turns = in_turns(options)
            for tensors, mib in dict.fromkeys(cases(options)):
                with (
                    folder(options.folder) as place,
                    Ways(place, Shape(tensors, mib * MIB), options.asked, (options.written, options.most)) as ways,
                ):
                    case = {"tensors": tensors, "mib": mib, "asked": options.asked}
                    rows += compare(case, ways.all(), options.rounds, options.only, burst=BURST, limit=options.limit)
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
    return rows + turns


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--tensors", type=int, nargs="+", default=[10, 1000, 10_000, 100_000])
    arguments.add_argument("--mib", type=int, nargs="+", default=[8, 8192])
    arguments.add_argument("--asked", type=int, default=10)
    arguments.add_argument("--rounds", type=int, default=1000)
    arguments.add_argument("--limit", type=float, default=1.0, help="seconds after which a way sits out in a case")
    arguments.add_argument("--written", type=int, default=256, help="MiB that joblib and Ray may write")
    arguments.add_argument("--most", type=int, default=10_000, help="tensors that torch, joblib and Ray may write")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
