"""Coverage-guided fuzzing: `make fuzz FORMAT=gguf SECONDS=180`, or FORMAT=all.

The search goes by what code an input reaches (atheris, https://github.com/google/atheris). It ends with the first input
that brings anything but FormatError or StagingFailed, takes longer than INPUT_SECONDS, or more memory than MEMORY_MIB;
that input is then written to OUT/FORMAT-*, and belongs among the cases of tests/hostile once its cause is mended.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .targets import TARGETS

MAX_BYTES = 8192
INPUT_SECONDS = 2
MEMORY_MIB = 1024
OUT = Path(tempfile.gettempdir()) / "mapcell-fuzz"


def main() -> int:
    """Fuzzes one format or all in turn; 1 when there was a finding."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("format", choices=["all", *TARGETS])
    parser.add_argument("seconds", type=int)
    options = parser.parse_args()
    names = list(TARGETS) if options.format == "all" else [options.format]
    OUT.mkdir(exist_ok=True)
    return max([_fuzz(name, options.seconds) for name in names])


def _fuzz(name: str, seconds: int) -> int:
    """One format in a process of its own, since the search ends its process; what it says is kept in OUT/NAME.log."""
    log = OUT / f"{name}.log"
    with tempfile.TemporaryDirectory() as corpus, log.open("wb") as file:
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        command = [
            *(sys.executable, "-m", "fuzz.searching", name, corpus),
            *(f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={INPUT_SECONDS}"),
            *(f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={OUT}/{name}-", "-print_final_stats=1"),
        ]
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    text = log.read_text(errors="replace")
    found = re.search(r"stat::number_of_executed_units: *(\d+)", text)
    outcome = "no finding" if status == 0 else f"A FINDING, see {log}"
    print(f"{name}: {int(found[1]) if found else 0:,} executions in {seconds} s, {outcome}", flush=True)
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
