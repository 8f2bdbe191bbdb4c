"""Runs the benchmarks one after the other; each leaves its JSON in bench/results.

    python bench/run.py [--full] [--only attach_latency memory] [--folder DIR] [--mindspore-python PYTHON]

`make bench` runs the short set in minutes, `make bench-full` the long one in an hour or two. Nothing else should run
meanwhile; both need 12 GiB of memory and 6 GiB of disk, and what does not fit is left out and says so. The plots
and tables are made by `bench/report.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from common import BENCH, compiled_modules

RESULTS = BENCH / "results"
# Scripts by what is left of their defaults in the short set, and what the long one has instead.
SHORT: Mapping[str, Sequence[str]] = {
    "import_time": ("--rounds", "8", "--limit", "2"),
    "attach_latency": (),
    "whole_model": ("--rounds", "4", "--limit", "4"),
    "network": ("--limit", "2"),
    "staging": ("--mib", "512", "--rounds", "4", "--limit", "5"),
    "memory": (),
    "ready": ("--rounds", "3"),
    "serve": ("--seconds", "1.5"),
    "many_attaches": ("--attaches", "50000", "--steps", "5"),
    "compute": ("--rounds", "2"),
    "guard_delay": ("--mib", "1", "16", "64", "--rounds", "2"),
    "listing": ("--tensors", "20000", "--repeat", "3"),
    "attach_while_staging": ("--gib", "1", "--rounds", "2"),
    "soak": ("--seconds", "10"),
}
FULL: Mapping[str, Sequence[str]] = {
    "import_time": ("--rounds", "40", "--limit", "60"),
    "attach_latency": (
        "--tensors", "10", "100", "1000", "10000", "100000", "--mib", "1", "8", "64", "512", "2048", "8192",
        "--rounds", "2000", "--limit", "10", "--written", "2048",
    ),
    "whole_model": ("--rounds", "20", "--limit", "60"),
    "network": ("--rounds", "40", "--limit", "20"),
    "staging": ("--mib", "2048", "--rounds", "15", "--limit", "60"),
    "memory": ("--workers", "1", "2", "4", "8", "16", "32"),
    "ready": ("--mib", "100", "1024", "4096", "--rounds", "10"),
    "serve": ("--clients", "1", "2", "4", "8", "16", "32", "64", "128", "256", "--seconds", "15"),
    "many_attaches": (),
    "compute": ("--rounds", "20"),
    "guard_delay": ("--mib", "1", "4", "16", "64", "256", "1024", "4096", "--rounds", "5"),
    "listing": ("--repeat", "15"),
    "attach_while_staging": ("--gib", "2", "--rounds", "10"),
    "soak": ("--seconds", "600"),
}  # fmt: skip
# Those that have MindSpore among their peers.
_WITH_MINDSPORE = ("import_time", "ready")


def command(name: str, options: argparse.Namespace) -> list[str]:
    """How one script is started."""
    extra = list((FULL if options.full else SHORT)[name])
    if options.folder is not None:
        extra += ["--folder", options.folder]
    if options.mindspore_python is not None and name in _WITH_MINDSPORE:
        extra += ["--mindspore-python", options.mindspore_python]
    return [sys.executable, str(BENCH / f"{name}.py"), "--out", str(RESULTS / f"{name}.json"), *extra]


def main() -> int:
    """Runs each in turn; 1 when any failed, after all were run."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    arguments.add_argument("--full", action="store_true", help="larger, longer, more cases")
    arguments.add_argument("--only", nargs="+", choices=list(SHORT), metavar="NAME", help="these scripts alone")
    arguments.add_argument("--folder", help="where models are put meanwhile; a disk, not memory")
    arguments.add_argument("--mindspore-python", help="an interpreter that has MindSpore, as one more peer")
    options = arguments.parse_args()
    RESULTS.mkdir(exist_ok=True)
    failed = []
    with compiled_modules():
        for name in options.only or SHORT:
            # Figures of an earlier run are not this one's.
            (RESULTS / f"{name}.json").unlink(missing_ok=True)
            began = time.monotonic()
            status = subprocess.run(command(name, options), env=os.environ, check=False).returncode
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            if status:
                failed.append(name)
    print(f"results in {RESULTS}" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
