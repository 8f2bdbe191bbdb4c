"""Every tensor of a large model as an array, and every byte of it read: against the usual loaders and a bare file map.

    python bench/whole_model.py [--mib 2048] [--tensors 600] [--rounds 5]

Two cases, each in a fresh map every time, with the file warm in the page cache:

    arrays    all tensors by name, no element read
    pages     the same, and one element of every 4 KiB read: what the first touch of mapped memory costs
    bytes     the same, and every byte read (the maximum of each tensor, in one thread)

    mapcell, mapped / sealed / huge pages    attach(name) through a daemon, and every tensor
    file map                                 mmap of the file, and an array for each tensor whose place is known
    safetensors torch / numpy                load_file
    torch.load mmap, numpy mmap              as in attach_latency.py; sparse files, so they take part in `arrays` only

Sealed memory takes as much again as the file, and safetensors' NumPy copy the same: have five times the model free.
"""

from __future__ import annotations

import argparse
import mmap
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from common import MIB, Repetition, Row, compare, folder, parser, private_daemon, run
from mapcell.daemon_backend import attach_path
from models import Array, Shape, npy_files, safetensors_file, torch_file
from support.daemon import DaemonProcess
from support.proc import eventually

PAGE = 4096
_MORE = 10
# Sealed in small pages and, once more, in huge ones.
BUDGET_SHARE = 2.2

Look = Callable[[Array], object]


def nothing(array: Array) -> object:
    """The array alone."""
    return array


def every_page(array: Array) -> object:
    """One element of each page."""
    return array.reshape(-1)[:: PAGE // array.itemsize].max()


def every_byte(array: Array) -> object:
    """All of them."""
    return array.max()


LOOKS: Mapping[str, Look] = {"arrays": nothing, "pages": every_page, "bytes": every_byte}


def looked(tensors: Mapping[str, Any], look: Look) -> object:
    """Every tensor, looked at; what keeps them alive."""
    for tensor in tensors.values() if look is not nothing else ():
        look(tensor if isinstance(tensor, np.ndarray) else tensor.numpy())
    return tensors


def attached(name: str, look: Look) -> object:
    """Attaches and has every tensor."""
    return looked(dict(mapcell.attach(name, daemon="require")), look)


def file_map(path: Path, shape: Shape, look: Look) -> object:
    """A map of the file with arrays at places that are known beforehand: nothing could do with less."""
    with path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    each, nbytes = shape.each, shape.each_nbytes
    start = path.stat().st_size - shape.tensors * nbytes
    places = range(start, start + shape.tensors * nbytes, nbytes)
    return looked({str(at): np.ndarray(each, np.float32, whole, at) for at in places}, look)


def load_file(module: str, path: Path, look: Look) -> object:
    """safetensors' own loader."""
    from importlib import import_module

    return looked(import_module(module).load_file(path), look)


def lent(path: Path, name: str, residence: str) -> Callable[[Look], object]:
    """Has the daemon map or seal the model, and attaches to it."""
    weights = attach_path(
        str(path), dtype=None, keys=None, prefix="", mode="r", timeout=600, name=name, residence=residence
    )
    weights.close()
    return partial(attached, name)


def lent_in_huge_pages(daemon: DaemonProcess, config: Path, path: Path, name: str) -> Callable[[Look], object]:
    """Has the daemon seal the model in pages of 2 MiB, which the kernel makes."""
    before = daemon.log().count("reloaded")
    config.write_text('huge_pages = "try"\n')
    daemon.send_signal(signal.SIGHUP)
    eventually(lambda: daemon.log().count("reloaded") > before)
    return lent(path, name, "sealed")


def zipped(place: Path, shape: Shape) -> Callable[[Look], object]:
    """torch's own file."""
    import torch

    path = torch_file(place / "model.pt", shape)
    return lambda look: looked(torch.load(path, mmap=True, weights_only=True), look)


def single_files(place: Path, shape: Shape) -> Callable[[Look], object]:
    """One .npy file for each tensor."""
    files = npy_files(place / "npy", shape, shape.names())
    return lambda look: looked({n: np.load(files / f"{n}.npy", mmap_mode="r") for n in shape.names()}, look)


def imported(module: str, path: Path) -> Callable[[Look], object]:
    """safetensors' loader of that module; ImportError when what it needs is missing."""
    __import__(module)
    return partial(load_file, module, path)


def measure(options: argparse.Namespace) -> list[Row]:
    """All cases, with one daemon that holds the model in each residence."""
    shape = Shape(options.tensors, options.mib * MIB)
    rows: list[Row] = []
    budget = f"--budget={int(shape.nbytes * BUDGET_SHARE) + 64 * MIB}"
    with folder(options.folder) as place:
        path = safetensors_file(place / "model.safetensors", shape, filled=True)
        # With names of its own: what is equal is held once.
        names = [f"huge.{name}" for name in shape.names()]
        other = safetensors_file(place / "other.safetensors", shape, filled=True, names=names)
        config = place / "mapcelld.toml"
        config.write_text("")
        with private_daemon(budget, "--config", str(config)) as daemon:
            makers: dict[str, Callable[[], Callable[[Look], object]]] = {
                "mapcell, mapped": lambda: lent(path, "mapped", "mapped"),
                "mapcell, sealed": lambda: lent(path, "sealed", "sealed"),
                "mapcell, huge pages": lambda: lent_in_huge_pages(daemon, config, other, "huge"),
                "file map": lambda: partial(file_map, path, shape),
                "safetensors torch": lambda: imported("safetensors.torch", path),
                "safetensors numpy": lambda: imported("safetensors.numpy", path),
            }
            sparse = {"torch.load mmap": lambda: zipped(place, shape), "numpy mmap": lambda: single_files(place, shape)}
            for what, look in LOOKS.items():
                case = {"look": what, "tensors": shape.tensors, "mib": options.mib}
                ways = makers | (sparse if what == "arrays" else {})
                # What takes a millisecond is soon disturbed, and soon repeated.
                rounds = options.rounds * (_MORE if look is nothing else 1)
                rows += compare(case, with_look(ways, look), rounds, options.only, limit=options.limit)
    return rows


def with_look(
    makers: Mapping[str, Callable[[], Callable[[Look], object]]], look: Look
) -> dict[str, Callable[[], Repetition]]:
    """The makers of repetitions that look at tensors in this way."""

    def made(make: Callable[[], Callable[[Look], object]]) -> Repetition:
        return partial(make(), look)

    return {way: partial(made, make) for way, make in makers.items()}


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--mib", type=int, default=2048)
    arguments.add_argument("--tensors", type=int, default=600)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--limit", type=float, default=8.0, help="seconds after which a way sits out in a case")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
