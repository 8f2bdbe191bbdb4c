"""How long a fresh interpreter takes to import each library, and what mapcell brings with it.

    python bench/import_time.py [--rounds 15] [--mindspore-python /path/to/venv/bin/python]

Interpreters are started in turns; each row has the wall-clock time of the whole process and how many modules it has
loaded at its end. `also` are those of the packages that mapcell may not import until they are needed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping

from common import Repetition, Row, failure, interleaved, parser, prepared, row, run, summary, worker_environment

STATEMENTS: Mapping[str, str] = {
    "python": "pass",
    "numpy": "import numpy",
    "mapcell": "import mapcell",
    "mapcell.nn": "import mapcell.nn, mapcell.ops",
    "mapcell, attach": "import mapcell.daemon_backend, mapcell.leasing",
    "safetensors.numpy": "import safetensors.numpy",
    "torch": "import torch",
    "safetensors.torch": "import safetensors.torch",
    "ray": "import ray",
}
LATER = (
    "zmq",
    "psutil",
    "rich",
    "scipy",
    "cryptography",
    "click",
    "msgpack",
    "blake3",
    "ml_dtypes",
    "torch",
    "asyncio",
)
COUNT = "import sys, json; print(json.dumps([len(sys.modules), sorted({{m.split('.')[0] for m in sys.modules}})]))"


def once(python: str, statement: str) -> str:
    """What one interpreter says after `statement`."""
    done = subprocess.run(
        [python, "-c", statement], env=worker_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout


def modules(python: str, statement: str) -> tuple[int, list[str]]:
    """How many modules are loaded after it, and which packages of LATER are among them."""
    count, packages = json.loads(once(python, f"{statement}\n{COUNT.format()}").splitlines()[-1])
    return count, [package for package in LATER if package in packages]


def measure(options: argparse.Namespace) -> list[Row]:
    """Every statement, in turns."""
    commands = {way: (sys.executable, statement) for way, statement in STATEMENTS.items()}
    commands["mindspore"] = (options.mindspore_python or sys.executable, "import mindspore")

    def starter(python: str, statement: str) -> Repetition:
        # Compiles what it imports, and shows whether that is there.
        once(python, statement)
        return lambda: once(python, statement)

    makers = {way: (lambda command=command: starter(*command)) for way, command in commands.items()}
    ready, failed = prepared(makers, options.only)
    rows = []
    for way, seconds in interleaved(ready, options.rounds, limit=options.limit).items():
        if isinstance(seconds, str):
            failed[way] = seconds
            continue
        count, also = modules(*commands[way])
        rows.append(row({}, way, seconds=summary(seconds), modules=count, also=also))
    return rows + [failure({}, way, why) for way, why in failed.items()]


def main() -> None:
    """Parses, measures, leaves the JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--limit", type=float, default=4.0, help="seconds after which a way sits out")
    arguments.add_argument("--mindspore-python", help="an interpreter that has MindSpore")
    run(__file__, measure, arguments)


if __name__ == "__main__":
    main()
