"""What the functions that compute gradients take, give back and refuse."""

import threading

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, ParameterTuple, Tensor, nn, ops
from mapcell.autograd import GradOperation, get_grad, grad, value_and_grad
from mapcell.common.parameter import Parameter as ParameterClass

X, Y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])


def shown(value):
    """Nested tuples of Tensors as lists."""
    if isinstance(value, Tensor):
        return value.tolist()
    return tuple(shown(v) for v in value) if isinstance(value, tuple) else value


class Scaled(nn.Cell):
    """w * x + b."""

    def __init__(self):
        super().__init__()
        self.w = Parameter(Tensor([5.0, 6.0]))
        self.b = Parameter(Tensor([1.0, 1.0]))

    def construct(self, x):
        return self.w * x + self.b


@pytest.mark.parametrize(
    ("options", "args", "expected"),
    [
        ({}, (X, Y), [3, 4]),
        ({"get_all": True}, (X, Y), ([3, 4], [1, 2])),
        ({"sens_param": True}, (X, Y, Tensor([10.0, 100.0])), [30, 400]),
        ({"get_all": True, "sens_param": True}, (X, Y, Tensor([10.0, 100.0])), ([30, 400], [10, 200])),
    ],
)
def test_grad_operation(options, args, expected):
    """By the first or by all inputs, of a result with a given gradient or one of ones."""
    assert shown(GradOperation(**options)(lambda x, y: x * y)(*args)) == expected


def test_grad_operation_by_parameters():
    """By the Parameters given, or by the trainable ones of a Cell; with get_all beside those by the inputs."""
    net = Scaled()
    assert shown(GradOperation(get_by_list=True)(net)(X)) == ([1, 2], [1, 1])
    assert shown(GradOperation(get_by_list=True)(net, ParameterTuple([net.w]))(X)) == ([1, 2],)
    both = GradOperation(get_all=True, get_by_list=True)(net, net.trainable_params())
    assert shown(both(X)) == (([5, 6],), ([1, 2], [1, 1]))
    assert shown(GradOperation(get_by_list=True, sens_param=True)(net)(X, sens=Y)) == ([3, 8], [3, 4])


def test_parameters_are_as_before():
    """Afterwards, and after an error, a Parameter holds what it held, and computing with it records nothing."""
    net = Scaled()
    before = net.w._storage

    def failing(x):
        net(x)
        raise KeyError("x")

    value_and_grad(net, None, net.trainable_params())(X)
    assert net.w._storage is before
    with pytest.raises(KeyError):
        grad(failing, 0, net.trainable_params())(X)
    assert net.w._storage is before
    assert type(net(X)._storage) is np.ndarray


def test_a_parameter_that_is_assigned_meanwhile_keeps_it():
    """What the function does to a Parameter stays done."""
    net = Scaled()

    def function(x):
        net.b.set_data(Tensor([7.0, 7.0]))
        return net(x)

    grad(function, 0, (net.w, net.b))(X)
    assert net.b.asnumpy().tolist() == [7, 7]
    assert type(net.b._storage) is np.ndarray


W = Parameter(Tensor([2.0, 2.0]), name="w")
V = Parameter(Tensor([1.0, 1.0]), name="v")


def product(x, y):
    return x * y * W + V


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [6, 8]),
        ({"grad_position": 1}, [2, 4]),
        ({"grad_position": -1}, [2, 4]),
        ({"grad_position": (0, 1)}, ([6, 8], [2, 4])),
        ({"grad_position": (1,)}, ([2, 4],)),
        ({"grad_position": None, "weights": W}, [3, 8]),
        ({"grad_position": None, "weights": (W,)}, ([3, 8],)),
        ({"weights": [W, V]}, ([6, 8], ([3, 8], [1, 1]))),
        ({"weights": W, "return_ids": True}, ((0, [6, 8]), ("w", [3, 8]))),
    ],
)
def test_grad(options, expected):
    """One position or Parameter gives a Tensor, several a tuple, both kinds a pair; value_and_grad the value too."""
    assert shown(grad(product, **options)(X, Y)) == expected
    assert shown(value_and_grad(product, **options)(X, Y)) == ([7, 17], expected)


def test_auxiliary_outputs():
    """With has_aux only the first output counts."""
    function = lambda x, y: (x * y, x * 100, "as it is")  # noqa: E731
    assert shown(grad(function, has_aux=True)(X, Y)) == ([3, 4], ([100, 200], "as it is"))
    assert shown(value_and_grad(function, has_aux=True)(X, Y)) == (([3, 8], [100, 200], "as it is"), [3, 4])
    assert shown(grad(lambda x: (x * 2, {"three": [x * 3]}))(X)) == [5, 5]


def test_what_comes_back_is_plain():
    """No Tensor of the results holds on to what led to it, and the gradients belong to the caller."""
    value, gradient = value_and_grad(lambda x: (x * 2, [x + 1]))(X)
    assert type(value[0]._storage) is type(value[1][0]._storage) is type(gradient._storage) is np.ndarray
    gradient[0] = 9.0
    assert X.tolist() == [1, 2]


