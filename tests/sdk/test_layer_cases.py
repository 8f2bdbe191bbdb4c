"""Layers, operators and Tensor methods against what MindSpore 2.10 computed on a CPU.

tests/data/mindspore/layers.json holds the cases, layers.npz their arrays: inputs "ID|inN", outputs "ID|outN" and a
cell's Parameters "ID|param|NAME", all made by running MindSpore.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import mapcell as ms
from mapcell import Tensor, nn, ops

DATA = Path(__file__).parents[1] / "data" / "mindspore"
CASES = json.loads((DATA / "layers.json").read_text())["cases"]
TOLERANCE = {"Float16": 1e-3, "BFloat16": 1e-2}


@pytest.fixture(scope="module")
def arrays():
    """The arrays of all cases."""
    with np.load(DATA / "layers.npz") as stored:
        return {name: stored[name] for name in stored.files}


def names(inputs):
    """What an expression of a case may use."""
    return {"ms": ms, "nn": nn, "ops": ops, "Tensor": Tensor, "np": np, **{f"x{i}": x for i, x in enumerate(inputs)}}


def flat(result):
    """A result's Tensors and values in order, without the tuples around them."""
    if isinstance(result, tuple | list):
        return [item for part in result for item in flat(part)]
    return [result]


def without_addresses(text):
    """A repr without what differs from run to run and from package to package."""
    return re.sub(r" at 0x[0-9a-f]+", "", text).replace("<mindspore.", "<mapcell.")


def check(got, want, arrays):
    """Equal dtype, shape and elements; floats within the tolerance relative to the largest one."""
    if "value" in want:
        assert got == want["value"]
        return
    assert (str(got.dtype), list(got.shape)) == (want["dtype"], want["shape"])
    expected, actual = arrays[want["key"]], got.asnumpy()
    if expected.dtype.kind == "f":
        largest = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=0)
        tolerance = TOLERANCE.get(want["dtype"], 1e-5) * max(float(largest), 1e-6)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']}-{case['expr'][:60]}")
def test_case_computes_what_mindspore_does(case, arrays):
    """Parameters' names, order, shapes, dtypes and requires_grad, the repr, and every output."""
    inputs = [Tensor(arrays[key]) for key in case["inputs"]]
    scope = names(inputs)
    result = eval(case["expr"], scope)
    if case["kind"] == "cell":
        cell = result
        found = [
            {"name": name, "shape": list(p.shape), "dtype": str(p.dtype), "requires_grad": p.requires_grad}
            for name, p in cell.parameters_and_names()
        ]
        assert found == case["params"]
        for name, parameter in cell.parameters_and_names():
            parameter.set_data(Tensor(arrays[f"{case['id']}|param|{name}"]))
        cell.set_train(False)
        assert without_addresses(repr(cell)) == without_addresses(case["repr"])
        result = eval(case["call"], {**scope, "cell": cell, "inputs": inputs})
    outputs = flat(result)
    assert len(outputs) == len(case["outputs"])
    for got, want in zip(outputs, case["outputs"], strict=True):
        check(got, want, arrays)


WITHOUT_GRADIENT = ("nn.ReflectionPad2d(1)", "ops.meshgrid(x0, x1, indexing='ij')", "ops.cross(x0, x1, 1)")


def recorded(case, inputs, cell):
    """The outputs of a case, computed while gradients by its floating inputs and its Parameters are asked for."""
    places = [i for i, x in enumerate(inputs) if x.is_floating_point()]

    def function(*variables):
        given = list(inputs)
        for i, variable in zip(places, variables, strict=True):
            given[i] = variable
        scope = {**names(given), "cell": cell, "inputs": given}
        return [x for x in flat(eval(case["call" if cell else "expr"], scope)) if isinstance(x, Tensor)]

    weights = cell.trainable_params() if cell else []
    return ms.value_and_grad(function, tuple(range(len(places))), weights)(*(inputs[i] for i in places))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']}-{case['expr'][:60]}")
def test_recording_changes_nothing(case, arrays):
    """While a gradient is computed, all give what they give otherwise; the few without a rule say so."""
    inputs = [Tensor(arrays[key]) for key in case["inputs"]]
    cell = eval(case["expr"], names(inputs)).set_train(False) if case["kind"] == "cell" else None
    if case["expr"] in WITHOUT_GRADIENT:
        with pytest.raises(ms.GradientUnavailable):
            recorded(case, inputs, cell)
        return
    outputs, (by_input, by_weight) = recorded(case, inputs, cell)
    scope = {**names(inputs), "cell": cell, "inputs": inputs}
    plain = [x for x in flat(eval(case["call" if cell else "expr"], scope)) if isinstance(x, Tensor)]
    for got, want in zip(outputs, plain, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got.astype(ms.float64).asnumpy(), want.astype(ms.float64).asnumpy(), 1e-5, 1e-5)
    found = [x for x in inputs if x.is_floating_point()] + (cell.trainable_params() if cell else [])
    assert [(g.dtype, g.shape) for g in (*by_input, *by_weight)] == [(x.dtype, x.shape) for x in found]
