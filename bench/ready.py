"""How long from the start of a worker process to its first answer, step by step, in each way to have the weights.

    python bench/ready.py [--mib 100 1024] [--rounds 5] [--mindspore-python /path/to/venv/bin/python]

Networks are Dense layers of 2048 x 2048 without bias, and MiniLM. Workers of all ways take turns, each a fresh process;
the daemon has the model already, as it does for every worker but the first on a host. ready_worker.py says what the
steps are. Every worker's answer is compared with the others': ways that compute something else would not be comparable.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from common import (
    BENCH,
    MIB,
    Row,
    explained,
    failure,
    folder,
    parser,
    private_daemon,
    row,
    run,
    summary,
    worker_environment,
)
from mapcell.daemon_backend import attach_path
from mapcell.demo.assets import find_model
from mapcell_formats.errors import MapcellError
from models import Shape, safetensors_file

WIDTH = 2048
# So that the clock is read before anything of ours is imported.
BOOT = (
    "import time; began = time.clock_gettime(time.CLOCK_BOOTTIME); "
    f"import sys; sys.path.insert(0, {str(BENCH)!r}); from ready_worker import main; main(began)"
)
_LAYER = WIDTH * WIDTH * 4
GENERATED: Mapping[str, Mapping[str, Any]] = {
    "mapcell": {"way": "cells", "lazy": True},
    "mapcell, without no_init": {"way": "cells", "lazy": False},
    "torch + safetensors": {"way": "torch"},
    "numpy + safetensors": {"way": "numpy"},
    "mindspore": {"way": "mindspore", "lazy": True},
}
MINILM: Mapping[str, Mapping[str, Any]] = {
    "mapcell": {"way": "minilm"},
    "transformers": {"way": "minilm_transformers"},
}


def worker(python: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """What one process tells. RuntimeError with its last words when it fails."""
    done = subprocess.run(
        [python, "-c", BOOT, json.dumps(task)], env=worker_environment(1), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["ended without a word"])[-1])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def compared(
    case: dict[str, object], ways: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any], options: argparse.Namespace
) -> list[Row]:
    """All ways in turns, after one round that does not count."""
    steps: dict[str, list[dict[str, float]]] = {}
    failed: dict[str, str] = {}
    answers: dict[str, float] = {}
    for turn in range(-1, options.rounds):
        for name, task in ways.items():
            if name in failed or (options.only is not None and name not in options.only):
                continue
            python = (options.mindspore_python or sys.executable) if name == "mindspore" else sys.executable
            try:
                told = worker(python, {**base, **task})
            except RuntimeError as exc:
                # A peer that is missing or fails is what there is to report.
                failed[name] = explained(exc)
                continue
            answers[name] = told["answer"]
            if turn >= 0:
                steps.setdefault(name, []).append(told["steps"])
    for name, answer in answers.items():
        if not math.isclose(answer, answers.get("mapcell", answer), rel_tol=1e-3):
            failed[name] = f"answered {answer}, mapcell {answers['mapcell']}"
    rows = [row(case, name, **figures(found)) for name, found in steps.items() if name not in failed]
    return rows + [failure(case, name, why) for name, why in failed.items()]


def figures(found: list[dict[str, float]]) -> dict[str, object]:
    """The whole and each step's median."""
    return {
        "seconds": summary([sum(steps.values()) for steps in found]),
        "steps": {step: round(median(steps[step] for steps in found), 6) for step in found[0]},
    }


def lend(path: Path, name: str) -> None:
    """Has the daemon seal the model under the name."""
    attach_path(
        str(path), dtype=None, keys=None, prefix="", mode="r", timeout=600, name=name, residence="sealed"
    ).close()


def measure(options: argparse.Namespace) -> list[Row]:
    """MiniLM, then generated networks."""
    rows: list[Row] = []
    with private_daemon():
        try:
            model = find_model()
        except MapcellError as exc:
            # The package with the model is not installed.
            rows += [failure({"model": "MiniLM"}, name, explained(exc)) for name in MINILM]
        else:
            lend(model.checkpoint, "minilm")
            rows += compared({"model": "MiniLM"}, MINILM, {"model": "minilm", "config": str(model.config)}, options)
    for mib in options.mib:
        with folder(options.folder) as place, private_daemon():
            layers = max(mib * MIB // _LAYER, 1)
            shape = Shape(layers, layers * _LAYER, columns=WIDTH)
            # The network's own names: MindSpore would leave alone what is called otherwise.
            names = [f"{i}.weight" for i in range(layers)]
            path = safetensors_file(place / "net.safetensors", shape, filled=True, names=names)
            lend(path, "net")
            base = {"model": "net", "path": str(path), "names": names, "width": WIDTH}
            rows += compared({"model": f"{layers} layers", "mib": mib}, GENERATED, base, options)
    return rows


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--mib", type=int, nargs="+", default=[100, 1024])
    arguments.add_argument("--rounds", type=int, default=4)
    arguments.add_argument("--mindspore-python", help="an interpreter that has MindSpore")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