def test_get_grad():
    """Finds a gradient by its position or its Parameter."""
    several = grad(product, (0, 1), (W, V), return_ids=True)(X, Y)
    assert get_grad(several, 1).tolist() == [2, 4]
    assert get_grad(several, V).tolist() == [1, 1]
    assert get_grad(grad(product, return_ids=True)(X, Y), 0).tolist() == [6, 8]
    with pytest.raises(ValueError, match="no gradient for 2"):
        get_grad(several, 2)
    with pytest.raises(TypeError):
        get_grad(several, "w")


def test_what_the_output_does_not_depend_on():
    """Has a gradient of zeros, as have integers and what stop_gradient cut off."""
    assert shown(grad(lambda x, y: x * 1, (0, 1))(X, Y)) == ([1, 1], [0, 0])
    assert grad(lambda x: Tensor([1.0]))(X).tolist() == [0, 0]
    assert grad(lambda x: x * ops.stop_gradient(x))(X).tolist() == [1, 2]
    integers = grad(lambda n, x: n * x)(Tensor([1, 2]), X)
    assert (integers.tolist(), integers.dtype) == ([0, 0], ms.int64)
    assert shown(GradOperation(get_all=True)(lambda x, n: x * n)(X, 3)) == ([3, 3],)


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16, ms.float32, ms.float64])
def test_dtypes(dtype):
    """Gradients have the dtypes of what they belong to."""
    x, w = Tensor(np.linspace(-1, 1, 6).reshape(2, 3), dtype), Tensor(np.linspace(0, 1, 6).reshape(3, 2), dtype)
    found = GradOperation(get_all=True)(lambda x, w: ops.gelu(ops.softmax(ops.matmul(x, w))))(x, w)
    exact = GradOperation(get_all=True)(lambda x, w: ops.gelu(ops.softmax(ops.matmul(x, w))))(x.double(), w.double())
    for gradient, wide in zip(found, exact, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient.double().asnumpy(), wide.asnumpy(), atol=2e-2 if x.itemsize < 4 else 1e-6)


def test_looking_at_values_inside():
    """Printing, comparing and branching on what is being computed is allowed and changes no gradient."""

    def function(x):
        text = f"{x} {x!r} {x.asnumpy()} {x.tolist()} {x[0].item()} {float(x[0])}"
        assert "1" in text
        assert np.asarray(x).tolist() == [1, 2]
        return x * 2 if x[0] > 0 and bool((x > 0).all()) else x

    assert grad(function)(X).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: GradOperation(get_all=1), TypeError, "has to be a bool"),
        (lambda: GradOperation()(3), TypeError, "a function or a Cell"),
        (lambda: GradOperation()(ops.relu)([1.0]), TypeError, "needs a Tensor"),
        (lambda: GradOperation(get_by_list=True)(ops.relu)(X), TypeError, "has to be a Parameter"),
        (lambda: GradOperation(get_by_list=True)(ops.relu, [X])(X), TypeError, "has to be a Parameter"),
        (GradOperation(sens_param=True)(lambda: X), TypeError, "the last argument"),
        (lambda: GradOperation(sens_param=True)(ops.relu)(X, Tensor([1.0])), ValueError, "has the shape"),
        (lambda: GradOperation(sens_param=True)(ops.relu)(X, (X, X)), ValueError, "2 gradients"),
        (lambda: grad(ops.relu, None), ValueError, "cannot both be None"),
        (lambda: grad(ops.relu, 1.0), TypeError, "an int or a tuple"),
        (lambda: grad(ops.relu, True), TypeError, "an int or a tuple"),
        (lambda: grad(ops.relu, 1)(X), ValueError, "does not fit 1 arguments"),
        (lambda: grad(ops.relu, 0, X)(X), TypeError, "has to be a Parameter"),
        (lambda: grad(grad(ops.square))(X), ms.GradientUnavailable, "gradients of gradients"),
        (lambda: grad(lambda x: grad(lambda y: y * x)(Y))(X), ms.GradientUnavailable, "gradients of gradients"),
    ],
)
def test_errors(call, error, text):
    """Each says what was wrong."""
    with pytest.raises(error, match=text):
        call()


def test_other_threads_record_nothing():
    """What one thread computes while another computes a gradient by an input is its own."""
    seen = []

    def function(x):
        thread = threading.Thread(target=lambda: seen.append(type((X + 1)._storage)))
        thread.start()
        thread.join()
        return x * 2

    assert grad(function)(Y).tolist() == [2, 2]
    assert seen == [np.ndarray]


def test_a_small_network_learns():
    """A convolutional network with normalisation and dropout fits eight images by plain descent."""
    ms.set_seed(3)
    rng = np.random.default_rng(0)
    images, classes = Tensor(rng.random((8, 1, 6, 6), np.float32)), Tensor(np.arange(8) % 3)
    net = nn.SequentialCell(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(), nn.Dense(36, 3)
    )
    loss = nn.CrossEntropyLoss()
    weights = net.trainable_params()
    step = value_and_grad(lambda x, t: loss(net(x), t), None, weights)
    first, _ = step(images, classes)
    for _ in range(40):
        last, gradients = step(images, classes)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.set_data(weight - gradient * 0.5)
    assert isinstance(weights[0], ParameterClass)
    assert float(last) < 0.05 * float(first)
