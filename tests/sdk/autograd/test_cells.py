"""Backward hooks, and Cells with a bprop of their own."""

import numpy as np
import pytest

from mapcell import Parameter, Tensor, nn, ops

X, Y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
ALL = ops.GradOperation(get_all=True)


class Times(nn.Cell):
    """x * y, or both x * y and x + y."""

    def __init__(self, several=False):
        super().__init__()
        self.several = several

    def construct(self, x, y=3.0):
        return (x * y, x + y) if self.several else x * y


def shown(value):
    if isinstance(value, Tensor):
        return value.tolist()
    return tuple(map(shown, value)) if isinstance(value, tuple) else value


def test_order_and_arguments():
    """Pre-hooks run before hooks, each kind in order; both see the Cell and tuples of Tensors."""
    cell, seen = Times(), []
    cell.register_backward_hook(lambda *a: seen.append(("hook", *a)))
    cell.register_backward_pre_hook(lambda *a: seen.append(("pre 1", *a)))
    cell.register_backward_pre_hook(lambda *a: seen.append(("pre 2", *a)))
    assert shown(ALL(lambda x, y: cell(x, y) * 2)(X, Y)) == ([6, 8], [2, 4])
    assert [(name, on is cell, *map(shown, rest)) for name, on, *rest in seen] == [
        ("pre 1", True, ([2, 2],)),
        ("pre 2", True, ([2, 2],)),
        ("hook", True, ([6, 8], [2, 4]), ([2, 2],)),
    ]
    assert all(type(t) is Tensor for _, _, *rest in seen for tensors in rest for t in tensors)


def test_forward_results_are_unchanged():
    """Without a gradient no backward hook runs, and with one the output is the same."""
    cell, seen = Times(), []
    handle = cell.register_backward_hook(lambda *a: seen.append(a))
    assert cell(X, Y).tolist() == [3, 8]
    assert not seen
    assert ops.value_and_grad(cell)(X, Y)[0].tolist() == [3, 8]
    assert len(seen) == 1
    handle.remove()
    handle.remove()
    ops.grad(cell)(X, Y)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("hook", lambda given: None, ([3, 4], [1, 2])),
        ("hook", lambda given: (given[0] * 10, given[1]), ([30, 40], [1, 2])),
        ("hook", lambda given: [given[0], given[1] * 0], ([3, 4], [0, 0])),
        ("pre_hook", lambda given: given[0] * 5, ([15, 20], [5, 10])),
        ("pre_hook", lambda given: (given[0] * 5,), ([15, 20], [5, 10])),
    ],
)
def test_replacing(kind, answer, expected):
    """What a hook returns takes the place of the gradient that it was given."""
    cell = Times()
    getattr(cell, f"register_backward_{kind}")(lambda on, given, *rest: answer(given))
    assert shown(ALL(cell)(X, Y)) == expected


def test_a_replaced_output_gradient_reaches_the_hook():
    """The hook sees what the pre-hook made of it, and hooks build on one another."""
    cell, seen = Times(), []
    cell.register_backward_pre_hook(lambda on, given: (given[0] + 1,))
    cell.register_backward_hook(lambda on, inputs, outputs: seen.append(shown(outputs)) or tuple(g + 1 for g in inputs))
    cell.register_backward_hook(lambda on, inputs, outputs: tuple(g * 10 for g in inputs))
    assert shown(ALL(cell)(X, Y)) == ([70, 90], [30, 50])
    assert seen == [([2, 2],)]


def test_several_outputs_and_constant_inputs():
    """Each output and input has its place; what nothing depends on, or is no variable, has zeros."""
    cell, seen = Times(several=True), []
    cell.register_backward_pre_hook(lambda on, given: seen.append(shown(given)))
    cell.register_backward_hook(lambda on, inputs, outputs: seen.append((shown(inputs), shown(outputs))))
    assert shown(ALL(lambda x: cell(x, Y)[0])(X)) == ([3, 4],)
    assert seen == [([1, 1], [0, 0]), (([3, 4], [0, 0]), ([1, 1], [0, 0]))]
    assert shown(ALL(lambda x: cell(x, y=Y)[1])(X)) == ([1, 1],)


def test_only_parameters_are_variables():
    """Hooks run although no gradient is wanted by the input."""
    cell, seen = nn.Dense(2, 1, weight_init="ones", has_bias=False), []
    cell.register_backward_hook(lambda on, inputs, outputs: seen.append((shown(inputs), shown(outputs))))
    found = ops.GradOperation(get_by_list=True)(cell)(Tensor([[1.0, 2.0]]))
    assert shown(found) == ([[1, 2]],)
    assert seen == [(([[0, 0]],), ([[1]],))]


def test_a_cell_called_twice():
    """Hooks run once for each call, the last call first."""
    cell, seen = Times(), []
    cell.register_backward_hook(lambda on, inputs, outputs: seen.append(shown(outputs[0])))
    assert shown(ops.grad(lambda x: cell(cell(x)))(X)) == [9, 9]
    assert seen == [[1, 1], [3, 3]]


@pytest.mark.parametrize(
    ("answer", "error"), [(3, TypeError), ((3,), TypeError), (X, ValueError), ((X, X, X), ValueError)]
)
def test_wrong_answers(answer, error):
    """A hook returns Tensors, one of the right shape for each gradient."""
    cell = Times()
    cell.register_backward_hook(lambda on, inputs, outputs: answer)
    with pytest.raises(error, match="register_backward_hook"):
        ALL(cell)(X, Y)


class Custom(nn.Cell):
    """x * y with gradients that no rule would give."""

    def __init__(self):
        super().__init__()
        self.w = Parameter(Tensor([1.0, 1.0]))

    def construct(self, x, y):
        return Tensor(np.asarray(y)) * np.asarray(x).sum()

    def bprop(self, x, y, out, dout):
        assert shown((x, y, out)) == ([1, 2], [3, 4], [9, 12])
        return dout * 100, y


def test_bprop():
    """Its answer is the gradient, whatever construct does."""
    assert Custom()(X, Y).tolist() == [9, 12]
    assert shown(ALL(lambda x, y: Custom()(x * 1, y) * 2)(X, Y)) == ([200, 200], [3, 4])
    assert shown(ops.grad(lambda x: Custom()(x, Y))(X)) == [100, 100]


def test_bprop_of_several_outputs():
    """It gets the gradients of all outputs, and has to answer for all arguments."""

    class Pair(nn.Cell):
        def construct(self, x):
            return x * 2, x * 3

        def bprop(self, x, out, dout):
            assert shown(dout) == ([1, 1], [0, 0])
            return self.answer

    pair = Pair()
    pair.answer = (X,)
    assert shown(ops.grad(lambda x: pair(x)[0])(X)) == [1, 2]
    pair.answer = (X, X)
    with pytest.raises(ValueError, match="2 gradients for 1 arguments"):
        ops.grad(lambda x: pair(x)[0])(X)
