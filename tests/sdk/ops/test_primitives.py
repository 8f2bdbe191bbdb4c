"""Operators as objects."""

import pickle

import numpy as np
import pytest

from mapcell import Tensor, ops

X = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (ops.ReLU(), "Prim[ReLU]"),
        (ops.MatMul(), "Prim[MatMul]<transpose_a=False, transpose_b=False>"),
        (ops.Concat(1), "Prim[Concat]<axis=1>"),
    ],
)
def test_repr(made, text):
    """As MindSpore shows them."""
    assert repr(made) == text


def test_options_by_position_and_by_name():
    """Both ways give the same, and options can be read."""
    for made in (ops.MatMul(False, True), ops.MatMul(transpose_b=True)):
        assert (made.transpose_a, made.transpose_b, made.name) == (False, True, "MatMul")
        assert made(X, X).shape == (2, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ops.MatMul(False, False, False),
        lambda: ops.MatMul(transpose_c=True),
        lambda: ops.MatMul(False, transpose_a=True),
        lambda: ops.ReLU(3),
    ],
)
def test_unknown_options(make):
    """TypeError, as for a function's arguments."""
    with pytest.raises(TypeError, match=r"MatMul|ReLU"):
        make()


def test_the_base_class_computes_nothing():
    """It keeps a name and attributes."""
    made = ops.Primitive("mine").add_prim_attr("axis", 1).set_device("CPU")
    assert made.attrs == {"axis": 1, "primitive_target": "CPU"}
    with pytest.raises(NotImplementedError, match="mine"):
        made(X)


def test_missing_attributes():
    """AttributeError, not an option of None."""
    with pytest.raises(AttributeError, match="axis"):
        _ = ops.ReLU().axis


def test_operators_can_be_pickled():
    """A network that holds some can travel to another process."""
    made = pickle.loads(pickle.dumps(ops.Concat(1)))
    assert made((X, X)).shape == (2, 6)


def test_the_overflow_status_of_an_accelerator_is_never_set():
    """The three operators of the documents' example give eight zeros."""
    state = ops.NPUAllocFloatStatus()()
    for status in (state, ops.NPUGetFloatStatus()(state), ops.NPUClearFloatStatus()(state)):
        assert status.asnumpy().tolist() == [0] * 8


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: ops.MatMul()(X.reshape(1, 2, 3), X), ValueError),
        (lambda: ops.Split(1, 2)(X), ValueError),
        (lambda: ops.LayerNorm()(X, Tensor(np.ones(2, np.float32)), Tensor(np.ones(2, np.float32))), ValueError),
        (lambda: ops.Conv2D(4, 3)(X.reshape(1, 1, 2, 3), X.reshape(1, 1, 2, 3)), ValueError),
        (lambda: ops.MaxPool(2, data_format="NHWC")(X), ValueError),
        (lambda: ops.MirrorPad("WRAP")(X, ((0, 0), (1, 1))), ValueError),
    ],
)
def test_errors(call, error):
    """What does not fit raises when it is called."""
    with pytest.raises(error):
        call()


def test_print_shows_tensors_as_repr(capsys):
    """One argument a line."""
    ops.Print()("x:", Tensor([1, 2]))
    assert capsys.readouterr().out == "x:\nTensor(shape=[2], dtype=Int64, value= [1, 2])\n"
