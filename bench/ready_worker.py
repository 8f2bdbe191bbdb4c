"""One worker of ready.py: from the start of the process to the first answer of a network, with what each step took.

interpreter   from the fork to the first line below, which the kernel's clock tells (to 10 ms)
imports       the libraries that this way needs
construct     the network
load          mapcell: attach; the others: read or map the file
bind          the parameters get their tensors
forward       one row of ones through all layers
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

Task = dict[str, Any]


def _started() -> float:
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


class Laps:
    """What each step took."""

    def __init__(self, began: float) -> None:
        self._last = time.perf_counter()
        self.seconds = {"interpreter": max(began - _started(), 0.0)}

    def note(self, step: str) -> None:
        """Ends `step` now."""
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now


def cells(task: Task, laps: Laps, package: str = "mapcell") -> float:
    """mapcell or MindSpore: the same lines."""
    from contextlib import nullcontext
    from importlib import import_module

    import numpy as np

    ms, nn = import_module(package), import_module(package + ".nn")
    no_init = import_module(package + ".nn.utils").no_init_parameters
    if package == "mapcell":
        import_module("mapcell.daemon_backend")
    laps.note("imports")
    with no_init() if task["lazy"] else nullcontext():
        net = nn.SequentialCell([nn.Dense(task["width"], task["width"], has_bias=False) for _ in task["names"]])
    laps.note("construct")
    if package == "mindspore":
        ms.load_checkpoint(task["path"], net=net, format="safetensors")
        laps.note("load")
    else:
        weights = ms.attach(task["model"], daemon="require")
        laps.note("load")
        ms.bind(net, weights)
        laps.note("bind")
    return float(net(ms.Tensor(np.ones((1, task["width"]), np.float32))).asnumpy().sum())


def mindspore(task: Task, laps: Laps) -> float:
    """MindSpore."""
    return cells(task, laps, "mindspore")


def torch(task: Task, laps: Laps) -> float:
    """torch: constructed on the meta device, its tensors safetensors' map of the file."""
    import torch
    from safetensors.torch import load_file

    laps.note("imports")
    layers = (torch.nn.Linear(task["width"], task["width"], bias=False, device="meta") for _ in task["names"])
    net = torch.nn.Sequential(*layers)
    laps.note("construct")
    tensors = load_file(task["path"])
    laps.note("load")
    net.load_state_dict(tensors, assign=True)
    laps.note("bind")
    with torch.inference_mode():
        return float(net(torch.ones(1, task["width"])).sum())


def numpy(task: Task, laps: Laps) -> float:
    """NumPy alone, with safetensors' copy of the file."""
    import numpy as np
    from safetensors.numpy import load_file

    laps.note("imports")
    tensors = load_file(task["path"])
    laps.note("load")
    x = np.ones((1, task["width"]), np.float32)
    for name in task["names"]:
        x = x @ tensors[name].T
    return float(x.sum())


def minilm(task: Task, laps: Laps) -> float:
    """MiniLM in mapcell."""
    import numpy as np

    import mapcell.daemon_backend
    from mapcell.demo.minilm import RENAME, Config, MiniLM
    from mapcell.nn.utils import no_init_parameters

    laps.note("imports")
    from pathlib import Path

    with no_init_parameters():
        net = MiniLM(Config.read(Path(task["config"])))
    laps.note("construct")
    weights = mapcell.attach(task["model"], daemon="require")
    laps.note("load")
    mapcell.bind(net, weights, rename=RENAME)
    laps.note("bind")
    ids = np.arange(1000, 1032, dtype=np.int32)[None]
    return float(net.last_hidden_state(mapcell.Tensor(ids), mapcell.Tensor(np.ones_like(ids))).asnumpy().sum())


def minilm_transformers(task: Task, laps: Laps) -> float:
    """MiniLM in transformers."""
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    laps.note("imports")
    net = AutoModel.from_pretrained(os.path.dirname(task["config"]), attn_implementation="eager")
    net.eval()
    laps.note("load")
    ids = torch.arange(1000, 1032)[None]
    with torch.inference_mode():
        return float(net(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.sum())


WAYS = {
    "cells": cells,
    "mindspore": mindspore,
    "torch": torch,
    "numpy": numpy,
    "minilm": minilm,
    "minilm_transformers": minilm_transformers,
}


def main(began: float) -> None:
    """Does the task in the first argument. `began`: when the interpreter was ready, in seconds since boot."""
    laps, task = Laps(began), json.loads(sys.argv[1])
    answer = WAYS[task["way"]](task, laps)
    laps.note("forward")
    print(json.dumps({"steps": laps.seconds, "answer": answer}))
