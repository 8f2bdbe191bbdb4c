"""The process that searches: `python -m fuzz.searching FORMAT CORPUS -libfuzzer=options`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["mapcell_formats"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process, with 0 when its time is over."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
