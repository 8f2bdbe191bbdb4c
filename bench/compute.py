"""MiniLM's forward pass: mapcell's NumPy layers against torch on the CPU, same weights, ids and number of threads.

    python bench/compute.py --torch-python /path/to/venv/bin/python [--batch 32] [--tokens 64] [--threads 1 2]

torch lives in an interpreter of its own and need not have transformers: the network is written out with
torch.nn.functional, as BERT's paper and the checkpoint define it. Prints JSON with medians of interleaved rounds and
the largest difference of the last hidden states. A peer that fails is reported with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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


def run(python: str, script: str, arguments: list[str], threads: int) -> list[float]:
    """Seconds of each repetition, in a fresh process."""
    limits = {n: str(threads) for n in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [python, "-c", script, *arguments], env=os.environ | limits, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-600:])
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    """Runs both, interleaved, for each number of threads."""
    import numpy as np

    import mapcell
    from mapcell.demo.assets import find_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path = str(find_model().checkpoint)
    results: dict[str, Any] = {"batch": options.batch, "tokens": options.tokens, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = mapcell.attach(path, daemon="never")
        ids = np.random.default_rng(0).integers(1000, 20000, (options.batch, options.tokens))
        np.savez(folder / "in.npz", __ids=ids, **dict(weights))
        peers = {"torch": (options.torch_python, TORCH), "mapcell": (sys.executable, MAPCELL)}
        for threads in options.threads:
            times: dict[str, list[float]] = {peer: [] for peer in peers}
            for _ in range(options.rounds):
                for peer, (python, script) in peers.items():
                    arguments = [str(folder / "in.npz"), str(threads), "5", str(folder / f"{peer}.npy"), path]
                    times[peer] += run(python, script, arguments, threads)
            median = {peer: statistics.median(t) for peer, t in times.items()}
            difference = float(np.abs(np.load(folder / "torch.npy") - np.load(folder / "mapcell.npy")).max())
            results[f"{threads} threads"] = median | {
                "ratio": median["mapcell"] / median["torch"],
                "difference": difference,
            }
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
