"""The same network and checkpoint under MindSpore and under mapcell: time until loaded, and memory of N processes.

    python bench/mindspore_side_by_side.py --mindspore-python /path/to/venv/bin/python [--layers 16] [--processes 4]

A network of Dense 4096x4096 layers without bias (64 MiB each) is built under no_init_parameters() and loaded with
load_checkpoint(net=...), from .ckpt and from safetensors, in fresh processes; each then runs one forward. MindSpore
lives in an interpreter of its own, since its NumPy is older. mapcell runs with a daemon that has loaded the file once;
the time of that first load is reported apart. Prints JSON; a peer that fails is reported with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORKER = """
import json, os, sys, time
package, path, layers = sys.argv[1], sys.argv[2], int(sys.argv[3])
t0 = time.perf_counter()
import importlib, numpy as np
ms = importlib.import_module(package)
nn = importlib.import_module(package + ".nn")
no_init = importlib.import_module(package + ".nn.utils").no_init_parameters
if package == "mindspore":
    ms.set_context(mode=ms.PYNATIVE_MODE)
t1 = time.perf_counter()
class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.layers = nn.SequentialCell([nn.Dense(4096, 4096, has_bias=False) for _ in range(layers)])
    def construct(self, x):
        return self.layers(x)
with no_init():
    net = Net()
t2 = time.perf_counter()
kind = "safetensors" if path.endswith(".safetensors") else "ckpt"
if os.environ.get("SAVE"):
    ms.save_checkpoint(net, path, format=kind)
    sys.exit()
ms.load_checkpoint(path, net=net, format=kind)
t3 = time.perf_counter()
y = net(ms.Tensor(np.ones((1, 4096), np.float32))).asnumpy()
t4 = time.perf_counter()
times = {"import": t1 - t0, "build": t2 - t1, "load": t3 - t2, "forward": t4 - t3}
print(json.dumps(times | {"sum": float(np.abs(y).sum())}))
sys.stdout.flush()
sys.stdin.readline()
"""


def pss(pid: int) -> int:
    """Bytes of memory that are this process's share (Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss")


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for c in children for p in family(int(c)))]


def run(python: str, package: str, path: Path, layers: int, processes: int, env: dict[str, str]) -> dict[str, Any]:
    """Starts `processes` workers at once; their times, and the sum of their memory while all hold the network."""
    command = [python, "-c", WORKER, package, str(path), str(layers)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        for _ in range(processes)
    ]
    try:
        told = []
        for worker in workers:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            while line and not line.startswith(b"{"):
                line = worker.stdout.readline()
            if not line:
                assert worker.stderr is not None
                return {"failed": worker.stderr.read().decode(errors="replace")[-400:]}
            told.append(json.loads(line))
        memory = sum(pss(w.pid) for w in workers)
    finally:
        for worker in workers:
            worker.communicate(b"\n")
    return {k: statistics.median(t[k] for t in told) for k in told[0]} | {"pss": memory}


def main() -> None:
    """Runs every combination and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mindspore-python", required=True)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, Any] = {"layers": options.layers, "processes": options.processes, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="mcb", dir="/tmp") as name:
        folder = Path(name)
        env = os.environ | {"MAPCELL_RUNTIME": str(folder / "r"), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        if env.pop("PYTHONDONTWRITEBYTECODE", ""):
            # Whoever wants no compiled files beside the sources still runs compiled ones in production.
            env["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        for suffix in ("ckpt", "safetensors"):
            path = folder / f"net.{suffix}"
            command = [options.mindspore_python, "-c", WORKER, "mindspore", str(path), str(options.layers)]
            subprocess.run(command, check=True, env=env | {"SAVE": "1"}, capture_output=True)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "mapcelld.main", "--runtime", env["MAPCELL_RUNTIME"]],
            stderr=subprocess.PIPE,
        )
        try:
            assert daemon.stderr is not None
            while b"ready" not in daemon.stderr.readline():
                pass
            for suffix in ("ckpt", "safetensors"):
                path = folder / f"net.{suffix}"
                began = time.perf_counter()
                first = run(sys.executable, "mapcell", path, options.layers, 1, env)
                results[f"{suffix} staged once"] = {"seconds": time.perf_counter() - began, **first}
                hold = subprocess.Popen(
                    [sys.executable, "-c", WORKER, "mapcell", str(path), str(options.layers)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env,
                )  # fmt: skip
                assert hold.stdout is not None
                hold.stdout.readline()
                single: dict[str, list[float]] = {"mindspore": [], "mapcell": []}
                for _ in range(options.rounds):
                    for package, python in (("mindspore", options.mindspore_python), ("mapcell", sys.executable)):
                        told = run(python, package, path, options.layers, 1, env)
                        results.setdefault("failed", []).append(told) if "failed" in told else single[package].append(
                            told["build"] + told["load"]
                        )
                hold.communicate(b"\n")
                ready = {p: statistics.median(v) for p, v in single.items() if v}
                results[f"{suffix} build+load"] = ready | {"ratio": ready["mindspore"] / ready["mapcell"]}
                for package, python in (("mindspore", options.mindspore_python), ("mapcell", sys.executable)):
                    told = run(python, package, path, options.layers, options.processes, env)
                    if package == "mapcell" and "pss" in told:
                        told["pss_with_daemon"] = told["pss"] + sum(map(pss, family(daemon.pid)))
                    results[f"{suffix} {options.processes} {package}"] = told
        finally:
            daemon.terminate()
            daemon.wait()
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
