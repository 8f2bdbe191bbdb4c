"""Short programs, and what MindSpore 2.10 prints for them."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data" / "mindspore"
PREAMBLE = """import numpy as np
import mapcell as ms
from mapcell import nn, ops, Tensor, Parameter, ParameterTuple
from mapcell.common.initializer import *
from mapcell.nn.utils import no_init_parameters
"""


def programs():
    """(name, code): a program starts at a line "### NAME"."""
    parts = re.split(r"^### (.+)$", (DATA / "behaviour.txt").read_text(), flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def printed(name, code):
    """What the program prints; an exception that escapes adds a last line "!TypeName"."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(PREAMBLE + code, name, "exec"), {"__name__": "program"})
        except Exception as exc:  # the programs print what is expected, the type of an exception included
            print("!" + type(exc).__name__)
    return out.getvalue().replace("mapcell.", "PKG.")


EXPECTED = json.loads((DATA / "behaviour.json").read_text())


# One program opens files without closing them, as its readers do.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(("name", "code"), programs(), ids=[name for name, _ in programs()])
def test_prints_what_mindspore_prints(name, code, tmp_path, monkeypatch):
    """Line by line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPCELL_DAEMON", "never")
    assert printed(name, code) == EXPECTED[name]


def test_every_program_has_its_output():
    """The two files belong together."""
    assert {name for name, _ in programs()} == set(EXPECTED)
