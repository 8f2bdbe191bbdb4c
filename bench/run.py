"""The short benchmarks: what needs no peer beside mapcell. `make bench` runs this; each leaves JSON in bench/results.

Those with a peer (MindSpore, torch) take an interpreter that has it: see mindspore_side_by_side.py and compute.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# What is run, and where its JSON goes: a file of its own, or what it prints.
SHORT = {
    "demo": [str(Path(sys.executable).parent / "mapcell"), "demo", "--json"],
    "attach_while_staging": [sys.executable, str(HERE / "attach_while_staging.py")],
    "listing": [sys.executable, str(HERE / "listing.py")],
}


def main() -> int:
    """Runs each in turn; 1 when any failed, after all were run."""
    RESULTS.mkdir(exist_ok=True)
    failed = []
    for name, command in SHORT.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        with (RESULTS / f"{name}.json").open("w") as out:
            if subprocess.run(command, stdout=out, check=False).returncode:
                failed.append(name)
    print(f"results in {RESULTS}" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
