"""to_float, to, and the older casts."""

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters


class Dense(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = Parameter(initializer("ones", [2, 2]))
        self.register_buffer("scale", Tensor([2.0]))

    def construct(self, x, mask=None):
        return x @ self.weight


class Tied(nn.Cell):
    def __init__(self):
        super().__init__()
        self.child = Dense()

    def construct(self, x):
        return self.child(x) @ self.child.weight


class Same(nn.Cell):
    def construct(self, x, *, k=None):
        return x if k is None else k


X = Tensor([[1.0, 2.0]])


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16, ms.float32], ids=str)
def test_to_float_casts_inputs_and_parameters(dtype):
    """The output has the type; the Parameters keep theirs; the last call counts."""
    for cell in (Dense(), Tied()):
        assert cell.to_float(ms.float16).to_float(dtype) is cell
        assert cell(X).dtype is dtype
        assert {p.dtype for p in cell.get_parameters()} == {ms.float32}
    assert Dense()(X).dtype is ms.float32


@pytest.mark.parametrize("dtype", [ms.int32, ms.float64, "float16", None], ids=str)
def test_to_float_refuses(dtype):
    """Three types only."""
    with pytest.raises(ValueError):
        Dense().to_float(dtype)


def test_what_no_operator_touches_keeps_its_type():
    """A pass-through stays what it was, integers stay integers."""
    cell = Same().to_float(ms.float16)
    assert cell(X) is X
    assert cell(1, k=X) is X
    assert cell(Tensor([1])).dtype is ms.int64


def test_the_type_ends_with_the_call():
    """After a call, and after one that failed, Parameters are read as they are."""
    cell = Dense().to_float(ms.float16)
    with pytest.raises(TypeError):
        cell(Tensor([[1, 2]]))
    assert cell.weight.dtype is ms.float32
    assert isinstance(cell.weight, Parameter)


def test_flags_set_the_type():
    """add_flags(fp16=True) is to_float for one Cell; False takes it back."""
    cell = Dense()
    cell.add_flags(fp16=True)
    assert cell(X).dtype is ms.float16
    cell.add_flags(fp16=False)
    assert cell(X).dtype is ms.float32


def test_to_converts_parameters_and_buffers():
    """In place, floating ones only; lazy ones stay lazy; the CPU is the only device."""
    with no_init_parameters():
        cell = Dense()
    cell.ids = Parameter(Tensor([1, 2]))
    assert cell.to(ms.float16) is cell
    assert (cell.weight.has_init, cell.weight.dtype, cell.scale.dtype) == (True, ms.float16, ms.float16)
    assert cell.ids.dtype is ms.int64
    cell.weight.init_data()
    assert cell.to(dtype=ms.float64).weight.tolist() == [[1, 1], [1, 1]]
    assert cell.to("CPU").to_empty(device="CPU") is cell
    with pytest.raises(TypeError):
        cell.to(ms.int32)


def test_older_casts():
    """cast_inputs casts; the other two follow to_float."""
    cell, ints = Dense(), Tensor([1])
    x16, same = cell.cast_inputs((X, ints), ms.float16)
    assert (x16.dtype, same) == (ms.float16, ints)
    assert cell.auto_cast_inputs((X,)) == (X,)
    assert cell.cast_param(cell.weight) is cell.weight
    cell.to_float(ms.float16)
    assert cell.auto_cast_inputs((X,))[0].dtype is ms.float16
    assert np.array_equal(cell.cast_param(cell.weight).asnumpy(), np.ones((2, 2)))
