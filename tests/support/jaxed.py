"""JAX over a checkpoint, in a process of its own: it has threads, and warns in every process that forks after it.

`python -m support.jaxed CHECKPOINT` prints JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np

import mapcell


def aliased(path: str, name: str) -> dict[str, Any]:
    """What JAX makes of one tensor of a read-only map, and of the same without its first element."""
    with mapcell.attach(path, daemon="never") as weights:
        view = weights[name]
        address, copied = view.ctypes.data, view.copy()
        array = jax.device_put(view, may_alias=True)
        apart = jax.device_put(view.reshape(-1)[1:], may_alias=True)
    del view, weights
    return {
        "aliases": array.unsafe_buffer_pointer() == address,
        "same": str(array.dtype) == str(copied.dtype) and bool((np.asarray(array) == copied).all()),
        "unaligned is copied": (address + copied.itemsize) % 64 != 0 == apart.unsafe_buffer_pointer() % 64,
        "unaligned is the same": bool((np.asarray(apart) == copied.reshape(-1)[1:]).all()),
    }


def by_dlpack(path: str) -> dict[str, Any]:
    """DLPack from a private map, and from a read-only one."""
    view = mapcell.attach(path, mode="c", daemon="never")["weight"]
    array = jax.dlpack.from_dlpack(view)
    product = np.asarray(jax.jit(lambda a: a @ a.T)(array))
    try:
        jax.dlpack.from_dlpack(mapcell.attach(path, daemon="never")["weight"])
        refused = ""
    except BufferError as exc:
        refused = str(exc)
    return {
        "aliases": array.unsafe_buffer_pointer() == view.ctypes.data,
        "computes": bool(np.allclose(product, view @ view.T, rtol=1e-5, atol=1e-5)),
        "refused": "readonly" in refused,
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    checkpoint = sys.argv[1]
    found = {name: aliased(checkpoint, name) for name in ("weight", "half", "steps")}
    print(json.dumps(found | {"DLPack": by_dlpack(checkpoint)}))
