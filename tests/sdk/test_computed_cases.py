"""Many more calls of layers, operators and Tensor methods, and what MindSpore 2.10 answered.

tests/data/mindspore/computed.json holds expressions over the names of `scope`, each with its result or with the
exception that MindSpore raised; computed.npz holds the arrays. `run(cell, *inputs)` fills the Parameters with known
numbers and gives its output, its Parameters and its repr.
"""

import builtins
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn, ops

DATA = Path(__file__).parents[1] / "data" / "mindspore"
CASES = json.loads((DATA / "computed.json").read_text())["cases"]
TOLERANCE = {"Float16": 1e-3, "BFloat16": 1e-2}


@pytest.fixture(scope="module")
def arrays():
    """The arrays of all results."""
    with np.load(DATA / "computed.npz") as stored:
        return {name: stored[name] for name in stored.files}


def run(cell, *args, **kwargs):
    """The output of a cell with known numbers in its Parameters, these, and its repr."""
    cell.set_train(False)
    found = []
    for name, parameter in cell.parameters_and_names():
        values = (np.random.RandomState(len(found)).standard_normal(parameter.shape) * 0.5).astype(np.float32)
        values = np.abs(values) + np.float32(0.5) if "variance" in name else values
        parameter.set_data(Tensor(values).astype(parameter.dtype))
        found.append([name, parameter.name, list(parameter.shape), str(parameter.dtype), parameter.requires_grad])
    return [cell(*args, **kwargs), json.dumps(found), re.sub(r" at 0x[0-9a-f]+", "", repr(cell))]


def scope():
    """What the expressions may use; F and I draw from one generator that starts anew for each of them."""
    random = np.random.RandomState(0)

    def floats(*shape):
        return Tensor(random.standard_normal(shape).astype(np.float32))

    def ints(*shape):
        return Tensor(random.randint(0, 5, shape).astype(np.int32))

    return {
        "ms": ms, "nn": nn, "ops": ops, "Tensor": Tensor, "Parameter": Parameter, "np": np, "F": floats, "I": ints,
        "run": run, "x": floats(3, 4), "y": floats(3, 4), "b": Tensor(np.array([[True, False], [False, False]])),
        "i": Tensor(np.array([[3, 1, 2], [0, 5, 4]], np.int32)), "h": Tensor(np.array([[1, 2], [3, 4]], np.float16)),
    }  # fmt: skip


def check(got, want, arrays):
    """Equal structure, dtypes, shapes and elements; floats within the tolerance relative to the largest one."""
    if isinstance(want, list):
        assert len(got) == len(want)
        for part, expected in zip(got, want, strict=True):
            check(part, expected, arrays)
    elif "value" in want:
        assert repr(got) == want["value"]
    else:
        assert (str(got.dtype), list(got.shape)) == (want["dtype"], want["shape"])
        check_elements(got.asnumpy(), arrays[want["key"]], TOLERANCE.get(want["dtype"], 1e-5))


def check_elements(got, want, tolerance):
    """As `check`, of arrays."""
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * finite.max(initial=1e-2))


@pytest.mark.parametrize("case", [c for c in CASES if "result" in c], ids=lambda c: c["expr"])
def test_results(case, arrays):
    """Results, their dtypes and shapes, a cell's Parameters and its repr."""
    check(eval(case["expr"], scope()), case["result"], arrays)


@pytest.mark.parametrize("case", [c for c in CASES if "error" in c], ids=lambda c: c["expr"])
def test_errors(case):
    """What MindSpore refuses is refused with the same kind of exception."""
    with pytest.raises(getattr(builtins, case["error"])):
        eval(case["expr"], scope())
