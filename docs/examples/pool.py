"""A pool of processes that share one checkpoint: each attaches once, and then works on what it is sent.

    python docs/examples/pool.py model.safetensors 4

The same for Ray: attach in an actor's __init__, and start as many actors on a host as you like.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

import mapcell

weights: mapcell.Weights


def attach(path: str) -> None:
    """Runs once in each process of the pool."""
    global weights
    weights = mapcell.attach(os.path.abspath(path))


def norm(name: str) -> tuple[str, float, int]:
    """A tensor's name, its largest element, and who computed it."""
    return name, float(abs(weights[name].astype("float32")).max(initial=0)), os.getpid()


def main(path: str, processes: int) -> None:
    """Prints the largest element of each tensor."""
    with mapcell.attach(os.path.abspath(path)) as listed:
        names = list(listed)
    # Not fork: the processes would start with whatever this one has open and locked.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=attach, initargs=(path,)) as pool:
        for name, largest, pid in pool.imap_unordered(norm, names):
            print(f"{name}\t{largest:.6g}\t{pid}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
