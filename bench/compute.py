"""MiniLM's forward pass: mapcell's NumPy layers against torch on the CPU, same weights, ids and number of threads.

    python bench/compute.py [--batch 32] [--tokens 64] [--threads 1 2] [--torch-python /path/to/venv/bin/python]

torch may live in an interpreter of its own and need not have transformers: the network is written out with
torch.nn.functional, as BERT's paper and the checkpoint define it. Each round is a fresh process of either; `difference`
is the largest between the last hidden states.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import mapcell
from common import Row, explained, failure, folder, parser, row, run, summary, worker_environment
from mapcell.demo.assets import find_model

_PASSES = 5

TORCH = """
import json, math, sys, time
import numpy as np, torch
import torch.nn.functional as F
z = np.load(sys.argv[1]); threads = int(sys.argv[2]); repeat = int(sys.argv[3])
torch.set_num_threads(threads)
w = {k: torch.from_numpy(z[k]) for k in z.files if not k.startswith("__")}
ids = torch.from_numpy(z["__ids"]).long()
def norm(x, p): return F.layer_norm(x, (384,), w[p + ".weight"], w[p + ".bias"], 1e-12)
def dense(x, p): return F.linear(x, w[p + ".weight"], w[p + ".bias"])
@torch.inference_mode()
def forward():
    b, t = ids.shape
    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][:t]
    x = x + w[e + "token_type_embeddings.weight"][0]
    x = norm(x, e + "LayerNorm")
    for i in range(6):
        p = f"encoder.layer.{i}."
        a = p + "attention."
        q, k, v = (dense(x, a + "self." + n).view(b, t, 12, 32).transpose(1, 2) for n in ("query", "key", "value"))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, 384)
        x = norm(dense(y, a + "output.dense") + x, a + "output.LayerNorm")
        x = norm(dense(F.gelu(dense(x, p + "intermediate.dense")), p + "output.dense") + x, p + "output.LayerNorm")
    return x
forward(); forward()
times = []
for _ in range(repeat):
    t = time.perf_counter(); y = forward(); times.append(time.perf_counter() - t)
np.save(sys.argv[4], y.numpy())
print(json.dumps(times))
"""

MAPCELL = """
import json, sys, time
import numpy as np
import mapcell
from mapcell.demo.assets import find_model
from mapcell.demo.minilm import RENAME, Config, MiniLM
from mapcell.nn.utils import no_init_parameters
z = np.load(sys.argv[1]); repeat = int(sys.argv[3])
with no_init_parameters():
    net = MiniLM(Config.read(find_model().config))
net.set_train(False)
weights = mapcell.attach(sys.argv[5], daemon="never")
mapcell.bind(net, weights, strict=False, rename=RENAME)
ids = mapcell.Tensor(z["__ids"].astype(np.int32)); mask = mapcell.Tensor(np.ones(z["__ids"].shape, np.int32))
forward = lambda: net.last_hidden_state(ids, mask)
forward(); forward()
times = []
for _ in range(repeat):
    t = time.perf_counter(); y = forward(); times.append(time.perf_counter() - t)
np.save(sys.argv[4], y.asnumpy())
print(json.dumps(times))
"""


def passes(python: str, script: str, arguments: list[str], threads: int) -> list[float]:
    """Seconds of each forward pass in a fresh process. RuntimeError with its last words when it fails."""
    done = subprocess.run(
        [python, "-c", script, *arguments], env=worker_environment(threads), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["ended without a word"])[-1])
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def compared(case: dict[str, object], peers: dict[str, tuple[str, str]], place: Path, rounds: int) -> list[Row]:
    """All peers in turns, and how far their answers are apart."""
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for peer, (python, script) in peers.items():
            arguments = [str(place / "in.npz"), str(case["threads"]), str(_PASSES), str(place / f"{peer}.npy")]
            try:
                times[peer] += passes(
                    python, script, [*arguments, str(find_model().checkpoint)], int(str(case["threads"]))
                )
            except RuntimeError as exc:
                # A peer that is missing or fails is what there is to report.
                failed[peer] = explained(exc)
    rows = [failure(case, peer, why) for peer, why in failed.items()]
    answers = {peer: np.load(place / f"{peer}.npy") for peer in peers if peer not in failed}
    ours = answers.get("mapcell")
    for peer, answer in answers.items():
        far = float(np.abs(answer - ours).max()) if ours is not None else None
        rows.append(row(case, peer, seconds=summary(times[peer]), difference=far))
    return rows


def measure(options: argparse.Namespace) -> list[Row]:
    """Both, for each number of threads."""
    rows: list[Row] = []
    peers = {"mapcell": (sys.executable, MAPCELL), "torch": (options.torch_python or sys.executable, TORCH)}
    peers = {peer: how for peer, how in peers.items() if options.only is None or peer in options.only}
    with folder(options.folder) as place:
        arrays: dict[str, Any] = dict(mapcell.attach(find_model().checkpoint, daemon="never"))
        arrays["__ids"] = np.random.default_rng(0).integers(1000, 20000, (options.batch, options.tokens))
        np.savez(place / "in.npz", **arrays)
        for threads in options.threads or sorted({1, len(os.sched_getaffinity(0))}):
            case: dict[str, object] = {"threads": threads, "batch": options.batch, "tokens": options.tokens}
            rows += compared(case, peers, place, options.rounds)
    return rows


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--threads", type=int, nargs="+", help="by default 1, and as many as there are cores")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--torch-python", help="an interpreter that has torch, when this one does not")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
