"""The code examples of MindSpore's documentation, with the import changed, print what they should.

documents.txt has each example and behind it its output: that of the documentation or, where MindSpore 2.10 spells it
otherwise (blanks in a repr, Int64 for NumPy's integers), of MindSpore. docs/mindspore.md has those that cannot run.
"""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parents[1] / "data" / "mindspore"
PREAMBLE = """import os
import numpy as np
import mapcell as ms
from mapcell import nn, ops, Tensor, Parameter, ParameterTuple
from mapcell import dtype as mstype
from mapcell.common.initializer import initializer
"""


def examples():
    """(name, code, output) of each example."""
    parts = re.split(r"^### (.+)\n", (DATA / "documents.txt").read_text(), flags=re.M)[1:]
    return [(name, *text.split(">>> prints\n")) for name, text in zip(parts[::2], parts[1::2], strict=True)]


@pytest.mark.parametrize(("name", "code", "output"), examples(), ids=[e[0] for e in examples()])
def test_example(name, code, output, tmp_path, monkeypatch):
    """Line by line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAPCELL_DAEMON", "never")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(PREAMBLE + code, name, "exec"), {"__name__": "example", "DATA": str(DATA)})
    assert printed.getvalue() == output


# What the documentation prints of the two seeded Conv2d examples: position in the output and value.
SEEDED = [
    ((0, 0, 0, 0), 3.10382620e-02),
    ((0, 0, 0, 1), 4.38603461e-02),
    ((0, 0, 0, -2), 4.38603461e-02),
    ((0, 0, 0, -1), 1.38719045e-02),
    ((0, 0, 1, 0), 3.26051228e-02),
    ((0, 0, 1, 1), 3.54298912e-02),
    ((0, 0, 1, -1), -5.54019120e-03),
    ((0, 0, -1, 0), 9.66199022e-03),
    ((0, 0, -1, 1), 1.24104535e-02),
    ((0, 0, -1, -1), -1.38977719e-02),
    ((0, -1, 0, 0), 3.98553275e-02),
    ((0, -1, 0, 1), -1.35465711e-03),
    ((0, -1, 0, -1), -1.00310734e-02),
    ((0, -1, 1, 0), 4.38403059e-03),
    ((0, -1, 1, 1), -3.60766202e-02),
    ((0, -1, 1, -1), -2.95619294e-02),
    ((0, -1, -1, 0), 1.33139016e-02),
    ((0, -1, -1, 1), 6.74417242e-05),
    ((0, -1, -1, -1), -2.27325838e-02),
]


@pytest.fixture
def seeded():
    """set_seed(1) for one test."""
    import mapcell as ms
    from mapcell.common import seed

    before = seed._state.seed
    ms.set_seed(1)
    yield
    seed._state.seed = before


@pytest.mark.parametrize("by_name", [True, False], ids=["Normal", "Normal(0.2)"])
def test_seeded_convolution(seeded, by_name):
    """The documented numbers, to 1e-7 (times 20 for the second example, whose sigma is 20 times the default)."""
    import mapcell.nn as nn
    from mapcell import Tensor
    from mapcell.common.initializer import Normal

    input_data = Tensor(np.ones([1, 3, 16, 50], dtype=np.float32))
    net = nn.Conv2d(3, 64, 3, weight_init="Normal" if by_name else Normal(0.2))
    output = net(input_data).asnumpy()
    factor = 1 if by_name else 20
    assert output.shape == (1, 64, 16, 50)
    for position, value in SEEDED:
        assert output[position] == pytest.approx(value * factor, abs=1e-7 * factor)
